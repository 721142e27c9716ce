"""Every combination of a space's options: what searcher="grid" tries, and what is left of a small space."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, IntDistribution

from tunekit.distributions import Choice, in_words
from tunekit.errors import SpaceError
from tunekit.space import Config, Space, without_name

MOST_GRID_CONFIGS = 100_000
MOST_WHOLE_NUMBERS = 1000  # of one range that a grid counts through


def grid_configs(space: Space) -> Iterator[Config]:
    """Yield every combination of the space's choices and small ranges of whole numbers, the last name varying fastest.

    Raises:
        SpaceError: the space holds a continuous range.

    Example:
        >>> from tunekit.distributions import choice, randint
        >>> [tuple(config.values()) for config in grid_configs({"a": choice(["none", "flip"]), "b": randint(1, 2)})]
        [('none', 1), ('none', 2), ('flip', 1), ('flip', 2)]
    """

    def expand(space: Space) -> Iterator[Config]:
        parts = [
            [part for option in _every_value(key, value) for part in _branches(key, option, expand)]
            for key, value in space.items()
        ]
        for combination in itertools.product(*parts):
            yield {key: value for part in combination for key, value in part.items()}

    return expand(space)


def _branches(key: str, option: Any, expand: Callable[[Space], Iterator[Config]]) -> Iterator[Config]:
    """Yield every config that one option of a grid leads to."""
    if not isinstance(option, dict):
        yield {key: option}
        return
    for nested in expand(without_name(option)):
        yield {key: option["name"], **nested}


def _every_value(key: str, value: Any) -> Sequence[Any]:
    if isinstance(value, Choice):
        return value.options
    if isinstance(value, IntDistribution) and (value.high - value.low) // value.step < MOST_WHOLE_NUMBERS:
        return range(value.low, value.high + 1, value.step)
    if isinstance(value, BaseDistribution):
        raise SpaceError(
            f"{key} is {in_words(value)}, a range, of which searcher='grid' cannot try every value: write "
            f"{key}=grid([...]), or use another searcher"
        )
    return (value,)
