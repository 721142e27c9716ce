"""TensorBoard: real processes and real searches, read back with TensorBoard's own readers, also while they write."""

import math
import os
import signal
from pathlib import Path

import pytest

pytest.importorskip("tensorboard")
pytest.importorskip("wandb")

from tensorboard_read import Board
from told import add_epochs, experiment, processes_of, wait_until
from wandb_read import read_runs

import tunekit
from tunekit.errors import ExperimentError
from tunekit.ledger import Ledger
from tunekit.tracking import start, sync

SPACE = {"backbone": "mlp", "lr": tunekit.loguniform(1e-3, 1e-1), "batch_size": tunekit.choice([64, 128])}
RUN = "trackers/tensorboard/"


def assert_whole(board: Board, ledger: Ledger) -> None:
    """Assert that a TensorBoard shows every trial's epochs once, with their time, and its config and how it ended."""
    board.load()
    table, trials, times = board.table(), ledger.trials(), {}
    for event in ledger.events():
        times[event.trial, event.epoch, event.kind] = event.time
    assert board.runs() == sorted(table) == [f"{RUN}{number:04d}" for number in trials]
    for number, trial in trials.items():
        scalars, row = board.scalars(f"{RUN}{number:04d}"), table[f"{RUN}{number:04d}"]
        best = scalars.pop("best_val_loss", [])
        for tag in {name for metrics in trial.history for name in metrics}:
            known = [(epoch, times[number, epoch, "epoch"], metrics[tag])
                     for epoch, metrics in enumerate(trial.history, start=1) if tag in metrics]  # fmt: skip
            assert [(*point[:2], pytest.approx(point[2], rel=1e-6)) for point in known] == scalars.pop(tag)
        assert not scalars
        assert row.hparams == {key: value for key, value in trial.config.items() if value is not None}
        if trial.state in ("waiting", "running", "paused"):
            assert (row.status, best) == ("unknown", [])
            continue
        assert row.status == ("success" if trial.state in ("finished", "stopped") else "failure")
        assert row.ended == times[number, None, "ended"]
        if trial.history:
            assert [point[::2] for point in best] == [(trial.best_epoch("val_loss", "min"), pytest.approx(
                trial.best_value("val_loss", "min")))]  # fmt: skip


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*tfevents*")}


def test_a_tracker_that_is_killed_catches_up_and_shows_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("WB_KEY", "c0ffee11" * 5)
    folder = tmp_path / "first"
    ledger = experiment(folder)
    add_epochs(ledger, 0, range(1, 4), "finished")
    add_epochs(ledger, 1, range(1, 3))
    running = start(["tensorboard"], folder)
    wait_until(lambda: (folder / "trackers" / "tensorboard.json").exists())
    early = Board(folder)
    assert_whole(early, ledger)
    (process,) = processes_of(folder)
    assert b"WB_KEY" not in Path(f"/proc/{process}/environ").read_bytes()
    before = files(folder / RUN / "0000")
    os.kill(process, signal.SIGKILL)
    torn = next(iter(files(folder / RUN / "0001")))
    torn.write_bytes(torn.read_bytes()[:-5])
    add_epochs(ledger, 1, range(3, 5), "stopped")
    add_epochs(ledger, 2, range(1, 2), "failed")
    ledger.append("proposed", {"config": {"lr": 1.0}, "params": {}, "source": "tpe", "seed": 9}, 3)
    ledger.append("ended", {"state": "diverged", "reason": "x"}, 3)
    assert running.stop() == []
    for board in (early, Board(folder)):
        assert_whole(board, ledger)
    assert files(folder / RUN / "0000") == before
    assert len(files(folder)) == 4
    assert (folder / RUN / "0001").stat().st_mode & 0o777 == 0o700


def test_names_and_values_of_all_kinds(tmp_path):
    folder = tmp_path / "second"
    ledger = experiment(folder)
    config = {"a/../../b": "line\n\x1b[2J", "raw\udcff": "\udcff", "none": None, "many": 10**400, "few": 3, "on": True}
    ledger.append("proposed", {"config": config, "params": {}, "source": "given", "seed": 0}, 0)
    metrics = {"val_loss": math.nan, "val/../loss\n\x1b\udcff": 1e300, "": 0.5}
    ledger.append("epoch", metrics, 0, 1)
    ledger.append("ended", {"state": "diverged", "reason": "x"}, 0)
    assert start(["tensorboard"], folder).stop() == []
    board = Board(folder)
    assert board.runs() == [f"{RUN}0000"]
    scalars = {tag: points[0][2] for tag, points in board.scalars(f"{RUN}0000").items()}
    assert math.isnan(scalars.pop("val_loss"))
    assert scalars == {"val/../loss\n\\x1b\\udcff": math.inf, "": 0.5}
    row = board.table()[f"{RUN}0000"]
    assert row.hparams == {
        "a/../../b": "line\n\\x1b[2J", "raw\\udcff": "\\udcff", "many": str(10**400), "few": 3.0, "on": True,
    }  # fmt: skip
    assert not (tmp_path / "b").exists()


def test_a_link_in_place_of_a_file_is_not_written_to(tmp_path):
    folder, mine = tmp_path / "third", tmp_path / "mine"
    add_epochs(experiment(folder), 0, range(1, 2), "finished")
    mine.write_text("mine")
    (folder / RUN / "0000").mkdir(parents=True)
    (folder / RUN / "0000" / "events.out.tfevents").symlink_to(mine)
    with pytest.raises(ExperimentError, match="tracker 'tensorboard' has not been told all"):
        sync(folder, "tensorboard")
    assert mine.read_text() == "mine"


@pytest.mark.long
def test_a_search_with_two_trackers_that_goes_on_later(ray, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    asked = {"space": SPACE, "dataset": "digits", "metric": "val_loss", "max_epochs": 2, "searcher": "random",
             "name": "both", "folder": tmp_path, "verbose": 0}  # fmt: skip
    folder = tunekit.run(**asked, num_trials=2, tracker=("wandb", "tensorboard")).folder
    board, first = Board(folder), files(folder)
    assert_whole(board, Ledger(folder))
    results = tunekit.run(**asked, num_trials=3)
    assert len(board.table()) == 2
    assert sync(folder, "tensorboard") is True
    assert_whole(board, Ledger(folder))
    assert first.items() <= files(folder).items() and len(files(folder)) == 3
    logged = {run["name"]: [row["val_loss"] for row in run["history"]] for run in read_runs(folder)}
    assert logged == {
        f"both-{trial.number:04d}": [metrics["val_loss"] for metrics in trial.history]
        for trial in list(results.trials.values())[:2]
    }
