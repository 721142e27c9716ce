"""How much memory a search takes: of this process and all that it starts, looked at again and again."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EVERY_S = 0.1


@contextmanager
def watched_memory() -> Iterator[list[int]]:
    """Watch what this process and all that it starts have for themselves, in bytes; nothing where no /proc tells."""
    seen, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(EVERY_S):
            seen.append(_private_bytes())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def _private_bytes() -> int:
    """Return the bytes that this process and its descendants have in memory and share with no file."""
    parents, sizes = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
            resident, shared = (stat.parent / "statm").read_text().split()[1:3]
            sizes[int(stat.parent.name)] = (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            continue  # it has ended meanwhile
    ours, newer = {os.getpid()}, {os.getpid()}
    while newer:
        newer = {pid for pid, parent in parents.items() if parent in newer} - ours
        ours |= newer
    return sum(sizes.get(pid, 0) for pid in ours)
