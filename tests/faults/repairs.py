"""What a repair gives back of a damaged ledger, and how long a large one takes to open."""

import json
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

from storage import broken
from storage_worker import Worker

from tunekit import checkpoint, paths
from tunekit.errors import ExperimentError
from tunekit.ledger import Ledger
from tunekit.repair import repair
from tunekit.rows import INSERT, SCHEMA, SELECT, checksum, connect, event_of, is_whole


def events_of(folder: Path, write: bool = False) -> list[Any] | str:
    """Return all events of a ledger, as it reads them; or the text of its error."""
    try:
        ledger = Ledger(folder, write=write)
    except ExperimentError as error:
        return str(error)
    try:
        return [repr(event) for event in ledger.events()]
    except ExperimentError as error:
        return str(error)
    finally:
        ledger.close()


def badly_mended(worker: Worker, before: Path, folder: Path) -> list[str]:
    """Repair a damaged ledger, go on with the search, and return what was wrong; `before` is it as it was damaged."""
    proposed, histories = known_of(before)
    lines = repair(folder)
    got = events_of(folder, write=True)
    if not lines or not all(isinstance(line, str) for line in lines) or isinstance(got, str):
        return [f"repair said {lines}, and now it is {got if isinstance(got, str) else 'whole'}"]
    ledger = Ledger(folder)
    trials = ledger.trials()
    ledger.close()
    wrong = [f"trial {number} is lost to the repair" for number in sorted(proposed - set(trials))]
    for number, trial in trials.items():
        known = histories.get(number, [])
        if [repr(metrics) for metrics in trial.history[: len(known)]] != known:
            wrong.append(f"trial {number} has {len(trial.history)} epochs after the repair; {len(known)} were known")
    if not list(folder.glob("ledger.damaged-*.db")):
        wrong.append("the damaged file is gone")
    whole = list(trials) == list(range(len(trials)))  # else the search proposes others in place of those that are lost
    return wrong + broken(worker, folder, [worker.work(folder)], alike=whole)


def known_of(folder: Path) -> tuple[set[int], dict[int, list[str]]]:
    """Return the trials and their epochs that whole rows of ledger, backup and log, and checkpoints, still tell of."""
    proposed: set[int] = set()
    epochs: dict[int, dict[int, str]] = {}
    both = folder / "ledger.both.db"  # SQLite's log holds whole pages: it goes on from the backup as from the ledger
    shutil.copy(paths.backup_db(folder), both)
    log = folder / "ledger.db-wal"
    if log.exists():
        shutil.copy(log, folder / f"{both.name}-wal")
    for path in (paths.backup_db(folder), both, paths.ledger_db(folder)):
        for event in filter(None, (row_of(path, number) for number in range(1, 60))):
            if event.kind == "proposed":
                proposed.add(event.trial)
            elif event.kind == "epoch":
                epochs.setdefault(event.trial, {})[event.epoch] = repr(event.data)
    for path in folder.glob("trials/*/*.safetensors"):
        about = checkpoint.about(path)
        if about["trial"] in proposed:  # a row that is lost may be of a trial's end, after which none are needed
            for epoch, metrics in enumerate(about["history"], start=1):
                epochs.setdefault(about["trial"], {})[epoch] = repr(metrics)
    gapless = {}
    for number, known in epochs.items():
        last = next(epoch for epoch in range(1, 99) if epoch not in known)
        gapless[number] = [known[epoch] for epoch in range(1, last)]
    return proposed, gapless


def row_of(path: Path, number: int) -> Any:
    """Return the event of one row of a database, or None if it is not there, not whole, or cannot be read."""
    connection = sqlite3.connect(path)
    try:
        row = connection.execute(f"{SELECT} WHERE number = ?", (number,)).fetchone()
        return event_of(row) if row is not None and is_whole(row) else None
    except (sqlite3.Error, UnicodeDecodeError):
        return None
    finally:
        connection.close()


def opened_s(folder: Path, num_trials: int = 10_000, num_epochs: int = 10) -> tuple[float, float]:
    """Return how long a ledger of so many trials takes to open, to read and to write, in seconds."""
    folder.mkdir()
    (folder / "experiment.json").write_text("{}")
    config = {"lr": 0.0123456789, "optimizer": "adamw", "width": 64, "dropout": 0.25}
    metrics = {"val_accuracy": 0.123456789, "val_loss": 0.5, "train_loss": 0.25, "epoch_s": 1.5}
    proposal = {"config": config, "params": config, "role": "search", "source": "tpe", "seed": 1}
    life = [("proposed", None, proposal), ("started", None, {"node": "here"})]
    life += [("epoch", epoch, metrics) for epoch in range(1, num_epochs + 1)]
    life += [("ended", None, {"state": "finished", "reason": ""})]
    events = ((number, *event) for number in range(num_trials) for event in life)
    rows = ((at, 0.5, at / 7, kind, n, epoch, json.dumps(data)) for at, (n, kind, epoch, data) in enumerate(events, 1))
    connection = connect(paths.ledger_db(folder))
    connection.executescript(SCHEMA + "BEGIN;")
    connection.executemany(INSERT, ((*row, checksum(row)) for row in rows))
    connection.execute("COMMIT")
    connection.close()
    took = []
    for write in (False, True):
        began = time.monotonic()
        ledger = Ledger(folder, write=write)
        assert len(ledger.trials()) == num_trials
        took.append(time.monotonic() - began)
        ledger.close()
    return took[0], took[1]
