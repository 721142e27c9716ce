"""The config keys that the built-in training loop understands: their defaults, and what each may be."""

from collections.abc import Callable
from typing import Any, NamedTuple

from tunekit.errors import ConfigError, UnknownNameError, unknown_name
from tunekit.optimization import lr_schedules, optimizers

AUGMENTATIONS = ("none", "flip", "crop", "flip_crop")
MEMORY_FORMATS = ("auto", "channels_last", "contiguous")
PRECISIONS = ("auto", "float32", "bfloat16")


class Key(NamedTuple):
    """One config key: its default, whether a value is allowed, the rule in words, and what the key is."""

    default: Any
    allows: Callable[[Any], bool]
    rule: str
    meaning: str


def _number(low: float, high: float, *, low_too: bool = True) -> dict[str, Any]:
    def allows(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (low <= value if low_too else low < value) and value <= high

    return {"allows": allows, "rule": f"a number {'from' if low_too else 'above'} {low:g} to {high:g}"}


def _whole(low: int, none: bool = False) -> dict[str, Any]:
    def allows(value: Any) -> bool:
        return (none and value is None) or (isinstance(value, int) and not isinstance(value, bool) and value >= low)

    return {"allows": allows, "rule": f"a whole number of at least {low}{', or None' if none else ''}"}


def _one_of(*choices: Any) -> dict[str, Any]:
    return {
        "allows": lambda value: any(value is choice or value == choice for choice in choices),
        "rule": f"one of {', '.join(map(repr, choices))}",
    }


KEYS: dict[str, Key] = {
    "backbone": Key("cnn", lambda value: isinstance(value, str) or callable(value), "a name, or a function "
                    "(config, dataset) -> nn.Module", "the trunk of the model; `tunekit describe` lists them"),
    "pretrained": Key(False, **_one_of(True, False), meaning="start from torchvision's ImageNet weights"),
    "freeze": Key(None, **_one_of(None, "backbone"), meaning="train the head alone"),
    "image_size": Key(None, **_whole(8, none=True), meaning="pixels a side; None is the dataset's own size"),
    "augment": Key("none", **_one_of(*AUGMENTATIONS), meaning="drawn per image: mirror, shift by up to an eighth"),
    "batch_size": Key(64, **_whole(1), meaning="images per optimizer step"),
    "micro_batches": Key(1, **_whole(1), meaning="parts that a batch is computed in, which takes less memory"),
    "optimizer": Key("adam", **_one_of(*optimizers), meaning="sgd uses momentum; adam and adamw do not"),
    "lr": Key(1e-3, **_number(0, 1e3, low_too=False), meaning="learning rate, before its schedule"),
    "momentum": Key(0.0, **_number(0, 0.9999), meaning="of sgd"),
    "weight_decay": Key(0.0, **_number(0, 10), meaning="as the optimizer defines it"),
    "lr_schedule": Key("constant", **_one_of(*lr_schedules), meaning="the learning rate over time"),
    "warmup_epochs": Key(0, **_number(0, 1e4), meaning="epochs of linear rise before the schedule"),
    "label_smoothing": Key(0.0, **_number(0, 0.99), meaning="of the training loss, for classes"),
    "dropout": Key(None, lambda value: value is None or _number(0, 0.99)["allows"](value), "a number from 0 to 0.99, "
                   "or None", "before the last layer; None is the backbone's own"),
    "oversample": Key(False, **_one_of(True, False), meaning="even out classes, or tenths of the values, in train"),
    "precision": Key("auto", **_one_of(*PRECISIONS), meaning="of the arithmetic; auto is what trains fastest here"),
    "memory_format": Key("auto", **_one_of(*MEMORY_FORMATS), meaning="order of pixels in memory; auto as above"),
}  # fmt: skip

DEFAULTS: dict[str, Any] = {name: key.default for name, key in KEYS.items()}


def check_config(config: dict[str, Any], extra_keys: bool = False) -> None:
    """Check the keys and values of a config.

    Args:
        config: any part of the keys in KEYS.
        extra_keys: whether keys that KEYS does not know are allowed, as a user's own model may read them.

    Raises:
        UnknownNameError: a key that is not known.
        ConfigError: a value that its key does not allow.

    Example:
        >>> check_config({"lr": -1})
        Traceback (most recent call last):
        tunekit.errors.ConfigError: lr must be a number above 0 to 1000, but is -1
    """
    for name, value in config.items():
        if name not in KEYS:
            if extra_keys:
                continue
            raise UnknownNameError(unknown_name("config key", name, KEYS))
        if not KEYS[name].allows(value):
            raise ConfigError(f"{name} must be {KEYS[name].rule}, but is {value!r}")


def complete(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config with the default of every key that it leaves out."""
    return {**DEFAULTS, **config}
