"""What was asked of a run: checked before anything starts, and written down so that the same call goes on."""

import hashlib
import importlib
import importlib.util
import json
import pkgutil
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import search_spaces
from tunekit import training
from tunekit.backbones import Backbone, backbones, check_backbone
from tunekit.config import DEFAULTS, check_config, complete
from tunekit.datasets.base import Dataset
from tunekit.distributions import BaseDistribution, Choice, in_words
from tunekit.errors import ConfigError, SpaceError, UnknownNameError, unknown_name
from tunekit.proposer import Proposer
from tunekit.schedulers import find_scheduler
from tunekit.scores import DEFAULT_METRIC, HIGHER_IS_BETTER, metric_names
from tunekit.space import Config, Space, all_keys, all_values, as_json, check_space, default_config, has_grid, leaves
from tunekit.sweeps import is_sweep, read_sweep
from tunekit.trial import TrainFunction


@dataclass(frozen=True)
class Asked:
    """What makes an experiment the experiment it is: another value of any of these is another experiment.

    How long it may go on (num_trials, time_budget_s) and where it runs are not part of it.
    """

    space: Space
    dataset: Dataset
    metric: str
    mode: str
    max_epochs: int
    searcher: str
    scheduler: str
    start_from: tuple[Config, ...]
    train: TrainFunction
    seed: int

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON: what experiment.json holds, and what the next run is compared with."""
        return {
            "space": as_json(self.space),
            "dataset": {"name": self.dataset.name, "fingerprint": self.dataset.fingerprint},
            "metric": self.metric,
            "mode": self.mode,
            "max_epochs": self.max_epochs,
            "searcher": self.searcher,
            "scheduler": self.scheduler,
            "start_from": as_json(self.start_from),
            "train": None if self.train is training.train else as_json(self.train),
            "seed": self.seed,
        }

    @property
    def default_name(self) -> str:
        """The name of an experiment that was given none: the dataset's, and a fingerprint of what was asked."""
        text = json.dumps(self.as_json(), sort_keys=True)
        return f"{self.dataset.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def registered_backbones(self) -> dict[str, Backbone]:
        """The backbones of the space that a script registered, by name."""
        names = (name for name in all_values(self.space, "backbone") if name in backbones)
        return {name: backbones[name] for name in names if not backbones[name].__module__.startswith("tunekit.")}

    @property
    def default_config(self) -> Config:
        """The config that every experiment tries first, and that its answer is compared with."""
        return default_config(self.space, DEFAULTS)

    def proposer(self) -> Proposer:
        """Return the searcher, which has heard nothing yet."""
        first = [("default", self.default_config)]
        for config in self.start_from:
            whole = {**default_config(self.space, {**DEFAULTS, **config}), **config}
            if all(whole != known for _, known in first):
                first.append(("start_from", whole))
        return Proposer(self.space, self.searcher, self.metric, self.mode, self.seed, first)


def check_asked(
    space: Any, dataset: Dataset, metric: str | None, mode: str | None, max_epochs: int, searcher: str, scheduler: str,
    start_from: Sequence[Config], train: TrainFunction | None, seed: int,
) -> Asked:  # fmt: skip
    """Check everything that can be known before the first trial, and return it complete.

    Raises:
        UnknownNameError, SpaceError, ConfigError: see `tunekit.run`.
    """
    check_whole("max_epochs", max_epochs, 1)
    check_whole("seed", seed, 0)
    space = find_space(space)
    metric, mode = check_metric(metric, mode, dataset.task, builtin=train is None)
    find_scheduler(scheduler)
    if has_grid(space) and searcher != "grid":
        raise SpaceError(f"grid() needs searcher='grid', but the searcher is {searcher!r}: use choice(), or that one")
    asked = Asked(
        space, dataset, metric, mode, max_epochs, searcher, scheduler, tuple(start_from), train or training.train, seed
    )
    asked.proposer()  # raises for an unknown searcher, and for what a grid cannot try
    if train is None:
        check_keys(space)
        check_fit(space, dataset)
    return asked


