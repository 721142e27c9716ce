"""The distributions a space is made of: Optuna's own classes, a choice that may nest, and Ray Tune's, converted."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tunekit.errors import SpaceError
from tunekit.quantiles import alike, quantile, share_below

SMALLEST_SHARE = 1e-6  # how much is cut off at either end, where a normal distribution goes to infinity


class Choice(NamedTuple):
    """One of several options: values, functions, or dicts that hold a space of their own. Made by `choice`."""

    options: tuple[Any, ...]
    every: bool = False  # made by `grid`: each option must be tried

    @property
    def labels(self) -> tuple[Any, ...]:
        """What stands for each option in Optuna, in a config and in a table."""
        return tuple(label_of(option) for option in self.options)

    def option(self, label: Any) -> Any:
        """Return the option that a label stands for."""
        return self.options[self.labels.index(label)]


class TransformedDistribution(FloatDistribution):
    """A distribution that Optuna lacks: Optuna draws a share from 0 to 1, and a config gets the quantile at it.

    Args:
        parameters: of the distribution, as in `tunekit.quantiles`.

    Source: inverse transform sampling; L. Devroye, Non-Uniform Random Variate Generation (1986), chapter II.2.
    """

    def __init__(self, parameters: dict[str, Any]) -> None:
        super().__init__(SMALLEST_SHARE, 1 - SMALLEST_SHARE)
        self.parameters = parameters

    def share(self, value: Any) -> float:
        """Return the share that a value of the distribution is drawn by."""
        return min(max(share_below(self.parameters, value), self.low), self.high)

    def holds(self, value: Any) -> bool:
        """Return whether the value is one that can be drawn."""
        if "values" in self.parameters:
            pairs = zip(self.parameters["values"], self.parameters["probabilities"], strict=True)
            return any(alike(known, value) for known, probability in pairs if probability)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return alike(quantile(self.parameters, self.share(value)), value)


def value_of(distribution: BaseDistribution, drawn: Any) -> Any:
    """Return what a config gets for what Optuna drew.

    Example:
        >>> value_of(TransformedDistribution({"distribution": "q_normal", "mu": 64, "sigma": 16, "q": 8}), 0.9)
        88
    """
    return quantile(distribution.parameters, drawn) if isinstance(distribution, TransformedDistribution) else drawn


def drawn_for(distribution: BaseDistribution, value: Any) -> Any:
    """Return what Optuna must draw for a config to get a value, the reverse of `value_of`."""
    if isinstance(distribution, TransformedDistribution):
        return distribution.share(value)
    return label_of(value) if isinstance(distribution, CategoricalDistribution) else value


def extremes(distribution: Any) -> list[Any]:
    """Return the smallest and the largest value of a distribution; every one where they are listed; a constant itself.

    Example:
        >>> extremes(randint(1, 4)), extremes("sgd")
        ([1, 4], ['sgd'])
    """
    if not isinstance(distribution, BaseDistribution):
        return [distribution]
    if isinstance(distribution, TransformedDistribution) and "values" in distribution.parameters:
        return [value for value in distribution.parameters["values"] if distribution.holds(value)]
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    return [value_of(distribution, low), value_of(distribution, high)]


def uniform(low: float, high: float) -> FloatDistribution:
    """Return a uniform distribution of a float from low to high.

    Example:
        >>> uniform(0.0, 0.99)
        FloatDistribution(high=0.99, log=False, low=0.0, step=None)
    """
    return FloatDistribution(*_bounds("uniform", low, high))


def loguniform(low: float, high: float) -> FloatDistribution:
    """Return a distribution of a float from low (above 0) to high, uniform in its logarithm.

    Example:
        >>> loguniform(1e-4, 1e-1)
        FloatDistribution(high=0.1, log=True, low=0.0001, step=None)
    """
    if isinstance(low, int | float) and low <= 0:
        raise SpaceError(f"loguniform needs a low above 0, as its logarithm is taken, but low is {low}: use uniform")
    return FloatDistribution(*_bounds("loguniform", low, high), log=True)


def randint(low: int, high: int) -> IntDistribution:
    """Return a uniform distribution of a whole number from low to high, both possible.

    Example:
        >>> randint(1, 4)
        IntDistribution(high=4, log=False, low=1, step=1)
    """
    _bounds("randint", low, high)
    if int(low) != low or int(high) != high:
        raise SpaceError(f"randint needs whole numbers, but got {low} and {high}: use uniform")
    return IntDistribution(int(low), int(high))


def choice(options: Sequence[Any]) -> Choice:
    """Return a choice of one of the options: values, functions, or dicts with a "name" and distributions of their own.

    Example:
        >>> choice(["cnn", "lenet"]).labels
        ('cnn', 'lenet')
        >>> choice([{"name": "sgd", "momentum": uniform(0, 0.99)}, {"name": "adamw"}]).labels
        ('sgd', 'adamw')
    """
    return _make_choice(options, every=False)


def grid(options: Sequence[Any]) -> Choice:
    """Return a choice of which every option is tried; only searcher="grid" can promise that.

    Example:
        >>> grid([0.1, 0.01]).every
        True
    """
    return _make_choice(options, every=True)


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Return whether a distribution can give a value."""
    if isinstance(distribution, TransformedDistribution):
        return distribution.holds(value)
    if isinstance(distribution, CategoricalDistribution):
        choices = distribution.choices
        return any(value == known and isinstance(known, bool) == isinstance(value, bool) for known in choices)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    if getattr(distribution, "log", False) and value <= 0:
        return False  # Optuna would raise
    return distribution._contains(distribution.to_internal_repr(value))


