"""The record of an experiment: every event in order, in one SQLite file that the driver alone writes.

An event is a row: a trial was proposed, started, reached the end of an epoch, ended. Rows are only ever added, and are
on disk before anything else hears of them. All else (the state of a trial, what the searcher has heard, what the
scheduler compares) is worked out from the events, so that a search that goes on after a crash knows what it knew.

Damage is found, never mended in silence: rows are numbered without gaps, each carries a checksum, and a copy of the
file is kept beside it, from which `tunekit repair` takes what the file has lost.
"""

import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunekit import paths
from tunekit.errors import ExperimentError, StorageError
from tunekit.events import ENDED, Event, Trial, trials_from
from tunekit.locks import take_lock
from tunekit.rows import INSERT, SCHEMA, SELECT, Backup, checksum, connect, event_of, is_whole, last_number

NOT_DAMAGE = {sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM,
              sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN}  # fmt: skip


class Ledger:
    """An experiment's events. One writer at a time; any number of readers.

    Args:
        folder: the experiment's folder.
        write: open for writing, which takes the experiment's lock until `close`, and checks all of the file. A writer
            also has `unfinished`, the trials that have not ended, and `next_number`, the number of the next trial.

    Raises:
        ExperimentError: there is no ledger, it is damaged, it cannot be read, or another process is writing it.
    """

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        self.folder = folder
        self._copy: tempfile.TemporaryDirectory | None = None
        self.problems: list[str] = []  # what people should know, though it ends nothing
        self._connection: sqlite3.Connection | None = None
        self._backup: Backup | None = None
        self._lock = _take_lock(folder) if write else None
        try:
            self._check_log()
            backed_up = last_number(paths.backup_db(folder))  # before the ledger's own, which is never behind it
            self._connection = self._open_to_write() if write else self._open_to_read()
            number, at_s = self._last()
            if number < backed_up:
                raise self._damaged(f"it ends at event {number}, but its backup at {backed_up}; or it is half a copy")
            if write:
                self._check_pages()
            trials = self.trials() if write else {}
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise self._unreadable(error, begun=last_number(paths.backup_db(folder)) > 0) from None
        except ExperimentError:
            self.close()
            raise
        self._number, self._began = number, time.monotonic() - at_s
        self._backup = Backup(paths.backup_db(folder), self._connection) if write else None
        self.next_number = max(trials, default=-1) + 1
        self.unfinished = {number: trial for number, trial in trials.items() if trial.state not in ENDED}

    def _open_to_write(self) -> sqlite3.Connection:
        path = paths.ledger_db(self.folder)
        with paths.writing(path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = connect(path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # a commit is on disk when it returns
        connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
        return connection

    def _open_to_read(self) -> sqlite3.Connection:
        path = paths.ledger_db(self.folder)
        if not path.exists():
            raise paths.no_experiment(self.folder, path.name)
        if not os.access(self.folder, os.W_OK):  # SQLite needs to write beside the file to read it: read a copy
            self._copy = tempfile.TemporaryDirectory(prefix="tunekit-ledger-")
            for part in self.folder.glob(f"{path.name}*"):
                if not part.name.endswith("-shm"):
                    shutil.copy(part, self._copy.name)
            path = Path(self._copy.name) / path.name
            path.chmod(0o600)
        connection = connect(path)
        connection.execute("PRAGMA query_only=ON")
        return connection

    def _last(self) -> tuple[int, float]:
        assert self._connection is not None
        row = self._connection.execute("SELECT number, at_s FROM events ORDER BY number DESC LIMIT 1").fetchone()
        return row or (0, 0.0)

    def _check_log(self) -> None:
        """SQLite deletes the log of a file that is empty: what it holds would be lost to a repair."""
        path = paths.ledger_db(self.folder)
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size and not (path.exists() and path.stat().st_size):
            raise self._damaged("it is empty, but SQLite's log of it is not")

    def _check_pages(self) -> None:
        assert self._connection is not None
        found = self._connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise self._damaged(found.splitlines()[-1])

    @property
    def now_s(self) -> float:
        """Seconds that the search has run for, over all its sessions."""
        return time.monotonic() - self._began

    def append(self, kind: str, data: dict[str, Any], trial: int | None = None, epoch: int | None = None) -> Event:
        """Add one event; it is on disk when this returns.

        Raises:
            StorageError: it cannot be written: the disk is full, say.
            ExperimentError: the trial has ended, or this epoch is there already.
        """
        if trial is not None and kind != "proposed" and trial not in self.unfinished:
            raise ExperimentError(f"the ledger of {self.folder} takes no {kind!r} of trial {trial}: it is not running")
        if self._connection is None or self._backup is None:
            raise ExperimentError(f"the ledger of {self.folder} is open for reading: it cannot be written")
        row = (self._number + 1, time.time(), self.now_s, kind, trial, epoch, json.dumps(data))
        try:
            whole = (*row, checksum(row))
            self._connection.execute(INSERT, whole)
            event = event_of(whole)
            self._number = event.number
        except sqlite3.IntegrityError as error:
            raise ExperimentError(f"the ledger of {self.folder} takes no {kind!r} twice ({error})") from None
        except sqlite3.Error as error:
            mend = "what it holds is safe; make room, or mend the folder's permissions, and run the same command again"
            raise StorageError(f"the ledger of {self.folder} cannot be written ({error}): {mend}") from None
        if trial is not None:
            trials_from([event], self.unfinished)
            self.next_number = max(self.next_number, trial + 1)
            if kind == "ended":
                del self.unfinished[trial]
        try:
            self._backup.make_if_due(self._number)
        except (sqlite3.Error, StorageError) as error:
            problem = f"the ledger's backup could not be written: {error}"
            if problem not in self.problems:
                self.problems.append(problem)
        return event

    def events(self, after: int = 0) -> Iterator[Event]:
        """Yield the events after a number, in order.

        Raises:
            ExperimentError: a row is missing or damaged.
        """
        assert self._connection is not None
        try:
            for row in self._connection.execute(f"{SELECT} WHERE number > ? ORDER BY number", (after,)):
                after += 1
                if row[0] != after or not is_whole(row):
                    raise self._damaged(f"event {after} is {'missing' if row[0] != after else 'altered'}")
                yield event_of(row)
        except sqlite3.Error as error:
            raise self._unreadable(error) from None

    def trials(self) -> dict[int, Trial]:
        """Return every trial by its number, worked out from the events."""
        return trials_from(self.events())

    def close(self) -> None:
        """Close the file, after a last backup by its writer, and give the lock back."""
        try:
            if self._backup is not None:
                self._backup.make(self._number)
        except (sqlite3.Error, OSError, StorageError):
            pass  # the disk is full, which has been said: the ledger itself is whole
        finally:
            if self._connection is not None:
                self._connection.close()
            if self._lock is not None:
                os.close(self._lock)
            if self._copy is not None:
                self._copy.cleanup()

    def _unreadable(self, error: sqlite3.Error | OSError, begun: bool = True) -> ExperimentError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if not begun and "no such table" in str(error):
            return ExperimentError(f"{self.folder} holds nothing yet: run the command again that began it")
        if isinstance(error, OSError) or code in NOT_DAMAGE:
            hint = ": mend the permissions of the folder and its files" if code == sqlite3.SQLITE_READONLY else ""
            return ExperimentError(f"the ledger of {self.folder} cannot be read: {error}{hint}")
        return self._damaged(str(error))

    def _damaged(self, how: str) -> ExperimentError:
        return ExperimentError(f"the ledger of {self.folder} is damaged ({how}): tunekit repair {self.folder}")


def read_experiment(folder: Path) -> dict[str, Any]:
    """Return what experiment.json says: asked, dataset, versions, code and arithmetic.

    Raises:
        ExperimentError: there is none, or it is damaged.
    """
    path = paths.experiment_json(folder)
    if not path.is_file():
        raise paths.no_experiment(folder)
    try:
        described = paths.read_json(path)
        return {key: dict(described[key]) for key in ("asked", "dataset", "versions", "code", "arithmetic")}
    except LookupError as error:
        raise ExperimentError(f"{path} is of another version of tunekit: it has no {error}") from None
    except (ValueError, TypeError) as error:
        raise ExperimentError(
            f"{path} is damaged ({type(error).__name__}: {error}): the search itself is not; "
            "move the folder away, make the call again, and put its other files back"
        ) from None


def in_use_by(folder: Path) -> str | None:
    """Return who is writing an experiment's ledger now, or None."""
    try:
        os.close(_take_lock(folder))
    except ExperimentError as error:
        return str(error)
    return None


def _take_lock(folder: Path) -> int:
    path = paths.experiment_json(folder)
    if not path.is_file():
        raise paths.no_experiment(folder)
    lock = take_lock(path, wait_s=1.0)
    if lock is None:
        raise ExperimentError(f"{folder} is in use by another run{_owner(folder)}: wait for it, or choose another name")
    return lock


def _owner(folder: Path) -> str:
    """Return who opened a ledger last, in words; nothing where it cannot be read."""
    try:
        ledger = Ledger(folder)
        opened = [event.data for event in ledger.events() if event.kind == "opened"]
        ledger.close()
        return f" (process {opened[-1]['pid']} on {opened[-1]['host']})"
    except (ExperimentError, LookupError):
        return ""