def check_config_alone(
    config: Config, dataset: Dataset, max_epochs: int, train: TrainFunction | None, seed: int
) -> Asked:
    """Check what `tunekit.train` was asked for, as `check_asked` does for a search."""
    check_whole("max_epochs", max_epochs, 1)
    check_whole("seed", seed, 0)
    if not isinstance(config, dict):
        raise ConfigError(f"a config is a dict of name to value, but got {config!r}")
    for key, value in config.items():
        if isinstance(value, Choice | BaseDistribution):
            raise ConfigError(f"{key} is {in_words(value)}: a config holds values; to search a space use tunekit.run")
    if train is None:
        check_keys(config)
        check_fit(config, dataset)
    metric, mode = check_metric(None, None, dataset.task, builtin=True)
    return Asked(config, dataset, metric, mode, max_epochs, "given", "none", (), train or training.train, seed)


def check_keys(space: Space) -> None:
    """Check every key, value and bound of a space against what the built-in training loop understands."""
    extra_keys = any(callable(backbone) for backbone in all_values(space, "backbone"))
    for key, value in leaves(space):
        check_config({key: value}, extra_keys)
    optimizers = all_values(space, "optimizer", DEFAULTS["optimizer"])
    if "momentum" in all_keys(space) and "sgd" not in optimizers:
        raise ConfigError(
            f"momentum has no effect with optimizer {', '.join(map(repr, optimizers))}: add 'optimizer': 'sgd' to the "
            "space, or leave momentum out"
        )


def check_fit(space: Space, dataset: Dataset) -> None:
    """Check that every batch size fits the train split, and every backbone the images."""
    largest = max(all_values(space, "batch_size", DEFAULTS["batch_size"]))
    if largest > dataset.num_images["train"]:
        raise ConfigError(
            f"batch_size {largest} is larger than the train split of {dataset.name}, which has "
            f"{dataset.num_images['train']} images: use at most that"
        )
    for backbone in all_values(space, "backbone", DEFAULTS["backbone"]):
        for image_size in all_values(space, "image_size", None):
            for pretrained in all_values(space, "pretrained", False):
                picked = {"backbone": backbone, "image_size": image_size, "pretrained": pretrained}
                check_backbone(complete({**default_config(space, DEFAULTS), **picked}), dataset)


def check_metric(metric: str | None, mode: str | None, task: str, builtin: bool) -> tuple[str, str]:
    """Return the metric and its mode, taken from the task and the metric's name where they are None."""
    if metric is None:
        metric = DEFAULT_METRIC[task][0]
    elif builtin and metric not in metric_names(task):
        raise UnknownNameError(unknown_name("metric", metric, metric_names(task)))
    if metric.startswith("test"):
        raise ConfigError(f"metric {metric!r}: the test split never steers a search; use a val metric")
    name = metric.split("_", 1)[-1]
    if mode is None:
        if name not in HIGHER_IS_BETTER:
            raise ConfigError(f"mode must be given for metric {metric!r}: 'max' if higher is better, else 'min'")
        mode = "max" if HIGHER_IS_BETTER[name] else "min"
    if mode not in ("max", "min"):
        raise ConfigError(f"mode must be 'max' or 'min', but is {mode!r}")
    return metric, mode


def check_whole(name: str, value: Any, low: int) -> None:
    """Raise ConfigError unless value is a whole number of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ConfigError(f"{name} must be a whole number of at least {low}, but is {value!r}")


def check_positive(name: str, value: Any) -> None:
    """Raise ConfigError unless value is None or a number above 0."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        raise ConfigError(f"{name} must be a number above 0, or None, but is {value!r}")


def check_name(name: str) -> str:
    """Return an experiment's name, or raise ConfigError where it would not do as a folder's."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w.\-+= ]{1,100}", name) or name.strip(". ") != name:
        raise ConfigError(
            f"name must be 1 to 100 letters, digits and '-_+=. ', with no slash and no dot at its ends, but is {name!r}"
        )
    return name


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
    return check_space(space)


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
