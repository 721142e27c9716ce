"""What a result depends on besides what was asked: the versions of code, libraries and machine."""

import hashlib
import importlib.metadata
import inspect
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("tunekit", "torch", "torchvision", "ray", "optuna", "pandas", "numpy", "pillow")


def versions() -> dict[str, str | None]:
    """Return the versions of Python, the packages and the system, and the git commit of the current folder."""
    found: dict[str, str | None] = {"python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return {**found, "commit": git_commit(Path())}


def git_commit(folder: Path) -> str | None:
    """Return the commit that is checked out in a folder, with "+" if files differ from it; None outside of git."""
    try:
        describe = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # we only look: nothing in the repository changes
        answer = subprocess.run(describe, capture_output=True, text=True, timeout=10, check=False, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def source_of(function: Callable[..., Any]) -> str | None:
    """Return a fingerprint of a function's or a class's source text; None where there is none to be had."""
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in words what differs between two descriptions.

    Example:
        >>> differences({"torch": "2.13", "python": "3.12"}, {"torch": "2.14", "python": "3.12"})
        ["torch was '2.13' and is '2.14'"]
    """
    keys = [*before, *(key for key in now if key not in before)]
    return [f"{k} was {before.get(k)!r} and is {now.get(k)!r}" for k in keys if before.get(k) != now.get(k)]
