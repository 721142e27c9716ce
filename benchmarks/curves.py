"""Tables of complete learning curves: which there are, how their data is cut, how they are kept and looked up.

A table is a full grid of configs of one backbone on one dataset, each trained for all epochs; `record_curves.py` makes
them, `search_quality.py` replays them. Validation splits are large (700 to 10,000 images), so that "within 0.5 % of the
best" is several images, not less than one.
"""

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from tunekit.config import DEFAULTS, complete
from tunekit.datasets import Dataset, load_dataset

HERE = Path(__file__).parent
METRIC = "val_accuracy"
WITHIN = 0.005  # of the table's best, absolute: where a search has found what it looked for
NUM_TEST = 200  # images that nothing is measured on: a Dataset has three splits
Grid = dict[str, tuple[float, ...]]


def tenths(first: int, last: int) -> tuple[float, ...]:
    """Return 10^(i/2) from i = first to last, to three digits.

    Example:
        >>> tenths(-2, 0)
        (0.1, 0.316, 1.0)
    """
    return tuple(float(f"{10 ** (i / 2):.3g}") for i in range(first, last + 1))


@dataclass(frozen=True)
class Recipe:
    """What a table is made of: 7 x 3 x 3 x 3 = 189 configs of SGD, axes log-spaced (momentum in 1 - m).

    Args:
        backbone: what is trained.
        num_train, num_val: images; None where the dataset is cut by share.
        chance: what `tunekit.metrics.chance` says of the accuracy on its val images.
        grid: the values of each axis, in order.
    """

    backbone: str
    num_train: int | None
    num_val: int | None
    grid: Grid
    chance: float

    @property
    def configs(self) -> list[dict[str, Any]]:
        """Every config of the grid, complete, the last axis varying fastest."""
        points = itertools.product(*self.grid.values())
        fixed = {"backbone": self.backbone, "optimizer": "sgd"}
        return [complete({**fixed, **dict(zip(self.grid, point, strict=True))}) for point in points]


def _grid(lr: tuple[float, ...], batch_size: tuple[int, ...]) -> Grid:
    return {"lr": lr, "batch_size": batch_size, "momentum": (0.0, 0.9, 0.99), "weight_decay": (1e-5, 1e-4, 1e-3)}


RECIPES = {
    "digits": Recipe("cnn_small", None, None, _grid(tenths(-6, 0), (16, 64, 256)), 0.1195),
    "mnist": Recipe("lenet", 6_000, 2_000, _grid(tenths(-4, 2), (32, 96, 256)), 0.1307),  # sigmoids take a higher rate
    "cifar10": Recipe("cnn_small", 5_000, 10_000, _grid(tenths(-6, 0), (32, 96, 256)), 0.1215),
}


def load(table: str, data_dir: Path | None, cifar: Path | None) -> Dataset | None:
    """Return a table's dataset, the same images each time; None where its files were not given.

    Args:
        table: a name of RECIPES.
        data_dir: holds MNIST/raw.
        cifar: a folder of class folders of images, or one that holds such a folder as `train`.
    """
    recipe = RECIPES[table]
    if table == "digits":
        return load_dataset("digits", val_fraction=0.4, test_fraction=0.1)
    wanted = recipe.num_train + recipe.num_val + NUM_TEST
    if table == "mnist" and data_dir is not None:
        whole = load_dataset("mnist", data_dir=data_dir).train
        rows = np.random.default_rng(0).permutation(whole.rows)[:wanted]
        return _cut(table, whole.all_images[rows], whole.all_targets[rows], recipe)
    if table == "cifar10" and cifar is not None:
        images, targets = _read_folder(cifar / "train" if (cifar / "train").is_dir() else cifar, wanted)
        return _cut(table, images, targets, recipe)
    return None


def _read_folder(folder: Path, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Read the first images of each class, as many of each, in random order."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    if not classes:
        raise SystemExit(f"{folder} holds no class folders")
    each = math.ceil(wanted / len(classes))
    found = [(path, number) for number, name in enumerate(classes) for path in sorted(name.iterdir())[:each]]
    found = [found[i] for i in np.random.default_rng(0).permutation(len(found))][:wanted]
    if len(found) < wanted:
        raise SystemExit(f"{folder} holds too few images: {wanted:,} are needed")
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in found])
    return images, np.array([number for _, number in found])


