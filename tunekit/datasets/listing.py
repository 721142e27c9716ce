"""What a folder or a table lists, before and after its images are read: the part that both share."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tunekit.datasets.base import Dataset, build
from tunekit.datasets.decoding import Decoded, Preparation, decode_files
from tunekit.datasets.splits import SPLITS
from tunekit.errors import DataError

NUM_SHOWN = 20
NUM_NAMED = 5


class Problem(NamedTuple):
    """A file (or a line of a table, or a folder) and what is wrong with it."""

    file: str
    reason: str


@dataclass
class Listing:
    """Files with their targets and splits, one row each, and what was noticed on the way.

    Args:
        root: the folder that names are relative to.
        names: (M,) relative paths.
        targets: (M,) class numbers or floats.
        split_of: (M,) "train", "val", "test".
        classes: the classes' names; empty for regression.
        where: (M,) how each row is called in a message; its name if empty.
        problems: files that cannot be used; on_bad_image="skip" leaves them out.
        faults: what no skipping mends.
        notes: what was left out or is odd, for people.
    """

    root: Path
    names: list[str] = field(default_factory=list)
    targets: list[Any] = field(default_factory=list)
    split_of: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    where: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    faults: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(listing: Listing, how: Preparation) -> Decoded | None:
    """Decode a listing's images, entering what is wrong with them in its problems and notes; None if it has none.

    Rows that cannot be used get the split "", which is none.
    """
    if not listing.names:
        return None
    decoded = decode_files(listing.root, listing.names, how)
    for row, reason in decoded.problems.items():
        _leave_out(listing, row, reason)
    _find_copies(listing, decoded.digests)
    changed = defaultdict(list)
    for row, notes in decoded.notes.items():
        for note in notes:
            changed[note].append(listing.names[row])
    listing.notes += [f"{_images(names)} {note}: {some(names)}" for note, names in sorted(changed.items())]
    return decoded


def finish(name: str, listing: Listing, decoded: Decoded | None, on_bad_image: str, **split_options: Any) -> Dataset:
    """Return the dataset, or raise all that is wrong with it at once.

    Raises:
        DataError: a fault, or a problem that is not to be skipped; the first 20 and their number.
    """
    if listing.faults or decoded is None or (listing.problems and on_bad_image == "error"):
        raise DataError(_report(name, listing))
    notes = listing.notes + [f"left out {problem.file}: {problem.reason}" for problem in listing.problems]
    targets = np.array(listing.targets, np.int64 if listing.classes else np.float32)
    return build(
        name, decoded.images, targets, np.array(listing.split_of), classes=listing.classes,
        images_hash=decoded.images_hash, names=tuple(map(shown, listing.names)), notes=tuple(notes),
        preparation=vars(decoded.how), **split_options,
    )  # fmt: skip


def shown(name: str) -> str:
    """Return a file name as it can be printed: bytes that are no UTF-8 and control characters are escaped.

    Example:
        >>> shown("caf\\udce9\\n.jpg")
        'caf\\\\xe9\\\\n.jpg'
    """
    if name.isprintable():
        return name
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def some(names: Iterable[str]) -> str:
    """Return the first few of many names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(map(shown, names[:NUM_NAMED])) + more


def twins(classes: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of class names that differ in case, spaces or Unicode form only: most likely one class.

    Example:
        >>> twins(["Cat", "cat ", "dog"])
        [('Cat', 'cat ')]
    """
    alike = defaultdict(list)
    for name in classes:
        alike["".join(unicodedata.normalize("NFKC", name).casefold().split())].append(name)
    return [tuple(names) for names in alike.values() if len(names) > 1]


def _leave_out(listing: Listing, row: int, reason: str) -> None:
    listing.split_of[row] = ""
    listing.problems.append(Problem(_where(listing, row), reason))


def _find_copies(listing: Listing, digests: list[str]) -> None:
    """Find files of the same bytes: a leak between splits or two targets are problems, mere repeats are noted."""
    rows_of = defaultdict(list)
    for row, digest in enumerate(digests):
        if digest and listing.split_of[row]:
            rows_of[digest].append(row)
    repeats = []
    for rows in rows_of.values():
        if len(rows) == 1:
            continue
        rows.sort(key=lambda row: -SPLITS.index(listing.split_of[row]))  # the copy in test is the one to keep
        first = rows[0]
        if any(listing.targets[row] != listing.targets[first] for row in rows):
            for row in rows:
                other = next(o for o in rows if listing.targets[o] != listing.targets[row])
                _leave_out(listing, row, f"is the same image as {_where(listing, other)}, which has another target")
            continue
        kept_split = listing.split_of[first]
        for row in rows[1:]:
            if listing.split_of[row] != kept_split:
                _leave_out(listing, row, f"is the same image as {_where(listing, first)}, in the {kept_split} split")
            else:
                listing.split_of[row] = ""
                repeats.append(listing.names[row])
    if repeats:
        listing.notes.append(f"{_images(repeats)} is a copy of another and was left out: {some(repeats)}")


def _images(names: list[str]) -> str:
    return "1 image" if len(names) == 1 else f"{len(names)} images, each"


def _where(listing: Listing, row: int) -> str:
    return listing.where[row] if listing.where else shown(listing.names[row])


def _report(name: str, listing: Listing) -> str:
    found = listing.faults + listing.problems
    lines = [f"{problem.file}: {problem.reason}" for problem in found[:NUM_SHOWN]]
    if len(found) > NUM_SHOWN:
        lines.append(f"and {len(found) - NUM_SHOWN} more")
    advice = [] if listing.faults else ["remove them, or leave them out with on_bad_image='skip' (--on-bad-image skip)"]
    if len(found) == 1:
        return f"{name}: {'; '.join(lines + advice)}"
    return "\n  ".join([f"{name}: {len(found)} problems", *lines, *advice])
