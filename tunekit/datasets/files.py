"""A folder of class folders: what counts as an image, as a class, as a split, and what is refused."""

import os
import stat
from collections import defaultdict
from pathlib import Path

from tunekit.datasets.base import Dataset
from tunekit.datasets.decoding import Preparation
from tunekit.datasets.images import EXTENSIONS
from tunekit.datasets.listing import Listing, Problem, finish, read, shown, some, twins
from tunekit.datasets.splits import SPLITS

FOREIGN = (".heic", ".heif", ".avif", ".psd", ".svg", ".jp2", ".tga", ".ppm", ".pgm", ".ico", ".raw", ".cr2", ".nef")
SYSTEM = ("thumbs.db", "desktop.ini", "icon\r", "__macosx", "$recycle.bin", "@eadir", "lost+found")
SPLIT_WORDS = ("train", "training", "val", "valid", "validation", "test", "testing")


def load_folder(
    path: Path,
    *,
    image_size: int | None = None,
    max_size: int | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    on_bad_image: str = "error",
) -> Dataset:
    """Return the dataset in a folder of class folders, with or without train/, test/ and val/ above them.

    Args:
        path: the folder. A class is a folder's name; its images may lie in folders within it.
        image_size, max_size, val_fraction, test_fraction, split_seed, on_bad_image: as in `load_dataset`.

    Raises:
        DataError: one class only, an empty class, no images, or bad images: all of them, listed.
    """
    listing = list_folder(path)
    decoded = read(listing, Preparation(image_size, max_size))
    return finish(
        path.name, listing, decoded, on_bad_image,
        val_fraction=val_fraction, test_fraction=test_fraction, split_seed=split_seed,
    )  # fmt: skip


def list_folder(path: Path) -> Listing:
    """List the images of a folder of class folders, their classes and splits, and what is wrong; opens no file."""
    listing = Listing(Path(os.path.realpath(path)))
    folders = _subfolders(listing, "")
    splits = [name for name in folders if name in SPLITS]
    if "train" in splits:
        for name in sorted(set(folders) - set(splits)):
            listing.faults.append(Problem(shown(name), "lies beside train/: only val/ and test/ may"))
        class_folders = [(split, name) for split in splits for name in _subfolders(listing, split)]
    else:
        for name in folders:
            if name.lower() in SPLIT_WORDS:
                reason = "looks like a split, but there is no train/: name the splits train, val (optional), test"
                listing.faults.append(Problem(shown(name), reason))
        class_folders = [("", name) for name in folders]
    names = sorted({name for _, name in class_folders})
    numbers = {name: number for number, name in enumerate(names)}
    listing.classes = tuple(map(shown, names))
    for split, name in class_folders:
        _list_class(listing, split, name, numbers[name])
    _once_each(listing)
    _check_classes(listing, class_folders)
    return listing


def _subfolders(listing: Listing, folder: str) -> list[str]:
    """Return the names of the folders in a folder; an image there is in no class."""
    names, other = [], []
    for entry in entries(listing, folder):
        if entry.is_dir(follow_symlinks=False):
            names.append(entry.name)
        elif entry.is_symlink() and entry.is_dir():
            listing.problems.append(Problem(_shown_path(folder, entry.name), "is a link to a folder: not followed"))
        elif entry.name.lower().endswith(EXTENSIONS):
            listing.problems.append(Problem(_shown_path(folder, entry.name), "lies in no class folder"))
        else:
            other.append(os.path.join(folder, entry.name))
    if other:
        listing.notes.append(f"{len(other)} files were left out, as their names are no image's: {some(other)}")
    return names


def _list_class(listing: Listing, split: str, name: str, number: int) -> None:
    """Enter the images of one class folder and of the folders within it."""
    other, found, waiting = [], 0, [os.path.join(split, name)]
    while waiting:
        folder = waiting.pop()
        for entry in entries(listing, folder):
            path = os.path.join(folder, entry.name)
            reason = why_not(listing.root, entry)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            elif reason:
                listing.problems.append(Problem(shown(path), reason))
            elif entry.name.lower().endswith(EXTENSIONS):
                listing.names.append(path)
                listing.targets.append(number)
                listing.split_of.append(split or "train")
                found += 1
            else:
                other.append(path)
    if other:
        listing.notes.append(f"{len(other)} files were left out, as their names are no image's: {some(other)}")
    if not found:
        listing.faults.append(Problem(_shown_path(split, name), "holds no images: an empty class cannot be learnt"))


