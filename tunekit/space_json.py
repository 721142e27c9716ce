"""A space in JSON: what an experiment remembers of it, and how it is read back without running anything."""

import json
import sys
import types
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution

from tunekit.distributions import Choice, TransformedDistribution, choice, grid
from tunekit.errors import SpaceError


def as_json(space: Any) -> Any:
    """Return a space, or a part of one, in JSON: what is remembered of it, and compared on the next run.

    Raises:
        SpaceError: it holds something callable that is neither function nor class.
    """
    if isinstance(space, Choice):
        return {"grid" if space.every else "choice": [as_json(option) for option in space.options]}
    if isinstance(space, BaseDistribution):
        return json.loads(distribution_to_json(space))
    if isinstance(space, dict):
        return {key: as_json(value) for key, value in space.items()}
    if isinstance(space, list | tuple):
        return [as_json(value) for value in space]
    if callable(space):
        if not hasattr(space, "__qualname__"):
            raise SpaceError(f"{space!r} has no name to remember it by: write a function (def) that calls it")
        return {"function": f"{space.__module__}:{space.__qualname__}"}
    return space


def space_from_json(described: Any, named: bool = False) -> Any:
    """Return the space, or the part of one, that `as_json` described.

    Nothing is imported, as the description may be somebody else's: a function must be known to this process already.

    Args:
        described: what `as_json` returned.
        named: take a function's name for it, where only the draws matter: it need not be known.

    Raises:
        SpaceError: it holds a function that this process does not know, or is nested too deep.
    """
    if isinstance(described, list):
        return [space_from_json(value, named) for value in described]
    if not isinstance(described, dict):
        return described
    if set(described) == {"name", "attributes"} and str(described["name"]).endswith("Distribution"):
        if described["name"] == TransformedDistribution.__name__:
            return TransformedDistribution(described["attributes"]["parameters"])
        return json_to_distribution(json.dumps(described))
    kind, content = next(iter(described.items())) if len(described) == 1 else ("", None)
    if kind in ("choice", "grid") and isinstance(content, list):  # no list: a space whose only key is called "choice"
        return (grid if kind == "grid" else choice)(space_from_json(content, named))
    if kind == "function" and isinstance(content, str):
        module, _, name = content.partition(":")
        if named:
            return name.rpartition(".")[2]
        function = getattr(sys.modules.get(module), name, None)
        library = module.split(".")[0] in sys.stdlib_module_names  # nobody's model
        if library or not isinstance(function, types.FunctionType | type):
            raise SpaceError(f"function {name} of {module} is not known here: make the same call again")
        return function
    return {key: space_from_json(value, named) for key, value in described.items()}
