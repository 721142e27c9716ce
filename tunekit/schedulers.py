"""Schedulers: which running trials are worth going on with. Each is a rule over the values seen at each epoch.

The rules are ours rather than Ray Tune's, because theirs cannot be refilled after a crash, let NaN run to the end, and
draw brackets from a global random state. They reach Ray through its TrialScheduler.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tunekit.events import Event
from tunekit.registry import Registry
from tunekit.scores import is_better


class Scheduler(Protocol):
    """A rule. It hears every value in order, and says of the trial that gave it whether it should stop."""

    def hear(self, trial: int, epoch: int, value: float) -> bool:
        """Take in the value of a trial at the end of an epoch, higher is better; return whether to stop the trial."""


schedulers: Registry[Callable[[int], Scheduler]] = Registry("scheduler")


@schedulers.register("none")
class NoScheduler:
    """Every trial runs to its last epoch."""

    def __init__(self, max_epochs: int) -> None:
        pass

    def hear(self, trial: int, epoch: int, value: float) -> bool:
        """Never stop."""
        return False


@schedulers.register("asha")
class Asha:
    """Asynchronous successive halving: at each rung, only the best third of those that came so far goes on.

    Args:
        max_epochs: at which trials end anyway.
        grace_epochs: the first rung; the next are `factor` times as far each.
        factor: one in this many goes on.

    Source: Li et al., A system for massively parallel hyperparameter tuning, arXiv:1810.05934, algorithm 2, in its
    variant that stops (no trial waits to be promoted).
    """

    def __init__(self, max_epochs: int, grace_epochs: int = 1, factor: int = 3) -> None:
        self.factor = factor
        self.rungs: dict[int, dict[int, float]] = {}
        epoch = grace_epochs
        while epoch < max_epochs:
            self.rungs[epoch] = {}
            epoch *= factor

    def hear(self, trial: int, epoch: int, value: float) -> bool:
        """Stop the trial unless it is among the best of its rung so far."""
        if epoch not in self.rungs:
            return False
        rung = self.rungs[epoch]
        rung[trial] = value
        if len(rung) < self.factor:
            return False  # too few to tell: of one or two, the best third is nobody
        going_on = sorted(rung.values(), reverse=True)[: max(1, len(rung) // self.factor)]
        return value < going_on[-1]


@schedulers.register("hyperband")
class Hyperband:
    """Asynchronous Hyperband: trials are dealt to brackets of successive halving that start at different epochs.

    A bracket that stops trials early gets more of them, as in Hyperband, where each bracket costs about the same.

    Source: Li et al., Hyperband, arXiv:1603.06560; asynchronous brackets as in arXiv:1810.05934, section 3.
    """

    def __init__(self, max_epochs: int, factor: int = 3) -> None:
        num_rungs = 0
        while factor**num_rungs < max_epochs:
            num_rungs += 1
        self.brackets = [Asha(max_epochs, factor**skipped, factor) for skipped in range(max(num_rungs, 1))]
        shares = [factor**rungs_left / (rungs_left + 1) for rungs_left in range(num_rungs, 0, -1)] or [1]
        self.deal = [i for i, share in enumerate(shares) for _ in range(max(1, round(share / min(shares))))]

    def hear(self, trial: int, epoch: int, value: float) -> bool:
        """Ask the trial's bracket; dealing by number keeps it the same after a crash."""
        bracket = self.deal[
            trial * 7919 % len(self.deal)
        ]  # 7919: a prime, so that neighbours fall into unlike brackets
        return self.brackets[bracket].hear(trial, epoch, value)


