"""Cutting train, val and test: disjoint, seeded, stratified, groups kept together."""

from collections.abc import Sequence

import numpy as np

from tunekit.errors import DataError

SPLITS = ("train", "val", "test")


def split_rows(
    targets: np.ndarray,
    split_of: np.ndarray,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    groups: Sequence[str] | None,
    classes: Sequence[str],
) -> dict[str, np.ndarray]:
    """Return the sorted rows of each split; val and test are cut from train where `split_of` names none.

    Args:
        targets: (M,) class numbers, cut in proportion, or values, cut evenly over their range.
        split_of: (M,) "train", "val" or "test".
        val_fraction, test_fraction: 0..1, of the rows given as train before any cut.
        seed: fixes what is cut.
        groups: (M,) names; the rows of one name are never parted. None when each row stands alone.
        classes: the classes' names; empty for regression.

    Raises:
        DataError: a fraction out of range, or a split or class that would be left empty.
    """
    rows = {split: np.flatnonzero(np.asarray(split_of) == split) for split in SPLITS}
    total = len(rows["train"])
    left = rows["train"]
    for split, fraction in (("test", test_fraction), ("val", val_fraction)):
        if len(rows[split]):
            continue
        if not 0 < fraction < 1:
            raise DataError(f"{split}_fraction must lie between 0 and 1, but is {fraction}")
        share = fraction * total / max(len(left), 1)
        random = np.random.default_rng([seed, SPLITS.index(split)])
        if groups is not None:
            rows[split] = _cut_groups(left, np.asarray(groups), share, random)
        else:
            rows[split] = (_cut_classes if classes else _cut_values)(left, targets, share, random)
        left = np.setdiff1d(left, rows[split], assume_unique=True)
    rows["train"] = left
    for split in SPLITS:
        if not len(rows[split]):
            raise DataError(f"the {split} split would be empty: {total} images are too few to cut it; add images")
        for number, name in enumerate(classes if groups is None else ()):
            if not (targets[rows[split]] == number).any():
                raise DataError(
                    f"class {name!r} has {int((targets == number).sum())} images, none of them left for the {split} "
                    "split: every class needs at least one in each; add images or remove the class"
                )
    return {split: np.sort(numbers).astype(np.int64) for split, numbers in rows.items()}


def _cut_classes(rows: np.ndarray, targets: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Take a share of each class, at least one row of each."""
    cut = []
    for number in np.unique(targets[rows]):
        members = random.permutation(rows[targets[rows] == number])
        cut.append(members[: max(1, round(share * len(members)))])
    return np.concatenate(cut) if cut else rows[:0]


def _cut_values(rows: np.ndarray, targets: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Take one row, at random, of each of as many equal parts of the sorted values as rows are wanted."""
    by_value = rows[np.argsort(targets[rows], kind="stable")]
    parts = np.array_split(by_value, max(1, round(share * len(rows)))) if len(rows) else []
    return np.array([random.choice(part) for part in parts], np.int64)


def _cut_groups(rows: np.ndarray, groups: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Take whole groups, in random order, each that brings the cut nearer to its share; if none does, a smallest."""
    wanted, cut = share * len(rows), rows[:0]
    order = random.permutation(np.unique(groups[rows]))
    for group in order:
        members = rows[groups[rows] == group]
        if abs(len(cut) + len(members) - wanted) < abs(len(cut) - wanted):
            cut = np.concatenate([cut, members])
    if len(cut) or len(order) < 2:
        return cut
    return min((rows[groups[rows] == group] for group in order), key=len)
