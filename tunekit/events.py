"""What happens in an experiment, as events, and the trials that events make."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tunekit.scores import best_epoch, is_better

ENDED = ("finished", "stopped", "diverged", "failed")
UNSCORED = ("diverged", "failed")  # whose best value counts for nothing


class Event(NamedTuple):
    """One row of the ledger."""

    number: int
    time: float
    at_s: float
    kind: str
    trial: int | None
    epoch: int | None
    data: dict[str, Any]


@dataclass
class Trial:
    """One config trained, as the ledger has it.

    Args:
        number: from 0, in the order proposed.
        config: the values drawn, and the space's constants; params are the draws alone.
        role: "search", or "winner" or "default" for a trial that confirms.
        source: where the config came from: "default", "start_from", or the searcher's name.
        seed: what its random numbers come from.
        state: waiting, running, paused (others have their turn), finished, stopped (others promised more), diverged
            or failed.
        history: one dict of metrics per epoch.
        reason: why it was stopped, diverged or failed.
        node, node_id: the machine where it ran last, and Ray's name for it.
        num_retries: how often it was tried again.
        duration_s: how long it ran, over all its attempts.
        micro_batches: into how many parts each of its batches is split, as memory ran out in an earlier attempt.
    """

    number: int
    config: dict[str, Any]
    params: dict[str, Any]
    role: str = "search"
    source: str = ""
    seed: int = 0
    state: str = "waiting"
    history: list[dict[str, float]] = field(default_factory=list)
    reason: str = ""
    node: str = ""
    num_retries: int = 0
    duration_s: float = 0.0
    micro_batches: int = 1
    node_id: str = ""
    _running_since_s: float = 0.0

    @property
    def proposal(self) -> dict[str, Any]:
        """What was proposed: the data of its first event."""
        return {name: getattr(self, name) for name in ("config", "params", "role", "source", "seed")}

    @property
    def request(self) -> dict[str, Any]:
        """What a worker is asked for that goes on with this trial; see `trial.run_trial`."""
        epoch, micro_batches = len(self.history), self.micro_batches
        return {"trial": self.number, "proposal": self.proposal, "epoch": epoch, "micro_batches": micro_batches}

    def best_epoch(self, metric: str, mode: str) -> int | None:
        """Return the epoch (from 1) with the best value of a metric, the first of equals; None if none has one."""
        return best_epoch(self.history, metric, mode)

    def best_value(self, metric: str, mode: str) -> float | None:
        """Return a metric's best value over the epochs; None if none is finite."""
        epoch = self.best_epoch(metric, mode)
        return None if epoch is None else self.history[epoch - 1][metric]

    def score(self, metric: str, mode: str) -> float | None:
        """Return the best value, where it counts: None for a trial that diverged or failed, too."""
        return None if self.state in UNSCORED else self.best_value(metric, mode)

    def apply(self, event: Event) -> None:
        """Take in one later event of this trial."""
        if event.kind == "started":
            self.state, self.node, self._running_since_s = "running", event.data["node"], event.at_s
            self.node_id = event.data.get("node_id", "")
        elif event.kind == "epoch":
            self.history.append(event.data)
        elif event.kind in ("paused", "retry", "ended"):
            if self.state == "running":
                self.duration_s += event.at_s - self._running_since_s
            if event.kind == "paused":
                self.state = "paused"
                return
            self.state, self.reason = event.data.get("state", "waiting"), event.data.get("reason", "")
            self.num_retries += event.kind == "retry" and event.data["counts"]
            self.micro_batches = event.data.get("micro_batches", self.micro_batches)


def trials_from(events: Iterable[Event], trials: dict[int, Trial] | None = None) -> dict[int, Trial]:
    """Return the trials that events tell of, by number; `trials` is what earlier events told."""
    trials = {} if trials is None else trials
    for event in events:
        if event.kind == "proposed" and event.trial is not None:
            trials[event.trial] = Trial(event.trial, **event.data)
        elif event.trial is not None:
            trials[event.trial].apply(event)
    return trials


def winner_of(trials: dict[int, Trial], metric: str, mode: str) -> Trial | None:
    """Return the trial of the search with the best epoch; None if none came to a result.

    Trials that diverged or failed have no score. Of equals, the first wins.
    """
    best: Trial | None = None
    for _, trial in sorted(trials.items()):
        value = trial.score(metric, mode) if trial.role == "search" else None
        if value is not None and (best is None or is_better(value, best.score(metric, mode), mode)):
            best = trial
    return best
