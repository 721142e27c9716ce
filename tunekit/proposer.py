"""The proposer: which config to try next. Optuna's samplers, told everything the ledger holds and nothing else.

A proposal is a function of the seed, the trial's number and the ledger's events before it: the sampler is made anew,
seeded by (seed, number), for each. So a search that goes on after a crash proposes what it would have proposed.
"""

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState

from tunekit.candidates import identity, untried
from tunekit.encoding import Encoding
from tunekit.errors import SpaceError
from tunekit.events import Event
from tunekit.grids import MOST_GRID_CONFIGS, grid_configs
from tunekit.outcomes import outcome, reported
from tunekit.samplers import KEEP_STATE, quietly, searchers
from tunekit.space import Config, Space, draw_config, params_of
from tunekit.training import derive_seed

NUM_REDRAWS = 5  # of a config that was tried before, until one is drawn at random
NEW = -1  # whose turn it is: a new config's
# A sampler looks at no more than so many ended trials, so that its time does not grow with their number. The study is
# brought back to half of them now and then: the best, as many as TPE calls good at the most, and the newest.
MOST_KNOWN = 250
NUM_BEST = 25
TOLD = (TrialState.COMPLETE, TrialState.PRUNED)


class Proposer:
    """Proposes configs, one by one, knowing the events it has heard. Knows nothing of Ray.

    Args:
        space: which configs.
        searcher: a name of `searchers`.
        metric, mode: what is optimised.
        seed: of the experiment.
        first: configs to try first, each with what it is called in the ledger.

    Raises:
        UnknownNameError: no searcher has this name.
        SpaceError: a first config lies outside the space; searcher "grid" on a range, or on too many configs.
    """

    pauses = False  # whether trials take turns
    most_paused = 0  # at once

    def __init__(
        self, space: Space, searcher: str, metric: str, mode: str, seed: int, first: Sequence[tuple[str, Config]]
    ) -> None:
        self.space, self.searcher, self.metric, self.mode, self.seed = space, searcher, metric, mode, seed
        self.first = [(source, params_of(space, config)) for source, config in first]
        self.make_sampler = searchers[searcher]
        self.encoding = Encoding(space)
        self.grid = list(self._grid()) if self.make_sampler is None else []
        self.used_up = False  # whether every config of the space has been tried
        self.keeps_state = self.make_sampler is not None and isinstance(quietly(self.make_sampler, 0, 0), KEEP_STATE)
        self.heard: list[Event] = []
        self._begin()

    def _begin(self) -> None:
        """Start with an empty study."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = self._new_study()
        self.known: set[int] = set()  # the trials of the search that were proposed
        self.running: dict[int, tuple[optuna.Trial, dict[int, float]]] = {}  # not ended; with their values by epoch
        self.tried: set[str] = set()
        self.num_first = 0  # how many of the configs to try first have been tried
        self.forgot_at = 0

    def _new_study(self) -> optuna.Study:
        return optuna.create_study(direction="maximize" if self.mode == "max" else "minimize")

    @property
    def num_proposed(self) -> int:
        """How many trials of the search have been proposed."""
        return len(self.known)

    def hear(self, event: Event) -> None:
        """Take in one event of the ledger, in order."""
        if self.keeps_state:
            self.heard.append(event)
        number = event.trial
        if event.kind == "proposed" and event.data["role"] == "search" and number not in self.known:
            assert number is not None
            self._forget_old()
            self._draw(number, event.data["source"], event.data["params"])
        elif number not in self.running:
            return
        elif event.kind == "epoch" and self.metric in event.data:
            self._report(number, event.epoch or 0, reported(event.data[self.metric]))
        elif event.kind == "ended":
            self._tell(number, event.data["state"])

    def propose(self, number: int) -> tuple[str, dict[str, Any]] | None:
        """Return (source, params) of the next config, or None when every config of the space has been tried."""
        first = self.first if self.make_sampler else self.grid
        while self.num_first < len(first) and identity(first[self.num_first][1]) in self.tried:
            self.num_first += 1
        if self.num_first < len(first):
            source, params = first[self.num_first]
            self.num_first += 1
            return source, self._draw(number, source, params)
        if self.make_sampler is None:
            self.used_up = True
            return None
        self._forget_old()
        for attempt in range(NUM_REDRAWS):
            params = self._draw(number, self.searcher, None, attempt)
            if identity(params) not in self.tried:
                break
            self.study.tell(self.running.pop(number)[0], state=TrialState.FAIL)  # tried before: draw again
        else:
            random = np.random.default_rng(derive_seed(self.seed, "propose", number, NUM_REDRAWS))
            found = untried(self.encoding, self.tried, random)
            if found is None:
                self.known.discard(number)
                self.used_up = True
                return None
            params = found
        if attempt and self.keeps_state:
            self._forget_draws()
        if number not in self.running:
            self._draw(number, self.searcher, params)
        self.tried.add(identity(params))
        return self.searcher, params

    def turn(self, num_trials: int, busy: Collection[int]) -> int | None:
        """Return NEW while there are to be more trials: none pauses."""
        return NEW if self.num_proposed < num_trials and not self.used_up else None

    def takes_turns(self, number: int) -> bool:
        """Return whether a trial may pause: none does."""
        return False

    def given_up(self, busy: Collection[int]) -> list[int]:
        """Return the paused trials that are never to go on: there are none."""
        return []

    def num_epochs(self, num_trials: int) -> int | None:
        """Return how many epochs so many trials train in all: not known, as each ends when it ends."""
        return None

    def _draw(self, number: int, source: str, params: dict[str, Any] | None, attempt: int = 0) -> dict[str, Any]:
        """Ask Optuna for a trial: by its sampler, or with the params given."""
        seed = derive_seed(self.seed, "propose", number, attempt) % 2**32
        sampler: BaseSampler = RandomSampler(seed=seed)
        if self.make_sampler and source == self.searcher:
            made = quietly(self.make_sampler, self.seed % 2**32, seed)
            sampler = made if params is None or isinstance(made, KEEP_STATE) else sampler
        if params is not None:
            self.study.enqueue_trial(params)
        self.study.sampler = sampler
        trial = quietly(self.study.ask)
        quietly(lambda: trial.relative_params)  # drawn even where the params are given: see KEEP_STATE
        quietly(draw_config, self.space, lambda name, distribution: _suggest(trial, name, distribution))
        self.known.add(number)
        self.running[number] = trial, {}
        if params is not None:
            self.tried.add(identity(trial.params))
        return trial.params

    def _forget_draws(self) -> None:
        """Make the study anew from what was heard, so that it is what it would be after a crash: without vain draws."""
        heard, self.heard = self.heard, []
        self._begin()
        for event in heard:
            self.hear(event)

    def _forget_old(self) -> None:
        """Make the study anew of the best trials, the newest and those that run, each time it has grown too large."""
        count = self.num_proposed
        if self.keeps_state or count < MOST_KNOWN or count % (MOST_KNOWN // 2) or count == self.forgot_at:
            return
        self.forgot_at = count
        told = [trial for trial in self.study.get_trials(deepcopy=False) if trial.state in TOLD]
        best = {trial.number for trial in sorted(told, key=self._rank)[:NUM_BEST]}
        others = [trial.number for trial in told if trial.number not in best][NUM_BEST - MOST_KNOWN // 2 :]
        running, self.running = self.running, {}
        self.study = self._new_study()
        self.study.add_trials(trial for trial in told if trial.number in best.union(others))
        for number, (trial, values) in running.items():
            self._draw(number, "", trial.params)
            for epoch, value in values.items():
                self._report(number, epoch, value)

    def _rank(self, trial: optuna.trial.FrozenTrial) -> tuple[bool, int, float]:
        """Order trials as TPE does: the finished by value, then the stopped, by how far they came and by value."""
        finished = trial.state == TrialState.COMPLETE
        step = 0 if finished else trial.last_step or 0
        value = trial.value if finished else trial.intermediate_values.get(step, math.nan)
        if value is None or math.isnan(value):
            value = math.inf
        elif self.mode == "max":
            value = -value
        return not finished, -step, value

    def _report(self, number: int, epoch: int, value: float) -> None:
        trial, values = self.running[number]
        trial.report(value, epoch)
        values[epoch] = value

    def _tell(self, number: int, state: str) -> None:
        trial, values = self.running.pop(number)
        told, value = outcome(state, values, self.mode)
        self.study.tell(trial, value, told)

    def _grid(self) -> Iterator[tuple[str, dict[str, Any]]]:
        configs = list(itertools.islice(grid_configs(self.space), MOST_GRID_CONFIGS + 1))
        if len(configs) > MOST_GRID_CONFIGS:
            raise SpaceError(f"the grid has over {MOST_GRID_CONFIGS:,} configs: leave some options out")
        seen = set()
        rest = (("grid", params_of(self.space, config)) for config in configs)
        for source, params in itertools.chain(self.first, rest):
            if identity(params) not in seen:
                seen.add(identity(params))
                yield source, params


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    bounds = {"log": distribution.log, "step": distribution.step}  # type: ignore[attr-defined]
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, **bounds)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, **bounds)
