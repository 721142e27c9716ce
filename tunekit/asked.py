"""What was asked of a run: checked before anything starts, and written down so that the same call goes on."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tunekit import training
from tunekit.arithmetic import Choices, choose_for
from tunekit.backbones import Backbone, backbones, check_backbone
from tunekit.config import DEFAULTS, check_config, complete
from tunekit.datasets.base import Dataset
from tunekit.distributions import BaseDistribution, Choice, in_words
from tunekit.errors import ConfigError, SpaceError, UnknownNameError, unknown_name
from tunekit.forecaster import Forecaster
from tunekit.metrics import chance
from tunekit.pausing import most_paused
from tunekit.proposer import Proposer
from tunekit.safe_text import is_secret, secrets_of
from tunekit.schedulers import find_scheduler
from tunekit.scores import DEFAULT_METRIC, HIGHER_IS_BETTER, metric_names
from tunekit.space import Config, Space, all_keys, all_values, default_config, has_grid, leaves
from tunekit.space_json import as_json
from tunekit.spaces import find_space
from tunekit.trial import TrainFunction, can_go_on
from tunekit.versions import source_of


@dataclass(frozen=True)
class Asked:
    """What makes an experiment the experiment it is: another value of any of these is another experiment.

    How long it may go on (num_trials, time_budget_s) and where it runs are not part of it. checkpoint_bytes is what
    one of the largest model takes at the most, weights and twice as much of the optimizer's; 0 where it is not known.
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
    checkpoint_bytes: int = 0

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

    def choices(self, device: torch.device) -> Choices:
        """Return the arithmetic that suits a device best, for the configs of the space that leave it open."""
        return choose_for(self.space, self.dataset, device) if self.train is training.train else {}

    def code(self) -> dict[str, str | None]:
        """Return a fingerprint of each function of one's own that the results depend on."""
        functions = [self.train, *(value for _, value in leaves(self.space)), *self.registered_backbones.values()]
        own = (f for f in functions if callable(f) and not f.__module__.startswith("tunekit."))
        return {f"{function.__module__}:{function.__qualname__}": source_of(function) for function in own}

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

    def proposer(self) -> Proposer | Forecaster:
        """Return the searcher, which has heard nothing yet."""
        first = [("default", self.default_config)]
        for config in self.start_from:
            whole = {**default_config(self.space, {**DEFAULTS, **config}), **config}
            if all(whole != known for _, known in first):
                first.append(("start_from", whole))
        if self.searcher == Forecaster.searcher:
            most = most_paused(self.checkpoint_bytes)
            return Forecaster(self.space, self.metric, self.mode, self.seed, first, self.max_epochs, self.chance, most)
        return Proposer(self.space, self.searcher, self.metric, self.mode, self.seed, first)

    @property
    def chance(self) -> float | None:
        """What a model that has learned nothing may get, where that is known: of tunekit's own metrics."""
        found = chance(self.dataset.val.targets, self.dataset.task) if self.train is training.train else {}
        return found.get(self.metric.partition("_")[2])


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
    if scheduler == "auto":
        scheduler = "none" if searcher == Forecaster.searcher else "asha"
    find_scheduler(scheduler)
    if searcher == Forecaster.searcher and train is not None and max_epochs > 1 and not can_go_on(train):
        raise ConfigError(
            f"{train.__name__} never reads its third argument, the state to go on from, and with searcher 'forecast' "
            "trials pause: begin from the state where it is not None, or choose another searcher, such as 'tpe'"
        )
    if has_grid(space) and searcher != "grid":
        raise SpaceError(f"grid() needs searcher='grid', but the searcher is {searcher!r}: use choice(), or that one")
    check_secrets(space)
    asked = Asked(
        space, dataset, metric, mode, max_epochs, searcher, scheduler, tuple(start_from), train or training.train, seed
    )
    asked.proposer()  # raises for an unknown searcher, and for what a grid cannot try
    if train is None:
        check_keys(space)
        asked = replace(asked, checkpoint_bytes=3 * check_fit(space, dataset))
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
    check_secrets(config)
    size = 0
    if train is None:
        check_keys(config)
        size = 3 * check_fit(config, dataset)
    metric, mode = check_metric(None, None, dataset.task, builtin=True)
    return Asked(config, dataset, metric, mode, max_epochs, "given", "none", (), train or training.train, seed, size)


def check_secrets(space: Space) -> None:
    """Raise ConfigError where a space holds a secret: what is in it is written down, and shown."""
    secrets = secrets_of()
    for key, value in leaves(space):
        if isinstance(value, str) and (is_secret(key.split("_")[-1]) or any(secret in value for secret in secrets)):
            raise ConfigError(
                f"{key} in the space looks like a secret, and a space is written down and shown: let the training "
                "loop read it from a file or an environment variable of its own"
            )


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


def check_fit(space: Space, dataset: Dataset) -> int:
    """Check that every batch size fits the train split, and every backbone the images.

    Returns:
        The bytes of the largest model's weights.
    """
    largest = max(all_values(space, "batch_size", DEFAULTS["batch_size"]))
    if largest > dataset.num_images["train"]:
        raise ConfigError(
            f"batch_size {largest} is larger than the train split of {dataset.name}, which has "
            f"{dataset.num_images['train']} images: use at most that, such as --set batch_size=16 in a shell"
        )
    most = 0
    for backbone in all_values(space, "backbone", DEFAULTS["backbone"]):
        for image_size in all_values(space, "image_size", None):
            for pretrained in all_values(space, "pretrained", False):
                picked = {"backbone": backbone, "image_size": image_size, "pretrained": pretrained}
                config = complete({**default_config(space, DEFAULTS), **picked})
                most = max(most, check_backbone(config, dataset))
    return most


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
