"""How much memory there is; and what a training step frees stays with the process, for the next, where it can.

glibc gives large blocks back to the system as they are freed, which clears every page of them before it gives them out
again: on two virtual cores that is a third of a training step of the `cnn`. Pages of 2 MB instead of 4 KB are a tenth
more, as the processor has fewer of them to find. Source: mallopt(3), malloc_trim(3); the GNU C Library's manual, Memory
Allocation Tunables (glibc.malloc.hugetlb), which a process reads when it begins; mallinfo2(3).
"""

import ctypes
import os
import resource
from pathlib import Path
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
MOST = 2**30  # bytes: what is larger still comes from the system each time, and goes back
FOR_THE_NEXT = 2**28  # bytes, at most, that a worker keeps from one trial to the next
TUNABLES = "GLIBC_TUNABLES"
CGROUPS = Path("/sys/fs/cgroup")  # of version 2, then of version 1: what a container may use
LIMITS = ("memory.max", "memory/memory.limit_in_bytes")


def usable_memory() -> int:
    """Return how many bytes of memory this process may use: the machine's, or its container's."""
    limits = [int(text) for name in LIMITS if (text := text_of(CGROUPS / name)).isdigit()]
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *limits])


def text_of(path: Path) -> str:
    """Return what a file of the system says; nothing where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def large_pages() -> str:
    """Return what TUNABLES is to be where a process with large pages is started; what the user has it say is kept.

    Example:
        >>> large_pages()
        'glibc.malloc.hugetlb=1'
    """
    given = os.environ.get(TUNABLES, "")
    return given if "glibc.malloc.hugetlb" in given else ":".join(filter(None, (given, "glibc.malloc.hugetlb=1")))


def keep_freed() -> None:
    """Have this process keep what it frees, from now on.

    Does nothing where the C library is not glibc, or where the address space is limited (`ulimit -v`): once it is full
    of what is kept, there is no room in it for anything else, such as the code that oneDNN writes for a smaller batch.
    """
    mallopt = _function("mallopt")
    if mallopt is not None and resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        mallopt(MMAP_THRESHOLD, MOST)
        mallopt(TRIM_THRESHOLD, MOST)


def give_back(unless: int = 0) -> None:
    """Give back what this process has kept, unless it is no more than so many bytes."""
    malloc_trim = _function("malloc_trim")
    if malloc_trim is not None and not 0 < _kept() <= unless:
        malloc_trim(0)


def _kept() -> int:
    """Return how many bytes this process has freed and kept; 0 where the C library does not tell."""
    mallinfo = _function("mallinfo2")
    if mallinfo is None:  # before glibc 2.33
        return 0
    mallinfo.restype = _MallocInfo
    return int(mallinfo().fordblks)


class _MallocInfo(ctypes.Structure):
    """See mallinfo2(3)."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks")),
        *((name, ctypes.c_size_t) for name in ("fsmblks", "uordblks", "fordblks", "keepcost")),
    ]


def _function(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
