"""From a name, a path or a Dataset to a Dataset: the one door through which data comes in."""

import dataclasses
import difflib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunekit.datasets import files, tables
from tunekit.datasets.base import Dataset
from tunekit.datasets.cache import find_entry, open_dataset, publish
from tunekit.datasets.fetching import on_this_machine
from tunekit.datasets.table_rows import SUFFIXES
from tunekit.errors import ConfigError, DataError, UnknownNameError
from tunekit.registry import Registry
from tunekit.storage import as_place

DATASETS: Registry[Callable[..., Dataset]] = Registry("dataset")
NO_MATTER = ("data_dir", "max_size", "download", "on_bad_image")  # loaders may leave these out, having no use for them
LEFT_OUT = ("max_size", "val_fraction", "test_fraction")  # where they are None: a loader has a default of its own


def register_dataset(name: str) -> Callable[[Callable[..., Dataset]], Callable[..., Dataset]]:
    """Return a decorator that makes a function a dataset's loader, so that `load_dataset(name)` calls it.

    The function gets those of `load_dataset`'s arguments that it names (`data_dir`, `image_size`, `max_size`,
    `val_fraction`, `test_fraction`, `split_seed`, `on_bad_image`, `download`) and any options of its own, by keyword.

    Args:
        name: what people call the dataset.

    Raises:
        ConfigError: the name is taken.

    Example:
        >>> import numpy as np
        >>> from tunekit.datasets import Dataset
        >>> @register_dataset("stripes")
        ... def stripes(data_dir=None, split_seed=0, num_images=100):
        ...     targets = np.arange(num_images) % 2
        ...     images = np.zeros((num_images, 8, 8), np.uint8)
        ...     images[targets == 1, ::2] = 255
        ...     return Dataset.from_arrays(train=(images, targets), split_seed=split_seed)
        >>> load_dataset("stripes", num_images=200).num_images
        {'train': 140, 'val': 20, 'test': 40}
    """
    return DATASETS.register(name)


def load_dataset(
    name_or_path: str | Path | Dataset,
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    max_size: int | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    split_seed: int = 0,
    on_bad_image: str = "error",
    download: bool = False,
    **options: Any,
) -> Dataset:
    """Return a dataset with train, val and test splits.

    Args:
        name_or_path: a registered name ("digits", "mnist", ...), a folder of class folders or the URL of one, a .csv
            or .tsv table of path and target, or a Dataset, which is returned as it is. A name wins over a folder of
            that name: write "./mnist" for the folder.
        data_dir: where a registered dataset's files lie, a path or a URL such as s3://bucket/data, of which each
            machine fetches a copy into its cache; "data" in the current folder when None.
        image_size: px; images are resized to this square. None keeps their size, or takes max_size where sizes differ.
        max_size: px; images of a folder or table become squares of this where their sizes differ (64 when None), or
            where all have one size that is larger. `tunekit.run` gives the largest image_size of its space.
        val_fraction, test_fraction: 0..1, the share cut from train where the data has no val or test of its own; the
            loader's when None: 0.1 and 0.2, for placepulse 0.05 and 0.3.
        split_seed: fixes which images are cut.
        on_bad_image: "error" lists all bad images and stops; "skip" leaves them out and says so in `dataset.notes`.
        download: fetch a registered dataset's files into data_dir if they are not there.
        options: the loader's own, e.g. `task`, `path_column`, `target_column`, `split_column` for tables.

    Returns:
        A Dataset, whose `source` holds the arguments that give it again, in another process too.

    Raises:
        UnknownNameError: no dataset has this name and nothing has this path.
        ConfigError: an option that the loader does not take.
        DataError: data is missing, bad or unfit; all that was found is listed.

    Example:
        >>> load_dataset("digits").num_images
        {'train': 1259, 'val': 179, 'test': 359}
    """
    if isinstance(name_or_path, Dataset):
        return name_or_path
    load, identity = _loader(name_or_path)
    if on_bad_image not in ("error", "skip"):
        raise ConfigError(f"on_bad_image must be 'error' or 'skip', but is {on_bad_image!r}")
    for name, size in {"image_size": image_size, "max_size": max_size}.items():
        if size is not None and not (isinstance(size, int) and 1 <= size <= 4096):
            raise ConfigError(f"{name} must be a whole number of pixels from 1 to 4096, but is {size!r}")
    shared: dict[str, Any] = {
        "data_dir": None if data_dir is None else _absolute(data_dir),
        "image_size": image_size, "max_size": max_size, "val_fraction": val_fraction, "test_fraction": test_fraction,
        "split_seed": split_seed, "on_bad_image": on_bad_image, "download": download,
    }  # fmt: skip
    accepted = _accepted(load, identity, shared, options)
    if isinstance(accepted.get("data_dir"), str):
        accepted["data_dir"] = str(on_this_machine(accepted["data_dir"]))
    dataset = load(**accepted)
    source = {"name_or_path": identity, **shared, "download": False, **options}
    return dataclasses.replace(dataset, source=source if _is_json(source) else {})


