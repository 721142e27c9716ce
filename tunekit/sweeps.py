"""W&B sweep configurations, read as they are and searched here, without a server.

Source: W&B, Sweep configuration options, https://docs.wandb.ai/models/sweeps/sweep-config-keys; and, where that is
silent, wandb/sweeps (config/schema.json, params.py, grid_search.py, hyperband_stopping.py).
"""

import itertools
import re
from pathlib import Path
from typing import Any, NamedTuple

from tunekit.errors import ConfigError, SpaceError, UnknownNameError, unknown_name
from tunekit.grids import grid_configs
from tunekit.scores import HIGHER_IS_BETTER
from tunekit.space import Space
from tunekit.sweep_parameters import read_parameters, short
from tunekit.yaml_files import read_yaml

METHODS = {"bayes": "tpe", "random": "random", "grid": "grid"}
MODES = {"minimize": "min", "maximize": "max"}
IGNORED = {
    "program": "tunekit trains by itself; for a loop of your own, run(train=...)",
    "command": "no command is run",
    "description": "",
    "controller": "the search always runs here",
    "kind": "",
    "apiVersion": "",
}
KNOWN = ("method", "metric", "parameters", "early_terminate", "run_cap", "name", "project", "entity", *IGNORED)
SPLITS = {"train": "train", "training": "train"} | dict.fromkeys(("val", "valid", "validation", "eval", "dev"), "val")
MEASURES = {"acc": "accuracy", "top1": "accuracy", "mean_squared_error": "mse", "mean_absolute_error": "mae"}
DEFAULT_ETA = 3


class Sweep(NamedTuple):
    """A sweep in tunekit's words. None, or "", is what the sweep says nothing about.

    Args:
        space: what is searched.
        searcher: tpe, random or grid.
        metric, mode: what is optimised.
        scheduler: none; or asha, with its first rung and its factor where they are not 1 and 3: "asha(3, 2)".
        num_trials: W&B's run_cap.
        max_epochs: the constant parameter `epochs`.
        name: of the sweep, fit to be a folder's.
        project, entity: where the W&B tracker logs to, unless the environment says otherwise.
        notes: what of the sweep has no effect here, a sentence each.
    """

    space: Space
    searcher: str
    metric: str | None = None
    mode: str | None = None
    scheduler: str = "none"
    num_trials: int | None = None
    max_epochs: int | None = None
    name: str | None = None
    project: str = ""
    entity: str = ""
    notes: tuple[str, ...] = ()


def is_sweep(space: Any) -> bool:
    """Return whether what was given as a space is a W&B sweep configuration: a dict of one, or a path to a YAML file.

    Example:
        >>> is_sweep({"method": "random", "parameters": {"lr": {"value": 0.1}}})
        True
        >>> is_sweep("sweep.yaml"), is_sweep("mnist")
        (True, False)
    """
    if isinstance(space, dict):
        return isinstance(space.get("parameters"), dict)
    return isinstance(space, str | Path) and Path(space).suffix.lower() in (".yaml", ".yml")


def read_sweep(sweep: dict[str, Any] | str | Path, builtin: bool = True) -> Sweep:
    """Return a W&B sweep configuration in tunekit's words.

    Args:
        sweep: the configuration, or the path to its YAML file.
        builtin: whether tunekit's own training loop reads the configs: `learning_rate` is then its lr, `epochs` its
            max_epochs, and a metric like val_acc its val_accuracy. A loop of your own gets every name as it stands.

    Raises:
        SpaceError, ConfigError, UnknownNameError: something that cannot be honoured, named by its place in the sweep.

    Example:
        >>> sweep = read_sweep({
        ...     "method": "bayes",
        ...     "metric": {"name": "val_loss", "goal": "minimize"},
        ...     "parameters": {
        ...         "learning_rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
        ...         "batch_size": {"values": [32, 64, 128, 256]},
        ...         "epochs": {"value": 5},
        ...     },
        ... })
        >>> sweep.searcher, sweep.metric, sweep.mode, sweep.max_epochs, list(sweep.space)
        ('tpe', 'val_loss', 'min', 5, ['lr', 'batch_size'])
    """
    if not isinstance(sweep, dict):
        sweep = read_yaml(Path(sweep))
    if not isinstance(sweep, dict) or not isinstance(sweep.get("parameters"), dict):
        raise SpaceError(f"a sweep is a dict with method, metric and parameters, but got {short(sweep)}")
    _check_keys(sweep)
    method = sweep["method"]
    metric, mode = _read_metric(sweep, builtin)
    space, max_epochs = read_parameters(sweep["parameters"], method, builtin)
    scheduler, notes = _read_early_terminate(sweep)
    notes += [f"{key} has no effect{f': {why}' if why else ''}" for key, why in IGNORED.items() if key in sweep]
    cap = _read_run_cap(sweep, space)
    words = {key: _text(sweep, key) for key in ("name", "project", "entity")}
    name = re.sub(r"[^\w.\-+= ]+", "-", words.pop("name")).strip(". ")[:100].strip(". ") or None
    return Sweep(
        space, METHODS[method], metric, mode, scheduler, cap, max_epochs, name, **words, notes=tuple(notes)
    )  # fmt: skip


