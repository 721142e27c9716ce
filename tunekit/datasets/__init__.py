"""Datasets: a name, a folder, a table or arrays in; images, targets and three disjoint splits out."""

from tunekit.datasets import builtin as _builtin  # noqa: F401  (enters its names into the registry)
from tunekit.datasets import placepulse as _placepulse  # noqa: F401  (as above)
from tunekit.datasets.base import Dataset, Split
from tunekit.datasets.cache import open_dataset, publish
from tunekit.datasets.checking import check
from tunekit.datasets.loading import DATASETS, load_dataset, load_published, register_dataset

__all__ = [
    "DATASETS",
    "Dataset",
    "Split",
    "check",
    "load_dataset",
    "load_published",
    "open_dataset",
    "publish",
    "register_dataset",
]
