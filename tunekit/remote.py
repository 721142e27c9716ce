"""An experiment whose folder is a URL: what of it is kept there, so that any machine can go on with it.

    experiment.json             what was asked
    session.json                who works on it, and how far they have told what happened; see claims.py
    test.json                   the test split's figures
    trials/0007/trial.json      its proposal; when it has ended, its history and how it ended too
    trials/0007/0003.safetensors, 0004.safetensors, or best.safetensors      which the workers write

The ledger itself stays on the disk of the machine that runs the search, in its cache: SQLite is not for such places.
A thread follows it and tells the storage of each trial (follower.py). Another machine makes a ledger of all this.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from tunekit import paths
from tunekit.claims import SESSION, read_session, take_over
from tunekit.datasets.store import cache_folder
from tunekit.errors import CheckpointError, ExperimentError
from tunekit.events import ENDED
from tunekit.ledger import Ledger, in_use_by
from tunekit.locks import take_lock
from tunekit.rebuilding import numbered, rows_from, write_rows
from tunekit.storage import Storage, parted
from tunekit.trial_files import trial_files

TRIAL = "trial.json"  # see above
OPENING_S = 20.0  # for how long a storage that does not answer is asked as a search begins
AT_ONCE = 16  # files that are read: most of the time of each is waiting


def local_folder(url: str) -> Path:
    """Return the folder on this machine that has the ledger of an experiment in a storage."""
    name = f"{parted(url)[1]}-{hashlib.blake2b(url.encode(), digest_size=8).hexdigest()}"
    return cache_folder() / "experiments" / name


def url_of(folder: Path) -> str | None:
    """Return the URL of an experiment by its folder on this machine; None if it is all in that folder."""
    path = paths.storage_json(folder)
    return paths.read_json(path)["url"] if path.exists() else None


def place_of(folder: Path) -> Path | str:
    """Return where an experiment's checkpoints are."""
    return url_of(folder) or folder


def fetch(url: str) -> Path:
    """Return the folder on this machine for an experiment in a storage, with what was asked if that is there.

    Raises:
        ExperimentError: it was there once, and is no more.
    """
    folder, storage = local_folder(url), Storage(url, OPENING_S)
    known = paths.experiment_json(folder)
    asked = storage.read(known.name)
    if asked is None and known.exists() and url_of(folder):
        raise ExperimentError(f"{url} is no more, but this machine has its ledger: to begin anew, delete {folder}")
    if asked is not None:
        paths.make_private(folder)
        if not known.exists() or known.read_bytes() != asked:
            paths.write_atomic(known, lambda aside: aside.write_bytes(asked))
        paths.write_json(paths.storage_json(folder), {"url": url})
        path = paths.test_json(folder)
        figures = storage.read(path.name)
        if figures is not None and (not path.exists() or _looks(path.read_bytes()) < _looks(figures)):
            paths.write_atomic(path, lambda aside: aside.write_bytes(figures))
    return folder


def on_this_machine(place: Path | str) -> Path:
    """Return an experiment's folder on this machine, by its folder or URL: made or brought up to date for a URL."""
    if isinstance(place, Path):
        return place
    folder = fetch(place)
    if not paths.experiment_json(folder).exists():
        raise paths.no_experiment(folder, url=place)
    if in_use_by(folder) is None:
        bring_up_to_date(folder, place)
    return folder


def store(url: str, folder: Path) -> None:
    """Put what was asked into the storage, if it is not there yet.

    Raises:
        ExperimentError: another machine was a moment faster.
    """
    if paths.storage_json(folder).exists():
        return
    storage, path = Storage(url), paths.experiment_json(folder)
    asked, there = path.read_bytes(), storage.read(path.name)
    if there is None:
        storage.write(path.name, asked)
    elif there != asked:
        path.unlink()  # the next to ask here takes what is there
        raise ExperimentError(f"{url} was begun by another machine just now: run the same command again to join in")
    paths.write_json(paths.storage_json(folder), {"url": url})


def store_figures(folder: Path) -> None:
    """Put the test split's figures into an experiment's storage too, if it has one that knows of fewer looks."""
    url, path = url_of(folder), paths.test_json(folder)
    if url is not None and _looks(Storage(url).read(path.name)) < _looks(path.read_bytes()):
        Storage(url).write(path.name, path.read_bytes())