def arguments(sweep: Sweep, given: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a run: what the call says where it differs from the default, else what the sweep says.

    Args:
        sweep: what was read.
        given: the call's arguments, by names that Sweep has too.
        defaults: the same, as they are when the call leaves them out.

    Example:
        >>> sweep = Sweep({}, "tpe", scheduler="none", num_trials=30)
        >>> arguments(sweep, {"num_trials": 20, "scheduler": "median"}, {"num_trials": 20, "scheduler": "asha"})
        {'num_trials': 30, 'scheduler': 'median'}
    """
    said = sweep._asdict()
    return {
        key: said[key] if value == defaults[key] and said[key] is not None else value for key, value in given.items()
    }


def _check_keys(sweep: dict[str, Any]) -> None:
    for key in sweep:
        if key not in KNOWN:
            raise UnknownNameError(unknown_name("sweep key", key, KNOWN))
    method = sweep.get("method")
    if not isinstance(method, str) or method not in METHODS:
        raise UnknownNameError(unknown_name("method", method, METHODS))


def _read_metric(sweep: dict[str, Any], builtin: bool) -> tuple[str | None, str | None]:
    metric = sweep.get("metric")
    if metric is None:
        if sweep["method"] == "bayes" or "early_terminate" in sweep:
            raise ConfigError("method bayes and early_terminate need a metric: write metric: {name: ..., goal: ...}")
        return None, None
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str):
        raise ConfigError(f"metric is a dict with a name, and a goal, but is {short(metric)}")
    for key in metric:
        if key in ("target", "impute", "impute_while_running"):
            raise ConfigError(f"metric.{key} cannot be honoured: take it out (a search ends by trials, or by time)")
        if key not in ("name", "goal"):
            raise UnknownNameError(unknown_name("sweep key in metric", key, ("name", "goal")))
    name = builtin_name(metric["name"]) if builtin else metric["name"]
    if "goal" not in metric and HIGHER_IS_BETTER.get(name.split("_", 1)[-1]):
        raise ConfigError(f"metric.goal is missing, and W&B would then minimise {name}: write goal: maximize")
    goal = metric.get("goal", "minimize")
    if not isinstance(goal, str) or goal not in MODES:
        raise UnknownNameError(unknown_name("metric.goal", goal, MODES))
    return name, MODES[goal]


def builtin_name(metric: str) -> str:
    """Return the built-in training loop's name of a metric that people call otherwise; else the name as it is.

    Example:
        >>> [builtin_name(name) for name in ("val_acc", "Validation Accuracy", "val/loss", "loss_val", "loss")]
        ['val_accuracy', 'val_accuracy', 'val_loss', 'val_loss', 'loss']
    """
    words = re.sub(r"[^a-z0-9]+", "_", metric.lower()).strip("_").split("_")
    for split, rest in ((words[0], words[1:]), (words[-1], words[:-1])):
        measure = MEASURES.get("_".join(rest), "_".join(rest))
        if split in SPLITS and measure in HIGHER_IS_BETTER:
            return f"{SPLITS[split]}_{measure}"
    return metric


def _read_early_terminate(sweep: dict[str, Any]) -> tuple[str, list[str]]:
    """Return (scheduler, notes). W&B's hyperband is one bracket of successive halving: what is called asha here."""
    described = sweep.get("early_terminate")
    if described is None:
        return "none", []
    known = ("type", "min_iter", "max_iter", "s", "eta", "strict")
    if not isinstance(described, dict) or described.get("type") != "hyperband":
        raise ConfigError(f"early_terminate is a dict with type: hyperband, but is {short(described)}")
    for key in described:
        if key not in known:
            raise UnknownNameError(unknown_name("sweep key in early_terminate", key, known))
    numbers = {key: described[key] for key in ("min_iter", "max_iter", "s", "eta") if key in described}
    eta = numbers.get("eta", DEFAULT_ETA)
    for key, value in numbers.items():
        least = 2 if key == "eta" else 1
        if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 or value < least:
            raise ConfigError(f"early_terminate.{key} must be a whole number of at least {least}, but is {value!r}")
    first = int(numbers["min_iter"]) if "min_iter" in numbers else _first_band(numbers, int(eta))
    notes = ["early_terminate.strict has no effect: only the best 1/eta ever go on"] if "strict" in described else []
    if "max_iter" in numbers:
        notes.append("early_terminate.max_iter only says where bands begin: they go on as long as trials train")
    return "asha" if (first, eta) == (1, 3) else f"asha({first}, {int(eta)})", notes


def _first_band(numbers: dict[str, Any], eta: int) -> int:
    """Return where W&B's bands begin: at max_iter / eta**s, or the last of these that is at least 1."""
    if "max_iter" not in numbers or "s" not in numbers:
        raise ConfigError("early_terminate needs min_iter, or both max_iter and s")
    bands = [numbers["max_iter"] // eta**k for k in range(1, int(numbers["s"]) + 1) if numbers["max_iter"] >= eta**k]
    if not bands or bands[-1] * eta ** len(bands) != numbers["max_iter"]:
        raise ConfigError(
            f"early_terminate.max_iter must be divisible by eta={eta} s={numbers['s']} times, but is "
            f"{numbers['max_iter']}: write min_iter, where the first band lies, instead of max_iter and s"
        )
    return int(bands[-1])


def _read_run_cap(sweep: dict[str, Any], space: Space) -> int | None:
    cap = sweep.get("run_cap")
    if cap is None:
        return None
    if isinstance(cap, bool) or not isinstance(cap, int) or cap < 1:
        raise ConfigError(f"run_cap must be a whole number of at least 1, but is {cap!r}")
    if sweep["method"] == "grid" and len(list(itertools.islice(grid_configs(space), cap + 1))) > cap:
        raise ConfigError(f"run_cap is {cap}, but the grid has more configs, and all are tried: leave options out")
    return cap


def _text(sweep: dict[str, Any], key: str) -> str:
    if not isinstance(sweep.get(key, ""), str):
        raise ConfigError(f"{key} must be text, but is {sweep[key]!r}")
    return sweep.get(key, "")
