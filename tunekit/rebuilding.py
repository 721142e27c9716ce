"""A ledger made of what its trials' own files tell: their proposals, their histories and how they ended."""

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tunekit.events import ENDED, Trial
from tunekit.rows import INSERT, SCHEMA, checksum, connect

Row = tuple[Any, ...]
PROPOSAL = ("config", "params", "role", "source", "seed")  # of a trial, in its checkpoints' headers


def rows_from(abouts: Iterable[dict[str, Any]], trials: dict[int, Trial], last: Row) -> list[Row]:
    """Return rows for what only the trials' own files still know, of trials that have not ended.

    Args:
        abouts: of each trial: its number and PROPOSAL, its history, where known its num_retries and micro_batches, and,
            if it has ended, how: state, reason, node, duration_s.
        trials: what the rows that are there tell.
        last: the last of those: its number, time and at_s are gone on from.
    """
    extra: list[Row] = []
    number, wall, at_s = last[:3]

    def add(kind: str, trial: int, epoch: int | None, data: dict[str, Any], before_s: float = 0.0) -> None:
        at = max(0.0, at_s - before_s)
        extra.append(numbered(number + len(extra) + 1, (wall, at, kind, trial, epoch, json.dumps(data))))

    for about in abouts:
        named, history = about["trial"], about["history"]
        trial = trials.get(named)
        if trial is not None and trial.state in ENDED:
            continue
        if trial is None:
            trial = trials[named] = Trial(named, **{key: about[key] for key in PROPOSAL})
            add("proposed", named, None, trial.proposal)
        for _ in range(trial.num_retries, about.get("num_retries", 0)):
            add("retry", named, None, {"reason": "", "counts": True, "micro_batches": about["micro_batches"]})
        if about.get("node"):
            add("started", named, None, {"node": about["node"]}, about["duration_s"])
        for epoch in range(len(trial.history) + 1, len(history) + 1):
            add("epoch", named, epoch, history[epoch - 1])
        if about.get("state") in ENDED:
            ended = {"state": about["state"], "reason": about["reason"], "num_epochs": len(history)}
            add("ended", named, None, ended)
    return extra


def numbered(number: int, row: Row) -> Row:
    """Return a row (time, at_s, kind, trial, epoch, data) with its number before it and its checksum after it."""
    return (number, *row, checksum((number, *row)))


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write a ledger's file that holds these rows."""
    connection = connect(path)
    try:
        connection.executescript(SCHEMA)
        connection.execute("BEGIN")
        connection.executemany(INSERT, rows)
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise OSError(str(error)) from None
    finally:
        connection.close()
