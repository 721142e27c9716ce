"""Configs as points: each parameter of a space as one number from 0 to 1, or as one per option."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from tunekit.distributions import Choice
from tunekit.paces import Paces, is_number
from tunekit.space import Space, draw_config, without_name

NEAR = 0.2  # the largest standard deviation of a neighbour's numbers, as a share of their range


class Encoding:
    """How the draws of a space become points, and points are drawn.

    A range is one column, 0 to 1, by the logarithm where it is drawn by that; a choice among numbers is one too, by
    their order; any other choice has a column per option. What a config does not have stands in the middle. A learning
    rate's column is that of its config's pace: see `paces`.

    Args:
        space: which configs there are.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.axes = dict(_every_draw(space))
        self.widths = {name: _width(distribution) for name, distribution in self.axes.items()}
        # (columns,), the parameter that each belongs to
        self.groups = np.repeat(np.arange(len(self.widths)), list(self.widths.values()))
        self.paces = Paces(space, self.axes)

    def point(self, params: dict[str, Any]) -> np.ndarray:
        """Return a config's point, float64 (columns,)."""
        numbers: list[float] = []
        for name, distribution in self.axes.items():
            width = self.widths[name]
            if name not in params:
                numbers += [0.5] if width == 1 else [0.0] * width
            elif width > 1:
                at = _options(distribution).index(params[name])
                numbers += [math.sqrt(0.5) if option == at else 0.0 for option in range(width)]
            else:
                share = self.paces.share(name, params)
                numbers.append(_share(distribution, params[name]) if share is None else share)
        return np.array(numbers)

    def config(self, shares: Iterable[float]) -> dict[str, Any]:
        """Return the draws that lie so far along each of `axes`, 0 to 1; those of branches not taken are left out."""
        share_of = dict(zip(self.axes, shares, strict=True))
        params: dict[str, Any] = {}

        def one(name: str, distribution: BaseDistribution) -> Any:
            params[name] = _value(distribution, share_of[name])
            return params[name]

        draw_config(self.space, one)
        return params

    def draw(self, random: np.random.Generator, near: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return a config's draws: independent, or close to another's."""
        shares = random.random(len(self.axes))
        for i, (name, distribution) in enumerate(self.axes.items() if near else ()):
            if name not in near:  # type: ignore[operator]  # not None here
                continue
            at = _share(distribution, near[name])  # type: ignore[index]
            if self.widths[name] == 1:
                shares[i] = min(max(at + shares[i] * NEAR * random.standard_normal(), 0.0), 1.0)
            elif random.random() > 1 / len(self.axes):  # most have the same option; numbers all move
                shares[i] = at
        return self.config(shares)


def _every_draw(space: Space, prefix: str = "") -> Iterator[tuple[str, BaseDistribution]]:
    """Yield every name and distribution that `draw_config` may ask for, in all branches."""
    for key, value in space.items():
        if isinstance(value, Choice):
            yield prefix + key, CategoricalDistribution(value.labels)
            for option in value.options:
                if isinstance(option, dict):
                    yield from _every_draw(without_name(option), f"{prefix}{key}={option['name']}/")
        elif isinstance(value, BaseDistribution):
            yield prefix + key, value


def _width(distribution: BaseDistribution) -> int:
    if isinstance(distribution, CategoricalDistribution) and not all(map(is_number, distribution.choices)):
        return len(distribution.choices)
    return 1


def _options(distribution: Any) -> list[Any]:
    """Return the options of a choice: in order, where all are numbers."""
    options: list[Any] = list(distribution.choices)
    return sorted(options) if _width(distribution) == 1 else options


def _share(distribution: Any, value: Any) -> float:
    """Return where a value lies in its range or among its options, 0 to 1; `_value` gives it back."""
    if isinstance(distribution, CategoricalDistribution):
        options = _options(distribution)
        return options.index(value) / max(1, len(options) - 1)
    low, high = distribution.low, distribution.high
    if distribution.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / ((high - low) or 1)


def _value(distribution: Any, share: float) -> Any:
    """Return the value that lies so far along its range or among its options; each is as likely as any other."""
    if isinstance(distribution, CategoricalDistribution):
        options = _options(distribution)
        return options[min(int(share * len(options)), len(options) - 1)]
    low, high, step = distribution.low, distribution.high, distribution.step
    room = step / 2 if step else 0.0  # so that the ends are as likely as the rest
    if distribution.log:
        least = math.log(max(low - room, low / 2))
        value = math.exp(least + share * (math.log(high + room) - least))
    else:
        value = low - room + share * (high - low + 2 * room)
    if step:
        value = low + round((value - low) / step) * step
    value = min(max(value, low), high)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)
