"""What a dataset is: one array of images, their targets, and which rows are train, val and test."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tunekit.datasets.arrays import array_hash, checked, checked_shape, pixel_statistics, read_torch
from tunekit.datasets.splits import split_rows
from tunekit.errors import DataError

TASKS = ("classification", "regression")


@dataclass(frozen=True, eq=False)
class Split:
    """Some rows of a dataset's images and targets. Also a map-style torch dataset: `len(split)`, `split[i]`.

    Args:
        all_images: uint8 (M, H, W, C), the whole dataset's images; may be a memory map, and is never copied.
        all_targets: int64 class numbers (M,) or float32 values (M,).
        rows: int64 (N,), the rows of this split.
        mean, std: per channel, of train images scaled to 0..1; what `split[i]` is normalised with.
    """

    all_images: np.ndarray
    all_targets: np.ndarray
    rows: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one image, float32 (C, H, W) normalised, and its target."""
        row = self.rows[index]
        pixels = torch.from_numpy(np.array(self.all_images[row])).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels - mean) / std, torch.as_tensor(self.all_targets[row])

    @property
    def images(self) -> np.ndarray:
        """The images of this split, uint8 (N, H, W, C): a copy."""
        return self.all_images[self.rows]

    @property
    def targets(self) -> np.ndarray:
        """The targets of this split, (N,): a copy."""
        return self.all_targets[self.rows]


