"""What a process frees: kept for the next training step, and given back where it is much."""

import platform
import subprocess
import sys

import pytest

MEASURED = """
import torch
from tunekit import memory

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) // 1024

{limit}
memory.keep_freed()
torch.ones(64 * 2**18)  # 64 MiB, used and freed
before = resident()
memory.give_back(unless={unless} * 2**20)
print(before - resident())
"""


def given_back_mb(**values):
    line = [sys.executable, "-c", MEASURED.format(**values)]
    return int(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
@pytest.mark.parametrize(("unless_mb", "given_back"), [(0, True), (32, True), (256, False)])
def test_memory_is_given_back_where_it_is_more_than_said(unless_mb, given_back):
    assert (given_back_mb(unless=unless_mb, limit="") >= 50) == given_back


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_nothing_is_kept_where_the_address_space_is_limited():
    """It would be full of what is kept, and lack the room for the code of a smaller batch."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))"
    assert given_back_mb(unless=0, limit=limit) < 50  # nothing was left to give
