"""The proposer: which config to try next. Optuna's samplers, told everything the ledger holds and nothing else.

A proposal is a function of the seed, the trial's number and the ledger's events before it: the sampler is made anew,
seeded by (seed, number), for each. So a search that goes on after a crash proposes what it would have proposed.
"""

import itertools
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from tunekit.errors import SpaceError
from tunekit.events import Event
from tunekit.grids import grid_configs
from tunekit.registry import Registry
from tunekit.scores import is_better
from tunekit.space import Config, Space, draw_config, params_of
from tunekit.training import derive_seed

NUM_REDRAWS = 100  # of a config that was tried before, until the space counts as used up
MOST_GRID_CONFIGS = 100_000
KEEP_STATE = (CmaEsSampler, QMCSampler)  # in the study, of every draw

# name -> (seed of the experiment, seed of this proposal) -> sampler; None where configs are counted off, not drawn
searchers: Registry[Callable[[int, int], BaseSampler] | None] = Registry("searcher")
searchers.register("grid")(None)


@searchers.register("tpe")
def tpe(seed: int, proposal_seed: int) -> BaseSampler:
    """Tree-structured Parzen estimator over all parameters jointly, in each branch of a conditional space.

    Source: Bergstra et al. (NeurIPS 2011); Watanabe, arXiv:2304.11127.
    """
    return TPESampler(seed=proposal_seed, multivariate=True, group=True, constant_liar=True)


@searchers.register("gp")
def gp(seed: int, proposal_seed: int) -> BaseSampler:
    """Gaussian process with log expected improvement. It learns from finished trials only, not from stopped ones."""
    return GPSampler(seed=proposal_seed, warn_independent_sampling=False)


@searchers.register("cmaes")
def cmaes(seed: int, proposal_seed: int) -> BaseSampler:
    """Covariance matrix adaptation. It learns from finished trials only, and draws choices at random.

    Source: Hansen, arXiv:1604.00772.
    """
    return CmaEsSampler(seed=proposal_seed, warn_independent_sampling=False)


@searchers.register("qmc")
def qmc(seed: int, proposal_seed: int) -> BaseSampler:
    """Scrambled Sobol points: random search that leaves no gaps. Source: Bergstra and Bengio (JMLR 2012).

    In a conditional space the points lie in the default config's branch; the rest is drawn at random.
    """
    return QMCSampler(
        seed=seed,
        scramble=True,
        independent_sampler=RandomSampler(seed=proposal_seed),
        warn_asynchronous_seeding=False,
        warn_independent_sampling=False,
    )


