"""The tuners that tunekit is compared with: Optuna, Ray Tune and Syne Tune, each with its own code, for `simulator.py`.

They draw whole numbers along the grid's axes, as tunekit does. Where a peer proposes what it has seen the end of, the
repeat is free: it is told what it was told before, as Optuna's FAQ does, and asked again. In a continuous space there
would be no such repeats; here they would cost whole trials. A network that diverged has no accuracy to tunekit, which
looks at its outputs; the peers' loops are given that of chance, so that their schedulers can stop it.
"""

import math
import warnings
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from curves import METRIC, Curves
from simulator import Job

CHANCE = 0.1  # what the largest of ten outputs that are NaN is right by
REPEATS = 20  # free ones in a row, after which one is trained


class Repeating:
    """What peers have in common: no more trials than the table has configs, and repeats of ended ones for free."""

    def __init__(self, curves: Curves, free_repeats: bool, max_trials: int) -> None:
        self.curves, self.free_repeats, self.max_trials = curves, free_repeats, min(max_trials, len(curves))
        self.configs: dict[int, int] = {}  # of the trials that were trained
        self.ends: dict[int, tuple[bool, float]] = {}  # config -> (stopped, its last value)
        self.asked = 0

    def ask(self) -> Job | None:
        """Propose what was not seen yet, if the peer does so within REPEATS."""
        if len(self.configs) >= self.max_trials:
            return None
        for attempt in range(REPEATS + 1):
            number, config = self.asked, self.curves.number(self.suggest(self.asked))
            self.asked += 1
            if not self.free_repeats or config not in self.ends or attempt == REPEATS:
                break
            self.repeat(number, *self.ends[config])
        self.configs[number] = config
        return Job(number, config)

    def tell(self, trial: int, epoch: int, value: float) -> bool:
        """Ask the peer."""
        value = value if math.isfinite(value) else CHANCE
        stopped = self.report(trial, epoch, value)
        if stopped or epoch == self.curves.max_epochs:
            self.ends[self.configs[trial]] = stopped, value
            return True
        return False


class OptunaPeer(Repeating):
    """Optuna's TPE as it comes (from Optuna 5 on: multivariate, with a constant liar), with one of its pruners.

    In its ask-and-tell loop.
    """

    def __init__(
        self, curves: Curves, seed: int, pruner: str, free_repeats: bool = True, max_trials: int = 1_000
    ) -> None:
        super().__init__(curves, free_repeats, max_trials)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruners = {
            "median": optuna.pruners.MedianPruner,
            "hyperband": lambda: optuna.pruners.HyperbandPruner(max_resource=curves.max_epochs),
        }
        self.study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed), pruner=pruners[pruner](),
            study_name=f"seed {seed}",  # by which HyperbandPruner deals brackets
        )  # fmt: skip
        self.trials: dict[int, optuna.Trial] = {}

    def suggest(self, number: int) -> dict[str, int]:
        """Ask the study for a trial."""
        self.trials[number] = trial = self.study.ask()
        return {name: trial.suggest_int(name, 0, last) for name, last in self.curves.bounds.items()}

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Report, and ask the pruner; a trial that ends tells its last value, as Optuna's PyTorch example does."""
        trial = self.trials[number]
        trial.report(value, epoch)
        if epoch == self.curves.max_epochs:
            self.repeat(number, False, value)
        elif trial.should_prune():
            self.repeat(number, True, value)
            return True
        return False

    def repeat(self, number: int, stopped: bool, value: float) -> None:
        """Tell how a trial ended."""
        if stopped:
            self.study.tell(self.trials[number], state=optuna.trial.TrialState.PRUNED)
        else:
            self.study.tell(self.trials[number], value)


class RayPeer(Repeating):
    """Ray Tune's own OptunaSearch and AsyncHyperBandScheduler, called as Ray's controller calls them, without Ray."""

    def __init__(
        self, curves: Curves, seed: int, factor: int, free_repeats: bool = True, max_trials: int = 1_000
    ) -> None:
        super().__init__(curves, free_repeats, max_trials)
        from ray import tune
        from ray.tune.schedulers import AsyncHyperBandScheduler
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        space = {name: tune.randint(0, last + 1) for name, last in curves.bounds.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.search = OptunaSearch(metric=METRIC, mode="max", seed=seed)
            self.search.set_search_properties(METRIC, "max", space)
        self.asha = AsyncHyperBandScheduler(
            metric=METRIC, mode="max", max_t=curves.max_epochs, grace_period=1, reduction_factor=factor
        )
        self.trials: dict[int, Any] = {}

    def suggest(self, number: int) -> dict[str, int]:
        """Ask the search algorithm; the scheduler hears of the trial."""
        params = self.search.suggest(str(number))
        self.trials[number] = SimpleNamespace(trial_id=str(number))
        self.asha.on_trial_add(None, self.trials[number])
        return params

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Do what `TuneController._process_trial_result` and `stop_trial` do."""
        trial, result = self.trials[number], {METRIC: value, "training_iteration": epoch}
        stops = self.asha.on_trial_result(None, trial, result) == "STOP"
        if stops:
            self.asha.on_trial_complete(None, trial, result)
            self.search.on_trial_complete(trial.trial_id, result=result)
        else:
            self.search.on_trial_result(trial.trial_id, result)
        return stops

    def repeat(self, number: int, stopped: bool, value: float) -> None:
        """Tell the search algorithm how a trial ended; the scheduler does not hear of it."""
        self.asha.on_trial_remove(None, self.trials[number])
        self.search.on_trial_complete(str(number), result={METRIC: value})


class SyneTunePeer(Repeating):
    """One of Syne Tune's asynchronous schedulers, called as its Tuner calls them, without its backend.

    It is no dependency: pip install syne-tune huggingface_hub; ASHACQR wants xgboost and statsmodels too.

    Args:
        curves, seed, free_repeats, max_trials: as for the others.
        name: of a class of `syne_tune.optimizer.baselines` that is given epochs: ASHA, BOHB or ASHACQR.
    """

    def __init__(
        self, curves: Curves, seed: int, name: str, free_repeats: bool = True, max_trials: int = 1_000
    ) -> None:
        super().__init__(curves, free_repeats, max_trials)
        from syne_tune.config_space import randint
        from syne_tune.optimizer import baselines

        np.random.seed(seed)  # brackets are drawn from it, though of one there is nothing to draw
        self.scheduler = getattr(baselines, name)(
            config_space={axis: randint(0, last) for axis, last in curves.bounds.items()}, metric=METRIC,
            do_minimize=False, time_attr="epoch", max_t=curves.max_epochs, random_seed=seed,
        )  # fmt: skip
        self.trials: dict[int, Any] = {}

    def suggest(self, number: int) -> dict[str, int]:
        """Ask the scheduler for a trial."""
        from syne_tune.backend.trial_status import Trial

        found = self.scheduler.suggest().config
        self.trials[number] = Trial(number, found, datetime.now())
        self.scheduler.on_trial_add(self.trials[number])
        return {name: int(found[name]) for name in self.curves.bounds}

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Report, and hear whether the trial stops."""
        stops = self.scheduler.on_trial_result(self.trials[number], {METRIC: value, "epoch": epoch}) == "STOP"
        if stops:
            self.scheduler.on_trial_remove(self.trials[number])
        return stops

    def repeat(self, number: int, stopped: bool, value: float) -> None:
        """Let its searcher hear of a trial's end; its rungs do not."""
        trial = self.trials[number]
        self.scheduler.on_trial_remove(trial)
        self.scheduler.searcher.on_trial_result(number, trial.config, -value, self.curves.max_epochs)
