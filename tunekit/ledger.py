"""The record of an experiment: every event in order, in one SQLite file that the driver alone writes.

An event is a row: a trial was proposed, started, reached the end of an epoch, ended. Rows are only ever added, and are
on disk before anything else hears of them. All else (the state of a trial, what the searcher has heard, what the
scheduler compares) is worked out from the events, so that a search that goes on after a crash knows what it knew.
"""

import fcntl
import json
import os
import shutil
import socket
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tunekit import paths
from tunekit.errors import ExperimentError
from tunekit.scores import is_better

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY,
    time REAL NOT NULL,      -- seconds since 1970 by the clock on the wall: a label, never computed with
    at_s REAL NOT NULL,      -- seconds that the search has run for, over all its sessions
    kind TEXT NOT NULL,      -- opened proposed started epoch retry ended closed
    trial INTEGER, epoch INTEGER,
    data TEXT NOT NULL       -- JSON
);
CREATE UNIQUE INDEX IF NOT EXISTS one_epoch ON events (trial, epoch) WHERE kind = 'epoch';
CREATE UNIQUE INDEX IF NOT EXISTS one_proposal ON events (trial) WHERE kind = 'proposed';
CREATE UNIQUE INDEX IF NOT EXISTS one_end ON events (trial) WHERE kind = 'ended';
"""
ENDED = ("finished", "stopped", "diverged", "failed")


class Event(NamedTuple):
    """One row of the ledger."""

    number: int
    time: float
    at_s: float
    kind: str
    trial: int | None
    epoch: int | None
    data: dict[str, Any]


@dataclass
class Trial:
    """One config trained, as the ledger has it.

    Args:
        number: from 0, in the order proposed.
        config: the values drawn, and the space's constants; params are the draws alone.
        role: "search", or "winner" or "default" for a trial that confirms.
        source: where the config came from: "default", "start_from", or the searcher's name.
        seed: what its random numbers come from.
        state: waiting, running, finished, stopped (by the scheduler), diverged or failed.
        history: one dict of metrics per epoch.
        reason: why it was stopped, diverged or failed.
        node: where it ran last.
        num_retries: how often it was tried again.
        duration_s: how long it ran, over all its attempts.
    """

    number: int
    config: dict[str, Any]
    params: dict[str, Any]
    role: str = "search"
    source: str = ""
    seed: int = 0
    state: str = "waiting"
    history: list[dict[str, float]] = field(default_factory=list)
    reason: str = ""
    node: str = ""
    num_retries: int = 0
    duration_s: float = 0.0
    _running_since_s: float = 0.0

    def best_epoch(self, metric: str, mode: str) -> int | None:
        """Return the epoch (from 1) with the best value of a metric, the first of equals; None if none has one."""
        best, value = None, None
        for epoch, metrics in enumerate(self.history, start=1):
            if metric in metrics and is_better(metrics[metric], value, mode):
                best, value = epoch, metrics[metric]
        return best

    def best_value(self, metric: str, mode: str) -> float | None:
        """Return a metric's best value over the epochs; None if none is finite."""
        epoch = self.best_epoch(metric, mode)
        return None if epoch is None else self.history[epoch - 1][metric]

    def apply(self, event: Event) -> None:
        """Take in one later event of this trial."""
        if event.kind == "started":
            self.state, self.node, self._running_since_s = "running", event.data["node"], event.at_s
        elif event.kind == "epoch":
            self.history.append(event.data)
        elif event.kind in ("retry", "ended"):
            if self.state == "running":
                self.duration_s += event.at_s - self._running_since_s
            self.state, self.reason = event.data.get("state", "waiting"), event.data.get("reason", "")
            self.num_retries += event.kind == "retry" and event.data["counts"]


