"""Values as positions on an axis: what charts draw and importances are worked out on, words and numbers alike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunekit.safe_text import printable

LOG_FROM = 20  # numbers whose largest is so many times the smallest are drawn on their logarithm
FEW = 8  # so many numbers, each there more than once, are drawn as steps of one size


@dataclass(frozen=True)
class Axis:
    """One axis, and where each value lies on it.

    Args:
        name: what it shows.
        kind: "linear"; "log", whose positions are logarithms to base 10; "steps" or "words", whose positions are
            0, 1, 2, ...
        positions: one per value; None where the value is missing, as that of a key that a config does not have.
        ticks: (position, text), in order.
    """

    name: str
    kind: str
    positions: tuple[float | None, ...]
    ticks: tuple[tuple[float, str], ...]

    @property
    def is_numeric(self) -> bool:
        """Whether places between the ticks mean something."""
        return self.kind in ("linear", "log")

    @property
    def span(self) -> tuple[float, float]:
        """The lowest and the highest position of an axis that has any."""
        there = [position for position in self.positions if position is not None]
        return min(there), max(there)

    def only(self, places: Sequence[int]) -> "Axis":
        """Return the axis with some of its values."""
        return replace(self, positions=tuple(self.positions[place] for place in places))

    @property
    def varies(self) -> bool:
        """Whether not all values are the same one."""
        return len(set(self.positions)) > 1


def axis_of(name: str, values: Sequence[Any]) -> Axis:
    """Return the axis on which values lie: None and NaN lie nowhere; what is no number is a word.

    Example:
        >>> axis_of("lr", [0.001, 0.1, None]).positions
        (-3.0, -1.0, None)
        >>> axis_of("optimizer", ["sgd", "adam", "sgd"]).ticks
        ((0, 'adam'), (1, 'sgd'))
    """
    there = [value for value in values if not is_missing(value)]
    distinct = {in_figures(value) for value in there}
    numbers = bool(there) and all(is_number(value) for value in there)
    if not numbers or (len(distinct) <= FEW and len(distinct) < len(there)):
        known = sorted(set(there)) if numbers else sorted(distinct)
        at = {in_figures(value): place for place, value in enumerate(known)}
        places: tuple[float | None, ...] = tuple(
            None if is_missing(value) else at[in_figures(value)] for value in values
        )
        return Axis(name, "steps" if numbers else "words", places, tuple((p, text) for text, p in at.items()))
    log = min(there) > 0 and max(there) >= LOG_FROM * min(there)
    if not log:
        return linear_axis(name, [None if is_missing(value) else float(value) for value in values])
    logarithms = tuple(None if is_missing(value) else math.log10(value) for value in values)
    return Axis(name, "log", logarithms, tuple(_log_ticks(math.log10(min(there)), math.log10(max(there)))))


def linear_axis(name: str, values: Sequence[float | None]) -> Axis:
    """Return the axis of numbers that are compared with one another, whatever they are."""
    positions = tuple(None if is_missing(value) else value for value in values)
    there = [position for position in positions if position is not None]
    return Axis(name, "linear", positions, tuple(_linear_ticks(min(there), max(there))))


def is_missing(value: Any) -> bool:
    """Return whether a value is none at all: None, NaN or infinite."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def is_number(value: Any) -> bool:
    """Return whether a value is a number, which True is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def in_figures(value: Any) -> str:
    """Return a value as short as it is still told apart from its neighbours.

    Example:
        >>> in_figures(0.00123456), in_figures(True), in_figures(None)
        ('0.001235', 'true', 'none')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).lower() if value is None or isinstance(value, bool) else printable(value)


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return the powers of ten in a range, with 2 and 5 times each where these are few."""
    factors = (1, 2, 5) if high - low < 2 else (1,)
    marks = [(power + math.log10(f), f * 10.0**power) for power in range(math.floor(low), math.ceil(high) + 1)
             for f in factors]  # fmt: skip
    return [(at, f"{value:g}") for at, value in marks if low <= at <= high]


def _linear_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return some round numbers in a range."""
    if low == high:
        return [(low, f"{low:.4g}")]
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [(number * step, f"{number * step:.4g}") for number in range(first, last + 1)]
