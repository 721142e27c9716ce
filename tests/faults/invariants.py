"""What must hold after every case, whatever was done to it: one function checks it all."""

import json
import sqlite3
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from acknowledged import Acknowledged
from leftovers import check_nothing_left

import tunekit
from tunekit import checkpoint, paths, training
from tunekit.arithmetic import settled
from tunekit.config import complete
from tunekit.ledger import ENDED, Ledger
from tunekit.scores import is_better

TIMES = ("epoch_s", "images_per_s")  # of an epoch's metrics, those that no two runs share


def check(
    folder: Path,
    num_trials: int | None,
    acknowledged: Acknowledged | None = None,
    reference: Path | None = None,
    states: dict[int, str] | None = None,
    marker: str = "",
    temp: Path | None = None,
    reproduce: bool = False,
) -> None:
    """Raise AssertionError, with a text that says what is broken, unless all that is promised holds.

    Args:
        folder: the experiment's, which no process works on any more.
        num_trials: that were asked for; None where the search rightly ended before.
        acknowledged: what was seen before the faults.
        reference: the folder of the same experiment without a fault: all of its values must be the same.
        states: which trials must have ended how; all others must have ended as finished or stopped.
        marker: what the environment of the case's processes holds.
        temp: the temporary folder of the case.
        reproduce: predict with the best model and compare with the value that the ledger holds, exactly.
    """
    results = tunekit.load_results(folder)
    ledger = Ledger(folder)
    events, trials = list(ledger.events()), ledger.trials()
    ledger.close()
    check_events(events)
    if num_trials is not None:
        wanted = sum(trial.role == "search" for trial in trials.values())
        assert wanted == num_trials, f"{num_trials} trials were asked for, but {wanted} are in the ledger"
        open_ones = {number: trial.state for number, trial in trials.items() if trial.state not in ENDED}
        assert not open_ones, f"not ended: {open_ones}"
        for number, trial in trials.items():
            allowed = (states or {}).get(number, "finished stopped").split()
            assert trial.state in allowed, f"trial {number} {trial.state} ({trial.reason}), not {' or '.join(allowed)}"
    if acknowledged is not None:
        acknowledged.check(events, trials, results.metric, results.mode)
    if reference is not None:
        check_same(trials, tunekit.load_results(reference).trials)
    check_files(folder, trials, results)
    check_winner(folder, trials, results)
    if reproduce:
        check_reproduced(results)
    check_nothing_left(marker, temp)


def check_events(events: list[Any]) -> None:
    """Check that each trial's events are a legal life: proposed, epochs from 1 without gaps, ended at most once."""
    count = Counter((event.trial, event.epoch) for event in events if event.kind == "epoch")
    twice = [key for key, times in count.items() if times > 1]
    assert not twice, f"duplicate: (trial, epoch) {twice[:5]}, {len(twice)} in all"
    assert [event.number for event in events] == list(range(1, len(events) + 1)), (
        "the events are not numbered 1, 2, ..."
    )
    times = [event.at_s for event in events]
    assert times == sorted(times), "the search's own clock ran backwards"
    state: dict[int, str] = {}
    epochs: Counter[int] = Counter()
    for event in events:
        if event.trial is None:
            continue
        was = state.get(event.trial, "")
        what = f"event {event.number}: {event.kind} of trial {event.trial}, which was {was or 'unknown'}"
        if event.kind == "proposed":
            assert not was, what
            state[event.trial] = "waiting"
        elif event.kind == "started":
            assert was in ("waiting", "paused", "running"), what  # running: in a session that was killed
            state[event.trial] = "running"
        elif event.kind == "paused":
            assert was == "running", what
            state[event.trial] = "paused"
        elif event.kind == "epoch":
            epochs[event.trial] += 1
            assert was == "running", what
            assert event.epoch == epochs[event.trial], f"{what}: epoch {event.epoch} after {epochs[event.trial] - 1}"
        elif event.kind == "retry":
            assert was in ("waiting", "running"), what
            state[event.trial] = "waiting"
        elif event.kind == "ended":
            assert was in ("waiting", "paused", "running") and event.data["state"] in ENDED, what
            state[event.trial] = "ended"


