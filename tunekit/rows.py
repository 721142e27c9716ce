"""The rows of a ledger's file: their shape, their checksums, and the backup that is kept of them."""

import json
import sqlite3
import time
import zlib
from pathlib import Path
from typing import Any

from tunekit import paths
from tunekit.events import Event

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY,  -- from 1, without gaps
    time REAL NOT NULL,          -- seconds since 1970 by the clock on the wall: a label, never computed with
    at_s REAL NOT NULL,          -- seconds that the search has run for, over all its sessions
    kind TEXT NOT NULL,          -- opened proposed started epoch warned retry ended closed
    trial INTEGER, epoch INTEGER,
    data TEXT NOT NULL,          -- JSON
    crc INTEGER NOT NULL         -- CRC-32 of the rest of the row
);
CREATE UNIQUE INDEX IF NOT EXISTS one_epoch ON events (trial, epoch) WHERE kind = 'epoch';
CREATE UNIQUE INDEX IF NOT EXISTS one_proposal ON events (trial) WHERE kind = 'proposed';
CREATE UNIQUE INDEX IF NOT EXISTS one_end ON events (trial) WHERE kind = 'ended';
"""
INSERT = "INSERT INTO events (number, time, at_s, kind, trial, epoch, data, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
SELECT = "SELECT number, time, at_s, kind, trial, epoch, data, crc FROM events"
MOST_BYTES = 2**24  # of a row: whoever reads a longer one, which only tampering writes, would need gigabytes
BACKUP_EVERY_S = 60.0
BACKUP_SHARE = 0.01  # of the time, at most, goes into the backup: a large ledger's is made less often


class Backup:
    """A copy of the rows in a file of its own, made by SQLite's backup call: whole, or as it was before.

    Args:
        path: the backup's.
        rows: the connection of the ledger's writer.
    """

    def __init__(self, path: Path, rows: sqlite3.Connection) -> None:
        self.path, self.rows, self.due_s, self.number = path, rows, 0.0, last_number(path)

    def make_if_due(self, number: int) -> None:
        """Make it if the last one is old enough; `number` is the last row's."""
        if time.monotonic() >= self.due_s:
            began = time.monotonic()
            self.due_s = began + BACKUP_EVERY_S  # also where it fails
            self.make(number)
            took = time.monotonic() - began
            self.due_s = time.monotonic() + max(BACKUP_EVERY_S, took / BACKUP_SHARE)

    def make(self, number: int) -> None:
        """Make it, if rows were added since the last.

        The rows are brought from SQLite's log into the main file first: damage to the log then costs nothing older.
        """
        if self.number < number:
            self.rows.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            paths.write_atomic(self.path, self._copy)
            self.number = number

    def _copy(self, path: Path) -> None:
        copy = connect(path)
        try:
            self.rows.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, which nothing needs to be beside
        finally:
            copy.close()


def connect(path: Path | str) -> sqlite3.Connection:
    """Open a SQLite file, or URI, in which each statement is a transaction; text that is none comes back as it can.

    Raises:
        sqlite3.DatabaseError: it holds something else than a ledger does.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, uri=isinstance(path, str))
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        connection.execute("PRAGMA trusted_schema=OFF")
        for kind, name in connection.execute("SELECT type, name FROM sqlite_master"):
            if kind in ("view", "trigger") or (kind == "table" and name != "events" and not name.startswith("sqlite_")):
                raise sqlite3.DatabaseError(f"it holds a {kind} {name!r}, which is not tunekit's")  # they are programs
    except BaseException:
        connection.close()
        raise
    return connection


def checksum(row: Any) -> int:
    """Return the CRC-32 of a row: number, time, at_s, kind, trial, epoch, data."""
    return zlib.crc32(repr(tuple(row)).encode("utf-8", "replace"))


def is_whole(row: Any) -> bool:
    """Return whether a row, as SELECT gives it, is what was written."""
    return checksum(row[:-1]) == row[-1]


def event_of(row: Any) -> Event:
    """Return the event that a row, as SELECT gives it, holds."""
    number, wall, at_s, kind, trial, epoch, data, _ = row
    return Event(number, wall, at_s, kind, trial, epoch, json.loads(data))


def last_number(path: Path) -> int:
    """Return the number of a ledger's last event; 0 where it has none, or cannot be read."""
    if not path.exists():
        return 0
    connection = None
    try:
        connection = connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1")
        return connection.execute("SELECT max(number) FROM events").fetchone()[0] or 0
    except sqlite3.Error:
        return 0
    finally:
        if connection is not None:
            connection.close()
