"""Real data for the tests of datasets, and a cache of their own."""

import os
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))  # for bad_images.py, which other tests use too

DATA = Path(os.environ.get("TUNEKIT_TEST_DATA") or Path(__file__).parents[2] / "../shared/data").resolve()


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory):
    """Keep the person's own cache out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def data():
    """The folder of real data."""
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}")
    return DATA


@pytest.fixture(scope="session")
def photos(data, tmp_path_factory):
    """A folder of 400 real photographs, 30 + 10 in each of CIFAR-10's classes."""
    folder, taken = tmp_path_factory.mktemp("photos"), Counter()
    with tarfile.open(data / "cifar10-jpeg.tar.xz", "r|xz") as tar:
        for member in tar:
            of_class = member.name.rsplit("/", 1)[0]
            if member.isfile() and taken[of_class] < (30 if of_class.startswith("train") else 10):
                taken[of_class] += 1
                tar.extract(member, folder, filter="data")
    return folder


@pytest.fixture
def draw(tmp_path):
    """A function that writes random 12 x 12 px PNGs under tmp_path: draw("cat/1.png", "dog/1.png")."""
    random = np.random.default_rng(0)

    def write(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(path)
        return tmp_path

    return write


@pytest.fixture
def pets(draw):
    """A folder of two classes, "cat" and "dog", of ten images each."""
    return draw(*(f"{pet}/{number}.png" for pet in ("cat", "dog") for number in range(10)))
