"""tunekit finds the best way to train an image model, and says honestly how good it is.

import tunekit

results = tunekit.run("mnist", dataset="mnist", data_dir="data")
results.best_config, results.test()["test_accuracy"]
"""

import logging
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tunekit import collector

if TYPE_CHECKING:
    from tunekit.backbones import register_backbone
    from tunekit.datasets import Dataset, load_dataset, register_dataset
    from tunekit.distributions import choice, grid, loguniform, randint, uniform
    from tunekit.errors import (
        CheckpointError,
        ClusterError,
        ConfigError,
        DataError,
        ExperimentError,
        MissingExtraError,
        SpaceError,
        StorageError,
        TrainingError,
        TunekitError,
        UnknownNameError,
    )
    from tunekit.events import Trial
    from tunekit.experiment import run, train
    from tunekit.inference import TrainedModel, load_model
    from tunekit.optuna_export import export_optuna
    from tunekit.plan import Plan
    from tunekit.results import Results, load_results
    from tunekit.resuming import resume

__version__ = "0.1.0"
__all__ = [
    "CheckpointError",
    "ClusterError",
    "ConfigError",
    "DataError",
    "Dataset",
    "ExperimentError",
    "MissingExtraError",
    "Plan",
    "Results",
    "SpaceError",
    "StorageError",
    "TrainedModel",
    "TrainingError",
    "Trial",
    "TunekitError",
    "UnknownNameError",
    "choice",
    "export_optuna",
    "grid",
    "load_dataset",
    "load_model",
    "load_results",
    "loguniform",
    "randint",
    "register_backbone",
    "register_dataset",
    "resume",
    "run",
    "train",
    "uniform",
]
# Loaded when first asked for: torch and Ray take seconds to import, which `tunekit --help` need not wait for.
_HOMES = ("errors", "distributions", "events", "datasets", "backbones", "inference", "results", "plan", "experiment",
          "resuming", "optuna_export")  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in __all__:
        with collector.at_rest(), warnings.catch_warnings():
            # as they are imported, tqdm and Ray ask a notebook for widgets of no use
            warnings.filterwarnings("ignore", message="IProgress not found")
            logging.getLogger("ray.widgets").setLevel(logging.WARNING)
            homes = (import_module(f"tunekit.{home}") for home in _HOMES)
            globals()[name] = next(getattr(home, name) for home in homes if hasattr(home, name))
        return globals()[name]
    raise AttributeError(f"module 'tunekit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
