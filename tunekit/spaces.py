"""Where a space comes from: a dict, a module of `search_spaces`, a file, or a W&B sweep."""

import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path
from typing import Any

import search_spaces
from tunekit.distributions import Choice, label_of
from tunekit.errors import SpaceError, UnknownNameError, unknown_name
from tunekit.space import Config, Space, all_keys, check_space, without_name
from tunekit.sweeps import is_sweep, read_sweep


def space_names() -> list[str]:
    """Return the names of the modules of `search_spaces`."""
    return sorted(module.name for module in pkgutil.iter_modules(search_spaces.__path__))


def find_space(space: Any) -> Space:
    """Return the space that a dict, a module of `search_spaces`, a path to such a file, or a W&B sweep stands for.

    Raises:
        UnknownNameError: no such module.
        SpaceError: no such file, a file without `space`, or a space that cannot be searched.
    """
    if is_sweep(space):
        return read_sweep(space).space
    if isinstance(space, str | Path):
        space = _imported(str(space)).space
    try:
        return check_space(space)
    except RecursionError:
        raise SpaceError("the space is nested too deep: choices within choices, a few levels, are fine") from None


def with_constants(space: Space, constants: Config) -> Space:
    """Return the space with keys made constant wherever it has them, in its choices too; others are added to it.

    A constant may name a function or a dict of a choice; of a dict, the distributions that it brings are left.

    Raises:
        UnknownNameError: a choice has dicts, and none of its options has the name.

    Example:
        >>> from tunekit import choice, uniform
        >>> with_constants({"optimizer": choice([{"name": "sgd", "lr": uniform(0, 1)}, "adam"])}, {"lr": 0.1})
        {'optimizer': Choice(options=({'name': 'sgd', 'lr': 0.1}, 'adam'), every=False)}
    """
    fixed = _fixed(space, constants)
    return fixed | {key: value for key, value in constants.items() if key not in all_keys(fixed)}


def _fixed(space: Space, constants: Config) -> Space:
    return {key: _fixed_value(key, value, constants) for key, value in space.items()}


def _fixed_value(key: str, value: Any, constants: Config) -> Any:
    if not isinstance(value, Choice):
        return constants.get(key, value)
    options = [
        option | _fixed(without_name(option), constants) if isinstance(option, dict) else option
        for option in value.options
    ]
    if key not in constants:
        return value._replace(options=tuple(options))
    named = [option for option in options if label_of(option) == constants[key]]
    if any(isinstance(option, dict) for option in options) and not named:
        raise UnknownNameError(unknown_name(key, constants[key], map(str, value.labels)))
    if named and isinstance(named[0], dict):
        return value._replace(options=tuple(named))
    return named[0] if named else constants[key]


def _imported(name: str) -> Any:
    if name in space_names():
        return importlib.import_module(f"search_spaces.{name}")
    if not re.search(r"[/\\.]", name):
        raise UnknownNameError(unknown_name("space", name, space_names()))
    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        known = ", ".join(space_names())
        raise SpaceError(
            f"{name} is no file that holds a space: give a .py file that defines `space`, a sweep, or one of {known}"
        )
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    if not hasattr(module, "space"):
        raise SpaceError(f"{path} defines no `space`: write space = {{...}} in it")
    return module
