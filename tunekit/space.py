"""The space: which configs a search may try. A plain dict of name to distribution, choice or constant.

A choice may hold dicts with distributions of their own, which is how a space is conditional: the chosen dict merges
into the config, and its "name" becomes the value.
"""

from collections.abc import Callable, Iterator
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from tunekit.distributions import (
    Choice,
    choice,
    contains,
    drawn_for,
    extremes,
    from_ray,
    in_words,
    label_of,
    middle,
    value_of,
)
from tunekit.errors import SpaceError
from tunekit.quantiles import alike

Config = dict[str, Any]
Space = dict[str, Any]
Draw = Callable[[str, BaseDistribution], Any]


def check_space(space: Any) -> Space:
    """Return the space with Ray Tune's distributions converted, or raise.

    Raises:
        SpaceError: it is no dict, is empty, an entry is none of distribution, choice and constant, or a config could
            get the same key from two places.
    """
    if not isinstance(space, dict) or not space:
        raise SpaceError(f"a space is a dict of name to distribution, choice or constant, and not empty; got {space!r}")
    checked = {}
    for key, value in space.items():
        checked[key] = _check_value(key, value, key)
    _check_once(checked, set())
    if not any(isinstance(value, Choice | BaseDistribution) for value in checked.values()):
        raise SpaceError(f"the space holds only constants ({', '.join(checked)}): nothing to search; use tunekit.train")
    return checked


def draw_config(space: Space, draw: Draw, prefix: str = "") -> Config:
    """Return a config: `draw(name, distribution)` is called for each distribution that the choices lead to.

    The name is the key, or in a nested space "optimizer=sgd/momentum": unlike branches have unlike parameters.
    """
    config: Config = {}
    for key, value in space.items():
        name = prefix + key
        if isinstance(value, Choice):
            config.update(_take(key, value.option(draw(name, CategoricalDistribution(value.labels))), draw, prefix))
        else:
            config[key] = value_of(value, draw(name, value)) if isinstance(value, BaseDistribution) else value
    return config


def params_of(space: Space, config: Config) -> dict[str, Any]:
    """Return the draws that make `draw_config` give `config`, by name.

    Raises:
        SpaceError: the config lies outside the space, or has a key that the space does not.
    """
    params: dict[str, Any] = {}

    def draw(name: str, distribution: BaseDistribution) -> Any:
        key = name.rsplit("/", 1)[-1]
        if key not in config:
            raise SpaceError(f"{key} is in the space but not in the config {config}")
        value = config[key]
        if not contains(distribution, label_of(value)):
            raise SpaceError(f"{key}={value!r} lies outside the space's {in_words(distribution)}")
        params[name] = drawn_for(distribution, value)
        return params[name]

    made = draw_config(space, draw)
    for key in config:
        if key not in made or not alike(label_of(made[key]), label_of(config[key])):
            known = f"the space's {key} is {made[key]!r}" if key in made else f"the space has {', '.join(made)}"
            raise SpaceError(f"{key}={config[key]!r} does not fit the space: {known}")
    return params


def default_config(space: Space, defaults: Config) -> Config:
    """Return what the space is compared with: the defaults where it allows them, else the middle of each range.

    Args:
        space: any space.
        defaults: a value for some of its keys.

    Example:
        >>> from tunekit.distributions import loguniform, randint
        >>> default_config({"lr": loguniform(1e-4, 1e-2), "width": randint(8, 12)}, {"lr": 0.001})
        {'lr': 0.001, 'width': 10}
    """

    def draw(name: str, distribution: BaseDistribution) -> Any:
        key = name.rsplit("/", 1)[-1]
        if key in defaults and contains(distribution, defaults[key]):
            return drawn_for(distribution, defaults[key])
        return middle(distribution)

    return draw_config(space, draw)


def leaves(space: Space) -> Iterator[tuple[str, Any]]:
    """Yield (key, value) for every constant, every option and both bounds of every range, in all branches."""
    for key, value in space.items():
        for extreme in () if isinstance(value, Choice) else extremes(value):
            yield key, extreme
        for option in value.options if isinstance(value, Choice) else ():
            if isinstance(option, dict):
                yield key, option["name"]
                yield from leaves(without_name(option))
            else:
                yield key, option


def all_values(space: Space, key: str, default: Any = None) -> list[Any]:
    """Return every value that a key may take, or the bounds of its range; [default] where the space lacks it."""
    return [value for name, value in leaves(space) if name == key] or [default]


def max_size_of(space: Space) -> int | None:
    """Return the largest image_size of a space, px, which photographs need not exceed; None where a config has none."""
    sizes = all_values(space, "image_size") if "image_size" in space else [None]
    return max(sizes) if all(type(size) is int and 1 <= size <= 4096 for size in sizes) else None


def all_keys(space: Space) -> set[str]:
    """Return every key that some config of the space may have."""
    return {key for key, _ in leaves(space)}


def has_grid(space: Space) -> bool:
    """Return whether a `grid` is anywhere in the space."""
    for value in space.values():
        if isinstance(value, Choice):
            nested = (option for option in value.options if isinstance(option, dict))
            if value.every or any(has_grid(option) for option in nested):
                return True
    return False


def labels(config: Config) -> Config:
    """Return a config fit for JSON and tables: each function by its name."""
    return {key: label_of(value) for key, value in config.items()}


def _check_value(key: Any, value: Any, place: str) -> Any:
    """Return one entry of a space, checked; its place is "optimizer.momentum" where it lies in a choice."""
    if not isinstance(key, str) or not key or "/" in key:
        raise SpaceError(f"a name in a space is a string without '/', but one is {key!r}")
    value = from_ray(place, value)
    if isinstance(value, Choice):
        return value._replace(options=tuple(_check_option(key, option, place) for option in value.options))
    if isinstance(value, CategoricalDistribution):
        return choice(list(value.choices))
    if value is None or isinstance(value, BaseDistribution | bool | int | float | str) or callable(value):
        return value
    raise SpaceError(
        f"{place} is {value!r}, of type {type(value).__name__}: a space holds distributions (uniform, loguniform, "
        "randint, choice, grid), numbers, strings, True, False, None and functions; for one of several write choice"
    )


def _check_option(key: str, option: Any, place: str) -> Any:
    if isinstance(option, dict):
        nested = without_name(option)
        return {"name": option["name"]} | {k: _check_value(k, v, f"{place}.{k}") for k, v in nested.items()}
    option = _check_value(key, option, place)
    if isinstance(option, BaseDistribution | Choice):
        raise SpaceError(f"{place}: a distribution in a choice needs a dict with a 'name' around it")
    return option


def _check_once(space: Space, outside: set[str]) -> None:
    """Raise if a config could get one of its keys from two places; `outside` are keys from around this space."""
    for key, value in space.items():
        others = outside | {key} | all_keys({name: other for name, other in space.items() if name != key})
        for option in value.options if isinstance(value, Choice) else ():
            if isinstance(option, dict):
                for twice in others & all_keys(without_name(option)):
                    raise SpaceError(f"{twice} is there twice, in {key}={option['name']} and outside it: keep one")
                _check_once(without_name(option), others)


def _take(key: str, option: Any, draw: Draw, prefix: str) -> Config:
    """Return what choosing an option puts into the config."""
    if not isinstance(option, dict):
        return {key: option}
    nested = without_name(option)
    return {key: option["name"], **draw_config(nested, draw, f"{prefix}{key}={option['name']}/")}


def without_name(option: dict[str, Any]) -> Space:
    """Return the space that an option of a choice brings with it."""
    return {key: value for key, value in option.items() if key != "name"}
