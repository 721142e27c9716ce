"""What the attacks share: a small experiment, and copies of it to be tampered with."""

import shutil
from pathlib import Path

import pytest
from attack_cli import trained


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small experiment."""
    return trained(tmp_path_factory.mktemp("original"))


@pytest.fixture
def experiment(original: Path, tmp_path: Path) -> Path:
    """A copy of it, to be tampered with."""
    return Path(shutil.copytree(original, tmp_path / "experiments" / "first"))