@searchers.register("random")
def random(seed: int, proposal_seed: int) -> BaseSampler:
    """Independent draws."""
    return RandomSampler(seed=proposal_seed)


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

    def __init__(
        self, space: Space, searcher: str, metric: str, mode: str, seed: int, first: Sequence[tuple[str, Config]]
    ) -> None:
        self.space, self.searcher, self.metric, self.mode, self.seed = space, searcher, metric, mode, seed
        self.first = [(source, params_of(space, config)) for source, config in first]
        self.make_sampler = searchers[searcher]
        self.grid = list(self._grid()) if self.make_sampler is None else []
        self.heard: list[Event] = []
        self._begin()

    def _begin(self) -> None:
        """Start with an empty study."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(direction="maximize" if self.mode == "max" else "minimize")
        self.optuna_trials: dict[int, optuna.Trial] = {}
        self.last_values: dict[int, list[float]] = {}
        self.tried: set[str] = set()

    @property
    def num_proposed(self) -> int:
        """How many trials of the search have been proposed."""
        return len(self.optuna_trials)

    def hear(self, event: Event) -> None:
        """Take in one event of the ledger, in order."""
        self.heard.append(event)
        number = event.trial
        if event.kind == "proposed" and event.data["role"] == "search" and number not in self.optuna_trials:
            assert number is not None
            self._draw(number, event.data["source"], event.data["params"])
        elif number not in self.optuna_trials:
            return
        elif event.kind == "epoch" and self.metric in event.data:
            value = event.data[self.metric]
            value = value if math.isfinite(value) else math.nan
            self.optuna_trials[number].report(value, event.epoch or 0)
            self.last_values.setdefault(number, []).append(value)
        elif event.kind == "ended":
            self._tell(number, event.data["state"])

    def propose(self, number: int) -> tuple[str, dict[str, Any]] | None:
        """Return (source, params) of the next config, or None when every config of the space has been tried."""
        count, first = self.num_proposed, self.first if self.make_sampler else self.grid
        if count < len(first):
            source, params = first[count]
            return source, self._draw(number, source, params)
        if self.make_sampler is None:
            return None
        for attempt in range(NUM_REDRAWS):
            drawn = self._draw(number, self.searcher if attempt < 5 else "random", None, attempt)
            if _identity(drawn) not in self.tried:
                break
            self.study.tell(self.optuna_trials.pop(number), state=TrialState.FAIL)  # tried before: draw again
        else:
            drawn = self._untried()
            if not drawn:
                return None
        if attempt and isinstance(_quietly(self.make_sampler, 0, 0), KEEP_STATE):
            self._forget_draws()
        if number not in self.optuna_trials:
            self._draw(number, self.searcher, drawn)
        self.tried.add(_identity(drawn))
        return self.searcher, drawn

    def _draw(self, number: int, source: str, params: dict[str, Any] | None, attempt: int = 0) -> dict[str, Any]:
        """Ask Optuna for a trial: by its sampler, or with the params given."""
        seed = derive_seed(self.seed, "propose", number, attempt) % 2**32
        sampler: BaseSampler = RandomSampler(seed=seed)
        if self.make_sampler and source == self.searcher:
            made = _quietly(self.make_sampler, self.seed % 2**32, seed)
            sampler = made if params is None or isinstance(made, KEEP_STATE) else sampler
        if params is not None:
            self.study.enqueue_trial(params)
        self.study.sampler = sampler
        trial = _quietly(self.study.ask)
        _quietly(lambda: trial.relative_params)  # drawn even where the params are given: see KEEP_STATE
        _quietly(draw_config, self.space, lambda name, distribution: _suggest(trial, name, distribution))
        self.optuna_trials[number] = trial
        if params is not None:
            self.tried.add(_identity(trial.params))
        return trial.params

    def _forget_draws(self) -> None:
        """Make the study anew from what was heard, so that it is what it would be after a crash: without vain draws."""
        heard, self.heard = self.heard, []
        self._begin()
        for event in heard:
            self.hear(event)

    def _untried(self) -> dict[str, Any]:
        """Return a config of a small space that was not tried yet; a large one is used up after so many redraws."""
        try:
            for config in itertools.islice(grid_configs(self.space), MOST_GRID_CONFIGS):
                params = params_of(self.space, config)
                if _identity(params) not in self.tried:
                    return params
        except SpaceError:  # it holds a range
            pass
        return {}

    def _tell(self, number: int, state: str) -> None:
        trial, values = self.optuna_trials[number], self.last_values.pop(number, [])
        if state == "finished" and values:
            best = values[0]
            for value in values:
                best = value if is_better(value, best, self.mode) else best
            self.study.tell(trial, best)
        elif state in ("stopped", "diverged") and values:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, state=TrialState.FAIL)

    def _grid(self) -> Iterator[tuple[str, dict[str, Any]]]:
        configs = list(itertools.islice(grid_configs(self.space), MOST_GRID_CONFIGS + 1))
        if len(configs) > MOST_GRID_CONFIGS:
            raise SpaceError(f"the grid has over {MOST_GRID_CONFIGS:,} configs: leave some options out")
        seen = set()
        rest = (("grid", params_of(self.space, config)) for config in configs)
        for source, params in itertools.chain(self.first, rest):
            if _identity(params) not in seen:
                seen.add(_identity(params))
                yield source, params


def _quietly(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call Optuna without its warnings of experimental options and of params it was given."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments)


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    bounds = {"log": distribution.log, "step": distribution.step}  # type: ignore[attr-defined]
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, **bounds)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, **bounds)


def _identity(params: dict[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)
