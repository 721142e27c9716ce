"""How long trials are waited for that are no better than chance yet: there is nothing to forecast from before that.

Where trainings begin slowly, a trial goes straight on until it has begun, or its patience is used up, and then until it
is worse than half of the others were at that epoch.
"""

import statistics
from collections.abc import Mapping

from tunekit.forecasts import finite_max

SLOW = 2  # epochs: where half of the trials are no better than chance for so long
PATIENCE = 1.5  # times as many epochs as half of those that have begun took
LEAST_PATIENCE = 3  # epochs
BLIND_PATIENCE = 1 / 3  # of all epochs, where no trial has begun
NUM_OTHERS = 3  # that a trial is compared with


class Beginnings:
    """At which epoch each trial was first better than chance. Found on recorded curves of digits and MNIST.

    Args:
        max_epochs: the most a trial gets.
    """

    def __init__(self, max_epochs: int) -> None:
        self.max_epochs = max_epochs
        self.begun: dict[int, int] = {}
        self.given_way: set[int] = set()  # trials that used up their patience

    def hear(self, number: int, epoch: int, better: bool, num_trials: int) -> None:
        """Take in whether a trial's value was better than chance, and how many trials there were by then."""
        if better:
            self.begun.setdefault(number, epoch)
        if number in self.begun:
            self.given_way.discard(number)
        elif epoch >= self._patience(num_trials):
            self.given_way.add(number)

    def forget(self, number: int) -> None:
        """Forget a trial."""
        self.begun.pop(number, None)
        self.given_way.discard(number)

    @property
    def slow(self) -> bool:
        """Whether half of the trials that are better than chance by now were no better for a while."""
        return not self.begun or statistics.median(self.begun.values()) > SLOW

    def goes_straight_on(self, number: int, values: Mapping[int, list[float]]) -> bool:
        """Return whether a trial trains its next epoch whatever is forecast, where trainings begin slowly."""
        return self.slow and number not in self.given_way and not behind(number, values)

    def _patience(self, num_trials: int) -> float:
        """Return how many epochs a trial has to begin."""
        if self.begun:
            return max(LEAST_PATIENCE, PATIENCE * statistics.median(self.begun.values()))
        return max(
            BLIND_PATIENCE * self.max_epochs, num_trials + 1
        )  # as many as there are trials: wide as well as deep


def behind(number: int, values: Mapping[int, list[float]]) -> bool:
    """Return whether a trial is worse than half of the others were at its epoch."""
    epoch = len(values[number])
    others = [finite_max(seen[:epoch]) for n, seen in values.items() if n != number and len(seen) >= epoch]
    return len(others) >= NUM_OTHERS and max(values[number]) < statistics.median(others)
