"""What tests share: one Ray for the whole session, and where real data lies."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from s3 import Server, credentials

from tunekit.cluster import ray_session

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two threads that wait for each other are many times slower where other processes have the cores too."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ray(cache_home: Path) -> Iterator[None]:
    """One Ray of two cores for all tests that need one; run() uses the Ray it finds. Workers may use the tests' S3."""
    with pytest.MonkeyPatch.context() as patch:
        credentials(patch)
        with ray_session(None, num_cpus=2):
            yield


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """An S3 server, behind a proxy that can be told to fail."""
    with Server() as started:
        yield started


@pytest.fixture
def url(server: Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The URL of a folder of the test's own, which is empty and answers."""
    credentials(monkeypatch)
    server.proxy.mode = "pass"
    return server.url(request.node.name)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data, or a skip where there is none."""
    folder = Path(os.environ.get("TUNEKIT_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set TUNEKIT_TEST_DATA")
    return folder
