"""Searcher "forecast": trials take turns, an epoch each, and whose end promises most goes on, be it a new config's.

After every epoch it is worked out again how each paused trial would end, and each of many new configs: the one whose
value at the last epoch is expected to improve most on the best seen so far trains the next epoch.

Where trainings begin slowly, there is nothing to forecast from at first: see beginnings.py.

Sources: one epoch at a time, Wistuba, Kadra and Grabocka, DyHPO, arXiv:2202.09774; the middle of the space first, Song
et al., The Vizier Gaussian process bandit algorithm, arXiv:2408.11527; the forecast: see forecasts.py.
"""

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

from tunekit.beginnings import Beginnings, behind
from tunekit.candidates import Candidate, Candidates, identity
from tunekit.encoding import Encoding
from tunekit.events import Event
from tunekit.forecasts import Forecast, Points, expected_improvement, finite_max, most_telling, scores_of
from tunekit.pausing import LEAST_PAUSED
from tunekit.proposer import NEW
from tunekit.space import Config, Space, params_of

STEADFAST = 3  # times as much as the trial that trained last has another to promise, to take its turn
NUM_FIRST = 4  # configs that are seen for an epoch before anything is forecast, spread evenly
NUM_BEST = 3  # configs whose neighbours are looked at
ANY_EVERY = 6  # of so many configs one is any, so that a forecast that is wrong comes out
MOST_KNOWN = 300  # trials that have ended, before half of them are forgotten
REFIT_EVERY = 5  # values
FACTOR = 3  # of successive halving, whose number of epochs a search gets
LASTING = 0.25  # of the epochs that the best still needs to its end: left for each of the trials that go on at once

Turn = tuple[int | None, dict[str, Any] | None]  # as `Forecaster.turn` has it, and the draws of a new config


