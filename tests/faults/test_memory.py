"""Memory that really runs out, and a disk that lacks the room: what a trial, or a search, does then."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
import storage_worker

import tunekit
from tunekit.errors import StorageError

SCRIPT = """
import resource, sys
from pathlib import Path
import numpy as np, torch
import tunekit.experiment
from tunekit.datasets import Dataset

images = np.random.default_rng(0).integers(0, 255, (3000, 28, 28), dtype=np.uint8)
dataset = Dataset.from_arrays(train=(images, np.arange(3000) % 10))
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]) * 2**20,) * 2)
config = {"backbone": "cnn", "batch_size": 2048, "precision": "float32", "memory_format": "channels_last"}
trial = tunekit.train(config, dataset, max_epochs=1, verbose=0, folder=sys.argv[1], name="first").best_trial
print(trial.state, trial.micro_batches, trial.history[0]["train_loss"])
"""


def trained_within(megabytes, folder):
    line = [sys.executable, "-c", SCRIPT, folder, str(megabytes)]
    state, parts, loss = subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()
    return state, int(parts), float(loss)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory as Linux does")
def test_a_trial_whose_memory_runs_out_trains_in_parts_of_the_same_batches(tmp_path):
    state, parts, loss = trained_within(20_000, tmp_path / "much")
    assert (state, parts) == ("finished", 1)
    state, parts, of_parts = trained_within(1_000, tmp_path / "little")
    assert state == "finished" and parts in (4, 16)
    assert of_parts == pytest.approx(loss, rel=0.02)  # batch norm takes its statistics over each part


def loop(config, dataset, state=None):
    """A training loop that takes as much memory as its batches ask for."""
    if config["micro_batches"] < 16:
        raise MemoryError
    yield {"val_accuracy": 0.5}, {}


def test_ones_own_loop_is_told_into_how_many_parts_to_split(tmp_path):
    results = tunekit.train({"x": 1}, "digits", train=loop, max_epochs=1, verbose=0, folder=tmp_path)
    assert (results.best_trial.state, results.best_trial.num_retries, results.best_trial.micro_batches) == (
        "finished", 2, 16,
    )  # fmt: skip


def test_room_for_checkpoints_is_checked_before_the_start(tmp_path):
    images = np.zeros((60, 8, 8), np.uint8)
    dataset = tunekit.Dataset.from_arrays(train=(images, np.arange(60) % 2))
    space = {"backbone": "resnet18", "batch_size": 8, "lr": tunekit.loguniform(1e-4, 1e-1)}
    space |= {"precision": "float32", "memory_format": "contiguous"}  # nothing to be timed
    with pytest.raises(
        StorageError, match=r"needs room for .* MiB of checkpoints, but its disk has .* lower keep_best"
    ):
        tunekit.run(space, dataset, keep_best=10**7, folder=tmp_path, verbose=0)


SEARCH_ON_A_SMALL_DISK = """
import sys, tunekit
space = {"backbone": "cnn_small", "optimizer": "adam", "batch_size": 256, "lr": tunekit.loguniform(1e-3, 1.0)}
results = tunekit.run(space, "digits", num_trials=90, max_epochs=2, verbose=0, name="x", folder=sys.argv[1])
print(len(results.trials), {trial.state for trial in results.trials.values()} <= {"finished", "stopped"})
"""


# 20 of its trials keep a checkpoint of 0.9 MB: beside those, there is no room for as many as it was begun with.
SEARCH_THAT_GOES_ON = """
import sys, tunekit
space = {"backbone": "cnn_small", "optimizer": "adam", "batch_size": 256, "lr": tunekit.loguniform(1e-3, 1.0)}
for num_trials in (30, 31):
    results = tunekit.run(
        space, "digits", num_trials=num_trials, max_epochs=1, keep_best=20, verbose=0, name="x", folder=sys.argv[1]
    )
    print(len(results.trials))
"""


def on_a_disk(megabytes, place, script):
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size={megabytes}m none "$0" && exec "$@"',
         place, sys.executable, "-c", script, place],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.skipif(not storage_worker.can_mount(), reason="needs the right to mount")
@pytest.mark.long
def test_fewer_trials_pause_where_the_disk_has_little_room(tmp_path):
    """All trials' checkpoints take 80 MB, after an epoch of each."""
    searched = on_a_disk(64, tmp_path, SEARCH_ON_A_SMALL_DISK)
    assert searched.stdout == "90 True\n", searched.stderr


@pytest.mark.skipif(not storage_worker.can_mount(), reason="needs the right to mount")
@pytest.mark.long
def test_a_search_that_goes_on_counts_its_own_checkpoints_as_room(tmp_path):
    searched = on_a_disk(80, tmp_path, SEARCH_THAT_GOES_ON)
    assert searched.stdout == "30\n31\n", searched.stderr


def test_what_changed_since_an_experiment_began_is_said(tmp_path, capsys):
    asked = {"dataset": "digits", "max_epochs": 1, "folder": tmp_path, "name": "first"}
    tunekit.train({"backbone": "mlp"}, **asked)
    path = tmp_path / "first" / "experiment.json"
    text = path.read_text()
    assert '"torch": "' in text and '"commit"' in text
    path.write_text(text.replace('"torch": "', '"torch": "0.'))
    capsys.readouterr()
    tunekit.train({"backbone": "mlp"}, **asked)
    assert "since this experiment began: torch was '0." in capsys.readouterr().out


def test_a_training_loop_that_changed_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which may be of the source before

    def train_with(source):
        (tmp_path / "own_loop.py").write_text(source)
        sys.modules.pop("own_loop", None)
        loop = importlib.import_module("own_loop").loop
        tunekit.train({"x": 1}, "digits", train=loop, max_epochs=1, folder=tmp_path, name="a")
        return capsys.readouterr().out

    source = "def loop(config, dataset, state=None):\n    yield {'val_accuracy': 0.5}, {}\n"
    train_with(source)
    assert "since this experiment began" not in train_with(source)
    assert "since this experiment began: own_loop:loop was" in train_with(source.replace("0.5", "0.6"))
