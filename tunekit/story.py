"""What happened in a search, and when: how the best value improved, and which trial ran where."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from tunekit.events import UNSCORED, Event, Trial, trials_from
from tunekit.scores import is_better


class Best(NamedTuple):
    """A value that was the best so far: after how many epochs in all, after how many seconds, and whose."""

    num_epochs: int
    at_s: float
    value: float
    trial: int


class Stint(NamedTuple):
    """A time in which a trial ran without a break, and how it ended: paused, retry, ended, cut off, or running."""

    trial: int
    node: str
    start_s: float
    end_s: float
    how: str


class Story:
    """What the events so far tell.

    Args:
        metric, mode: what best means.
    """

    def __init__(self, metric: str, mode: str) -> None:
        self.metric, self.mode = metric, mode
        self.trials: dict[int, Trial] = {}
        self.limits: dict[str, Any] = {}  # of the last session
        self.num_epochs = 0
        self.began = 0.0  # seconds since 1970
        self.now_s = 0.0  # how far the events go, in seconds that the search ran
        self.heard = 0
        self._done: list[Stint] = []
        self._rises: list[Best] = []  # of each trial above its own values before
        self._tops: dict[int, float] = {}
        self._going: dict[int, tuple[str, float]] = {}

    def hear(self, events: Iterable[Event]) -> None:
        """Take in later events, in order."""
        for event in events:
            if event.kind == "opened":
                self.began, self.limits = self.began or event.time, event.data
                for going in list(self._going):  # of a session that was killed
                    self._end(going, self.now_s, "cut off")
            self.heard, self.now_s = event.number, event.at_s
            trials_from([event], self.trials)
            number = event.trial
            if number is None:
                continue
            if event.kind == "started":
                self._end(number, event.at_s, "cut off")
                self._going[number] = event.data["node"], event.at_s
            elif event.kind in ("paused", "retry", "ended"):
                self._end(number, event.at_s, event.kind)
            elif event.kind == "epoch":
                self._epoch(event, self.trials[number])

    def _epoch(self, event: Event, trial: Trial) -> None:
        if trial.role != "search":
            return
        self.num_epochs += 1
        value = event.data.get(self.metric)
        if value is not None and is_better(value, self._tops.get(trial.number), self.mode):
            self._tops[trial.number] = value
            self._rises.append(Best(self.num_epochs, event.at_s, value, trial.number))

    def _end(self, number: int, at_s: float, how: str) -> None:
        if number in self._going:
            node, start_s = self._going.pop(number)
            self._done.append(Stint(number, node, start_s, at_s, how))

    @property
    def best(self) -> list[Best]:
        """How the best value improved, by the trials whose values count."""
        risen: list[Best] = []
        for each in self._rises:
            counts = self.trials[each.trial].state not in UNSCORED
            if counts and is_better(each.value, risen[-1].value if risen else None, self.mode):
                risen.append(each)
        return risen

    @property
    def stints(self) -> list[Stint]:
        """Every stint, in the order in which they began; those that go on end now."""
        going = [Stint(number, node, start_s, self.now_s, "running") for number, (node, start_s) in self._going.items()]
        return sorted([*self._done, *going], key=lambda stint: (stint.start_s, stint.trial))


def lanes(stints: Iterable[Stint]) -> tuple[list[str], list[int]]:
    """Return the places where trials ran side by side, and the place of each stint.

    The record knows the machine of each trial; which of its workers had it is read from what ran at the same time.

    Example:
        >>> times = [(0.0, 2.0), (1.0, 3.0), (2.5, 4.0)]
        >>> lanes(Stint(trial, "a", *time, "ended") for trial, time in enumerate(times))
        (['a 1', 'a 2'], [0, 1, 0])
    """
    until: dict[tuple[str, int], float] = {}  # (node, place of the node): when it is free
    taken = []
    for stint in stints:
        free = (place for (node, place), end_s in until.items() if node == stint.node and end_s <= stint.start_s)
        place = next(free, 1 + sum(node == stint.node for node, _ in until))
        until[stint.node, place] = stint.end_s
        taken.append((stint.node, place))
    order = sorted(until)
    return [f"{node} {place}" for node, place in order], [order.index(each) for each in taken]
