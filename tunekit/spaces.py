"""Where a space comes from: a dict, a module of `search_spaces`, a file, or a W&B sweep."""

import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path
from typing import Any

import search_spaces
from tunekit.errors import SpaceError, UnknownNameError, unknown_name
from tunekit.space import Space, check_space
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
