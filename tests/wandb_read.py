"""Reads offline W&B run files (`run-*.wandb`) with W&B's own message types: a LevelDB log of Record messages.

The file has a 7-byte header, then blocks of 32 KiB filled with chunks: checksum (4 bytes), length (2), kind (1), data.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32768, 7


def records(path: Path) -> Iterator[Any]:
    """Yield every whole Record of a file, up to where it is torn."""
    data = path.read_bytes()
    assert data[:4] in (b":W&B", b""), path
    at, whole = HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        at += HEADER
        if kind == 0 or at + length > len(data):
            return
        whole = data[at : at + length] if kind in (1, 2) else whole + data[at : at + length]
        at += length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record


def read_run(path: Path) -> dict[str, Any]:
    """Return id, name, group, project, job_type, config, history, summary and exit_code (None: it did not end)."""
    run: dict[str, Any] = {"history": [], "config": {}, "summary": {}, "exit_code": None}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            facts = record.run
            run |= {"id": facts.run_id, "name": facts.display_name, "group": facts.run_group}
            run |= {"project": facts.project, "entity": facts.entity, "job_type": facts.job_type}
            run["config"] |= _values(facts.config.update)
        elif kind == "config":
            run["config"] |= _values(record.config.update)
        elif kind == "history":
            run["history"].append(_values(record.history.item))
        elif kind == "summary":
            run["summary"] |= _values(record.summary.update)
        elif kind == "exit":
            run["exit_code"] = record.exit.exit_code
    return run


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """Return every run whose file lies below a folder, by id."""
    runs = [read_run(path) for path in folder.rglob("*.wandb")]
    return sorted((run for run in runs if "id" in run), key=lambda run: run["id"])


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json or "null") for item in items}
