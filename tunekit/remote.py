"""An experiment whose folder is a URL: what of it is kept there, so that any machine can go on with it.

    experiment.json             what was asked
    session.json                who works on it, and since when nothing was heard of them
    test.json                   the test split's figures
    trials/0007/trial.json      its proposal; when it has ended, its history and how it ended too
    trials/0007/0003.safetensors, 0004.safetensors, best.safetensors     which the workers write

The ledger itself stays on the disk of the machine that runs the search, in its cache: SQLite is not for such places.
A thread follows it and tells the storage of each trial (follower.py). Another machine makes a ledger of all this.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tunekit import paths
from tunekit.datasets.store import cache_folder
from tunekit.errors import CheckpointError, ExperimentError
from tunekit.events import ENDED
from tunekit.ledger import Ledger, in_use_by
from tunekit.locks import take_lock
from tunekit.rebuilding import numbered, rows_from, write_rows
from tunekit.storage import Storage, parted
from tunekit.trial_files import trial_files

SESSION, TRIAL = "session.json", "trial.json"  # see above
OPENING_S = 20.0  # for how long a storage that does not answer is asked as a search begins
SILENT_S = 30.0  # a session of which nothing was heard for so long is over


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
        figures = storage.read(paths.test_json(folder).name)
        if figures is not None:
            paths.write_atomic(paths.test_json(folder), lambda aside: aside.write_bytes(figures))
    return folder


def on_this_machine(place: Path | str) -> Path:
    """Return an experiment's folder on this machine, by its folder or URL: made or brought up to date for a URL."""
    if isinstance(place, Path):
        return place
    folder = fetch(place)
    if not paths.experiment_json(folder).exists():
        raise ExperimentError(f"{place} is no experiment: it has no {paths.experiment_json(folder).name}")
    if in_use_by(folder) is None:
        bring_up_to_date(folder, place)
    return folder


def store(url: str, folder: Path) -> None:
    """Put what was asked into the storage, if it is not there yet."""
    if not paths.storage_json(folder).exists():
        Storage(url).put(paths.experiment_json(folder), paths.experiment_json(folder).name)
        paths.write_json(paths.storage_json(folder), {"url": url})


def bring_up_to_date(folder: Path, url: str, wait_s: float = 0.0, say: Callable[[str], object] = str) -> None:
    """Make the ledger on this machine anew from the storage, if another machine had the last session.

    Args:
        folder: of this machine.
        url: of the experiment.
        wait_s: where the other machine's session has not ended, for how long to see whether it lives.
        say: told what is waited for.

    Raises:
        ExperimentError: it lives.
    """
    storage = Storage(url)
    session = read_session(storage)
    if session is None or _is_of_here(folder, session):
        return
    until = time.monotonic() + wait_s
    if wait_s and not session["closed"]:
        say(f"{session['host']} did not end its session with {url}: looking for {wait_s:g} s whether it lives")
    while wait_s and not session["closed"] and time.monotonic() < until:
        time.sleep(1)
        now = read_session(storage)
        if now is not None and now["renewed"] != session["renewed"] and not now["closed"]:
            raise ExperimentError(
                f"{url} is in use by process {session['pid']} on {session['host']}: wait for it, or choose another name"
            )
        session = now or session
    if (owner := in_use_by(folder)) is not None:
        raise ExperimentError(owner)
    _rebuild(folder, storage, session)


def read_session(storage: Storage) -> dict[str, Any] | None:
    """Return what is known of the last session with an experiment in a storage; None if there was none."""
    found: dict[str, Any] | None = storage.read_json(SESSION)
    return found


def openings(folder: Path) -> list[dict[str, Any]]:
    """Return what was written down each time that an experiment was opened on this machine."""
    if not paths.ledger_db(folder).exists():
        return []
    ledger = Ledger(folder)
    try:
        return [event.data for event in ledger.events() if event.kind == "opened"]
    finally:
        ledger.close()


def _is_of_here(folder: Path, session: dict[str, Any]) -> bool:
    """Return whether this machine had a session: nobody else has gone on since, then, and its ledger is ahead."""
    return session["id"] in [opening.get("session") for opening in openings(folder)]


def _rebuild(folder: Path, storage: Storage, session: dict[str, Any]) -> None:
    opened = json.dumps({key: value for key, value in session["opened"].items() if key != "session"})
    first = numbered(1, (time.time(), session["at_s"], "opened", None, None, opened))
    rows = [first, *rows_from(_abouts(storage), {}, first)]
    lock = take_lock(paths.experiment_json(folder), wait_s=1.0)
    if lock is None:
        return  # another process of this machine has begun to work on it meanwhile
    try:
        for path in folder.glob("ledger*"):  # of an earlier session of this machine, which others went on from
            path.unlink()
        paths.write_atomic(paths.ledger_db(folder), lambda aside: write_rows(aside, rows))
    finally:
        os.close(lock)


def _abouts(storage: Storage) -> Iterator[dict[str, Any]]:
    """Yield what each trial's own files tell of it, by number."""
    names = storage.sizes("trials")
    for number in sorted({int(name.split("/")[1]) for name in names if name.split("/")[1].isdigit()}):
        told = storage.read_json(f"trials/{number:04d}/{TRIAL}")
        known = None if told is None else {"history": [], **told}
        if known is None or known.get("state") not in ENDED:
            known = _newest_about(storage, number) or known
        if known is not None:
            yield known


def _newest_about(storage: Storage, number: int) -> dict[str, Any] | None:
    files = trial_files(storage.url, number)
    for name in sorted(files.names(), key=lambda name: (isinstance(name, int), name), reverse=True):
        with contextlib.suppress(CheckpointError):
            return files.load(name)[1]
    return None