def _looks(figures: bytes | None) -> int:
    """Return how often the test split was opened, by its figures; what is damaged counts as never."""
    with contextlib.suppress(ValueError, LookupError, TypeError):
        return int(json.loads(figures or b"")["times_opened"])
    return 0


def bring_up_to_date(folder: Path, url: str, wait_s: float = 0.0, say: Callable[[str], object] = str) -> None:
    """Make the ledger on this machine anew from the storage, if another machine had the last session.

    Args:
        folder: of this machine.
        url: of the experiment.
        wait_s: where this machine is to have the next session: for how long to see whether the last one lives, if it
            was not ended.
        say: told what is waited for.

    Raises:
        ExperimentError: it lives.
    """
    storage = Storage(url)
    session = read_session(storage)
    if session is None:
        if storage.sizes("trials"):
            raise ExperimentError(f"{url} has trials, but no {SESSION}: bring it back from a backup")
        return
    if session["id"] in sessions_of(folder):
        return  # nobody else has gone on since, and the ledger is ahead of the storage
    if (owner := in_use_by(folder)) is not None:
        raise ExperimentError(owner)
    if not wait_s:
        opened = {key: value for key, value in session["opened"].items() if key != "session"}
        _rebuild(folder, storage, session, opened)
        return
    claim = take_over(storage, session, wait_s, say)
    opened = session["opened"] | {"session": claim.session["id"]}
    claim.renew(told=_rebuild(folder, storage, session, opened, claim.renew_if_due))


def openings(folder: Path) -> list[dict[str, Any]]:
    """Return what was written down each time that an experiment was opened on this machine."""
    if not paths.ledger_db(folder).exists():
        return []
    ledger = Ledger(folder)
    try:
        return [event.data for event in ledger.events() if event.kind == "opened"]
    finally:
        ledger.close()


def sessions_of(folder: Path) -> set[str]:
    """Return the sessions that this machine had with an experiment, by their ids."""
    return {opening["session"] for opening in openings(folder) if "session" in opening}


def _rebuild(
    folder: Path, storage: Storage, session: dict[str, Any], opened: dict[str, Any], beat: Callable[[], object] = int
) -> list[float]:
    """Make a ledger of what the storage has; return the number and time of its last event."""
    first = numbered(1, (time.time(), session["at_s"], "opened", None, None, json.dumps(opened)))
    rows = [first, *rows_from(abouts(storage, beat), {}, first)]
    last = [rows[-1][0], rows[-1][1]]
    mine = "session" in opened
    lock = take_lock(paths.experiment_json(folder), wait_s=10.0 if mine else 1.0)
    if lock is None:
        return last  # another process of this machine has begun to work on it meanwhile: its ledger is the one
    try:
        now = None if mine else read_session(storage)
        if now is not None and now["id"] in sessions_of(folder):
            return last  # so it has
        for path in folder.glob("ledger*"):  # of an earlier session of this machine, which others went on from
            path.unlink()
        paths.write_atomic(paths.ledger_db(folder), lambda aside: write_rows(aside, rows))
    finally:
        os.close(lock)
    return last


def abouts(storage: Storage, beat: Callable[[], object] = int) -> list[dict[str, Any]]:
    """Return what each trial's own files tell of it, by number; `beat` is called now and then."""
    names = storage.sizes("trials")
    numbers = sorted({int(name.split("/")[1]) for name in names if name.split("/")[1].isdigit()})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = []
        for about in pool.map(partial(_about, storage), numbers):
            found += [about] if about is not None else []
            beat()
        return found


def _about(storage: Storage, number: int) -> dict[str, Any] | None:
    told = storage.read_json(f"trials/{number:04d}/{TRIAL}")
    if told is not None and told.get("state") in ENDED:
        return {"history": [], **told}
    files = trial_files(storage.url, number)
    for name in sorted(files.names(), key=lambda name: (isinstance(name, int), name), reverse=True):
        with contextlib.suppress(CheckpointError):
            return {**(told or {}), **files.about(name)}
    return told and {"history": [], **told}