def middle(distribution: Any) -> Any:
    """Return the middle of a range, of its logarithm where it is drawn by that; the first of choices."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    low, high, step = distribution.low, distribution.high, distribution.step
    value = math.sqrt(low * high) if distribution.log else (low + high) / 2
    value = low + round((value - low) / step) * step if step else value
    return int(value) if isinstance(distribution, IntDistribution) else value


def in_words(distribution: Any) -> str:
    """Return a distribution as a person would write it.

    Example:
        >>> in_words(loguniform(0.001, 0.1)), in_words(choice(["a", "b"]))
        ('loguniform(0.001, 0.1)', "choice(['a', 'b'])")
    """
    if isinstance(distribution, Choice | CategoricalDistribution):
        options = distribution.labels if isinstance(distribution, Choice) else distribution.choices
        return f"{'grid' if getattr(distribution, 'every', False) else 'choice'}({list(options)})"
    if isinstance(distribution, TransformedDistribution):
        named = [f"{key}={value}" for key, value in distribution.parameters.items() if key != "distribution"]
        return f"{distribution.parameters['distribution']}({', '.join(named)})"
    if isinstance(distribution, FloatDistribution | IntDistribution):
        kind = "randint" if isinstance(distribution, IntDistribution) else "uniform"
        step = f", step={distribution.step}" if distribution.step not in (None, 1) else ""
        return f"{'log' * distribution.log}{kind}({distribution.low:g}, {distribution.high:g}{step})"
    return repr(distribution)


def from_ray(key: str, value: Any) -> Any:
    """Convert Ray Tune's distributions, known by their module, so that Ray need not be imported to read a space."""
    if isinstance(value, dict) and set(value) == {"grid_search"}:
        return grid(value["grid_search"])
    if not type(value).__module__.startswith("ray.tune.search.sample"):
        return value
    kind, sampler = type(value).__name__, value.get_sampler()
    step, inner = getattr(sampler, "q", None), getattr(sampler, "sampler", sampler)
    log = type(inner).__name__.strip("_").startswith("LogUniform")
    if kind == "Categorical":
        return choice(list(value.categories))
    if kind == "Float" and type(inner).__name__.strip("_") in ("Uniform", "LogUniform") and not (log and step):
        low, high = _bounds(key, value.lower, value.upper)
        return FloatDistribution(low, high, log=log, step=step)
    if kind == "Integer" and not (log and step):  # Ray's upper bound is not itself drawn
        low, high = map(int, _bounds(key, value.lower, value.upper))
        return IntDistribution(low, high - (0 if step else 1), log=log, step=step or 1)
    steps = " in steps" if step else ""
    drawn = kind if sampler is None else f"{kind} drawn by {type(inner).__name__.strip('_')}{steps}"
    raise SpaceError(f"{key}: Ray Tune's {drawn} cannot be searched here; use uniform, loguniform, randint or choice")


def label_of(option: Any) -> Any:
    """Return what stands for an option in Optuna, in the ledger and in tables."""
    if isinstance(option, dict):
        return option["name"]
    if callable(option):
        return getattr(option, "__name__", type(option).__name__)
    return option


def _bounds(kind: str, low: Any, high: Any) -> tuple[float, float]:
    for bound in (low, high):
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
            raise SpaceError(f"{kind} needs two finite numbers, but got {low!r} and {high!r}")
    if low >= high:
        raise SpaceError(f"{kind} needs low below high, but got low={low} and high={high}")
    return low, high


def _make_choice(options: Sequence[Any], every: bool) -> Choice:
    word = "grid" if every else "choice"
    if isinstance(options, str | bytes | dict) or not isinstance(options, Sequence):
        raise SpaceError(f"{word} takes a list of options, but got {options!r}")
    if not options:
        raise SpaceError(f"{word} needs at least one option, but the list is empty")
    made = Choice(tuple(options), every)
    for option in options:
        if isinstance(option, dict) and not isinstance(option.get("name"), str):
            raise SpaceError(f"a dict in a {word} needs a 'name', which becomes its value, but {option!r} has none")
    labels = made.labels
    for label in labels:
        if labels.count(label) > 1:  # True and 1 are equal, and Optuna could not tell them apart
            raise SpaceError(f"{word} holds {label!r} twice: {list(labels)}")
    return made
