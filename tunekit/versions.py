"""What a result depends on besides what was asked: the versions of code, libraries and machine."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

PACKAGES = ("tunekit", "torch", "torchvision", "ray", "optuna", "pandas", "numpy", "pillow")


def versions() -> dict[str, str | None]:
    """Return the versions of Python, the packages and the system, and the git commit of the current folder."""
    found: dict[str, str | None] = {"python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return {**found, "commit": git_commit(Path.cwd())}


def git_commit(folder: Path) -> str | None:
    """Return the commit that is checked out in a folder, with "+" if files differ from it; None outside of git."""
    try:
        describe = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        answer = subprocess.run(describe, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
