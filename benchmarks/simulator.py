"""A search replayed from a table of learning curves: workers that take simulated time, and a tuner that is asked.

The simulated clock runs on the seconds that each config's epochs took when they were recorded. What a tuner itself
needs to think is left out, for all alike.
"""

import heapq
from typing import NamedTuple, Protocol

from curves import Curves


class Job(NamedTuple):
    """What a tuner hands to a worker: a trial, which config it trains, and how many of its epochs are done already."""

    trial: int
    config: int
    done: int = 0


class Tuner(Protocol):
    """A searcher with its scheduler."""

    def ask(self) -> Job | None:
        """Return what an idle worker is to train, or None if there is nothing for it now."""

    def tell(self, trial: int, epoch: int, value: float) -> bool:
        """Take in a trial's value at the end of an epoch; return whether the trial leaves its worker."""


class Outcome(NamedTuple):
    """What a search cost until the target was reached, or until its end where it was not.

    Args:
        reached: whether it was.
        epochs: trained until then, over all trials.
        seconds: simulated.
        trials: begun.
    """

    reached: bool
    epochs: int
    seconds: float
    trials: int


def simulate(curves: Curves, tuner: Tuner, workers: int) -> Outcome:
    """Run a search until a trial comes within 0.5 % of the table's best, or nothing is left to train.

    An epoch counts when it ends; the tuner hears it then, and idle workers ask at once. A trial's epoch that ends first
    is heard first, those that end together in the order in which they began.
    """
    running: list[tuple[float, int, Job]] = []  # (when its epoch ends, which began first, the trial as it then is)
    order = epochs = trials = idle = 0
    now = 0.0

    def begin(job: Job) -> None:
        nonlocal order
        order += 1
        heapq.heappush(running, (now + curves.seconds[job.config], order, job._replace(done=job.done + 1)))

    idle = workers
    while True:
        while idle and (job := tuner.ask()) is not None:
            trials += job.done == 0
            idle -= 1
            begin(job)
        if not running:
            return Outcome(False, epochs, now, trials)
        now, _, job = heapq.heappop(running)
        epochs += 1
        value = float(curves.accuracy[job.config, job.done - 1])
        if value >= curves.target:
            return Outcome(True, epochs, now, trials)
        if tuner.tell(job.trial, job.done, value):
            idle += 1
        else:
            begin(job)
