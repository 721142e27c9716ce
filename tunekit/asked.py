"""What was asked of a run: checked before anything starts, and written down so that the same call goes on."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tunekit import training
from tunekit.arithmetic import Choices, choose_for
from tunekit.backbones import Backbone, backbones
from tunekit.checks import check_fit, check_keys, check_metric, check_secrets, check_whole
from tunekit.config import DEFAULTS
from tunekit.datasets.base import Dataset
from tunekit.distributions import BaseDistribution, Choice, in_words
from tunekit.errors import ConfigError, SpaceError
from tunekit.forecaster import Forecaster
from tunekit.metrics import chance
from tunekit.pausing import most_paused
from tunekit.proposer import Proposer
from tunekit.schedulers import find_scheduler
from tunekit.space import Config, Space, all_values, default_config, has_grid, leaves
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
