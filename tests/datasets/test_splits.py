"""Cutting train, val and test."""

import numpy as np
import pytest

from tunekit.datasets.splits import split_rows
from tunekit.errors import DataError


@pytest.mark.parametrize("seed", range(30))
def test_any_cut_is_disjoint_complete_and_in_proportion(seed):
    random = np.random.default_rng(seed)
    counts = random.integers(20, 60, random.integers(2, 7))
    val_fraction, test_fraction = random.uniform(0.05, 0.3, 2)
    targets = random.permutation(np.repeat(np.arange(len(counts)), counts))
    classes = [str(number) for number in range(len(counts))]
    rows = split_rows(targets, np.full(len(targets), "train"), val_fraction, test_fraction, seed, None, classes)
    assert sorted(np.concatenate(list(rows.values()))) == list(range(len(targets)))
    for split, fraction in (("val", val_fraction), ("test", test_fraction)):
        for number, count in enumerate(counts):
            assert abs((targets[rows[split]] == number).sum() - fraction * count) <= 1


def test_values_are_cut_evenly_over_their_range():
    values = np.random.default_rng(0).lognormal(size=1000)
    rows = split_rows(values, np.full(1000, "train"), 0.1, 0.2, 0, None, ())
    edges = np.quantile(values, np.linspace(0, 1, 11))
    edges[-1] += 1
    assert np.histogram(values[rows["val"]], edges)[0].tolist() == [10] * 10
    assert np.histogram(values[rows["test"]], edges)[0].tolist() == [20] * 10


def test_groups_stay_together():
    targets, groups = np.arange(300) % 3, np.repeat([f"city {n}" for n in range(30)], 10)
    rows = split_rows(targets, np.full(300, "train"), 0.1, 0.2, 0, groups, ("a", "b", "c"))
    cities = [set(groups[numbers]) for numbers in rows.values()]
    assert not (cities[0] & cities[1] or cities[0] & cities[2] or cities[1] & cities[2])
    assert 20 <= len(rows["val"]) <= 40 and 50 <= len(rows["test"]) <= 70


def test_groups_larger_than_a_share_give_one_group():
    targets, groups = np.linspace(0, 1, 80), np.repeat([f"city {n}" for n in range(8)], 10)
    rows = split_rows(targets, np.full(80, "train"), 0.05, 0.3, 0, groups, ())
    assert {split: len(numbers) for split, numbers in rows.items()} == {"train": 50, "val": 10, "test": 20}
    with pytest.raises(DataError, match="too few to cut it"):
        split_rows(targets, np.full(80, "train"), 0.05, 0.3, 0, np.full(80, "one city"), ())


def test_a_split_that_would_be_empty():
    with pytest.raises(DataError, match="too few"):
        split_rows(np.array([0, 1]), np.full(2, "train"), 0.1, 0.2, 0, None, ("a", "b"))
