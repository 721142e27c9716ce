"""Mending a damaged ledger: from the rows that are whole, its backup, and what the checkpoints' headers hold."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tunekit import checkpoint, paths
from tunekit.errors import CheckpointError, ExperimentError
from tunekit.events import ENDED, Trial, trials_from
from tunekit.ledger import Ledger
from tunekit.locks import take_lock
from tunekit.rebuilding import Row, numbered, rows_from, write_rows
from tunekit.remote import abouts, url_of
from tunekit.rows import SELECT, connect, event_of, is_whole, last_number
from tunekit.storage import Storage


def repair(folder: str | Path) -> list[str]:
    """Mend an experiment's ledger, if it is damaged; the damaged file stays beside it, under another name.

    Args:
        folder: the experiment's.

    Returns:
        Lines for people: what was done, and what is lost.

    Raises:
        ExperimentError: it is no experiment, or in use.
        StorageError: the folder cannot be written.
    """
    folder = Path(folder)
    try:
        Ledger(folder, write=True).close()
    except ExperimentError as error:
        if "is damaged" not in str(error):
            raise
        found = str(error).removesuffix(f": tunekit repair {folder}")
    else:
        return [f"the ledger of {folder} is whole: nothing to mend"]
    lock = take_lock(paths.experiment_json(folder))
    if lock is None:
        raise ExperimentError(f"{folder} is in use by another run: wait for it")
    try:
        with paths.writing(folder):
            said = _rebuild(folder)
    finally:
        os.close(lock)
    Ledger(folder, write=True).close()  # checks it, and makes its backup
    return [found, *said]


def _rebuild(folder: Path) -> list[str]:
    path = paths.ledger_db(folder)
    whole, saved = _rows_behind_the_first_page(folder) | _whole_rows(path), _whole_rows(paths.backup_db(folder))
    rows = _consistent(saved | whole)
    url = url_of(folder)
    told = _headers(folder) if url is None else abouts(Storage(url))
    extra = rows_from(told, trials_from(map(event_of, rows)), rows[-1] if rows else (0, 0.0, 0.0))
    last = max([last_number(path), last_number(paths.backup_db(folder)), *saved, *whole])
    kept = _keep_a_copy(path)
    for log in ("-wal", "-shm"):  # of the damaged file: SQLite would play it back into the new one
        path.with_name(path.name + log).unlink(missing_ok=True)
    paths.write_atomic(path, lambda aside: write_rows(aside, rows + extra))
    paths.backup_db(folder).unlink(missing_ok=True)  # may hold rows that make no sense without those that are lost
    return [
        f"{len(rows)} events kept, {len(set(saved) - set(whole))} of them from the backup; "
        f"{len(extra)} more were in checkpoints",
        f"{last - len(rows)} events are lost: trials whose end was among them go on from their last checkpoint",
        f"a copy of the damaged file is {kept.name}; run the same command again to go on",
    ]


def _rows_behind_the_first_page(folder: Path) -> dict[int, Row]:
    """Return what can be read when the backup's first page, which tells of the others, is put in place of the ledger's.

    Where the ledger is cut short, the backup's pages go on; SQLite's log is played back over all.
    """
    path, backup = paths.ledger_db(folder), paths.backup_db(folder)
    if not backup.exists():
        return {}
    saved, damaged = backup.read_bytes(), path.read_bytes() if path.exists() else b""
    page = int.from_bytes(saved[16:18], "big") or 4096
    whole = max(page, len(damaged) // page * page)
    mixed = bytearray(saved[:page] + damaged[page:whole] + saved[whole:])
    mixed[92:96] = bytes(4)  # how many pages there are is no longer what the first page says
    with tempfile.TemporaryDirectory(prefix="tunekit-repair-") as scratch:
        rows = Path(scratch) / path.name
        rows.write_bytes(mixed)
        with suppress(FileNotFoundError):
            shutil.copy(path.with_name(f"{path.name}-wal"), scratch)
        return _whole_rows(rows)


def _whole_rows(path: Path) -> dict[int, Row]:
    """Return the rows of a file that are as they were written, by number, however damaged the rest is."""
    rows: dict[int, Row] = {}
    if not path.exists():
        return rows
    with suppress(sqlite3.Error):
        connection = connect(path)
        try:
            _read(connection, 1, 2**62, rows)
        finally:
            connection.close()
    return rows


def _read(connection: sqlite3.Connection, low: int, high: int, rows: dict[int, Row]) -> None:
    """Read the rows from `low` up; where a page cannot be read, look for the next that can, in ever larger steps."""
    step = 1
    while low < high:
        try:
            for row in connection.execute(f"{SELECT} WHERE number >= ? ORDER BY number", (low,)):
                if is_whole(row):
                    rows[row[0]] = row
                    low, step = row[0] + 1, 1
            return
        except (sqlite3.Error, ValueError):
            low, step = low + step, min(step * 2, 64)
            if step == 64 and low > max(rows, default=0) + 1_000_000:
                return


def _consistent(rows: dict[int, Row]) -> list[Row]:
    """Return the rows that still make sense where others are missing, numbered anew: no gap in a trial's epochs."""
    kept: list[Row] = []
    trials: dict[int, Trial] = {}
    for _, row in sorted(rows.items()):
        event = event_of(row)
        trial = trials.get(event.trial) if event.trial is not None else None
        if event.trial is not None and event.kind != "proposed" and (trial is None or trial.state in ENDED):
            continue
        if event.kind == "epoch" and trial is not None and event.epoch != len(trial.history) + 1:
            continue
        if event.kind == "ended" and trial is not None and len(trial.history) != event.data["num_epochs"]:
            continue  # it ended after epochs that are lost: it trains those again
        trials_from([event], trials)
        kept.append(numbered(len(kept) + 1, row[1:-1]))
    return kept


def _headers(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what the newest whole checkpoint of each trial is of."""
    for trial in sorted((folder / "trials").glob("[0-9]*")):
        newest = [*reversed(paths.epoch_checkpoints(trial).values()), paths.best_checkpoint(trial)]
        for path in newest:
            try:
                _, about = checkpoint.load(path)
            except CheckpointError:
                continue
            yield about
            break


def _keep_a_copy(path: Path) -> Path:
    """Copy a damaged ledger, and SQLite's log of it, to another name, and return that."""
    number = 1 + sum(1 for _ in path.parent.glob("ledger.damaged-*.db"))
    kept = path.with_name(f"ledger.damaged-{number}.db")
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):
            shutil.copy(path.with_name(path.name + suffix), kept.with_name(kept.name + suffix))
    return kept
