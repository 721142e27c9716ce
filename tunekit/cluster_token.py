"""The token of a cluster: whoever knows it can run code on every machine, so nobody else may read its file."""

import os
import re
import secrets
import stat
from pathlib import Path

from tunekit.errors import ClusterError

TOKEN = re.compile(r"[0-9a-f]{64}")  # 256 bits


def ready_token(path: Path) -> Path:
    """Return the file of a token that nobody else can read; it is made if it is not there.

    Args:
        path: the file; its folder is made too, for its owner alone.

    Raises:
        ClusterError: others can read the file or enter its folder, or it holds something else.
    """
    path = path.expanduser()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_folder(path.parent)
        if not path.is_symlink() and not path.exists():
            _make(path)
    except OSError as error:
        raise ClusterError(f"the token {path} cannot be made ({error.strerror})") from None
    check_token(path)
    return path


def check_folder(folder: Path) -> None:
    """Raise ClusterError if a folder is a link, somebody else's, or may be entered by others."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ClusterError(f"{folder} is a link, or somebody else's: it must be a folder of yours")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise ClusterError(f"{folder} may be entered by others: chmod 700 {folder}")


def check_token(path: Path) -> None:
    """Raise ClusterError if a token's file is a link, somebody else's, readable by others, or holds no token."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ClusterError(f"the token {path} cannot be read ({error.strerror}): it must be a file of yours") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
            raise ClusterError(f"the token {path} is somebody else's, or no file: move it away, and `up` makes one")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise ClusterError(f"the token {path} can be read by others: delete it, and `up` makes another")
        text = os.read(descriptor, 100).decode(errors="replace").strip()
    finally:
        os.close(descriptor)
    if not TOKEN.fullmatch(text):
        raise ClusterError(f"the token {path} is not one of 256 bits: delete it, and `up` makes one")


def _make(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
        file.flush()
        os.fsync(descriptor)