@schedulers.register("median")
class Median:
    """Stop a trial whose best value so far is worse than the median of the others' averages up to that epoch.

    Args:
        max_epochs: at which trials end anyway.
        grace_epochs: how many epochs every trial gets.
        min_trials: how many others must have come as far.

    Source: Golovin et al., Google Vizier (KDD 2017), section 3.2.
    """

    def __init__(self, max_epochs: int, grace_epochs: int = 1, min_trials: int = 3) -> None:
        self.max_epochs, self.grace_epochs, self.min_trials = max_epochs, grace_epochs, min_trials
        self.values: dict[int, list[float]] = defaultdict(list)

    def hear(self, trial: int, epoch: int, value: float) -> bool:
        """Compare the trial with those that came as far."""
        self.values[trial].append(value)
        others = [sum(seen[:epoch]) / epoch for n, seen in self.values.items() if n != trial and len(seen) >= epoch]
        if not self.grace_epochs < epoch < self.max_epochs or len(others) < self.min_trials:
            return False
        others.sort()
        middle = len(others) // 2
        median = others[middle] if len(others) % 2 else (others[middle - 1] + others[middle]) / 2
        return max(self.values[trial]) < median


def find_scheduler(name: str) -> Callable[[int], Scheduler]:
    """Return a scheduler by its name.

    Args:
        name: of `schedulers`; or "asha(3, 2)": asha with its first rung at epoch 3, of which one in 2 goes on.

    Raises:
        UnknownNameError: no scheduler has this name.
    """
    parts = re.fullmatch(r"asha\((\d+), (\d+)\)", name) if isinstance(name, str) else None
    if parts is None or int(parts[1]) < 1 or int(parts[2]) < 2:
        return schedulers[name]
    return lambda max_epochs: Asha(max_epochs, int(parts[1]), int(parts[2]))


class Decisions:
    """What the rule, and the ends that no rule decides, say about each value; refilled from the ledger.

    Args:
        scheduler: a name of `schedulers`.
        max_epochs: the most epochs a trial gets.
        metric, mode: what is compared.
        events: what happened so far.

    Raises:
        UnknownNameError: no scheduler has this name.
    """

    def __init__(self, scheduler: str, max_epochs: int, metric: str, mode: str, events: Iterable[Event] = ()) -> None:
        self.rule = find_scheduler(scheduler)(max_epochs)
        self.metric, self.mode = metric, mode
        self.latest: dict[int, tuple[int, bool]] = {}
        search = set()  # the trials that confirm are not compared with
        for event in events:
            if event.kind == "proposed" and event.data["role"] == "search":
                search.add(event.trial)
            elif event.kind == "epoch" and event.trial in search:
                self.decide(event.trial or 0, event.epoch or 0, event.data[metric])

    def decide(self, trial: int, epoch: int, value: float) -> bool:
        """Return whether to stop a trial that reached `value` at `epoch`; asked again of an epoch, the same answer."""
        if not is_better(value, None, "max"):
            return False
        if self.latest.get(trial, (0, False))[0] != epoch:
            self.latest[trial] = epoch, self.rule.hear(trial, epoch, value if self.mode == "max" else -value)
        return self.latest[trial][1]


class RayScheduler(FIFOScheduler):
    """Ray Tune's scheduler: hands each of a trial's messages to the recorder, and stops the trial when told to.

    Args:
        record: takes a trial's number and its message, and returns whether the trial stops here.
    """

    def __init__(self, record: Callable[[int, dict[str, Any]], bool]) -> None:
        super().__init__()
        self.record = record
        self._added: dict[str, int] = {}  # each of Ray's trials, in which order

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        """Hear of a new trial."""
        self._added[trial.trial_id] = len(self._added)

    def choose_trial_to_run(self, controller: Any) -> Any:
        """Return the first of the trials that wait, without a look, as Ray's own, at all that there ever were."""
        waiting = [trial for trial in controller.get_live_trials() if trial.status == trial.PENDING]
        return min(waiting, key=lambda trial: self._added[trial.trial_id], default=None)

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Hear of a message from a worker; Ray waits for the answer before the trial goes on."""
        stop = self.record(trial.config["trial"], json.loads(result["message"]))
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE

    def __getstate__(self) -> dict[str, Any]:
        """Leave nothing for Ray to save: the ledger is what a search goes on from."""
        return {}
