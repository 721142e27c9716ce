"""The entries of a tar, checked while they are read, front to back. See archive.py."""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from lzma import LZMAError
from typing import IO, Any

from tunekit.datasets.archive_budget import FREE_BYTES, Budget, refuse
from tunekit.errors import DataError

__all__ = ["MAGIC", "LZMAError", "read"]
OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
MAGIC = tuple(OPENERS)
CHUNK = 2**20
MAX_HEADER_BYTES = 2**20  # of one entry: long names and PAX records, which tarfile reads into memory whole
BLOCK = 512


def read(file: IO[bytes], budget: Budget, tree: Any) -> None:
    """Write all entries of a tar into a tree. Arguments and errors as in `archive_zip.read`.

    Raises:
        DataError: an entry is refused.
        tarfile.TarError, EOFError, LZMAError: the tar is damaged.
    """
    start = file.read(8)
    file.seek(0)
    opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), None)
    meter: Any = _Meter(opener(file) if opener else file, file, budget)
    end_of_last = 0
    with tarfile.open(fileobj=meter, mode="r|", encoding="utf-8") as archive:
        while True:
            meter.stop_at = meter.count + MAX_HEADER_BYTES
            entry = archive.next()
            if entry is None:
                break
            archive.members.clear()  # type: ignore[attr-defined]  # or it remembers a million of them
            meter.stop_at = None
            _read_entry(archive, entry, budget, tree, meter)
            end_of_last = entry.offset_data + -(-(entry.size if entry.isreg() else 0) // BLOCK) * BLOCK
        while meter.read(CHUNK):
            pass
    if meter.last_non_zero >= end_of_last:  # a header that tarfile took for the end
        raise tarfile.ReadError(f"what follows byte {end_of_last:,} is no entry")


def _read_entry(archive: tarfile.TarFile, entry: tarfile.TarInfo, budget: Budget, tree: Any, meter: "_Meter") -> None:
    name = entry.name
    budget.next_entry(name)
    if "\0" in name:
        refuse(budget.archive, name, "has a control character in its name")
    if entry.isdir():
        tree.add_folder(name)
    elif entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not entry.issparse() and entry.size >= 0:
        if name.endswith("/"):
            refuse(budget.archive, name, "is a file whose name ends as a folder's")
        tree.add_file(name, _chunks(archive, entry, budget, meter))
    else:
        refuse(budget.archive, name, "is a link or another thing than a file or a folder")


def _chunks(archive: tarfile.TarFile, entry: tarfile.TarInfo, budget: Budget, meter: "_Meter") -> Iterator[bytes]:
    done = 0
    file = archive.extractfile(entry)
    while file and (chunk := file.read(CHUNK)):
        done += len(chunk)
        budget.check(entry.name, done, len(chunk), meter.packed())
        yield chunk
    if done != entry.size:
        raise tarfile.ReadError(f"{entry.name!r} is cut short")


class _Meter:
    """The unpacked stream as tarfile reads it, counted, so that not even its headers can fill the memory."""

    def __init__(self, stream: IO[bytes], file: IO[bytes], budget: Budget) -> None:
        self.stream, self.file, self.budget = stream, file, budget
        self.count = 0  # bytes given out
        self.last_non_zero = -1
        self.stop_at: int | None = MAX_HEADER_BYTES  # tarfile reads the first header when it opens

    def packed(self) -> int:
        """Return how many bytes of the archive gave what was given out."""
        return self.file.tell()

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        data = self.stream.read(size)
        text = data.rstrip(b"\0")
        if text:
            self.last_non_zero = self.count + len(text) - 1
        self.count += len(data)
        name = self.budget.archive
        if self.stop_at is not None and self.count > self.stop_at:
            raise DataError(f"{name} has an entry with a header of more than {MAX_HEADER_BYTES:,} bytes")
        if self.count > max(FREE_BYTES, self.budget.max_ratio * self.packed()):
            raise DataError(f"{name} unpacks to more than {self.budget.max_ratio} times its size: it may be a bomb")
        if self.count > self.budget.max_bytes + self.budget.max_files * 2 * BLOCK + MAX_HEADER_BYTES:
            raise DataError(f"{name} unpacks to more than the {self.budget.max_bytes:,} bytes allowed or free")
        return data