def why_not(root: Path, entry: "os.DirEntry[str]") -> str:
    """Return why a file cannot be an image, from its kind alone; "" if it may be one. Nothing is opened."""
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        return f"is a link that leads nowhere ({error.strerror})" if entry.is_symlink() else f"{error.strerror}"
    if entry.is_symlink():
        target = Path(os.path.realpath(entry.path))
        if not target.is_relative_to(root):
            return f"is a link that leads outside the folder, to {shown(str(target))}"
        if stat.S_ISDIR(mode):
            return "is a link to a folder: not followed"
    kinds = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
    if stat.S_IFMT(mode) in kinds:
        return f"is a {kinds[stat.S_IFMT(mode)]}, not a file"
    if entry.name.lower().endswith(FOREIGN):
        return f"is of a format that is not read: save it as one of {', '.join(EXTENSIONS)}"
    return ""


def entries(listing: Listing, folder: str) -> "list[os.DirEntry[str]]":
    """Return what is in a folder, sorted, without hidden files and those that systems leave behind."""
    try:
        with os.scandir(listing.root / folder) as entries:
            return sorted(
                (e for e in entries if not e.name.startswith(".") and e.name.lower() not in SYSTEM),
                key=lambda entry: os.fsencode(entry.name),
            )
    except OSError as error:
        listing.problems.append(Problem(shown(folder) or ".", f"cannot be read: {error.strerror}"))
        return []


def _once_each(listing: Listing) -> None:
    """Take each file on disk once, by its own name rather than a link's; refuse one that is in two classes."""
    rows_of = defaultdict(list)
    for row, name in enumerate(listing.names):
        found = os.stat(listing.root / name)
        rows_of[found.st_dev, found.st_ino].append((os.path.islink(listing.root / name), row))
    dropped = {}
    for rows in rows_of.values():
        (_, first), *rest = sorted(rows)
        for _, row in rest:
            same = (listing.targets[row], listing.split_of[row]) == (listing.targets[first], listing.split_of[first])
            dropped[row] = same
            if not same:
                reason = f"is the same file as {shown(listing.names[first])}, in another class or split"
                listing.problems.append(Problem(shown(listing.names[row]), reason))
    repeats = [listing.names[row] for row, same in sorted(dropped.items()) if same]
    if repeats:
        listing.notes.append(f"{len(repeats)} files are links to others and were taken once: {some(repeats)}")
    kept = [row for row in range(len(listing.names)) if row not in dropped]
    for column in ("names", "targets", "split_of"):
        setattr(listing, column, [getattr(listing, column)[row] for row in kept])


def _check_classes(listing: Listing, class_folders: list[tuple[str, str]]) -> None:
    """Enter the faults of the classes as a whole."""
    if not class_folders:
        reason = "holds no class folders: one folder per class is needed, named as the class, with its images in it"
        listing.faults.append(Problem(shown(str(listing.root)), reason))
    elif len(listing.classes) == 1:
        reason = f"holds one class only ({listing.classes[0]}): at least two are needed"
        listing.faults.append(Problem(shown(str(listing.root)), reason))
    for alike in twins({name for _, name in class_folders}):
        names = " and ".join(repr(shown(name)) for name in sorted(alike))
        reason = "are classes whose names differ in case, spaces or Unicode form only: join them"
        listing.faults.append(Problem(names, reason))
    for split in sorted({split for split, _ in class_folders}):
        for name in sorted({name for _, name in class_folders} - {n for s, n in class_folders if s == split}):
            listing.faults.append(Problem(_shown_path(split, name), "is missing: each split needs each class"))


def _shown_path(folder: str, name: str) -> str:
    return shown(os.path.join(folder, name))
