"""What tests and the examples in docstrings share: a cache of their own, and no trace in the folder they are run in."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# Whoever runs the tests in the background may have these ignored, which processes started here would inherit.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(autouse=True)
def elsewhere(request: pytest.FixtureRequest) -> None:
    """Run the example of a docstring in a folder of its own: some write where they are."""
    if isinstance(request.node, pytest.DoctestItem):
        request.getfixturevalue("monkeypatch").chdir(request.getfixturevalue("tmp_path"))
