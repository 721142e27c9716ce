"""How long a search would take: played through with invented scores, many times, at the pace that was measured.

Which trials a scheduler stops, and which configs a searcher comes to prefer, depends on scores that nobody has yet.
They are drawn: one normal number for each trial, and BETTER more for configs of the kind that did best while it was
measured. Searchers that learn propose that kind more often. Everything else is as in the search: the scheduler's own
rule, the searcher's number of epochs, one trial for each slot.
"""

import heapq
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunekit.asked import Asked
from tunekit.candidates import identity, untried
from tunekit.config import complete
from tunekit.costs import Cost, Measured, kind_of
from tunekit.encoding import Encoding
from tunekit.schedulers import find_scheduler
from tunekit.space import Config, draw_config

LEARN = ("forecast", "tpe", "gp", "cmaes")  # searchers whose later configs are like the best of those before
PREFERRED = 0.5  # of their configs, beside those that come as the space has them; 14 of 20 were `cnn` on digits
BETTER = 1.0  # standard deviations, for the kind of config that did best while it was measured
GAIN = 0.01  # of the score, an epoch: everything learns
MOST_TIMES, MOST_TRIALS = 20, 2000  # a search is played through, and trials in all, of which there is a mean


@dataclass(frozen=True)
class Expected:
    """What a search comes to, by the mean: seconds from its first trial to the last one's end, epochs and trials."""

    training_s: float
    num_epochs: float
    num_trials: int


