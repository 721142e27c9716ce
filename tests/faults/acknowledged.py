"""What anybody could have seen of a search before it was killed: none of it may be missing, or another, afterwards."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import tunekit
from tunekit import paths
from tunekit.ledger import Ledger
from tunekit.scores import is_better

ENDED_LINE = re.compile(
    r"^trial (\d+) (?:finished|stopped|tried again) after (\d+) epochs: val_accuracy ([\d.]+)", re.M
)
EPOCH_LINE = re.compile(r"^epoch (\d+) of \d+: .*?val_accuracy ([\d.]+)", re.M)


class Acknowledged:
    """What anybody could have seen: every (trial, epoch) that the ledger held, or a line of output told of."""

    def __init__(self) -> None:
        self.epochs: dict[tuple[int, int], str] = {}
        self.printed_epochs: list[tuple[int, int, str]] = []
        self.printed_best: list[tuple[int, int, str]] = []

    def read(self, folder: Path) -> "Acknowledged":
        """Take in what a reader beside the running search sees."""
        if not paths.ledger_db(folder).exists():
            return self
        try:
            ledger = Ledger(folder)
        except tunekit.TunekitError:
            return self  # just being made
        try:
            for event in ledger.events():
                if event.kind == "epoch":
                    self._take((event.trial, event.epoch), event.data)
        finally:
            ledger.close()
        return self

    def read_copy(self, folder: Path, aside: Path) -> None:
        """Take in what a killed search has left, without touching it: SQLite writes when it opens such a file."""
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for path in folder.glob(f"{paths.ledger_db(folder).name}*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, aside)
        if paths.experiment_json(folder).exists():
            shutil.copy(paths.experiment_json(folder), aside)
        self.read(aside)

    def read_printed(self, output: Path) -> None:
        """Take in the lines that a command printed."""
        text = output.read_text(errors="replace")
        self.printed_best += [(int(n), int(epoch), value) for n, epoch, value in ENDED_LINE.findall(text)]
        self.printed_epochs += [(0, int(epoch), value) for epoch, value in EPOCH_LINE.findall(text)]

    def _take(self, key: tuple[Any, Any], data: dict[str, Any]) -> None:
        text = json.dumps(data, sort_keys=True)
        assert self.epochs.setdefault(key, text) == text, f"changed: trial {key[0]} epoch {key[1]} was {text} before"

    def check(self, events: list[Any], trials: dict[int, Any], metric: str, mode: str) -> None:
        """Check that all of it is in the ledger, once."""
        there = {(e.trial, e.epoch): json.dumps(e.data, sort_keys=True) for e in events if e.kind == "epoch"}
        lost = [key for key in self.epochs if key not in there]
        assert not lost, f"lost: acknowledged (trial, epoch) {lost[:5]}, {len(lost)} in all"
        changed = [key for key, text in self.epochs.items() if there[key] != text]
        assert not changed, f"lost: other values at (trial, epoch) {changed[:5]}, {len(changed)} in all"
        for number, epoch, _ in self.printed_epochs + self.printed_best:
            history = trials[number].history if number in trials else []
            assert len(history) >= epoch, f"lost: printed trial {number} epoch {epoch} is not in the ledger"
        for number, epoch, shown in self.printed_epochs:
            value = trials[number].history[epoch - 1][metric]
            assert f"{value:.4f}" == shown, f"lost: {shown} was printed of trial {number} epoch {epoch}, not {value}"
        for number, epoch, shown in self.printed_best:
            values = [
                metrics[metric] for metrics in trials[number].history[:epoch] if is_better(metrics[metric], None, mode)
            ]
            best = max(values) if mode == "max" else min(values)
            assert f"{best:.4f}" == shown, f"lost: {shown} was printed as the best of trial {number}, not {best}"
