"""Trackers: real processes and real W&B files, read back; killed, left alone, switched off and without a network."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from told import add_epochs, experiment, processes_of, wait_until
from wandb_read import read_runs

from tunekit import paths, tracking
from tunekit.errors import ConfigError, ExperimentError, MissingExtraError, UnknownNameError
from tunekit.ledger import Ledger
from tunekit.trackers import trackers
from tunekit.tracking import check_trackers, start, sync, tracked
from tunekit.wandb_tracker import Wandb, has_key

pytest.importorskip("wandb")
CANARY = "c0ffee11" * 5
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """W&B as on a machine that knows nothing of it, but for a key under the name that people give it."""
    for name in list(os.environ):
        if name.startswith(("WANDB_", "WB_")):
            monkeypatch.delenv(name)
    for name, value in {"HOME": str(tmp_path), "WANDB_MODE": "offline", "WB_KEY": CANARY}.items():
        monkeypatch.setenv(name, value)


def assert_whole(folder: Path, ledger: Ledger) -> list[dict]:
    """Assert that the W&B files hold every trial once, with each epoch's metrics at its step, and the config."""
    runs, trials = read_runs(folder), ledger.trials()
    assert [run["name"] for run in runs] == [f"{ledger.folder.name}-{number:04d}" for number in trials]
    assert len({run["id"] for run in runs}) == len(trials)
    for run, trial in zip(runs, trials.values(), strict=True):
        assert run["group"] == ledger.folder.name
        assert {key: run["config"][key] for key in trial.config} == trial.config
        assert [row["_step"] for row in run["history"]] == list(range(1, len(trial.history) + 1))
        for epoch, (row, metrics) in enumerate(zip(run["history"], trial.history, strict=True), start=1):
            assert {key: row[key] for key in metrics} == metrics
            assert row["epoch"] == epoch
    return runs


def assert_no_canary(folder: Path) -> None:
    for path in folder.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path


def test_a_tracker_that_is_killed_catches_up_and_logs_nothing_twice(tmp_path):
    folder = tmp_path / "first"
    ledger = experiment(folder)
    add_epochs(ledger, 0, range(1, 4), "finished")
    add_epochs(ledger, 1, range(1, 3))
    running = start(["wandb"], folder, {"project": "of-the-sweep", "entity": "us"})
    wait_until(lambda: any(run["name"] == "first-0001" and run["history"] for run in read_runs(folder)))
    (process,) = processes_of(folder)
    command = Path(f"/proc/{process}/cmdline")
    assert not command.exists() or CANARY.encode() not in command.read_bytes()
    os.kill(process, signal.SIGKILL)
    add_epochs(ledger, 1, range(3, 5), "stopped")
    add_epochs(ledger, 2, range(1, 2), "failed")
    ledger.append("proposed", {"config": {"lr": 1.0}, "params": {}, "source": "tpe", "seed": 9}, 3)
    ledger.append("ended", {"state": "diverged", "reason": "x"}, 3)
    assert running.stop() == []
    runs = assert_whole(folder, ledger)
    assert [run["exit_code"] for run in runs] == [0, 0, 1, 1]
    assert {run["project"] for run in runs} == {"of-the-sweep"}
    assert {run["entity"] for run in runs} == {"us"}
    assert runs[0]["summary"]["best_val_loss"] == 0.5
    assert runs[0]["summary"]["best_epoch"] == 2
    assert runs[3]["summary"]["state"] == "diverged"
    assert (folder / "trackers").stat().st_mode & 0o777 == 0o700
    assert_no_canary(tmp_path)


