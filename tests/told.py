"""Experiments for trackers to be told of, without a search: ledgers written by hand, and who is reading them."""

import time
from pathlib import Path

from tunekit import paths
from tunekit.ledger import Ledger


def experiment(folder: Path) -> Ledger:
    """A new experiment, open for writing."""
    paths.make_private(folder)
    paths.write_json(paths.experiment_json(folder), {"asked": {"metric": "val_loss", "mode": "min"}})
    ledger = Ledger(folder, write=True)
    ledger.append("opened", {"pid": 1, "host": "here"})
    return ledger


def add_epochs(ledger: Ledger, trial: int, epochs: range, state: str = "") -> None:
    """Add events of a trial: its beginning, if epochs begin at 1, then epochs, then its end, if it has a state."""
    if epochs.start == 1:
        config = {"lr": 0.5 / (trial + 1), "optimizer": "sgd", "freeze": None, "oversample": False}
        ledger.append("proposed", {"config": config, "params": {}, "source": "tpe", "seed": trial}, trial)
        ledger.append("started", {"node": "here"}, trial)
    for epoch in epochs:
        ledger.append("epoch", {"train_loss": 2 / epoch, "val_loss": abs(epoch - 2.5) + trial}, trial, epoch)
    if state:
        ledger.append("ended", {"state": state, "reason": ""}, trial)


def wait_until(true, timeout_s=60.0) -> None:
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def processes_of(folder: Path) -> list[int]:
    """Return the pids of an experiment's trackers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"tunekit.tracking" in words and str(folder).encode() in words:
            found.append(int(path.parent.name))
    return found
