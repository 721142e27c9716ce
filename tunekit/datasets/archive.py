"""Unpack a downloaded zip or tar that nobody has vouched for: regular files only, inside the folder, within budgets.

Not zipfile's nor tarfile's extractall: neither stops at a bomb, and both have let files out of the folder, by links.
"""

import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from unicodedata import normalize
from zipfile import BadZipFile

from tunekit.datasets import archive_tar, archive_zip
from tunekit.datasets.archive_budget import Budget, refuse
from tunekit.datasets.listing import shown
from tunekit.errors import DataError

MAX_DEPTH = 32
MAX_NAME_BYTES = 255
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


def unpack(
    archive: Path,
    folder: Path,
    *,
    max_files: int = 1_000_000,
    max_bytes: int = 50 * 10**9,
    max_file_bytes: int = 5 * 10**9,
    max_ratio: int = 100,
) -> Path:
    """Unpack a zip or tar (plain, gz, bz2 or xz) into a new folder: whole, or not at all.

    Archives within it are not opened. Files get mode 0644 and folders 0755, whatever the archive says.

    Args:
        archive: the file.
        folder: made by this; nothing may be there. Its parent is on the disk with the room.
        max_files: the most entries.
        max_bytes, max_file_bytes: the most bytes in all and in one file, counted while writing, not as declared.
        max_ratio: the most bytes that one byte of the archive may give, once 10 MiB are written.

    Returns:
        `folder`.

    Raises:
        DataError: the archive is damaged, holds something else than files and folders or a name that is unsafe or is
            there twice, or is larger than allowed; nothing is left of it.

    Example:
        >>> import tempfile, zipfile
        >>> path = Path(tempfile.mkdtemp())
        >>> with zipfile.ZipFile(path / "a.zip", "w") as made:
        ...     made.writestr("photos/1.txt", "one")
        >>> (unpack(path / "a.zip", path / "a") / "photos/1.txt").read_text()
        'one'

    Source: CVE-2019-9674 (bombs), CVE-2007-4559 and CVE-2025-4517 (tarfile); D. Fifield, "A better zip bomb", 2019.
    """
    if os.path.lexists(folder):
        raise DataError(f"{folder} is there already: remove it to unpack {archive.name} again")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    free = shutil.disk_usage(aside).free
    try:
        with open(archive, "rb") as file, _opened(aside) as root, _damage_is_an_error(archive):
            size = os.fstat(file.fileno()).st_size
            budget = Budget(archive.name, size, max_files, min(max_bytes, free), max_file_bytes, max_ratio)
            _reader_of(archive, file)(file, budget, _Tree(archive.name, root))
        os.sync()  # once, not for each of a hundred thousand files
        aside.chmod(0o755)
        os.rename(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return folder


def _reader_of(archive: Path, file: IO[bytes]) -> Callable[[IO[bytes], Budget, "_Tree"], None]:
    """Return the function that reads this kind of archive, by its first bytes."""
    start = file.read(512)
    file.seek(0)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return archive_zip.read
    if start.startswith(archive_tar.MAGIC) or start[257:262] == b"ustar":
        return archive_tar.read
    raise DataError(f"{archive} is neither a zip nor a tar; it begins with {start[:16]!r}: was it downloaded whole?")


@contextmanager
def _damage_is_an_error(archive: Path) -> Iterator[None]:
    """Turn what the libraries raise over a damaged archive into DataError."""
    try:
        yield
    except (BadZipFile, tarfile.TarError, EOFError, zlib.error, archive_tar.LZMAError) as error:
        raise DataError(f"{archive.name} is damaged ({error}): download it again") from error
    except (ValueError, LookupError, OverflowError, RuntimeError) as error:
        raise DataError(f"{archive.name} cannot be read ({type(error).__name__}: {error})") from error
    except OSError as error:  # bz2's and gzip's word for damage, or the disk's
        raise DataError(f"{archive.name} could not be unpacked: {error}") from error


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@dataclass
class _Tree:
    """The folder that is being filled: every path goes through `parts`, every file through `write`.

    Args:
        archive: its name, for errors.
        root: an open descriptor of the folder; nothing is opened but from there, a name at a time, links refused.
        spelt: each path that is there, as a disk that ignores case would have it, as it was spelt.
        folders: those among them that are folders.
    """

    archive: str
    root: int
    spelt: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)

    def add_folder(self, name: str) -> None:
        """Make a folder and those above it."""
        self._enter(name, parts_of(self.archive, name), is_folder=True)

    def add_file(self, name: str, chunks: Iterator[bytes]) -> None:
        """Write a file; the chunks are read as they are written, so that a budget can stop them."""
        parts = parts_of(self.archive, name)
        if not parts:
            refuse(self.archive, name, "has no name")
        self._enter(name, parts, is_folder=False)
        above = self._open_folder(parts[:-1])
        try:
            with open(os.open(parts[-1], NEW_FILE, 0o600, dir_fd=above), "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                os.fchmod(file.fileno(), 0o644)
        finally:
            os.close(above)

    def _enter(self, name: str, parts: list[str], is_folder: bool) -> None:
        """Note a path and the folders above it, and make these; refuse what is there, or is but for its case."""
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            key = normalize("NFC", normalize("NFC", path).casefold())
            wants_folder = is_folder or depth < len(parts)
            if key not in self.spelt:
                self.spelt[key] = path
                if wants_folder:
                    self.folders.add(key)
                    self._make_folder(parts[:depth])
            elif not wants_folder or key not in self.folders:
                refuse(self.archive, name, "is there twice (or a file and a folder have one name, or names differ in "
                       f"case only): {shown(self.spelt[key])}")  # fmt: skip
            elif self.spelt[key] != path:
                refuse(self.archive, name, f"differs from {shown(self.spelt[key])} in case only")

    def _make_folder(self, parts: list[str]) -> None:
        above = self._open_folder(parts[:-1])
        try:
            os.mkdir(parts[-1], 0o755, dir_fd=above)
            made = os.open(parts[-1], DIRECTORY, dir_fd=above)
            os.fchmod(made, 0o755)  # whatever the umask
            os.close(made)
        finally:
            os.close(above)

    def _open_folder(self, parts: list[str]) -> int:
        """Return a descriptor of a folder, each name opened from the one before it."""
        here = os.dup(self.root)
        for part in parts:
            try:
                inner = os.open(part, DIRECTORY, dir_fd=here)
            finally:
                os.close(here)
            here = inner
        return here


def parts_of(archive: str, name: str) -> list[str]:
    """Return the names that a path in an archive is made of.

    Raises:
        DataError: it could lead out of a folder, here or on another system, or no disk would take it.

    Example:
        >>> parts_of("a.zip", "./photos//1.jpg")
        ['photos', '1.jpg']
        >>> parts_of("a.zip", "photos/../../etc/passwd")
        Traceback (most recent call last):
        tunekit.errors.DataError: a.zip: entry 'photos/../../etc/passwd' has '..' in its path; nothing was unpacked
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    rules = {
        "is an absolute path": name.startswith("/"),
        "has '..' in its path": ".." in parts,
        "has a backslash in its name": "\\" in name,
        "has a control character in its name": any(ord(c) < 32 or ord(c) == 127 for c in name),
        "begins with a drive letter": len(name) > 1 and name[1] == ":" and name[0].isalpha(),
        "has a name that is not UTF-8": any(0xD800 <= ord(c) <= 0xDFFF for c in name),
        f"lies more than {MAX_DEPTH} folders deep": len(parts) > MAX_DEPTH,
    }
    for reason, holds in rules.items():
        if holds:
            refuse(archive, name, reason)
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        refuse(archive, name, f"has a name of more than {MAX_NAME_BYTES} bytes")
    return parts
