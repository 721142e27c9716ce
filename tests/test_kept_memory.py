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

memory.keep_freed()
torch.ones(64 * 2**18)  # 64 MiB, used and freed
before = resident()
memory.give_back(unless={unless} * 2**20)
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
@pytest.mark.parametrize(("unless_mb", "given_back"), [(0, True), (32, True), (256, False)])
def test_memory_is_given_back_where_it_is_more_than_said(unless_mb, given_back):
    script = MEASURED.format(unless=unless_mb)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (int(done.stdout) >= 50) == given_back, done.stdout
