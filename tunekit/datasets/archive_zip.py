"""The entries of a zip, checked before and while they are read. See archive.py."""

import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from typing import IO, Any

from tunekit.datasets.archive_budget import Budget, refuse
from tunekit.errors import DataError

CHUNK = 2**20
END, END64, END64_AT, ENTRY = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x01\x02"
# zipfile unpacks these two in bounded pieces; of the others it may make gigabytes out of one piece
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1 | 0x40 | 0x2000


def read(file: IO[bytes], budget: Budget, tree: Any) -> None:
    """Write all entries of a zip into a tree.

    Args:
        file: the zip, at its beginning.
        budget: what may be written.
        tree: has add_folder(name) and add_file(name, chunks).

    Raises:
        DataError: an entry is refused.
        zipfile.BadZipFile: the zip is damaged.
    """
    _count_entries(file, budget)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        _check(entries, budget, archive.start_dir)
        packed = 0
        for entry in entries:
            name = entry.orig_filename  # before zipfile has cut it at a NUL
            budget.next_entry(name)
            if entry.is_dir():
                tree.add_folder(name)
                continue
            packed += entry.compress_size
            tree.add_file(name, _chunks(archive, entry, budget, packed))


def _count_entries(file: IO[bytes], budget: Budget) -> None:
    """Count the entries of the directory by hopping over them: zipfile would first make an object of each."""
    start, length = _directory(file, budget.archive)
    file.seek(start)
    done, count = 0, 0
    while done < length:
        head = file.read(46)
        if len(head) < 46 or head[:4] != ENTRY:
            raise zipfile.BadZipFile("its directory is cut short")
        extra = sum(struct.unpack("<3H", head[28:34]))
        file.seek(extra, os.SEEK_CUR)
        done += 46 + extra
        count += 1
        if count > budget.max_files:
            raise DataError(f"{budget.archive} lists more than {budget.max_files:,} entries; nothing was unpacked")
    file.seek(0)


def _directory(file: IO[bytes], name: str) -> tuple[int, int]:
    """Return where the directory begins and its length, as the end of the file tells (with its 64-bit form)."""
    size = file.seek(0, os.SEEK_END)
    tail_at = max(0, size - 22 - 65535 - 20)
    file.seek(tail_at)
    tail = file.read()
    end = tail.rfind(END)
    if end < 0 or len(tail) < end + 22:
        raise zipfile.BadZipFile(f"{name} has no end: it is cut short")
    (length,) = struct.unpack("<L", tail[end + 12 : end + 16])
    end_at = tail_at + end
    if tail[max(0, end - 20) : end][:4] == END64_AT:
        file.seek(end_at - 20 - 56)
        record = file.read(56)
        if record[:4] == END64:
            (length,) = struct.unpack("<Q", record[40:48])
            end_at -= 20 + 56
    if length > end_at:
        raise zipfile.BadZipFile("its directory is longer than the file")
    return end_at - length, length


def _check(entries: list[zipfile.ZipInfo], budget: Budget, end: int) -> None:
    """Refuse what can be seen in the directory: other things than files, encryption, overlaps, too many bytes."""
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR) > entry.is_dir():
            refuse(budget.archive, entry.orig_filename, "is a link or another thing than a file or a folder")
        if entry.flag_bits & ENCRYPTED:
            refuse(budget.archive, entry.orig_filename, "is encrypted")
        if entry.compress_type not in METHODS:
            refuse(budget.archive, entry.orig_filename, f"is packed by method {entry.compress_type}, not by deflate")
        if entry.is_dir() and entry.file_size:
            refuse(budget.archive, entry.orig_filename, "is a folder with content")
    claimed = sum(entry.file_size for entry in entries)
    if claimed > budget.max_bytes:
        raise DataError(
            f"{budget.archive} says it unpacks to {claimed:,} bytes, where {budget.max_bytes:,} are allowed or free"
        )
    in_order = sorted(entries, key=lambda entry: entry.header_offset)
    ends = [*(entry.header_offset for entry in in_order[1:]), end]
    for entry, limit in zip(in_order, ends[: len(in_order)], strict=True):
        if entry.header_offset < 0 or entry.header_offset + 30 + entry.compress_size > limit:
            refuse(budget.archive, entry.orig_filename, "overlaps another entry")


def _chunks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, budget: Budget, packed: int) -> Iterator[bytes]:
    """Yield an entry's bytes; zipfile checks the checksum at the end."""
    done = 0
    with archive.open(entry) as file:
        while chunk := file.read(CHUNK):
            done += len(chunk)
            budget.check(entry.orig_filename, done, len(chunk), packed)
            yield chunk
    if done != entry.file_size:
        refuse(budget.archive, entry.orig_filename, f"has {done:,} bytes where {entry.file_size:,} were declared")
