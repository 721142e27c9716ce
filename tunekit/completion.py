"""What a shell offers after a press of Tab: names that tunekit knows, found without importing torch.

The registries that own these names import torch; tests compare them.
"""

import pkgutil
from collections.abc import Callable, Iterable
from pathlib import Path

import search_spaces

DATASETS = ("cifar10", "digits", "fashion_mnist", "mnist", "placepulse")
DOWNLOADED = ("cifar10", "fashion_mnist", "mnist", "placepulse")
BACKBONES = ("cifar_net", "cnn", "cnn_small", "lenet", "mlp")  # and torchvision's, which are a hundred
SEARCHERS = ("cmaes", "forecast", "gp", "grid", "qmc", "random", "tpe")
SCHEDULERS = ("asha", "auto", "hyperband", "median", "none")
TRACKERS = ("tensorboard", "wandb")
METRICS = ("val_accuracy", "val_loss", "val_mae", "val_mse", "val_pearson", "val_r2")
EXPERIMENTS = Path("experiments")

Completer = Callable[[str], list[str]]


def among(*names: str) -> Completer:
    """Return a function that gives the names that begin like what was typed.

    Example:
        >>> among("asha", "auto", "none")("a")
        ['asha', 'auto']
    """
    return lambda incomplete: beginning(incomplete, names)


def spaces(incomplete: str) -> list[str]:
    """Return the ready-made spaces that begin like this."""
    return beginning(incomplete, sorted(module.name for module in pkgutil.iter_modules(search_spaces.__path__)))


def experiments(incomplete: str) -> list[str]:
    """Return the experiments that begin like this, by their folders in the usual place or where was begun to look."""
    folder = Path(incomplete).parent if "/" in incomplete else EXPERIMENTS
    try:
        found = sorted(str(path.parent) for path in folder.glob("*/experiment.json"))
    except OSError:
        return []
    return beginning(incomplete, found)


def beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    """Return the names that begin like this."""
    return [name for name in names if name.startswith(incomplete)]