def expected(
    asked: Asked, measured: Measured, num_trials: int, slots: int, confirm: int = 0, budget_s: float | None = None
) -> Expected:
    """Return what a search comes to with so many trials side by side.

    Args:
        asked: what is searched, and how.
        measured: on this machine.
        num_trials: of the search; a grid has its own number, and a small space no more than it holds.
        slots: trials side by side.
        confirm: on how many seeds winner and default config are trained again.
        budget_s: after which no further epoch begins; None is no limit.
    """
    proposer = asked.proposer()
    num_trials = len(proposer.grid) or num_trials
    times = max(3, min(MOST_TIMES, MOST_TRIALS // num_trials))
    played = [
        _Play(asked, measured, num_trials, slots, np.random.default_rng(number)).play(
            proposer.num_epochs(num_trials), confirm, budget_s
        )
        for number in range(times)
    ]
    seconds, epochs, trials = (statistics.mean(values) for values in zip(*played, strict=True))
    return Expected(seconds, epochs, round(trials))


class _Play:
    """One search, played through."""

    def __init__(
        self, asked: Asked, measured: Measured, num_trials: int, slots: int, random: np.random.Generator
    ) -> None:
        self.asked, self.measured, self.random = asked, measured, random
        known = {kind: cost.value for kind, cost in measured.costs.items() if cost.value is not None}
        sign = 1 if asked.mode == "max" else -1
        self.best = max(known, key=lambda kind: sign * known[kind]) if known else ""
        self.configs = self._drawn(num_trials)
        self.scores = [
            random.standard_normal() + BETTER * (kind_of(config, asked) == self.best) for config in self.configs
        ]
        self.free = [(0.0, slot) for slot in range(slots)]  # when each slot is, in seconds; a heap
        self.featured: set[str] = set()  # the kinds whose frozen features there are
        self.num_epochs = 0

    def play(self, most_epochs: int | None, confirm: int, budget_s: float | None) -> tuple[float, int, int]:
        """Return (seconds, epochs, trials)."""
        budget_s = float("inf") if budget_s is None else max(0.0, budget_s - self.measured.begin_s)
        if most_epochs is None:
            self._straight(self.configs, budget_s)
        else:
            self._in_turns(most_epochs, budget_s)
        if confirm:
            self._wait_for_all()
            default = self.configs[0]
            winner = self.configs[int(np.argmax(self.scores))]
            if winner != default:
                self._straight([winner] * confirm + [default] * confirm, budget_s, lambda *_: False)
        return max(at for at, _ in self.free), self.num_epochs, len(self.configs)

    def _straight(self, configs: list[Config], budget_s: float, hear: Callable[..., bool] | None = None) -> None:
        """Each trial goes on until the scheduler stops it, all of them in the order of time."""
        hear = hear or find_scheduler(self.asked.scheduler)(self.asked.max_epochs).hear
        waiting = list(enumerate(configs))[::-1]
        going: list[tuple[float, int, int]] = []  # when a trial's epoch ends, which trial, which epoch
        slots, at = len(self.free), min(self.free)[0]
        while waiting or going:
            while waiting and len(going) < slots:
                trial, config = waiting.pop()
                heapq.heappush(going, (at + self._begin_s(config) + self._epoch_s(config), trial, 1))
            at, trial, epoch = heapq.heappop(going)
            self.num_epochs += 1
            if at >= budget_s:
                waiting.clear()
                going.clear()
            elif epoch < self.asked.max_epochs and not hear(trial, epoch, self.scores[trial] + GAIN * epoch):
                heapq.heappush(going, (at + self.measured.between_s + self._epoch_s(configs[trial]), trial, epoch + 1))
        self.free = [(at, slot) for slot in range(slots)]

    def _in_turns(self, most_epochs: int, budget_s: float) -> None:
        """Every trial has an epoch; those that promise most have the rest."""
        order = sorted(range(len(self.configs)), key=lambda trial: -self.scores[trial])
        left = max(0, most_epochs - len(order))
        turns = list(range(len(order)))
        for trial in order:
            turns += [trial] * min(left, self.asked.max_epochs - 1)
            left -= min(left, self.asked.max_epochs - 1)
        heapq.heapify(self.free)
        for trial in turns:
            at, slot = heapq.heappop(self.free)
            if at < budget_s:
                at += self._begin_s(self.configs[trial]) + self._epoch_s(self.configs[trial])
                self.num_epochs += 1
            heapq.heappush(self.free, (at, slot))

    def _wait_for_all(self) -> None:
        last = max(at for at, _ in self.free)
        self.free = [(last, slot) for _, slot in self.free]

    def _epoch_s(self, config: Config) -> float:
        cost, images = self._cost(config), self.asked.dataset.num_images
        return cost.epoch_s(images["train"], images["val"], complete(config)["batch_size"]) if cost else 0.0

    def _begin_s(self, config: Config) -> float:
        """Return the seconds from a slot's being free to a first step: the choice, a frozen backbone's features."""
        kind, cost = kind_of(config, self.asked), self._cost(config)
        images = self.asked.dataset.num_images
        features_s = cost.begin_image_s * (images["train"] + images["val"]) if cost and kind not in self.featured else 0
        whole = complete(config)
        if whole["pretrained"] or callable(whole["backbone"]):
            self.featured.add(kind)  # shared by all trials; weights drawn from a trial's seed are its own
        return self.measured.decide_s + self.measured.turn_s + features_s

    def _cost(self, config: Config) -> Cost | None:
        """Return what a config takes; nothing for kinds of which every trial failed."""
        return self.measured.costs.get(kind_of(config, self.asked))

    def _drawn(self, num_trials: int) -> list[Config]:
        """Return the configs of a search: those that are tried first, then any, of learning searchers the best kind."""
        proposer, space = self.asked.proposer(), self.asked.space

        def config_of(params: dict[str, Any]) -> Config:
            return draw_config(space, lambda name, _: params[name])

        first = [params for _, params in (proposer.grid or proposer.first)][:num_trials]
        configs, tried = [config_of(params) for params in first], {identity(params) for params in first}
        encoding = Encoding(space)
        while len(configs) < num_trials and not proposer.grid:
            wanted = self.asked.searcher in LEARN and self.random.random() < PREFERRED
            found = untried(encoding, tried, self.random)
            for _ in range(len(self.measured.costs) * 5 if wanted else 0):
                if found is None or kind_of(config_of(found), self.asked) == self.best:
                    break
                found = untried(encoding, tried, self.random)
            if found is None:
                break  # the space holds no more
            tried.add(identity(found))
            configs.append(config_of(found))
        return configs
