"""run(), resume() and train() through the public face: real Ray, real training on the digits."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

import tunekit
from tunekit import choice, grid, loguniform, randint, training
from tunekit.arithmetic import settled
from tunekit.config import complete
from tunekit.ledger import Ledger
from tunekit.reproduction import call_of
from tunekit.samplers import searchers
from tunekit.schedulers import schedulers

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
    assert set(started) == set(range(6))
    opened = [event.kind for event in Ledger(finished.folder).events()][-2:]
    assert opened == ["opened", "closed"]  # and nothing between


@pytest.mark.long
def test_a_larger_num_trials_extends_the_search(tmp_path):
    first = search(tmp_path, num_trials=2)
    second = search(tmp_path, num_trials=4)
    assert second.dataframe.head(2).equals(first.dataframe)
    assert len(second.dataframe) == 4


def test_the_best_model_is_the_best_epochs(finished):
    dataset = tunekit.load_dataset("digits")
    config = settled(complete(finished.best_config), finished.arithmetic)
    outputs, targets = training.predict(finished.best_model(), config, dataset, dataset.val)
    assert training.measure(outputs, targets, "classification")["accuracy"] == finished.best_value


@pytest.mark.long
def test_a_new_worker_comes_up_while_short_trials_keep_the_other_busy(tmp_path):
    """A worker takes seconds to start; one that becomes free in the meantime must not take its place."""
    killed = tmp_path / "killed"

    def loop(config, dataset, state=None):
        if not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2)
        yield {"val_accuracy": config["x"], "pid": os.getpid()}, {}

    results = search(tmp_path, space={"x": loguniform(0.1, 1)}, train=loop, num_trials=60, max_epochs=1)
    by_worker = results.history["pid"].value_counts()
    assert len(by_worker) == 2 and by_worker.min() > 8


def test_only_the_best_trials_keep_a_checkpoint(tmp_path):
    results = search(tmp_path, num_trials=4, keep_best=1)
    kept = {int(path.parent.name) for path in results.folder.glob("trials/*/*.safetensors")}
    best = results.dataframe[1:].sort_values("val_accuracy", ascending=False, kind="stable")["trial"].iloc[0]
    assert kept == {0, best}  # the default config's, and the best one's of the others


@pytest.mark.long
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


@pytest.mark.long
@pytest.mark.parametrize(
    ("searcher", "scheduler"),
    [(searcher, "asha") for searcher in sorted(searchers)] + [("tpe", s) for s in sorted(schedulers) if s != "asha"],
)
def test_every_searcher_and_scheduler_stopped_in_the_middle_and_resumed(searcher, scheduler, tmp_path):
    space = {"backbone": "mlp", "lr": choice([1e-4, 1e-3, 1e-2]), "batch_size": choice([32, 64])}
    options = {"space": space, "searcher": searcher, "scheduler": scheduler, "num_trials": 6, "max_epochs": 3}
    _stop_after_epochs(tmp_path / "x", 4)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, **options)
    results = search(tmp_path, **options)
    assert len(results.dataframe) == 6
    assert set(results.dataframe["state"]) <= {"finished", "stopped"}
    assert not results.dataframe.duplicated(["config/lr", "config/batch_size"]).any()
    assert (results.dataframe.loc[results.dataframe["state"] == "stopped", "num_epochs"] < 3).all()
    for trial, epochs in results.history.groupby("trial")["epoch"]:
        assert epochs.tolist() == list(range(1, len(epochs) + 1)), trial


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(tmp_path, capsys):
    _stop_after_epochs(tmp_path / "x", 2)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, num_trials=30, max_epochs=5, scheduler="none", verbose=1)
    assert f"tunekit resume {tmp_path / 'x'}" in capsys.readouterr().out
    results = tunekit.load_results(tmp_path / "x")
    assert "running" not in set(results.dataframe["state"])
    assert list(Ledger(results.folder).events())[-1].kind == "closed"


@pytest.mark.long
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_stops_the_command_cleanly(number, status, tmp_path):
    arguments = ["run", "--num-trials", "50", "--name", "x", "--folder", str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-m", "tunekit", *arguments], stdout=subprocess.PIPE, text=True)
    _wait_for_epochs(tmp_path / "x", 3)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == status
    assert f"tunekit resume {tmp_path / 'x'}" in printed
    assert list(Ledger(tmp_path / "x").events())[-1].kind == "closed"


@pytest.mark.long
def test_a_time_budget_ends_the_search_and_a_larger_one_extends_it(tmp_path):
    first = search(tmp_path, num_trials=1)
    used_s = list(Ledger(first.folder).events())[-1].at_s
    more = search(tmp_path, num_trials=10_000, time_budget_s=4 * used_s)  # as slow as this machine is today
    assert 1 < len(more.dataframe) < 10_000
    kinds = [event.kind for event in Ledger(first.folder).events()]
    again = search(tmp_path, num_trials=10_000, time_budget_s=4 * used_s)
    assert again.history.equals(more.history)
    assert [event.kind for event in Ledger(first.folder).events()] == [*kinds, "opened", "closed"]


@pytest.mark.long
def test_a_worker_killed_is_tried_again_from_its_checkpoint(tmp_path):
    def train(config, dataset, state=None):
        epoch = state["epoch"] if state else 0
        while epoch < 4:
            epoch += 1
            marker = tmp_path / f"killed-{config['lr']:.6f}"
            if epoch == 3 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield {"val_accuracy": epoch / 10, "from": state["epoch"] if state else 0}, {"epoch": epoch}

    results = search(tmp_path, space={"lr": loguniform(1e-4, 1e-1)}, train=train, num_trials=1, max_epochs=4)
    assert results.history["epoch"].tolist() == [1, 2, 3, 4]
    assert results.history["from"].tolist() == [0, 0, 2, 2]
    assert results.trials[0].state == "finished" and results.trials[0].num_retries == 1


def test_a_trial_that_raises_or_diverges_ends_alone_with_its_reason(tmp_path):
    def train(config, dataset, state=None):
        if config["what"] == "raise":
            raise ValueError("what a pity")
        yield {"val_accuracy": float("nan") if config["what"] == "diverge" else 0.5}, {}

    space = {"what": grid(["good", "raise", "diverge"])}
    results = search(tmp_path, space=space, searcher="grid", train=train)
    states = dict(zip(results.dataframe["config/what"], results.dataframe["state"], strict=True))
    assert states == {"good": "finished", "raise": "failed", "diverge": "diverged"}
    assert results.best_config == {"what": "good"}
    reasons = {trial.config["what"]: trial.reason for trial in results.trials.values()}
    assert reasons["raise"] == "ValueError: what a pity"
    assert reasons["diverge"] == "val_accuracy was nan at epoch 1"
    number = next(n for n, trial in results.trials.items() if trial.state == "failed")
    assert "in train" in (results.folder / "trials" / f"{number:04d}" / "error.txt").read_text()


@pytest.mark.long
def test_when_the_first_trials_fail_alike_the_search_says_so_once(tmp_path):
    def train(config, dataset, state=None):
        raise ValueError("no such file")
        yield

    with pytest.raises(tunekit.TrainingError, match="the first 3 trials failed alike: ValueError: no such file"):
        search(tmp_path, space={"lr": loguniform(1e-4, 1e-1)}, train=train, num_trials=50, searcher="random")
    assert len(tunekit.load_results(tmp_path / "x").dataframe) < 10


@pytest.mark.long
def test_a_trial_that_hangs_is_killed_and_tried_again(tmp_path):
    def train(config, dataset, state=None):
        yield {"val_accuracy": 0.1}, {"epoch": 1}
        if not state:
            time.sleep(3600)
        yield {"val_accuracy": 0.2}, {"epoch": 2}

    space = {"lr": loguniform(1e-4, 1e-1)}
    results = search(tmp_path, space=space, train=train, num_trials=1, max_epochs=2, trial_timeout_s=3)
    assert results.trials[0].num_retries == 1
    assert results.dataframe["state"].tolist() == ["finished"]


def test_confirm_trains_winner_and_default_again_and_gives_a_verdict(tmp_path):
    space = {"backbone": "mlp", "lr": choice([1e-5, 3e-3])}  # tunekit's default of 1e-3 is not among them
    results = search(tmp_path, space=space, num_trials=2, confirm=2, max_epochs=3, start_from=[{"lr": 3e-3}])
    assert len(results.dataframe) == 2
    roles = [trial.role for trial in results.trials.values()]
    assert roles == ["search"] * 2 + ["winner"] * 2 + ["default"] * 2
    assert results.trials[1].source == "start_from" and results.trials[1].config["lr"] == 3e-3
    assert results.verdict.word in ("better", "worse", "no difference shown")
    seeds = {trial.seed for trial in results.trials.values()}
    assert len(seeds) == 4  # two of the search, and the same two for winner and default
    assert "against the default config" in results._repr_html_()


def test_a_model_of_ones_own_and_a_backbone_registered_in_a_script(tmp_path):
    def wide(config, dataset):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, config["width"]), nn.ReLU(), nn.Linear(config["width"], 10))

    tunekit.register_backbone("wide_of_this_test")(wide)
    space = {"backbone": choice([wide, "mlp", "wide_of_this_test"]), "width": randint(8, 16)}
    results = search(tmp_path, space=space, num_trials=3, max_epochs=1, searcher="random")
    assert set(results.dataframe["state"]) <= {"finished", "stopped"}
    assert isinstance(results.best_model(), nn.Module)


def test_a_dataset_made_of_arrays(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (200, 12, 12, 3)).astype(np.uint8)
    values = images.reshape(200, -1).mean(1)
    dataset = tunekit.Dataset.from_arrays(train=(images, values))
    results = tunekit.train({"backbone": "mlp"}, dataset, max_epochs=1, verbose=0, folder=tmp_path)
    assert results.metric == "val_mse" and results.mode == "min"
    assert {"test_mse", "test_pearson"} <= set(results.test())


def test_photographs_of_unlike_sizes_are_as_large_as_the_space_asks_for(tmp_path):
    for number in range(20):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (90 + number, 90, 3), np.uint8)).save(path)
    space = {"backbone": "mlp", "image_size": choice([16, 72]), "lr": loguniform(1e-4, 1e-2)}
    options = {"max_epochs": 1, "verbose": 0, "folder": tmp_path / "experiments"}
    searched = tunekit.run({**space, "batch_size": 4}, tmp_path / "photos", num_trials=1, **options)
    assert searched.described_dataset.image_shape == (3, 72, 72)
    told = call_of(searched.asked, searched.dataset_source, {}, "again")
    small = call_of(searched.asked, {**searched.dataset_source, "max_size": None}, {}, "again")
    assert "load_dataset" not in told and "load_dataset(" in small  # with the same call as it was
    assert searched.test()["test_accuracy"] >= 0
    trained = tunekit.train({"backbone": "mlp", "image_size": 80, "batch_size": 4}, tmp_path / "photos", **options)
    assert trained.described_dataset.image_shape == (3, 80, 80)


@pytest.mark.long
def test_resume_from_the_folder_alone(tmp_path):
    _stop_after_epochs(tmp_path / "x", 2)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, num_trials=4, max_epochs=3)
    results = tunekit.resume(tmp_path / "x", verbose=0)
    assert len(results.dataframe) == 4
    assert set(results.dataframe["state"]) <= {"finished", "stopped"}


@pytest.mark.long
def test_another_space_is_another_experiment_and_a_name_belongs_to_one(tmp_path):
    first = search(tmp_path, num_trials=1, max_epochs=1)
    with pytest.raises(tunekit.ExperimentError, match="asked for max_epochs=1, but now it is 2"):
        search(tmp_path, num_trials=1, max_epochs=2)
    changed = {"backbone": "mlp", "lr": tunekit.loguniform(1e-3, 1e-2), "optimizer": "sgd"}
    with pytest.raises(tunekit.ExperimentError) as caught:
        search(tmp_path, num_trials=1, max_epochs=1, space=changed)
    assert 'its optimizer was not there and is "sgd"' in str(caught.value) and "attributes" not in str(caught.value)
    other = search(
        tmp_path, num_trials=1, max_epochs=1, name=None, space={**SMALL, "momentum": 0.5, "optimizer": "sgd"}
    )
    assert other.folder != first.folder


def test_data_that_changed_is_said_to_have(tmp_path):
    digits = tunekit.load_dataset("digits")

    def train(num_val):
        parts = {name: (part.images, part.targets) for name, part in (("train", digits.train), ("test", digits.test))}
        val = digits.val.images[:num_val], digits.val.targets[:num_val]
        data = tunekit.Dataset.from_arrays(**parts, val=val, name="photos")
        tunekit.train({"backbone": "mlp"}, data, max_epochs=1, verbose=0, folder=tmp_path, name="x")

    train(100)
    with pytest.raises(tunekit.ExperimentError, match=r"asked for other data .*photos.* has changed since"):
        train(99)


@pytest.mark.long
def test_a_second_run_of_the_same_name_is_refused_while_the_first_goes_on(tmp_path):
    search(tmp_path, num_trials=1, max_epochs=1)
    ledger = Ledger(tmp_path / "x", write=True)
    with pytest.raises(tunekit.ExperimentError, match="in use by another run"):
        search(tmp_path, num_trials=2, max_epochs=1)
    ledger.close()


def test_the_test_split_is_opened_once(finished):
    first = finished.test()
    assert first["times_opened"] == 1
    assert first["interval"][0] <= first["test_accuracy"] <= first["interval"][1]
    assert sum(map(sum, first["confusion"])) == first["num_images"] == 359
    assert finished.test() == first
    assert finished.test(again=True)["times_opened"] == 2
    assert set(first["per_class"]) == set("0123456789")


def test_train_runs_in_this_process_and_goes_on(tmp_path):
    here = []

    def train(config, dataset, state=None):
        here.append(os.getpid())
        yield from training.train(complete(config), dataset, state)

    results = tunekit.train({"backbone": "mlp"}, "digits", train=train, max_epochs=2, folder=tmp_path, verbose=0)
    assert here == [os.getpid()]
    assert results.best_epoch in (1, 2)
    tunekit.train({"backbone": "mlp"}, "digits", train=train, max_epochs=2, folder=tmp_path, verbose=0)
    assert len(here) == 1


BAD = [
    ({"space": {}}, tunekit.SpaceError, "not empty"),
    ({"space": {"lr": 0.1}}, tunekit.SpaceError, "only constants"),
    ({"space": {"lr": grid([0.1])}}, tunekit.SpaceError, "searcher='grid'"),
    ({"searcher": "grid"}, tunekit.SpaceError, "a range"),
    ({"space": {"lrr": loguniform(0.1, 1)}}, tunekit.UnknownNameError, "did you mean 'lr'"),
    ({"space": {"momentum": choice([0.1, 0.9])}}, tunekit.ConfigError, "no effect"),
    ({"space": {"lr": choice([0.1, -1])}}, tunekit.ConfigError, "lr must be a number above 0"),
    ({"space": {"batch_size": choice([32, 5000])}}, tunekit.ConfigError, "has 1259 images"),
    ({"space": {"backbone": choice(["cnn", "resnet81"])}}, tunekit.UnknownNameError, "resnet18"),
    ({"space": {"backbone": choice(["cnn", "lenet"])}}, tunekit.ConfigError, "12"),
    (
        {"space": {**SMALL, "freeze": "backbone", "augment": choice(["flip", "flip_crop"])}},
        tunekit.ConfigError,
        "augment 'flip_crop' moves the images",
    ),
    ({"metric": "accuracy"}, tunekit.UnknownNameError, "val_accuracy"),
    ({"mode": "maximum"}, tunekit.ConfigError, "'max' or 'min'"),
    ({"num_trials": 0}, tunekit.ConfigError, "num_trials"),
    ({"max_epochs": 1.5}, tunekit.ConfigError, "max_epochs"),
    ({"time_budget_s": -1}, tunekit.ConfigError, "time_budget_s"),
    ({"gpus_per_trial": "some"}, tunekit.ConfigError, "gpus_per_trial"),
    ({"name": "a/b"}, tunekit.ConfigError, "no slash"),
    ({"name": ".."}, tunekit.ConfigError, "no slash"),
    ({"start_from": [{"lr": 5.0}]}, tunekit.SpaceError, "lies outside"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD, ids=[str(options) for options, _, _ in BAD])
def test_what_cannot_work_is_said_before_any_trial(options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        search(tmp_path, **options)
    assert not list(tmp_path.iterdir())


def _stop_after_epochs(folder: Path, count: int) -> None:
    """Press Ctrl-C, from a thread, when an experiment has come so far."""

    def press() -> None:
        _wait_for_epochs(folder, count)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()


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
