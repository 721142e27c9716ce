"""A dataset put where every process of this machine can open it without copying: publish() and open_dataset()."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tunekit.datasets.base import Dataset, Split
from tunekit.datasets.splits import SPLITS
from tunekit.datasets.store import (
    KINDS,
    aside,
    cache_folder,
    locked,
    open_images,
    pool_is_whole,
    read_json,
    size_of,
    sizes_match,
    store_images,
    write_json,
)
from tunekit.errors import DataError


def publish(dataset: Dataset) -> Path:
    """Store a dataset if it is not there yet, and return the folder that `open_dataset` opens in any process.

    Images that came out of the cache are not written again, nor read.

    Args:
        dataset: one with data.

    Raises:
        DataError: the disk is full, or the cache cannot be used.

    Example:
        >>> from tunekit.datasets import load_dataset
        >>> dataset = load_dataset("digits")
        >>> open_dataset(publish(dataset)).fingerprint == dataset.fingerprint
        True
    """
    if not len(dataset.train):
        raise DataError(f"dataset {dataset.name!r} is a description without data: load it first")
    images = dataset.train.all_images
    described = dataset.summary() | {"names": list(dataset.names), "shape": list(images.shape)}
    identity = hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=8).hexdigest()
    name = f"{dataset.fingerprint}-{identity}"
    folder = cache_folder() / "datasets" / name
    with locked(name):
        if _is_whole(folder):
            return folder
        pool = store_images(images)
        with aside(folder) as new:
            np.save(new / "targets.npy", dataset.train.all_targets, allow_pickle=False)
            for split in SPLITS:
                np.save(new / f"rows-{split}.npy", getattr(dataset, split).rows, allow_pickle=False)
            arrays = {path.name: path.stat().st_size for path in new.glob("*.npy")}
            write_json(new / "dataset.json", described | {"pool": pool.name, "bytes": arrays})
    return folder


def find_entry(entry: Path) -> Path | None:
    """Return the entry that `publish` made, there or under the same name in this machine's cache; None if neither."""
    return next((path for path in (entry, cache_folder() / "datasets" / entry.name) if _is_whole(path)), None)


def open_dataset(path: str | Path) -> Dataset:
    """Return the dataset that `publish` stored at this path, its images memory-mapped.

    Args:
        path: what `publish` returned.

    Returns:
        The same Dataset; its images are copy-on-write: changing them changes nothing on disk.

    Raises:
        DataError: nothing is there, or it is damaged.
    """
    folder = Path(path)
    if not _is_whole(folder):
        raise DataError(f"there is no whole dataset in the cache at {folder}: load the dataset again")
    described = json.loads((folder / "dataset.json").read_text())
    pool = folder.parent.parent / "pools" / described.pop("pool")
    for key in ("shape", "bytes"):
        del described[key]
    images = open_images(pool)
    targets = _load(folder, "targets")
    summary = Dataset.from_summary(described)
    splits = {
        split: Split(images, targets, _load(folder, f"rows-{split}"), summary.mean, summary.std) for split in SPLITS
    }
    return Dataset(**vars(summary) | splits)


def entries() -> list[dict[str, Any]]:
    """Return what the cache holds, one dict per entry: kind, name, num_images, size_gb, path."""
    found = []
    for kind in KINDS:
        for path in sorted((cache_folder() / kind).iterdir()):
            described = read_json(path / KINDS[kind]) or {}
            shape = described.get("shape") or [0]
            name = described.get("name", path.name)
            found.append(
                {"kind": kind, "name": name, "num_images": shape[0], "size_gb": size_of(path) / 1e9, "path": str(path)}
            )
    return found


def clear() -> float:
    """Delete all entries and return the gigabytes freed; a process that has one mapped keeps its map."""
    freed = sum(entry["size_gb"] for entry in entries())
    for kind in KINDS:
        for path in (cache_folder() / kind).iterdir():
            shutil.rmtree(path, ignore_errors=True)
    return freed


def _load(folder: Path, name: str) -> np.ndarray:
    try:
        return np.load(folder / f"{name}.npy", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{folder / name}.npy in the cache is damaged ({error}): load the dataset again") from error


def _is_whole(folder: Path) -> bool:
    described = read_json(folder / "dataset.json")
    if described is None:
        return False
    return sizes_match(folder, described) and pool_is_whole(folder.parent.parent / "pools" / described["pool"])
