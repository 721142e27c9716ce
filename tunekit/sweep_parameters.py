"""The parameters of a W&B sweep, in every distribution that W&B documents, as a space.

Source: W&B, Sweep configuration options (distribution options); wandb/sweeps, config/schema.json and params.py.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tunekit.distributions import TransformedDistribution, choice, extremes, loguniform, randint, uniform
from tunekit.errors import SpaceError, UnknownNameError, unknown_name
from tunekit.space import Space, check_space
from tunekit.yaml_files import number_of

EPOCHS = ("epochs", "max_epochs")  # parameters that say how long a trial trains
MOST_GRID_VALUES = 1000  # of one q_uniform in a grid


class Kind(NamedTuple):
    """A distribution over numbers: the words it needs, those it may leave out, and what makes it."""

    needs: tuple[str, ...]
    defaults: Mapping[str, float]
    make: Callable[..., Any]


def _transformed(name: str) -> Callable[..., TransformedDistribution]:
    return lambda **numbers: TransformedDistribution({"distribution": name, **numbers})


BOUNDS, NORMAL, BETA, Q = ("min", "max"), {"mu": 0.0, "sigma": 1.0}, {"a": 1.0, "b": 1.0}, {"q": 1}
# 1/x is log-uniform where x is: inv_log_uniform_values is log_uniform_values, and inv_log_uniform has its bounds' signs
# turned. Quantised forms, and those without bounds, are beyond Optuna.
KINDS = {
    "int_uniform": Kind(BOUNDS, {}, lambda min, max: randint(min, max)),
    "uniform": Kind(BOUNDS, {}, lambda min, max: uniform(min, max)),
    "log_uniform": Kind(BOUNDS, {}, lambda min, max: loguniform(math.exp(min), math.exp(max))),
    "log_uniform_values": Kind(BOUNDS, {}, lambda min, max: loguniform(min, max)),
    "inv_log_uniform": Kind(BOUNDS, {}, lambda min, max: loguniform(math.exp(-max), math.exp(-min))),
    "inv_log_uniform_values": Kind(BOUNDS, {}, lambda min, max: loguniform(min, max)),
    **{name: Kind(BOUNDS, Q, _transformed(name)) for name in ("q_uniform", "q_log_uniform", "q_log_uniform_values")},
    **{name: Kind((), NORMAL, _transformed(name)) for name in ("normal", "log_normal")},
    **{name: Kind((), {**NORMAL, **Q}, _transformed(name)) for name in ("q_normal", "q_log_normal")},
    "beta": Kind((), BETA, _transformed("beta")),
    "q_beta": Kind((), {**BETA, **Q}, _transformed("q_beta")),
}  # fmt: skip
DISTRIBUTIONS = ("constant", "categorical", "categorical_w_probabilities", *KINDS)


def read_parameters(parameters: dict[str, Any], method: str, builtin: bool) -> tuple[Space, int | None]:
    """Return (space, max_epochs or None) of a sweep's parameters.

    Args:
        parameters: of the sweep; those nested in others get the last part of their name, as a config is flat.
        method: the sweep's.
        builtin: whether tunekit's own training loop reads the configs: see `read_sweep`.

    Raises:
        SpaceError, UnknownNameError: a parameter that cannot be honoured, named by its place.
    """
    space: Space = {}
    places: dict[str, str] = {}
    max_epochs = None
    for place, key, described in _leaves(parameters, "parameters"):
        name = _name(key) if builtin else key
        if name in places:
            raise SpaceError(f"{place} and {places[name]} would both be {name}, as a config is flat: rename one")
        places[name] = place
        value = read_parameter(place, described, method)
        if key in EPOCHS:
            max_epochs = _epochs(place, value, builtin)
            if builtin:
                continue
        space[name] = value
    try:
        return check_space(space), max_epochs
    except SpaceError as error:
        raise SpaceError(f"parameters: {error}") from None


def with_values(parameters: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a sweep, out of their groups, with constants in place of those of the same name."""
    fixed = {key: {"value": value} for key, value in values.items()}
    names = {_name(key) for key in values}
    return {key: described for _, key, described in _leaves(parameters, "") if _name(key) not in names} | fixed


def _name(key: str) -> str:
    return "lr" if key == "learning_rate" else key


