"""Locks: one process at a time writes an experiment; the system gives a lock back however its owner dies."""

import fcntl
import os
import socket
from pathlib import Path
from typing import Any

from tunekit.errors import ExperimentError


def take_lock(path: Path, create: bool = False) -> int | None:
    """Lock a file and return its descriptor, which `os.close` gives back; None if another process has it.

    Raises:
        ExperimentError: the file cannot be opened, or lies where nothing can be locked.
    """
    lock = -1
    try:
        lock = os.open(path, (os.O_RDWR | os.O_CREAT if create else os.O_RDONLY) | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError as error:
        if lock >= 0:
            os.close(lock)
        raise ExperimentError(f"{path} cannot be locked ({error.strerror})") from None
    return lock


def who_am_i() -> dict[str, Any]:
    """Return what tells this process from others."""
    return {"pid": os.getpid(), "host": socket.gethostname()}
