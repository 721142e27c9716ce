"""tunekit's own training loop, in processes whose writes wait for the disk, or, with TUNEKIT_FAULT_SYNC=off, do not.

The training loop of a search is imported by name in every worker and in the driver; so is what this module changes.
"""

import os
import sqlite3
from collections.abc import Iterator
from typing import Any

from tunekit import training
from tunekit.config import complete
from tunekit.ledger import Ledger

if os.environ.get("TUNEKIT_FAULT_SYNC") == "off":
    wait_for_disk, open_to_write = os.fsync, Ledger._open_to_write

    def _open_without(self: Ledger) -> sqlite3.Connection:
        connection = open_to_write(self)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    os.fsync = os.fdatasync = lambda descriptor: None
    Ledger._open_to_write = _open_without  # type: ignore[method-assign]


def train(config: dict[str, Any], dataset: Any, state: Any = None) -> Iterator[tuple[dict, dict]]:
    """Train as tunekit does."""
    yield from training.train(complete(config), dataset, state)
