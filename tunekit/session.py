"""A session: the time in which one process works on an experiment, from opening its folder to saying how it ended."""

import math
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from tunekit import paths
from tunekit.asked import Asked
from tunekit.checks import check_name
from tunekit.claims import SILENT_S
from tunekit.datasets.base import Dataset
from tunekit.errors import ExperimentError, StorageError, TrainingError
from tunekit.events import UNSCORED
from tunekit.follower import Follower
from tunekit.ledger import Ledger, read_experiment
from tunekit.locks import who_am_i
from tunekit.recorder import Recorder
from tunekit.remote import bring_up_to_date, fetch, place_of, store, url_of
from tunekit.reproduction import code_of
from tunekit.safe_text import printable
from tunekit.storage import joined
from tunekit.trial_files import NUM_CHECKPOINTS
from tunekit.versions import differences, versions

MOST_NOTES = 5  # on the data that are printed
LEAST_ROOM = 16 * 2**20  # bytes, for the ledger and its backup


def open_folder(folder: Path | str, name: str | None, asked: Asked, device: torch.device) -> tuple[Path, list[str]]:
    """Return the experiment's folder on this machine, made if need be, and what has changed since that may matter.

    Args:
        folder: where experiments lie, or the URL of the storage where they do.
        name: of the experiment; None makes one of what was asked.
        asked: what is to be done.
        device: what trials train on, as far as is known here.

    Raises:
        ExperimentError: it was asked for something else, holds something else, or is open to others.
        StorageError: it cannot be written.
    """
    name = check_name(name) if name is not None else asked.default_name
    url = joined(folder, name)
    place = url if isinstance(url, Path) else fetch(url)
    described: dict[str, Any] = {"asked": asked.as_json(), "dataset": asked.dataset.summary(), "versions": versions(),
                 "code": asked.code()}  # fmt: skip
    path = paths.experiment_json(place)
    if not path.exists():
        if place.exists() and any(name for name in place.iterdir() if name.suffix != paths.ASIDE):
            raise ExperimentError(f"{place} is no experiment, but holds files: choose another name")
        described["arithmetic"] = asked.choices(device)  # takes seconds, in which another may begin the same
        paths.make_private(place)
        paths.write_new_json(path, described)
    owner = place.stat()
    if owner.st_uid != os.getuid() or owner.st_mode & 0o022:
        raise ExperimentError(f"{place} can be written by others: chown and chmod 700 it, or choose another name")
    known = read_experiment(place)
    for key, value in described["asked"].items():
        if known["asked"].get(key) != value:
            raise ExperimentError(
                f"experiment {place} was asked for {_differing(key, known['asked'].get(key), value)}: choose another "
                "name, or leave the name out"
            )
    if isinstance(url, str):
        store(url, place)
    return place, [line for key in ("versions", "code") for line in differences(known[key], described[key])]


def _differing(key: str, before: Any, now: Any) -> str:
    """Return in words how what is asked for differs from what was; of a space, the keys that do."""
    if key == "dataset":
        name, was, now = before["name"], before["fingerprint"][:8], now["fingerprint"][:8]
        return f"other data ({name} was {was} and is {now}), which has changed since, if only by a file"
    if key != "space" or not isinstance(before, dict):
        return f"{key}={code_of(before)}, but now it is {code_of(now)}"
    was, is_ = ({at: code_of(space[at]) for at in space} for space in (before, now))
    keys = [at for at in {**was, **is_} if was.get(at) != is_.get(at)]
    told = [f"its {printable(at)} was {was.get(at, 'not there')} and is {is_.get(at, 'not there')}" for at in keys]
    return f"another space ({', '.join(told)})"


def check_room(place: Path, asked: Asked, num_going: int, keep_best: int) -> float:
    """Return how many bytes a disk has beside the checkpoints of a search, those that are there included.

    Beside those of trials that run or are paused, the best trials and the default config keep one each. Those in a
    storage take none here.

    Raises:
        StorageError: it has no room for them.
    """
    if url_of(place) is not None:
        return math.inf
    files = [path.stat() for path in place.glob(f"trials/*/*{paths.SUFFIX}")]
    there = sum({file.st_ino: file.st_size for file in files}.values())  # the best has two names
    checkpoints = asked.checkpoint_bytes * (NUM_CHECKPOINTS * num_going + keep_best + 1)
    needed, free = max(LEAST_ROOM, checkpoints - there), shutil.disk_usage(place).free
    if free < needed:
        raise StorageError(
            f"{place} needs room for {needed / 2**20:,.0f} MiB of checkpoints, but its disk has {free / 2**20:,.0f} "
            "free: make room, choose another folder, or lower keep_best"
        )
    return free + there - checkpoints


@contextmanager
def session(place: Path, limits: dict[str, Any], verbose: int = 1) -> Iterator[Ledger]:
    """Open the ledger for a while, alone."""
    url = url_of(place)
    if url is not None:
        bring_up_to_date(place, url, SILENT_S, lambda line: say(verbose, line))
    ledger = Ledger(place, write=True)
    try:
        with paths.writing(place):
            paths.check_links(place)
            paths.remove_asides(place, *place.glob("trials/*"))
        ledger.append("opened", {**who_am_i(), "session": uuid.uuid4().hex, **limits})
        yield ledger
    finally:
        with suppress(ExperimentError):  # the disk may be full: what matters has been raised already
            ledger.append("closed", {})
        ledger.close()


@contextmanager
def followed(recorder: Recorder) -> Iterator[None]:
    """Keep the storage of an experiment up to date while the block runs, if it has one; see `Follower`."""
    url = url_of(recorder.ledger.folder)
    if url is None:
        yield
        return
    follower = Follower(recorder, url)
    try:
        yield
    finally:
        follower.close()


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
        current = signal.getsignal(number)
        if current is not None and (number, current) != (signal.SIGHUP, signal.SIG_IGN):  # which is what nohup wants
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)


def say(verbose: int, *lines: str) -> None:
    """Print lines for people, unless they asked for silence."""
    for line in lines if verbose else ():
        print(printable(line))


def say_notes(verbose: int, data: Dataset) -> None:
    """Print what was noticed or left out as the data was read."""
    more = len(data.notes) - MOST_NOTES
    say(verbose, *(f"{data.name}: {note}" for note in data.notes[:MOST_NOTES]))
    if more > 0:
        say(verbose, f"{data.name}: and {more} more such notes, in experiment.json")


def finish(recorder: Recorder, place: Path, verbose: int) -> None:
    """Say how the search ended, if not as asked, and raise what it ended with."""
    if recorder.error is not None:
        raise recorder.error
    say(verbose, *recorder.ledger.problems)
    ledger = Ledger(place)
    trials = ledger.trials().values()
    ledger.close()
    if recorder.signal:
        how = f"Run the same command again to go on, or: tunekit resume {place_of(place)}"
        say(verbose, f"Stopped ({recorder.interrupted}). {how}")
        raise KeyboardInterrupt if recorder.signal == signal.SIGINT else SystemExit(128 + recorder.signal)
    if recorder.interrupted:
        raise TrainingError(f"{recorder.interrupted} (see {place}/trials/*/error.txt)")
    if recorder.stop_reason() or recorder.note:
        say(verbose, f"Ended: {recorder.stop_reason() or recorder.note}.")
    if trials and all(trial.state in UNSCORED for trial in trials):
        first = next(iter(trials))
        raise TrainingError(
            f"none of the {len(trials)} trials came to a result; the first {first.state}: {first.reason} "
            f"(see {place}/trials/*/error.txt)"
        )
