"""Locks: one process at a time writes an experiment; the system gives a lock back however its owner dies."""

import fcntl
import os
import socket
import time
from pathlib import Path
from typing import Any

from tunekit.errors import ExperimentError


def take_lock(path: Path, create: bool = False, wait_s: float = 0.0) -> int | None:
    """Lock a file and return its descriptor, which `os.close` gives back; None if another process has it.

    Args:
        path: the file.
        create: make it, if it is not there.
        wait_s: for how long to try: who asks whether a file is locked holds it for an instant.

    Raises:
        ExperimentError: the file cannot be opened, or lies where nothing can be locked.
    """
    until = time.monotonic() + wait_s
    while True:
        lock = -1
        try:
            lock = os.open(path, (os.O_RDWR | os.O_CREAT if create else os.O_RDONLY) | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_ino == path.stat().st_ino:  # else another file has taken its name meanwhile
                return lock
            os.close(lock)
        except BlockingIOError:
            os.close(lock)
            if time.monotonic() >= until:
                return None
            time.sleep(0.05)
        except OSError as error:
            if lock >= 0:
                os.close(lock)
            raise ExperimentError(f"{path} cannot be locked ({error.strerror})") from None


def who_am_i() -> dict[str, Any]:
    """Return what tells this process from others."""
    return {"pid": os.getpid(), "host": socket.gethostname()}
