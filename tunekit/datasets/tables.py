"""A CSV or TSV of path and target: read strictly, all that is wrong listed with its line number."""

import math
import os
import stat
from collections import Counter
from functools import lru_cache
from pathlib import Path

from tunekit.datasets.base import TASKS, Dataset
from tunekit.datasets.decoding import Preparation
from tunekit.datasets.listing import Listing, Problem, finish, read, shown, twins
from tunekit.datasets.table_rows import Row, fault, read_rows
from tunekit.errors import ConfigError, unknown_name

MISSING = ("", "nan")


def load_table(
    path: Path,
    *,
    path_column: str = "path",
    target_column: str = "target",
    split_column: str | None = None,
    task: str | None = None,
    image_size: int | None = None,
    max_size: int | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    on_bad_image: str = "error",
) -> Dataset:
    """Return the dataset that a table lists.

    Args:
        path: a .csv (commas) or .tsv (tabs) with a header, in UTF-8.
        path_column: its values are paths relative to the table's folder, and within it.
        target_column: words or whole numbers are classes, other numbers are values, unless `task` says so.
        split_column: its values are train, val and test; None means "split" if there is such a column.
        task: "classification" or "regression"; None decides by the targets.
        image_size, max_size, val_fraction, test_fraction, split_seed, on_bad_image: as in `load_dataset`.

    Raises:
        ConfigError: `task` is none of the two.
        DataError: a wrong column, bad lines or bad images: all of them, listed with their line numbers.
    """
    listing = list_table(
        path, path_column=path_column, target_column=target_column, split_column=split_column, task=task
    )
    decoded = read(listing, Preparation(image_size, max_size))
    return finish(
        path.stem, listing, decoded, on_bad_image,
        val_fraction=val_fraction, test_fraction=test_fraction, split_seed=split_seed,
    )  # fmt: skip


def list_table(
    path: Path,
    *,
    path_column: str = "path",
    target_column: str = "target",
    split_column: str | None = None,
    task: str | None = None,
) -> Listing:
    """List a table's images, targets and splits, and what is wrong; opens no image. Arguments as in `load_table`."""
    if task is not None and task not in TASKS:
        raise ConfigError(unknown_name("task", task, TASKS))
    listing = Listing(Path(os.path.realpath(path.parent)))
    rows = read_rows(listing, path, path_column, target_column, split_column)
    usable = [row for row in rows if _target_is_there(listing, path, row)]
    kind = task or _kind(usable)
    targets = _class_targets(listing, path, usable) if kind == "classification" else _values(listing, path, usable)
    seen: dict[str, Row] = {}
    for row in usable:
        name = _inside(listing, path, row)
        if name is None or row not in targets:
            continue
        first = seen.setdefault(name, row)
        if first is not row:
            same = targets[first] == targets[row] and first.split == row.split
            says, said = (" ".join([repr(each.target), each.split]).strip() for each in (row, first))
            other = f"says {says} of {shown(name)}, of which line {first.line} said {said}"
            fault(listing, path, row, f"repeats line {first.line}" if same else other)
            continue
        listing.names.append(name)
        listing.targets.append(targets[row])
        listing.split_of.append(row.split or "train")
        listing.where.append(f"{path.name} line {row.line}: {shown(name)}")
    _check_whole(listing, path, len(rows))
    return listing


def _target_is_there(listing: Listing, path: Path, row: Row) -> bool:
    if row.target.strip().lower() not in MISSING:
        return True
    fault(listing, path, row, f"has no target ({row.target!r})")
    return False


def _kind(rows: list[Row]) -> str:
    """Return the task: numbers with a fraction are values; words and whole numbers are classes."""
    numbers = [row.target for row in rows if _number(row.target) is not None]
    fractions = [text for text in numbers if not _is_whole(text)]
    return "regression" if len(numbers) * 2 > len(rows) and fractions else "classification"


def _class_targets(listing: Listing, path: Path, rows: list[Row]) -> dict[Row, int]:
    """Return class numbers, in the order of the classes' names, or of their values if all are whole numbers."""
    all_whole = all(_is_whole(row.target) for row in rows)
    names = {row: str(int(row.target)) if all_whole else row.target for row in rows}
    classes = sorted(set(names.values()), key=(lambda name: (int(name), name)) if all_whole else None)
    for alike in twins(classes):
        names_alike = " and ".join(map(repr, sorted(alike)))
        reason = f"has classes {names_alike} whose names differ in case, spaces or Unicode form only: join them"
        listing.faults.append(Problem(path.name, reason))
    if len(classes) * 2 > len(rows) > 2:
        reason = f"has {len(classes)} classes in {len(rows)} lines: if its targets are numbers, give task='regression'"
        listing.faults.append(Problem(path.name, reason))
    listing.classes = tuple(map(shown, classes))
    numbers = {name: number for number, name in enumerate(classes)}
    return {row: numbers[name] for row, name in names.items()}


def _values(listing: Listing, path: Path, rows: list[Row]) -> dict[Row, float]:
    """Return the targets as floats; those that are none are faults."""
    values = {}
    for row in rows:
        value = _number(row.target)
        if value is None or not math.isfinite(value):
            fault(listing, path, row, f"has target {row.target!r}: it must be a finite number, as the others are")
        else:
            values[row] = value
    return values


def _inside(listing: Listing, path: Path, row: Row) -> str | None:
    """Return a row's path relative to the root, or enter why it is none of a regular file inside."""
    name = os.path.normpath(os.path.join(listing.root, row.path))
    folder, _, base = name.rpartition("/")
    real, problem, mode = f"{_real_folder(folder)}/{base}", "", 0
    try:
        mode = os.lstat(real).st_mode
        if stat.S_ISLNK(mode):
            real = os.path.realpath(real)
            mode = os.stat(real).st_mode
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    inside = f"{listing.root}/"
    if not row.path or not f"{real}/".startswith(inside) or not f"{name}/".startswith(inside):
        fault(listing, path, row, f"has path {shown(row.path)!r}: it must lie inside {listing.root}")
        return None
    if not problem and not stat.S_ISREG(mode):
        problem = "is not a regular file"
    if problem:
        listing.problems.append(Problem(f"{path.name} line {row.line}: {shown(row.path)}", problem))
        return None
    return name.removeprefix(inside)


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def _check_whole(listing: Listing, path: Path, num_rows: int) -> None:
    """Enter the faults of the table as a whole."""
    if not num_rows:
        listing.faults.append(Problem(path.name, "has no lines below its header"))
    elif len(set(listing.targets)) == 1 and len(listing.targets) > 1:
        target = listing.classes[0] if listing.classes else listing.targets[0]
        listing.faults.append(Problem(path.name, f"has the same target in every line ({target}): nothing to learn"))
    elif "train" not in listing.split_of and listing.split_of:
        counts = dict(Counter(listing.split_of))
        listing.faults.append(Problem(path.name, f"has no line of the train split, only {counts}"))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _is_whole(text: str) -> bool:
    return text.strip().removeprefix("-").removeprefix("+").isascii() and text.strip().lstrip("+-").isdigit()