def _cut(name: str, images: np.ndarray, targets: np.ndarray, recipe: Recipe) -> Dataset:
    ends = [recipe.num_train, recipe.num_train + recipe.num_val]
    parts = zip(np.split(images, ends), np.split(targets, ends), strict=True)
    return Dataset.from_arrays(**dict(zip(("train", "val", "test"), parts, strict=True)), name=name)


class Curves:
    """A table to replay.

    Args:
        name: of the table.
        grid: the values of each axis, in order.
        accuracy: (configs, epochs), in the order of the grid's product; NaN from where a training diverged.
        seconds: (configs,), what an epoch of each takes.
        chance: what a model that has learned nothing may get.
    """

    def __init__(self, name: str, grid: Grid, accuracy: np.ndarray, seconds: np.ndarray, chance: float) -> None:
        self.name, self.grid, self.accuracy, self.seconds, self.chance = name, grid, accuracy, seconds, chance
        self.max_epochs = accuracy.shape[1]
        self.points = list(itertools.product(*(range(len(values)) for values in grid.values())))
        self.numbers = {point: number for number, point in enumerate(self.points)}
        self.best = float(np.nanmax(accuracy))
        self.target = self.best - WITHIN - 1e-9

    def __len__(self) -> int:
        return len(self.accuracy)

    @property
    def num_good(self) -> int:
        """How many configs reach the target at some epoch."""
        return int((np.nan_to_num(self.accuracy).max(axis=1) >= self.target).sum())

    @property
    def bounds(self) -> dict[str, int]:
        """The last index of each axis: searchers draw whole numbers from 0 to it, so an axis keeps its order."""
        return {name: len(values) - 1 for name, values in self.grid.items()}

    def number(self, params: dict[str, int]) -> int:
        """Return the config that indices along the axes stand for."""
        return self.numbers[tuple(params[name] for name in self.grid)]

    @property
    def default(self) -> dict[str, int]:
        """The grid's point nearest tunekit's default config, which every experiment of it tries first."""

        def distance(value: float, default: float) -> float:
            return abs(math.log((value + 1e-6) / (default + 1e-6)))

        return {
            name: min(range(len(values)), key=lambda i: distance(values[i], DEFAULTS[name]))
            for name, values in self.grid.items()
        }


def read_curves(path: Path) -> Curves:
    """Read a table that `record_curves.py` wrote."""
    frame = pd.read_parquet(path).sort_values(["config", "epoch"])
    grid = {name: tuple(values) for name, values in json.loads(frame.attrs["grid"]).items()}
    table = frame.pivot(index="config", columns="epoch")
    accuracy, seconds = (table[column].to_numpy(np.float64) for column in (METRIC, "epoch_s"))
    if len(accuracy) != math.prod(map(len, grid.values())):
        raise SystemExit(f"{path} is not a full grid: record it again")
    seconds = np.median(seconds, axis=1)  # the machine may have been busy for a while
    return Curves(path.stem, grid, accuracy, seconds, RECIPES[path.stem].chance)


def synthetic(seed: int, max_epochs: int = 27) -> Curves:
    """Return a made-up table, to try the simulator on: no result of it means anything."""
    random = np.random.default_rng(seed)
    grid = RECIPES["digits"].grid
    rows = np.array(list(itertools.product(*grid.values())))
    effective = np.log10(rows[:, 0] / (1 - rows[:, 2]) / rows[:, 1] * 64)  # steps that grow with lr and momentum
    off = effective - random.normal(-1, 0.3)
    peak = 0.95 - 0.05 * off**2 - 0.01 * np.abs(np.log10(rows[:, 3]) + 4) + random.normal(0, 0.004, len(rows))
    rate = 0.5 * 10 ** (0.15 * np.minimum(off, 0.5))
    epochs = np.arange(1, max_epochs + 1)
    accuracy = 0.1 + (np.maximum(peak, 0.1) - 0.1)[:, None] * (1 - np.exp(-rate[:, None] * epochs))
    accuracy += random.normal(0, 0.003, accuracy.shape)
    accuracy[off > 1.8] = np.nan
    return Curves(f"synthetic-{seed}", grid, accuracy, 0.2 + 10 / rows[:, 1], chance=0.11)
