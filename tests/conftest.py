"""What tests share: one Ray for the whole session, one cache, and where real data lies."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunekit.cluster import ray_session

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the session's own: nothing is left of the tests, and nothing left from before helps them."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    yield folder
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def ray(cache_home: Path) -> Iterator[None]:
    """One Ray of two cores for all tests that need one; run() uses the Ray it finds."""
    with ray_session(None, num_cpus=2):
        yield


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data, or a skip where there is none."""
    folder = Path(os.environ.get("TUNEKIT_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set TUNEKIT_TEST_DATA")
    return folder
