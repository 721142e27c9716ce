"""Every combination of a space's options: what searcher="grid" tries, and what is left of a small space."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, IntDistribution

from tunekit.distributions import Choice, in_words
from tunekit.errors import SpaceError
from tunekit.space import Config, Space, without_name

MOST_WHOLE_NUMBERS = 1000  # of one range that a grid counts through


def grid_configs(space: Space) -> Iterator[Config]:
    """Yield every combination of the space's choices, the last name varying fastest.

    Raises:
        SpaceError: the space holds a continuous range.
    """

    def expand(space: Space) -> Iterator[Config]:
        parts = [[(key, option) for option in _every_value(key, value)] for key, value in space.items()]
        for combination in itertools.product(*parts):
            branches = [list(_branches(key, option, expand)) for key, option in combination]
            for parts_of_one in itertools.product(*branches):
                yield {key: value for part in parts_of_one for key, value in part.items()}

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
    if isinstance(value, BaseDistribution):
        raise SpaceError(
            f"{key} is {in_words(value)}, a range, of which searcher='grid' cannot try every value: write "
            f"{key}=grid([...]), or use another searcher"
        )
    return (value,)
