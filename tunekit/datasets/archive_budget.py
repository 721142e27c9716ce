"""How much an archive may unpack to: counted while bytes are written, whatever it declares."""

from dataclasses import dataclass
from typing import NoReturn

from tunekit.datasets.listing import shown
from tunekit.errors import DataError

FREE_BYTES = 10 * 2**20  # the ratio does not count before: an empty file of 1 MB packs 1,000:1 and harms nobody
SHOWN = 120


@dataclass
class Budget:
    """What is left to write of an archive.

    Args:
        archive: its name, for errors.
        size: its bytes.
        max_files, max_bytes, max_file_bytes, max_ratio: as in `archive.unpack`.
        files, written: what was unpacked until now.
    """

    archive: str
    size: int
    max_files: int
    max_bytes: int
    max_file_bytes: int
    max_ratio: int
    files: int = 0
    written: int = 0

    def next_entry(self, name: str) -> None:
        """Count an entry."""
        self.files += 1
        if self.files > self.max_files:
            refuse(self.archive, name, f"is one more than the {self.max_files:,} entries that are allowed")

    def check(self, name: str, in_file: int, new: int, packed: int) -> None:
        """Count `new` bytes of a file, which has `in_file` with them; `packed` bytes of the archive gave all so far."""
        self.written += new
        if in_file > self.max_file_bytes:
            refuse(self.archive, name, f"is larger than the {self.max_file_bytes:,} bytes allowed for one file")
        if self.written > self.max_bytes:
            refuse(self.archive, name, f"brings the whole to more than {self.max_bytes:,} bytes, which are allowed (or "
                   "free on the disk)")  # fmt: skip
        most = max(FREE_BYTES, self.max_ratio * min(self.size, packed))
        if self.written > most:
            refuse(self.archive, name, f"unpacks to more than {self.max_ratio} times its size: it may be a bomb")


def refuse(archive: str, name: str, reason: str) -> NoReturn:
    """Raise the error for an entry of an archive."""
    text = shown(name)
    text = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    raise DataError(f"{archive}: entry {text!r} {reason}; nothing was unpacked")
