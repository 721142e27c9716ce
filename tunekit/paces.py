"""Where a learning rate stands among those of a space: by how far its config's steps move the weights, per image.

What momentum and batch size make of a learning rate is what decides how a training goes, so configs are alike whose
pace is.

Sources: SGD, lr / (1 - momentum) / batch_size: Smith and Le, A Bayesian perspective on generalization and stochastic
gradient descent, arXiv:1710.06451; Adam, lr / sqrt(batch_size): Malladi et al., On the SDEs and scaling rules for
adaptive gradient algorithms, arXiv:2205.10287.
"""

import itertools
import math
from typing import Any

from optuna.distributions import BaseDistribution

from tunekit.config import DEFAULTS
from tunekit.distributions import Choice, extremes, value_of
from tunekit.space import Config, Space

NUMBERS = ("lr", "batch_size", "momentum")
KEYS = (*NUMBERS, "optimizer")


class Paces:
    """The paces that a space's configs may come to.

    Args:
        space: which configs there are.
        axes: every draw of it, by name.
    """

    def __init__(self, space: Space, axes: dict[str, BaseDistribution]) -> None:
        self.fixed = {k: space[k] for k in KEYS if k in space and not isinstance(space[k], Choice | BaseDistribution)}
        self.drawn = [(name, key, axis) for name, axis in axes.items() if (key := name.rpartition("/")[2]) in KEYS]
        self.range = self._range()  # the slowest and the fastest, or None where no learning rate is drawn

    def share(self, name: str, params: dict[str, Any]) -> float | None:
        """Return where a draw lies among the paces by the logarithm, 0 to 1; None where it is no learning rate.

        What is fixed in one branch of the space is not counted: all of its configs share it.
        """
        if self.range is None or name.rpartition("/")[2] != "lr":
            return None
        found = {key: value_of(axis, params[name]) for name, key, axis in self.drawn if name in params}
        low, high = self.range
        return math.log(pace({**self.fixed, **found}) / low) / math.log(high / low)

    def _range(self) -> tuple[float, float] | None:
        values: dict[str, list[Any]] = {}
        for _, key, axis in self.drawn:
            if key in NUMBERS:
                values.setdefault(key, []).extend(extremes(axis))
        if "lr" not in values or not all(is_number(value) and value > 0 for value in values["lr"]):
            return None
        ends = {key: {min(numbers), max(numbers)} for key, found in values.items() if (numbers := _numbers(found))}
        paces = [pace({**self.fixed, **dict(zip(ends, at, strict=True))}) for at in itertools.product(*ends.values())]
        return (min(paces), max(paces)) if min(paces) < max(paces) else None


def pace(config: Config) -> float:
    """Return the learning rate that would move the weights as far per image at the default batch size, no momentum.

    Example:
        >>> pace({"lr": 0.01, "batch_size": 128, "momentum": 0.5})  # SGD: only it has momentum
        0.01
        >>> pace({"lr": 0.01, "batch_size": 256})
        0.005
    """
    lr, momentum, batch_size = (config.get(key, DEFAULTS[key]) for key in ("lr", "momentum", "batch_size"))
    smaller = DEFAULTS["batch_size"] / batch_size if is_number(batch_size) and batch_size > 0 else 1.0
    if "momentum" not in config and config.get("optimizer") != "sgd":
        return lr * math.sqrt(smaller)
    return lr * smaller / (1 - momentum if is_number(momentum) and 0 <= momentum < 1 else 1.0)


def is_number(value: Any) -> bool:
    """Return whether a value is a number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(values: list[Any]) -> list[Any]:
    return [value for value in values if is_number(value)]