class Forecaster:
    """Proposes configs, and says whose turn it is, knowing the events it has heard. Knows nothing of Ray.

    Args:
        space: which configs.
        metric, mode: what is optimised.
        seed: of the experiment.
        first: configs to try first, each with what it is called in the ledger.
        max_epochs: the most epochs a trial gets.
        chance: what a model that has learned nothing may get; values no better than this are as good as one another.
        most_paused: trials that may wait for their turn, as each keeps its checkpoints.

    Raises:
        SpaceError: a first config lies outside the space.
    """

    searcher = "forecast"
    pauses = True
    grid: Sequence[Any] = ()

    def __init__(
        self, space: Space, metric: str, mode: str, seed: int, first: Sequence[tuple[str, Config]], max_epochs: int,
        chance: float | None = None, most_paused: int = LEAST_PAUSED,
    ) -> None:  # fmt: skip
        self.space, self.metric, self.sign, self.seed = space, metric, 1 if mode == "max" else -1, seed
        self.first = [(source, params_of(space, config)) for source, config in first]
        self.max_epochs, self.most_paused = max_epochs, most_paused
        self.beginnings = Beginnings(max_epochs)
        self.chance = -math.inf if chance is None else self.sign * chance
        self.encoding = Encoding(space)
        self.first.append((self.searcher, self.encoding.config([0.5] * len(self.encoding.axes))))  # the middle
        self.num_proposed, self.num_seen = 0, 0  # trials of the search, and epochs of theirs
        self.used_up = False  # whether every config of the space has been tried
        self.params: dict[int, dict[str, Any]] = {}  # of the trials that are remembered
        self.points: dict[int, np.ndarray] = {}
        self.values: dict[int, list[float]] = {}  # by epoch, higher is better
        self.seen: list[tuple[int, int]] = []  # (trial, epoch) in the order in which they were heard
        self.ended: set[int] = set()
        self.candidates, self.finished = Candidates(self.encoding, seed), False  # whether some trial came to its end
        self.fitted: tuple[int, Forecast] | None = None  # on how many values
        self.hopes: dict[int, float] = {}  # by how much each paused trial was last expected to improve on the best
        self.chosen: tuple[Any, Turn] | None = None  # what was asked, since something was heard, and the answer

    def hear(self, event: Event) -> None:
        """Take in one event of the ledger, in order."""
        number = event.trial
        if number is None or event.kind not in ("proposed", "epoch", "ended"):
            return
        self.chosen = None
        if event.kind == "proposed" and event.data["role"] == "search":
            self._take(number, event.data["params"])  # which it has already where it proposed them
        elif number not in self.params:
            return
        elif event.kind == "epoch" and self.metric in event.data:
            value = self.sign * event.data[self.metric]
            self.values[number].append(max(value, self.chance) if math.isfinite(value) else value)
            self.seen.append((number, len(self.values[number])))
            self.beginnings.hear(number, len(self.values[number]), value > self.chance, self.num_proposed)
            self.num_seen += 1
        elif event.kind == "ended":
            self.ended.add(number)
            self.finished |= event.data["state"] == "finished"
            if len(self.ended) >= MOST_KNOWN:
                self._forget()

    def propose(self, number: int) -> tuple[str, dict[str, Any]] | None:
        """Return (source, params) of the next config, or None when every config of the space has been tried."""
        if first := [pair for pair in self.first if identity(pair[1]) not in self.candidates.tried]:
            source, params = first[0]
        else:
            chosen = self.chosen[1][1] if self.chosen else None
            new = chosen or self._most_promising([], self._candidates(), frozenset())[1]
            if new is None:
                self.used_up, self.chosen = True, None
                return None
            source, params = self.searcher, new
        self._take(number, params)
        return source, params

    def turn(self, num_trials: int, busy: Collection[int]) -> int | None:
        """Return which paused trial goes on, NEW for a new config, or None when there is nothing to begin now.

        Args:
            num_trials: of the search, in all.
            busy: the trials that are being trained.
        """
        asked = num_trials, frozenset(busy)
        if self.chosen is None or self.chosen[0] != asked:
            self.chosen = asked, self._turn(*asked)
        return self.chosen[1][0]

    def takes_turns(self, number: int) -> bool:
        """Return whether a trial goes on when it is its turn: not before its first epoch, nor once its end is due."""
        values = () if number in self.ended else self.values.get(number, ())
        return 0 < len(values) < self.max_epochs and math.isfinite(values[-1])

    def given_up(self, busy: Collection[int]) -> list[int]:
        """Return the paused trials that promise least, where there are more than most_paused."""
        paused = [number for number in self.params if number not in busy and self.takes_turns(number)]
        slow = self.beginnings.slow
        paused.sort(key=lambda n: -math.inf if slow and behind(n, self.values) else self.hopes.get(n, math.inf))
        return paused[: max(0, len(paused) - self.most_paused)]

    def num_epochs(self, num_trials: int) -> int:
        """Return how many epochs so many trials train in all: as many as with successive halving.

        One trial trains all of its epochs, each of the others one, a third of them three, a ninth of them nine.
        """
        rungs = math.log(self.max_epochs, FACTOR)
        return self.max_epochs + math.ceil((num_trials - 1) * (1 + rungs * (1 - 1 / FACTOR)) - 1e-9)

    def _turn(self, num_trials: int, busy: frozenset[int]) -> Turn:
        missing = 0 if self.used_up else num_trials - self.num_proposed  # whose epochs go to the others
        left = self.num_epochs(num_trials) - self.num_seen - len(busy)
        paused = [number for number in self.params if number not in busy and self.takes_turns(number)]
        if missing and (left <= missing or self._blind):
            return NEW, None
        if left <= 0 and not missing:
            if self.finished or busy or not paused:
                return None, None
            return max(paused, key=lambda number: max(self.values[number])), None  # some trial comes to its end
        straight = [number for number in paused if self.beginnings.goes_straight_on(number, self.values)]
        if straight:
            return max(straight, key=lambda number: (len(self.values[number]), -number)), None
        if missing and self.num_proposed % ANY_EVERY == 0:
            return NEW, None
        candidates = self._candidates() if missing else []
        if missing and not candidates:
            return NEW, None  # which `propose` says there is none of
        return self._most_promising(paused if self._lasts(left - missing, busy) else [], candidates, busy)

    def _lasts(self, left: int, busy: frozenset[int]) -> bool:
        """Return whether another trial may go on: many at once use up the epochs before the best comes to its end."""
        going_on = [number for number in busy if self.values.get(number)]
        best = max(self.values, key=lambda number: finite_max(self.values[number]))
        return left >= LASTING * (self.max_epochs - len(self.values[best])) * len(going_on)

    def _take(self, number: int, params: dict[str, Any]) -> None:
        if number not in self.params:
            self.params[number], self.points[number], self.values[number] = params, self.encoding.point(params), []
            self.candidates.tried.add(identity(params))
            self.num_proposed += 1
            self.chosen = None

    def _forget(self) -> None:
        """Forget half of the trials that have ended, but the best, so that no choice takes longer than those before."""
        ranked = sorted(self.ended, key=lambda number: (-finite_max(self.values[number]), number))
        for number in ranked[MOST_KNOWN // 5 :: 2]:
            self.ended.remove(number)
            del self.params[number], self.points[number], self.values[number]
            self.hopes.pop(number, None)
            self.beginnings.forget(number)
        self.seen = [(number, epoch) for number, epoch in self.seen if number in self.params]
        self.fitted = None

    @property
    def _blind(self) -> bool:
        """Whether too little is known for a forecast."""
        return self.num_proposed < max(NUM_FIRST, len(self.first)) or len({number for number, _ in self.seen}) < 2

    def _candidates(self) -> list[Candidate]:
        """Return new configs: many, or one of those spread evenly, while there is no telling and now and then."""
        if self._blind or self.num_proposed % ANY_EVERY == 0:
            spread = self.candidates.spread(self.num_proposed)
            if spread is not None:
                return [spread]
        best = sorted((n for n in self.values if self.values[n]), key=lambda n: -finite_max(self.values[n]))[:NUM_BEST]
        near, known = [self.params[number] for number in best], list(self.points.values())
        return self.candidates.draw(self.num_proposed, near, known, since=self.num_proposed // ANY_EVERY)

    def _most_promising(self, paused: list[int], candidates: list[Candidate], busy: frozenset[int]) -> Turn:
        """Return the paused trial or the candidate whose end is expected to improve most on the best seen."""
        if not paused and not candidates:
            return None, None
        chosen = 0
        if not self._blind:
            forecast = self._forecast()
            seen, scores = self._known(len(self.seen))
            running = sorted(number for number in busy if number in self.params)
            if running:  # as if they had come to what is forecast of them
                next_epochs = [len(self.values[number]) + 1 for number in running]
                ahead = Points.of(running, [self.points[number] for number in running], next_epochs)
                scores = torch.cat([scores, forecast.predict(seen, scores, ahead)[0]])
                seen = seen.and_(ahead)
            trials = paused + [-1 - i for i in range(len(candidates))]
            points = [self.points[number] for number in paused] + [point for _, point in candidates]
            at = Points.of(trials, points, [self.max_epochs] * len(trials))
            gains = expected_improvement(*forecast.predict(seen, scores, at), scores.max())
            self.hopes.update(zip(paused, gains.tolist(), strict=False))
            if self.seen[-1][0] in paused:
                gains[paused.index(self.seen[-1][0])] *= STEADFAST
            chosen = int(gains.argmax())
        return (paused[chosen], None) if chosen < len(paused) else (NEW, candidates[chosen - len(paused)][0])

    def _forecast(self) -> Forecast:
        """Return what was fitted last: a function of what had been heard then, so that it is the same after a crash."""
        count = len(self.seen)
        count -= count % REFIT_EVERY if count > REFIT_EVERY else 0
        if self.fitted is None or self.fitted[0] != count:
            self.fitted = count, Forecast(self.encoding.groups, *self._known(count))
        return self.fitted[1]

    def _known(self, count: int) -> tuple[Points, torch.Tensor]:
        """Return the first so many values that were heard, with where: of many, the most telling."""
        kept = most_telling(self.seen[:count], self.values)
        points = Points.of([n for n, _ in kept], [self.points[n] for n, _ in kept], [e for _, e in kept])
        return points, scores_of([self.values[number][epoch - 1] for number, epoch in kept])
