"""Experiments played into a real ledger, without training: what the tests of ledger, searchers and the like share."""

from tunekit.ledger import Ledger

METRIC = "val_accuracy"


def new_ledger(folder):
    """Return the ledger, open for writing, of a new experiment in `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "experiment.json").write_text("{}")
    return Ledger(folder, write=True)


def propose(ledger, params=None, role="search", source="tpe", seed=0):
    """Write a trial into the ledger and return its number."""
    number, params = ledger.next_number, params or {"lr": 0.1}
    described = {"config": params, "params": params, "role": role, "source": source, "seed": seed}
    ledger.append("proposed", described, number)
    return number


def play(ledger, number, values, state="finished"):
    """Let a trial run: started, an epoch per value, and ended unless the state is None."""
    ledger.append("started", {"node": "here"}, number)
    for epoch, value in enumerate(values, start=1):
        ledger.append("epoch", {METRIC: value}, number, epoch)
    if state:
        ledger.append("ended", {"state": state, "reason": "", "num_epochs": len(values)}, number)