def load_published(entry: Path, source: dict[str, Any]) -> Dataset:
    """Return a dataset that `publish` stored: opened, or, on another machine, loaded again from where it came.

    Args:
        entry: what `publish` returned there.
        source: the dataset's.

    Raises:
        DataError: this machine has no such data, or other data than that.
    """
    found = find_entry(entry)
    if found is None:
        if not source:
            raise DataError(f"there is no whole dataset in the cache at {entry}: load the dataset again")
        found = publish(load_dataset(**source))
        if found.name != entry.name:
            raise DataError(f"the data of {source['name_or_path']!r} on this machine is not what the search began with")
    return open_dataset(found)


def _loader(name_or_path: str | Path) -> tuple[Callable[..., Dataset], str]:
    """Return the function that loads, and the name or absolute path that stands for the data in `source`."""
    if isinstance(name_or_path, str) and name_or_path in DATASETS:
        return DATASETS[name_or_path], name_or_path
    if not isinstance(name_or_path, str | Path):
        raise DataError(f"a dataset is a name, a path or a Dataset, but {type(name_or_path).__name__} was given")
    path = on_this_machine(name_or_path)
    if path.is_dir():
        return _at(files.load_folder, path), _absolute(name_or_path)
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return _at(tables.load_table, path), str(path)
    if path.is_file():
        raise DataError(f"{path} is neither a folder of class folders nor a .csv or .tsv table")
    if isinstance(name_or_path, Path) or "/" in name_or_path or Path(name_or_path).suffix:
        raise DataError(f"there is no dataset at {path}: give a folder of class folders or a .csv or .tsv table")
    try:
        return DATASETS[name_or_path], name_or_path
    except UnknownNameError as error:
        raise UnknownNameError(f"{error}; or give the path of a folder or of a .csv or .tsv table") from None


def _absolute(place: str | Path) -> str:
    """Return what names a place wherever one is: its absolute path, or its URL."""
    known = as_place(place)
    return known if isinstance(known, str) else str(known.expanduser().absolute())


def _at(load: Callable[..., Dataset], path: Path) -> Callable[..., Dataset]:
    """Bind a path to its loader, keeping a signature that says which options are left."""

    def load_path(**options: Any) -> Dataset:
        return load(path, **options)

    signature = inspect.signature(load)
    load_path.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=list(signature.parameters.values())[1:]
    )
    return load_path


def _accepted(
    load: Callable[..., Dataset], identity: str, shared: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments that the loader takes; refuse those it would have to ignore."""
    parameters = inspect.signature(load).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    takes_all = len(names) < len(parameters)
    own = [name for name in names if name not in shared]
    for name in options:
        if name not in own and not takes_all:
            nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            raise ConfigError(f"dataset {identity!r} has no option {name!r}: {hint}Known: {', '.join(sorted(names))}")
    defaults = inspect.signature(load_dataset).parameters
    for name, value in shared.items():
        if name not in names and not takes_all and name not in NO_MATTER and value != defaults[name].default:
            raise ConfigError(f"dataset {identity!r} does not take {name}={value!r}; it takes {', '.join(names)}")
    given = {name: value for name, value in shared.items() if value is not None or name not in LEFT_OUT}
    return {name: value for name, value in given.items() if name in names or takes_all} | options


def _is_json(value: Any) -> bool:
    """Whether JSON holds it; a dataset made with other options can be made again only by the same call."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