def check_same(trials: dict[int, Any], reference: dict[int, Any]) -> None:
    """Check that two experiments have the same trials, configs, states and values, to the last bit."""
    assert trials.keys() == reference.keys(), f"trials {sorted(trials)}, but without a fault {sorted(reference)}"
    for number, trial in trials.items():
        other = reference[number]
        assert trial.config == other.config, f"trial {number} got {trial.config}, without a fault {other.config}"
        assert trial.state == other.state, f"trial {number} {trial.state}, without a fault {other.state}"
        here, there = ([_without_times(metrics) for metrics in one.history] for one in (trial, other))
        assert here == there, f"trial {number} has other values than without a fault: {here} and {there}"


def _without_times(metrics: dict[str, float]) -> str:
    return json.dumps({key: value for key, value in metrics.items() if key not in TIMES}, sort_keys=True)


def check_files(folder: Path, trials: dict[int, Any], results: Any) -> None:
    """Check that every file opens, that checkpoints agree with the ledger, and that nothing half-written is left."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    assert mode == 0o700, f"the folder has mode {mode:o}"
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        assert not path.name.endswith(".tmp"), f"half-written: {path.relative_to(folder)} is left"
        assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0, f"others may write {path.relative_to(folder)}"
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".db":
            connection = sqlite3.connect(path)
            found = connection.execute("PRAGMA integrity_check").fetchone()[0]
            connection.close()
            assert found == "ok", f"{path.name}: {found}"
        elif path.suffix == paths.SUFFIX:
            _, about = checkpoint.load(path)
            history = trials[int(path.parent.name)].history[: about["epoch"]]
            assert about["trial"] == int(path.parent.name), f"{path} is of trial {about['trial']}"
            assert about["epoch"] in (int(path.stem) if path.stem.isdigit() else about["epoch"],), f"{path}: its epoch"
            same = [_without_times(m) for m in about["history"]] == [_without_times(m) for m in history]
            assert same, f"{path.relative_to(folder)} holds another history than the ledger"
        else:
            path.read_bytes()
    for number, trial in trials.items():
        wrong = trial.state in ("failed", "diverged")
        assert not wrong or paths.error_txt(paths.trial_folder(folder, number)).read_text(), (
            f"trial {number}: no reason"
        )


def check_winner(folder: Path, trials: dict[int, Any], results: Any) -> None:
    """Check that the winner is the ledger's best, and that the checkpoint of its best epoch is there."""
    best: tuple[float, int, int] | None = None
    for number, trial in sorted(trials.items()):
        if trial.role == "search" and trial.state not in ("failed", "diverged"):
            for epoch, metrics in enumerate(trial.history, start=1):
                if is_better(metrics[results.metric], best[0] if best else None, results.mode):
                    best = metrics[results.metric], number, epoch
    if best is None:
        return
    value, number, epoch = best
    said = results.best_value, results.best_trial.number, results.best_epoch
    assert said == best, f"the winner is said to be (value, trial, epoch) {said}, but the ledger's best is {best}"
    if trials[number].state not in ENDED:
        return
    _, about = checkpoint.load(paths.best_checkpoint(paths.trial_folder(folder, number)))
    assert about["epoch"] == epoch, f"the winner's checkpoint is of epoch {about['epoch']}, but the best is {epoch}"
    held = about["history"][epoch - 1][results.metric]
    assert held == value, f"the winner's checkpoint holds {held}, the ledger {value}"


def check_reproduced(results: Any) -> None:
    """Check that the best model gives the very value that the ledger holds, with one thread as in a trial."""
    dataset = tunekit.load_dataset(**results.dataset_source)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        config = settled(complete(results.best_config), results.arithmetic)
        outputs, targets = training.predict(results.best_model(), config, dataset, dataset.val)
    finally:
        torch.set_num_threads(threads)
    value = training.measure(outputs, targets, dataset.task)[results.metric.removeprefix("val_")]
    assert value == results.best_value, f"the best model gives {value}, but the ledger holds {results.best_value}"