NOTHING = Split(np.zeros((0, 1, 1, 1), np.uint8), np.zeros(0), np.zeros(0, np.int64), (), ())


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with targets, in three disjoint splits. Made by `load_dataset`, `from_arrays` or `from_torch`.

    Args:
        name: a short name, used in folder names and tables.
        task: "classification" or "regression".
        image_shape: (channels, height, width), in pixels.
        classes: the classes' names, in the order of their numbers; empty for regression.
        mean, std: per channel, of the train split's pixels scaled to 0..1.
        target_mean, target_std: of the train split's targets (0 and 1 for classification).
        num_images: how many images each split holds.
        fingerprint: changes when a pixel, a target or the splits change.
        source: the arguments of `load_dataset` that give this dataset again; empty when it came from arrays.
        train, val, test: the splits; empty in a dataset that only describes (`Dataset(**summary)`).
        names: each image's file name, by row of the whole dataset; empty when it has none.
        preparation: how image files were made into pixels (`decoding.Preparation`); empty for arrays.
        notes: what was noticed or done while reading (skipped files, converted images), for people.
        comparisons: int64 (P, 2), rows of the whole dataset: of two test images, the one people chose, then the other.
    """

    name: str
    task: str
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    target_mean: float
    target_std: float
    num_images: dict[str, int]
    fingerprint: str
    source: dict[str, Any] = field(default_factory=dict)
    train: Split = NOTHING
    val: Split = NOTHING
    test: Split = NOTHING
    names: Sequence[str] = ()
    preparation: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    comparisons: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))

    @property
    def num_channels(self) -> int:
        """Channels of an image: 1 for grey, 3 for colour."""
        return self.image_shape[0]

    @property
    def num_outputs(self) -> int:
        """How many outputs a model needs: one a class, or one value for regression."""
        return len(self.classes) or 1

    def summary(self) -> dict[str, Any]:
        """Return all but the data itself, fit for JSON; `Dataset.from_summary` reads it."""
        data = ("train", "val", "test", "names", "comparisons")
        return {key: copy.deepcopy(value) for key, value in vars(self).items() if key not in data}

    @classmethod
    def from_summary(cls, summary: dict[str, Any]) -> Dataset:
        """Return a dataset without data, enough to build a model: what an experiment remembers of its dataset."""
        fields: dict[str, Any] = dict(summary)
        fields |= {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
        return cls(**{**fields, "image_shape": checked_shape(fields["image_shape"])})

    @classmethod
    def from_arrays(
        cls,
        train: tuple[Any, Any],
        val: tuple[Any, Any] | None = None,
        test: tuple[Any, Any] | None = None,
        *,
        name: str = "arrays",
        classes: Sequence[str] = (),
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        split_seed: int = 0,
    ) -> Dataset:
        """Return a dataset made of arrays in memory.

        Args:
            train, val, test: (images, targets) each; images uint8 (N, H, W) or (N, H, W, C), targets (N,): whole
                numbers from 0 for classes, floats for regression. A split that is not given is cut from train.
            name: a short name for tables.
            classes: the classes' names; their numbers are used when empty.
            val_fraction, test_fraction: 0..1, the share cut from train where val or test is not given.
            split_seed: fixes what is cut.

        Raises:
            DataError: images and targets differ in number or kind from what is said above.

        Example:
            >>> import numpy as np
            >>> images = np.zeros((100, 8, 8), np.uint8)
            >>> dataset = Dataset.from_arrays(train=(images, np.arange(100) % 4))
            >>> dataset.num_images, dataset.image_shape, dataset.classes
            ({'train': 72, 'val': 8, 'test': 20}, (1, 8, 8), ('0', '1', '2', '3'))
        """
        given = {"train": train, "val": val, "test": test}
        parts = {split: checked(split, *pair) for split, pair in given.items() if pair is not None}
        images = np.concatenate([part[0] for part in parts.values()]) if len(parts) > 1 else parts["train"][0]
        targets = np.concatenate([part[1] for part in parts.values()])
        split_of = np.repeat(list(parts), [len(part[1]) for part in parts.values()])
        return build(
            name, images, targets, split_of, classes=classes,
            val_fraction=val_fraction, test_fraction=test_fraction, split_seed=split_seed,
        )  # fmt: skip

    @classmethod
    def from_torch(cls, train: Any, val: Any = None, test: Any = None, **options: Any) -> Dataset:
        """Return a dataset read once out of map-style torch datasets of (image, target).

        Args:
            train, val, test: datasets whose images are PIL images, uint8 tensors (C, H, W), or float tensors
                (C, H, W) in 0..1, all of one size.
            options: those of `from_arrays`.

        Raises:
            DataError: an image is of another kind or size.
        """
        given = {"train": train, "val": val, "test": test}
        pairs: dict[str, Any] = {key: read_torch(value) for key, value in given.items() if value is not None}
        return cls.from_arrays(**pairs, **options)


def build(
    name: str,
    images: np.ndarray,
    targets: np.ndarray,
    split_of: np.ndarray,
    *,
    classes: Sequence[str] = (),
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    groups: Sequence[str] | None = None,
    images_hash: str | None = None,
    **described: Any,
) -> Dataset:
    """Cut the splits, measure the train split, and return the Dataset. All loaders end here.

    Args:
        images: uint8 (M, H, W, C), possibly a memory map.
        targets: (M,); int64 class numbers mean classification, floats regression.
        split_of: (M,) strings "train", "val" or "test": what is given; val and test are cut from train if absent.
        groups: (M,), images of one group stay in one split (a city, a patient); None when each stands alone.
        images_hash: `array_hash(images)` if it is known already, which spares reading them all.
        described: further fields of Dataset (names, notes, source).

    Raises:
        DataError: fewer than two classes, a class number without a name, or values that are all the same.
    """
    targets, classes = _typed(name, targets, classes)
    task = "classification" if classes else "regression"
    rows = split_rows(targets, split_of, val_fraction, test_fraction, split_seed, groups, classes)
    fingerprint = hashlib.sha256(f"{images_hash or array_hash(images)} {array_hash(targets)}".encode())
    for split in rows.values():
        fingerprint.update(split.tobytes())
    mean, std = pixel_statistics(images, rows["train"])
    splits: dict[str, Any] = {split: Split(images, targets, numbers, mean, std) for split, numbers in rows.items()}
    train_targets = targets[rows["train"]]
    if task == "regression" and train_targets.min() == train_targets.max():
        raise DataError(f"{name}: every train target is {train_targets[0]}: there is nothing to learn")
    return Dataset(
        name=name,
        task=task,
        image_shape=(images.shape[3], images.shape[1], images.shape[2]),
        classes=classes,
        mean=mean,
        std=std,
        target_mean=float(train_targets.mean()) if task == "regression" else 0.0,
        target_std=float(train_targets.std()) if task == "regression" else 1.0,
        num_images={split: len(numbers) for split, numbers in rows.items()},
        fingerprint=fingerprint.hexdigest()[:32],
        **splits,
        **described,
    )


def _typed(name: str, targets: np.ndarray, classes: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return class numbers as int64 with a name for each, or values as float32 with no names."""
    if not np.issubdtype(targets.dtype, np.integer):
        return targets.astype(np.float32), ()
    classes = tuple(map(str, classes or range(int(targets.max()) + 1)))
    if len(classes) < 2 or targets.max() >= len(classes):
        raise DataError(
            f"{name}: {len(classes)} classes are named and the largest class number is {targets.max()}: "
            "at least two classes are needed, and a name for each number from 0"
        )
    return targets.astype(np.int64), classes