def test_when_the_driver_dies_the_tracker_ends_by_itself_and_sync_goes_on(tmp_path, monkeypatch):
    folder = tmp_path / "second"
    ledger = experiment(folder)
    add_epochs(ledger, 0, range(1, 3), "finished")
    add_epochs(ledger, 1, range(1, 3))
    script = (
        "import os, sys, time; from pathlib import Path; from tunekit.tracking import start; "
        "start(['wandb'], Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(folder)], cwd=ROOT, check=False)
    wait_until(lambda: (folder / "trackers" / "wandb.json").exists())
    wait_until(lambda: not processes_of(folder))
    assert [run["exit_code"] for run in assert_whole(folder, ledger)] == [0, 1]  # the other goes on later
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*-0000.wandb")}
    add_epochs(ledger, 1, range(3, 4), "finished")
    monkeypatch.setenv("WB_PROJECT", "ours")
    assert sync(folder) is True
    runs = assert_whole(folder, ledger)
    assert [run["exit_code"] for run in runs] == [0, 0]
    assert [run["project"] for run in runs] == ["tunekit", "ours"]
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*-0000.wandb")}
    assert_no_canary(tmp_path)


def test_without_a_network_the_search_is_neither_held_up_nor_broken(tmp_path, monkeypatch):
    folder = tmp_path / "third"
    add_epochs(experiment(folder), 0, range(1, 3), "finished")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    running = start(["wandb"], folder)
    wait_until(lambda: (folder / "trackers" / "wandb").exists())
    with pytest.raises(ExperimentError, match="at work on"):
        sync(folder)
    began = time.monotonic()
    (note,) = running.stop(timeout_s=0.5)
    assert time.monotonic() - began < 5
    assert note == f"tracker 'wandb' has not been told all (it was not done after 0.5 s): tunekit sync {folder}"
    assert not processes_of(folder)
    assert_no_canary(tmp_path)


def test_disabled_writes_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "fourth"
    experiment(folder).close()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with tracked(["wandb"], folder) as notes:
        assert not processes_of(folder)
    assert notes == []
    assert sorted(tmp_path.rglob("*")) == before


def test_the_environment_of_the_process_has_wandbs_own_names(tmp_path):
    ours = {"WB_KEY": "k", "WB_PROJECT": "p", "WB_USER": "u"}
    made = Wandb.environment({**ours, "WANDB_RUN_ID": "x", "A": "b"}, tmp_path)
    assert made == {
        "WANDB_API_KEY": "k", "WANDB_PROJECT": "p", "WANDB_ENTITY": "u", "A": "b",
        "WANDB_DIR": str(tmp_path / "trackers"),
    }  # fmt: skip
    theirs = {"WANDB_API_KEY": "K", "WANDB_PROJECT": "P", "WANDB_ENTITY": "U", "WANDB_DIR": "/d"}
    assert Wandb.environment({**ours, **theirs}, tmp_path) == theirs


def test_mistakes_are_told_before_anything_starts(monkeypatch):
    assert check_trackers(None) == ()
    assert check_trackers("wandb") == check_trackers(["wandb", "wandb"]) == ("wandb",)
    assert check_trackers(["wandb", "tensorboard"]) == ("wandb", "tensorboard")
    with pytest.raises(UnknownNameError, match="unknown tracker 'wand': did you mean 'wandb'"):
        check_trackers("wand")
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(UnknownNameError, match="unknown WANDB_MODE 'ofline': did you mean 'offline'"):
        check_trackers("wandb")
    monkeypatch.delenv("WANDB_MODE")
    assert check_trackers("wandb") == ("wandb",)  # online, with a key
    monkeypatch.delenv("WB_KEY")
    with pytest.raises(ConfigError, match="no API key: set WANDB_API_KEY"):
        check_trackers("wandb")


@pytest.mark.parametrize("name", list(trackers))
def test_a_missing_library_is_told_before_anything_starts(name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=rf"tracker '{name}' needs .* pip install 'tunekit\[{name}\]'"):
        check_trackers(name)


def test_wandb_login_is_a_key(tmp_path, monkeypatch):
    assert not has_key({})
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password " + "a" * 40 + "\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert has_key({})
    assert not has_key({"WANDB_BASE_URL": "https://wandb.example.org"})


def test_sync_needs_an_experiment(tmp_path):
    with pytest.raises(ExperimentError, match="is no experiment"):
        sync(tmp_path)


def test_what_goes_wrong_is_logged_without_the_key(tmp_path, monkeypatch):
    def follow(*_):
        raise ValueError(f"no such key: {CANARY}")

    monkeypatch.setattr(tracking, "follow", follow)
    monkeypatch.setattr("os._exit", sys.exit)
    paths.make_private(tmp_path / "trackers")
    with pytest.raises(SystemExit):
        tracking.main("wandb", tmp_path, {})
    assert (tmp_path / "trackers" / "wandb.log").read_text().endswith("ValueError: no such key: ***\n")


@pytest.mark.parametrize("name", list(trackers))
def test_every_tracker_keeps_the_contract(name):
    for part in ("environment", "log", "end", "close"):
        assert callable(getattr(trackers[name], part))
    assert trackers[name].__doc__
