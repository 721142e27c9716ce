"""What can be known to be wrong before anything starts: each says the rule, what was given, and what to do."""

import re
from typing import Any

from tunekit.backbones import check_backbone
from tunekit.config import DEFAULTS, check_config, complete
from tunekit.datasets.base import Dataset
from tunekit.errors import ConfigError, UnknownNameError, unknown_name
from tunekit.safe_text import is_secret, secrets_of
from tunekit.scores import DEFAULT_METRIC, HIGHER_IS_BETTER, metric_names
from tunekit.space import Space, all_keys, all_values, default_config, leaves


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
    augments = [value for value in all_values(space, "augment", DEFAULTS["augment"]) if "crop" in str(value)]
    if augments and "freeze" in space and set(all_values(space, "freeze")) == {"backbone"}:
        raise ConfigError(
            f"augment {augments[0]!r} moves the images, so that a frozen backbone would be computed for all of them in "
            "every epoch: with freeze 'backbone' use augment 'none' or 'flip', whose features are kept"
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
