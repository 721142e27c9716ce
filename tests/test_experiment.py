"""run(), resume() and train() through the public face: real Ray, real training on the digits."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

import tunekit
from tunekit import choice, loguniform
from tunekit.ledger import Ledger

SMALL = {"backbone": "mlp", "lr": loguniform(1e-4, 1e-1), "batch_size": choice([32, 64])}
pytestmark = pytest.mark.usefixtures("ray")


def search(folder: Path, **options):
    defaults = {"num_trials": 4, "max_epochs": 3, "verbose": 0, "folder": folder, "name": "x"}
    return tunekit.run(options.pop("space", SMALL), "digits", **{**defaults, **options})


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray):
    return search(tmp_path_factory.mktemp("finished"), num_trials=6)


def test_a_search_ends_with_every_trial_ended_and_the_best_of_them(finished):
    frame = finished.dataframe
    assert frame["trial"].tolist() == [0, 1, 2, 3, 4, 5]
    assert set(frame["state"]) <= {"finished", "stopped"}
    assert finished.best_value == finished.history["val_accuracy"].max()
    assert finished.best_config == finished.trials[finished.best_trial.number].config
    assert set(frame.columns) >= {"num_epochs", "best_epoch", "val_accuracy", "config/lr", "node", "duration_s"}
    assert len(finished.history) == frame["num_epochs"].sum()


def test_the_default_config_is_tried_first(finished):
    assert finished.trials[0].source == "default"
    assert finished.trials[0].config == {"backbone": "mlp", "lr": 1e-3, "batch_size": 64}


def test_the_same_call_gives_the_finished_results_without_running_anything(finished):
    again = search(finished.folder.parent, num_trials=6)
    assert again.history.equals(finished.history)
    started = [event.trial for event in Ledger(finished.folder).events() if event.kind == "started"]
    assert sorted(started) == list(range(6))


def test_a_larger_num_trials_extends_the_search(tmp_path):
    first = search(tmp_path, num_trials=2)
    second = search(tmp_path, num_trials=4)
    assert second.dataframe.head(2).equals(first.dataframe)
    assert len(second.dataframe) == 4


def test_the_best_model_is_the_best_epochs(finished):
    from tunekit import training
    from tunekit.config import complete

    dataset = tunekit.load_dataset("digits")
    outputs, targets = training.predict(finished.best_model(), complete(finished.best_config), dataset, dataset.val)
    assert training.measure(outputs, targets, "classification")["accuracy"] == finished.best_value


def test_only_the_best_trials_keep_a_checkpoint(tmp_path):
    results = search(tmp_path, num_trials=4, keep_best=1)
    kept = {int(path.parent.name) for path in results.folder.glob("trials/*/*.safetensors")}
    assert kept == {results.best_trial.number, 0}  # the winner's, and the default config's


def test_a_search_stopped_and_resumed_ends_as_if_it_had_not_been(tmp_path, finished):
    """With one trial at a time, exactly: same configs, same metrics, whatever epoch it was stopped at."""
    whole = search(tmp_path / "whole", num_trials=5, cpus_per_trial=2, scheduler="asha")
    script = (
        "import tunekit, sys\nfrom tests.test_experiment import search\nfrom pathlib import Path\n"
        "search(Path(sys.argv[1]), num_trials=5, cpus_per_trial=2, scheduler='asha')\n"
    )
    part = tmp_path / "part"
    process = subprocess.Popen([sys.executable, "-c", script, str(part)], cwd=Path(__file__).parent.parent)
    _wait_for_epochs(part / "x", 3)
    process.kill()
    process.wait()
    events = list(Ledger(part / "x").events())
    results = search(part, num_trials=5, cpus_per_trial=2, scheduler="asha")
    drop = ["epoch_s", "images_per_s"]
    assert results.history.drop(columns=drop).equals(whole.history.drop(columns=drop))
    assert results.dataframe["state"].tolist() == whole.dataframe["state"].tolist()
    kept = [(e.trial, e.epoch) for e in events if e.kind == "epoch"]
    assert kept == [(e.trial, e.epoch) for e in Ledger(part / "x").events() if e.kind == "epoch"][: len(kept)]


def _wait_for_epochs(folder: Path, count: int) -> None:
    for _ in range(1200):
        time.sleep(0.05)
        if (folder / "ledger.db").exists():
            try:
                if sum(event.kind == "epoch" for event in Ledger(folder).events()) >= count:
                    return
            except tunekit.ExperimentError:
                continue  # just being made
    raise AssertionError(f"{folder} did not come to {count} epochs")
