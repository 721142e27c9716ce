"""Folders for Ray's own files, deleted with whatever still runs in them; also those of searches that were killed."""

import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tunekit.errors import ClusterError, ExperimentError
from tunekit.locks import take_lock

SCRATCH = "tunekit-ray-"  # begins the names of our scratch folders
LONGEST_FOLDER = 24  # characters, below which Ray's sockets have names of at most 107


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder for a while, which is gone afterwards."""
    top = short_folder()
    made = Path(tempfile.mkdtemp(prefix=f".{SCRATCH}", dir=top))  # 0700
    lock = take_lock(made / "lock", create=True)
    scratch = made.rename(top / made.name[1:])  # with its lock in it, without which nobody takes it for ours
    try:
        yield scratch
    finally:
        _delete(scratch)
        if lock is not None:
            os.close(lock)


def clear_left_behind() -> None:
    """Delete the scratch folders of processes that were killed, which could not do it, and end what runs in them."""
    top = short_folder()
    for lock_file in (*top.glob(f"{SCRATCH}*/lock"), *top.glob(f".{SCRATCH}*/lock")):
        with suppress(OSError, ExperimentError):
            _clear(lock_file.parent)


def short_folder() -> Path:
    """Return the folder for temporary files, or another where its name is too long for the sockets below it.

    Raises:
        ClusterError: there is none.
    """
    for folder in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if len(folder) <= LONGEST_FOLDER and os.access(folder, os.W_OK | os.X_OK):
            return Path(folder)
    raise ClusterError(f"Ray needs a temporary folder with a name of at most {LONGEST_FOLDER} characters: set TMPDIR")


def _clear(left: Path) -> None:
    """Delete a scratch folder whose owner is dead, and end what its Ray has left running, which writes there."""
    kinds = ((left, stat.S_ISDIR), (left / "lock", stat.S_ISREG))
    if not all(path.lstat().st_uid == os.getuid() and is_kind(path.lstat().st_mode) for path, is_kind in kinds):
        return
    lock = take_lock(left / "lock")
    if lock is None:
        return
    for pid in _users_of(left):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    _delete(left)
    os.close(lock)


def _delete(scratch: Path) -> None:
    """Delete a scratch folder, its lock last: whoever is killed on the way leaves what the next can clear."""
    for path in scratch.iterdir():
        if path.name != "lock":
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)


def _users_of(folder: Path) -> Iterator[int]:
    """Yield our processes, but this one, that have a file of a folder open (where the system tells)."""
    for files in Path("/proc").glob("[0-9]*/fd"):
        pid = int(files.parent.name)
        with suppress(OSError):
            if pid != os.getpid() and any(os.readlink(file).startswith(f"{folder}/") for file in files.iterdir()):
                yield pid
