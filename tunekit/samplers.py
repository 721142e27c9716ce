"""Searchers by name: Optuna's samplers, each as we set it up."""

import warnings
from collections.abc import Callable
from typing import Any

from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler

from tunekit.registry import Registry

KEEP_STATE = (CmaEsSampler, QMCSampler)  # in the study, of every draw

# name -> (seed of the experiment, seed of this proposal) -> sampler; None where it is none of Optuna's: see
# forecaster.py and grids.py
searchers: Registry[Callable[[int, int], BaseSampler] | None] = Registry("searcher")
searchers.register("forecast")(None)
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


def quietly(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call Optuna without its warnings of experimental options and of params it was given."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments)
