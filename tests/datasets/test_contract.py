"""What every dataset promises: disjoint, stratified, seeded splits, the same in every process."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tunekit.datasets import DATASETS, load_dataset, open_dataset, publish
from tunekit.errors import DataError

BUILTIN = ("digits", "mnist", "fashion_mnist", "cifar10")
NEEDS_OPTIONS = ("stripes",)  # entered by a docstring's example


@pytest.fixture(scope="module", params=[name for name in DATASETS if name not in NEEDS_OPTIONS] + ["folder"])
def load(request):
    """A function that loads one of all datasets: every registered one, and a folder."""
    if request.param == "digits":
        return lambda **options: load_dataset("digits", **options)
    if request.param == "folder":
        photos = request.getfixturevalue("photos")
        return lambda **options: load_dataset(photos, **options)
    data = request.getfixturevalue("data")
    data_dir = data / "placepulse-sample" if request.param == "placepulse" else data
    try:
        load_dataset(request.param, data_dir=data_dir)
    except DataError as error:
        pytest.skip(f"{request.param} has no full files here: {error}")
    return lambda **options: load_dataset(request.param, data_dir=data_dir, **options)


def rows(dataset, split):
    return getattr(dataset, split).rows


def test_splits_are_disjoint_and_hold_every_class(load):
    dataset = load()
    everything = np.concatenate([rows(dataset, split) for split in ("train", "val", "test")])
    assert len(np.unique(everything)) == len(everything)
    assert dataset.num_images == {split: len(rows(dataset, split)) for split in ("train", "val", "test")}
    for split in ("train", "val", "test"):
        if dataset.classes:
            assert np.bincount(getattr(dataset, split).targets, minlength=len(dataset.classes)).min() > 0


def test_val_is_a_stratified_tenth(load):
    dataset = load()
    if dataset.task == "regression":
        pytest.skip("values are cut evenly over their range: see test_splits.py")
    val, train, test = (np.bincount(getattr(dataset, split).targets) for split in ("val", "train", "test"))
    cut_from = val + train + (test if dataset.name == "digits" else 0)  # it alone has no official test set
    assert np.abs(val - cut_from / 10).max() <= 1


def test_the_seed_fixes_the_splits_and_nothing_else_does(load):
    first, again, other = load(split_seed=1), load(split_seed=1), load(split_seed=2)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert (rows(first, "val") == rows(again, "val")).all()
    assert not np.array_equal(rows(first, "val"), rows(other, "val"))
    if first.name != "digits":
        assert np.array_equal(rows(first, "test"), rows(other, "test"))


def test_source_gives_it_again(load):
    dataset = load(split_seed=3)
    again = load_dataset(**json.loads(json.dumps(dataset.source)))
    assert (again.fingerprint, again.source) == (dataset.fingerprint, dataset.source)


def test_it_goes_through_the_cache_unchanged(load):
    dataset = load()
    opened = open_dataset(publish(dataset))
    assert opened.summary() == dataset.summary()
    assert np.array_equal(opened.val.images, dataset.val.images)
    assert np.array_equal(opened.val.targets, dataset.val.targets)


def test_an_item_is_normalised(load):
    image, target = load().train[0]
    assert image.shape == load().image_shape
    assert image.dtype.is_floating_point and abs(image.mean()) < 4
    assert 0 <= int(target) < load().num_outputs


def test_another_size(load):
    assert load(image_size=16).image_shape[1:] == (16, 16)


def test_the_four_names_are_there():
    assert set(BUILTIN) <= set(DATASETS)


def test_another_process_agrees(photos):
    """Folder, table, digits: what `source` says gives the same fingerprint in a new process."""
    datasets = [load_dataset("digits", split_seed=5), load_dataset(photos, image_size=24)]
    sources = json.dumps([dataset.source for dataset in datasets])
    code = (
        "import json, sys; from tunekit.datasets import load_dataset\n"
        "print(json.dumps([load_dataset(**source).fingerprint for source in json.loads(sys.argv[1])]))"
    )
    found = subprocess.run([sys.executable, "-c", code, sources], check=True, capture_output=True, text=True)
    assert json.loads(found.stdout) == [dataset.fingerprint for dataset in datasets]