class Ledger:
    """An experiment's events. One writer at a time; any number of readers.

    Args:
        folder: the experiment's folder.
        write: open for writing, which takes the experiment's lock until `close`. A writer also has `unfinished`, the
            trials that have not ended, and `next_number`, the number that the next trial gets.

    Raises:
        ExperimentError: there is no ledger, it cannot be read, or another process is writing it.
    """

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        self.folder = folder
        self._lock = _take_lock(folder) if write else None
        self._copy: tempfile.TemporaryDirectory | None = None
        try:
            self._connection = self._open_to_write() if write else self._open_to_read()
            last = self._connection.execute("SELECT max(at_s) FROM events").fetchone()[0]
            self._began = time.monotonic() - (last or 0.0)
            trials = self.trials() if write else {}
        except sqlite3.Error as error:
            self._give_back()
            raise ExperimentError(f"the ledger of {folder} cannot be read: {error}") from None
        self.next_number = max(trials, default=-1) + 1
        self.unfinished = {number: trial for number, trial in trials.items() if trial.state not in ENDED}

    def _open_to_write(self) -> sqlite3.Connection:
        connection = sqlite3.connect(paths.ledger_db(self.folder), isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # a commit is on disk when it returns
        connection.executescript(SCHEMA)
        return connection

    def _open_to_read(self) -> sqlite3.Connection:
        path = paths.ledger_db(self.folder)
        if not path.exists():
            raise ExperimentError(f"{self.folder} is no experiment: it has no {path.name}")
        if not os.access(self.folder, os.W_OK):  # SQLite needs to write beside the file to read it: read a copy
            self._copy = tempfile.TemporaryDirectory(prefix="tunekit-ledger-")
            for part in self.folder.glob(f"{path.name}*"):
                if not part.name.endswith("-shm"):
                    shutil.copy(part, self._copy.name)
            path = Path(self._copy.name) / path.name
            path.chmod(0o600)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA query_only=ON")
        return connection

    @property
    def now_s(self) -> float:
        """Seconds that the search has run for, over all its sessions."""
        return time.monotonic() - self._began

    def append(self, kind: str, data: dict[str, Any], trial: int | None = None, epoch: int | None = None) -> Event:
        """Add one event; it is on disk when this returns.

        Raises:
            ExperimentError: it cannot be written (disk full), the trial has ended, or this epoch is there already.
        """
        if trial is not None and kind != "proposed" and trial not in self.unfinished:
            raise ExperimentError(f"the ledger of {self.folder} takes no {kind!r} of trial {trial}: it is not running")
        row = (time.time(), self.now_s, kind, trial, epoch, json.dumps(data))
        insert = "INSERT INTO events (time, at_s, kind, trial, epoch, data) VALUES (?, ?, ?, ?, ?, ?)"
        try:
            cursor = self._connection.execute(insert, row)
        except sqlite3.Error as error:
            mend = "what it holds is safe; make room, or mend the folder's permissions, and run the same command again"
            raise ExperimentError(f"the ledger of {self.folder} cannot be written ({error}): {mend}") from None
        event = Event(cursor.lastrowid or 0, row[0], row[1], kind, trial, epoch, data)
        if trial is not None:
            trials_from([event], self.unfinished)
            self.next_number = max(self.next_number, trial + 1)
            if kind == "ended":
                del self.unfinished[trial]
        return event

    def events(self, after: int = 0) -> Iterator[Event]:
        """Yield the events after a number, in order."""
        rows = self._connection.execute(
            "SELECT number, time, at_s, kind, trial, epoch, data FROM events WHERE number > ? ORDER BY number", (after,)
        )
        for number, wall, at_s, kind, trial, epoch, data in rows:
            yield Event(number, wall, at_s, kind, trial, epoch, json.loads(data))

    def trials(self) -> dict[int, Trial]:
        """Return every trial by its number, worked out from the events."""
        return trials_from(self.events())

    def close(self) -> None:
        """Close the file and give the lock back."""
        self._connection.close()
        self._give_back()

    def _give_back(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
        if self._copy is not None:
            self._copy.cleanup()


def trials_from(events: Iterable[Event], trials: dict[int, Trial] | None = None) -> dict[int, Trial]:
    """Return the trials that events tell of, by number; `trials` is what earlier events told."""
    trials = {} if trials is None else trials
    for event in events:
        if event.kind == "proposed" and event.trial is not None:
            trials[event.trial] = Trial(event.trial, **event.data)
        elif event.trial is not None:
            trials[event.trial].apply(event)
    return trials


def in_use_by(folder: Path) -> str | None:
    """Return who is writing an experiment's ledger now, or None."""
    try:
        os.close(_take_lock(folder))
    except ExperimentError as error:
        return str(error)
    return None


def _take_lock(folder: Path) -> int:
    """Lock the experiment, by its experiment.json: the system gives the lock back when its owner dies."""
    path = paths.experiment_json(folder)
    try:
        lock = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ExperimentError(f"{folder} is no experiment: {path.name} cannot be opened ({error.strerror})") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ExperimentError(f"{folder} is in use by another run: wait for it, or choose another name") from None
    return lock


def who_am_i() -> dict[str, Any]:
    """Return what tells this process from others."""
    return {"pid": os.getpid(), "host": socket.gethostname()}