def _leaves(parameters: Any, place: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (place, key, description) of every parameter, those nested in others too."""
    if not isinstance(parameters, dict) or not parameters:
        raise SpaceError(f"{place} is a dict of at least one parameter, but is {short(parameters)}")
    for key, described in parameters.items():
        if not isinstance(described, dict):
            raise SpaceError(f"{place}.{key} is {short(described)}: write {key}: {{value: ...}} for a constant")
        if "parameters" in described:
            if len(described) > 1:
                raise SpaceError(f"{place}.{key} holds parameters, and besides them {short(described)}: keep one")
            yield from _leaves(described["parameters"], f"{place}.{key}.parameters")
        else:
            yield f"{place}.{key}", key, described


def _epochs(place: str, value: Any, builtin: bool) -> int:
    """Return the most epochs that a parameter allows; tunekit's own loop takes a constant only."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    most = max(getattr(value, "options", None) or [getattr(value, "high", None) or 0])
    if builtin or not isinstance(most, int) or most < 1:
        raise SpaceError(
            f"{place} must be a constant, a whole number of at least 1: every trial may train for so many epochs, and "
            f"early_terminate stops the poor ones sooner; write {place.rsplit('.', 1)[-1]}: {{value: ...}}"
        )
    return most


def read_parameter(place: str, described: dict[str, Any], method: str) -> Any:
    """Return the entry of a space for one parameter of a sweep.

    Args:
        place: where it stands in the sweep, for errors.
        described: {"min": 0.0, "max": 0.5}, {"values": [...]}, {"value": ...}, {"distribution": ..., ...}.
        method: the sweep's: under "grid" a q_uniform is every value of it, as it is in W&B.

    Raises:
        UnknownNameError, SpaceError: a distribution, or a word in it, that is not known, is missing or cannot be.

    Example:
        >>> read_parameter("parameters.lr", {"distribution": "log_uniform", "min": -9.0, "max": 0.0}, "bayes").high
        1.0
        >>> read_parameter("parameters.dropout", {"min": 0, "max": 0.5}, "bayes").high
        0.5
    """
    name = described["distribution"] if "distribution" in described else _inferred(place, described)
    if name not in DISTRIBUTIONS:
        raise UnknownNameError(unknown_name(f"distribution in {place}", name, DISTRIBUTIONS))
    if name == "constant":
        _check_words(place, described, ("value",), ())
        return _scalar(f"{place}.value", described["value"])
    if name.startswith("categorical"):
        return _categorical(place, described, method)
    kind = KINDS[name]
    _check_words(place, described, kind.needs, tuple(kind.defaults))
    words = {**kind.defaults, **{word: described[word] for word in described if word != "distribution"}}
    numbers = {word: _number(place, word, value) for word, value in words.items()}
    _check_numbers(place, name, numbers)
    if method == "grid" and name == "q_uniform":
        return _counted(place, **numbers)
    try:
        made = kind.make(**numbers)
        if not all(math.isfinite(value) for value in extremes(made)):
            raise OverflowError
        return made
    except SpaceError as error:
        raise SpaceError(f"{place}: {error}") from None
    except OverflowError:
        raise SpaceError(f"{place}: {name} of {numbers} goes beyond the numbers that a computer has") from None


def _inferred(place: str, described: dict[str, Any]) -> str:
    """Return the distribution that W&B takes where none is named."""
    if "value" in described:
        return "constant"
    if "values" in described:
        return "categorical"
    if "min" in described and "max" in described:
        return "int_uniform" if all(type(described[word]) is int for word in BOUNDS) else "uniform"
    raise SpaceError(f"{place} needs a value, values, min and max, or a distribution, but is {described!r}")


def _categorical(place: str, described: dict[str, Any], method: str) -> Any:
    _check_words(place, described, ("values",), ("probabilities",))
    values = described["values"]
    if not isinstance(values, list | tuple):
        raise SpaceError(f"{place}.values must be a list, but is {values!r}")
    values = [_scalar(f"{place}.values[{number}]", value) for number, value in enumerate(values)]
    try:
        made = choice(values)
    except SpaceError as error:
        raise SpaceError(f"{place}.values: {error}") from None
    probabilities = described.get("probabilities")
    if probabilities is None:
        return made
    if method == "grid":
        raise SpaceError(f"{place}.probabilities mean nothing to method grid, which tries every value: leave them out")
    if not isinstance(probabilities, list | tuple) or len(probabilities) != len(values):
        raise SpaceError(f"{place}.probabilities must be a list of {len(values)} numbers, one for each of the values")
    probabilities = [_number(place, "probabilities", probability) for probability in probabilities]
    if min(probabilities) < 0 or not math.isclose(sum(probabilities), 1.0, rel_tol=1e-5):
        raise SpaceError(f"{place}.probabilities must be at least 0 and sum to 1, but are {probabilities}")
    return TransformedDistribution({"distribution": "categorical", "values": values, "probabilities": probabilities})


def _check_words(place: str, described: dict[str, Any], needs: tuple[str, ...], may: tuple[str, ...]) -> None:
    known = ("distribution", *needs, *may)
    for word in described:
        if word not in known:
            raise UnknownNameError(unknown_name(f"word in {place}", word, known))
    for word in needs:
        if word not in described:
            raise SpaceError(f"{place} has no {word}, which its distribution needs")


def _check_numbers(place: str, name: str, numbers: dict[str, Any]) -> None:
    """Raise for what a distribution cannot be made of; Optuna's own check their bounds themselves."""
    for word in ("sigma", "q", "a", "b"):
        if word in numbers and numbers[word] <= 0:
            raise SpaceError(f"{place}.{word} must be above 0, but is {numbers[word]}")
    if "min" in numbers and numbers["min"] >= numbers["max"]:
        raise SpaceError(f"{place}.min must be below max, but is {numbers['min']}, and max {numbers['max']}")
    if name.endswith("_values") and numbers["min"] <= 0:
        raise SpaceError(f"{place}.min must be above 0, as its logarithm is taken, but is {numbers['min']}")


def _counted(place: str, min: float, max: float, q: float) -> Any:
    """Return every value of a q_uniform as W&B's grid counts them: min, min + q, ..., below max."""
    count = math.ceil((max - min) / q)
    if count > MOST_GRID_VALUES:
        raise SpaceError(f"{place} has {count:,} values, and a grid tries at most {MOST_GRID_VALUES} of one parameter")
    return choice([float(f"{min + number * q:.9g}") if isinstance(min + q, float) else min + number * q
                 for number in range(count)])  # fmt: skip


def _number(place: str, word: str, value: Any) -> float:
    value = number_of(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SpaceError(f"{place}.{word} must be a finite number, but is {value!r}")
    return value


def _scalar(place: str, value: Any) -> Any:
    value = number_of(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise SpaceError(f"{place} must be a number, text, true, false or null, but is {value!r}")


def short(value: Any) -> str:
    """Return a value as an error shows it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
