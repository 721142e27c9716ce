"""A session: the time in which one process works on an experiment, from opening its folder to saying how it ended."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tunekit import paths
from tunekit.asked import Asked, check_name
from tunekit.errors import ExperimentError, TrainingError
from tunekit.ledger import Ledger, who_am_i
from tunekit.recorder import Recorder
from tunekit.versions import versions


def open_folder(folder: Path, name: str | None, asked: Asked) -> Path:
    """Return the experiment's folder, made if need be, or raise if it was asked for something else."""
    place = folder / (check_name(name) if name is not None else asked.default_name)
    described = {"asked": asked.as_json(), "dataset": asked.dataset.summary(), "versions": versions()}
    path = paths.experiment_json(place)
    if not path.exists():
        if place.exists() and any(place.iterdir()):
            raise ExperimentError(f"{place} is no experiment, but holds files: choose another name")
        paths.make_private(place)
        paths.write_json(path, described)
    known = paths.read_json(path)["asked"]
    for key, value in described["asked"].items():
        if known.get(key) != value:
            raise ExperimentError(
                f"experiment {place} was asked for {key}={known.get(key)}, but now it is {value}: choose another name, "
                "or leave the name out"
            )
    return place


@contextmanager
def session(place: Path, limits: dict[str, Any]) -> Iterator[Ledger]:
    """Open the ledger for a while, alone."""
    ledger = Ledger(place, write=True)
    try:
        ledger.append("opened", {**who_am_i(), **limits})
        yield ledger
    finally:
        with suppress(ExperimentError):  # the disk may be full: what matters has been raised already
            ledger.append("closed", {})
        ledger.close()


@contextmanager
def interruptible(recorder: Recorder) -> Iterator[None]:
    """Let the first Ctrl-C, SIGTERM or SIGHUP end the search cleanly; the second acts as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Any] = {}

    def stop(number: int, frame: Any) -> None:
        recorder.interrupted = f"{signal.Signals(number).name} came"
        recorder.signal = number
        signal.signal(number, before[signal.Signals(number)])

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)


def say(verbose: int, *lines: str) -> None:
    """Print lines for people, unless they asked for silence."""
    for line in lines if verbose else ():
        print(line)


def finish(recorder: Recorder, place: Path, verbose: int) -> None:
    """Say how the search ended, if not as asked, and raise what it ended with."""
    if recorder.error is not None:
        raise recorder.error
    ledger = Ledger(place)
    trials = ledger.trials().values()
    ledger.close()
    if recorder.signal:
        how = f"Run the same command again to go on, or: tunekit resume {place}"
        say(verbose, f"Stopped ({recorder.interrupted}). {how}")
        raise KeyboardInterrupt if recorder.signal == signal.SIGINT else SystemExit(128 + recorder.signal)
    if recorder.interrupted:
        raise TrainingError(f"{recorder.interrupted} (see {place}/trials/*/error.txt)")
    if recorder.stop_reason() or recorder.note:
        say(verbose, f"Ended: {recorder.stop_reason() or recorder.note}.")
    if trials and all(trial.state in ("failed", "diverged") for trial in trials):
        first = next(iter(trials))
        raise TrainingError(
            f"none of the {len(trials)} trials came to a result; the first {first.state}: {first.reason} "
            f"(see {place}/trials/*/error.txt)"
        )
