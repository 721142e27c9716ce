"""The Ray that we start on this machine: no more of it than a search needs, and ready when it is."""

import platform
import sys
from pathlib import Path

import pytest
import ray
import torch

import tunekit
from tunekit import memory

pytestmark = [
    pytest.mark.usefixtures("ray"),
    pytest.mark.skipif(not Path("/proc").exists(), reason="the system does not tell of its processes"),
]


def programs():
    """The command line of every process of the Ray session."""
    folder = ray._private.worker._global_node.get_session_dir_path()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:  # it ended
            continue
        if folder in words:
            found.append(words)
    return found


def test_no_autoscaler_no_log_monitor_no_dashboard_server():
    assert any("gcs_server" in words for words in programs())
    unneeded = ("monitor.py", "dashboard/dashboard.py")
    assert not [words for words in programs() if any(name in words for name in unneeded)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="trials that share GPUs need few of the workers")
def test_workers_are_started_with_what_trials_import():
    asked = ray.remote(num_cpus=0)(lambda: "tunekit.trial" in sys.modules)
    assert ray.get(asked.remote())


@pytest.mark.long
def test_a_search_imports_none_of_the_trackers_that_ray_knows(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "ray.air.integrations.wandb", raising=False)
    tunekit.run(
        {"lr": tunekit.loguniform(1e-3, 1e-1)}, "digits", num_trials=1, max_epochs=1, verbose=0, folder=tmp_path
    )
    assert "ray.air.integrations.wandb" not in sys.modules


PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library has no say in it")
@pytest.mark.skipif(not PAGES.exists() or "[never]" in PAGES.read_text(), reason="the system has no large pages")
def test_workers_have_large_pages(monkeypatch):
    def large_pages():
        held = [torch.ones(2**22) for _ in range(4)]  # 64 MiB
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        found = next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))
        return found, len(held)  # which is held until then

    kilobytes, _ = ray.get(ray.remote(num_cpus=0)(large_pages).remote())
    assert kilobytes > 2**15
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
    assert memory.large_pages() == "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    assert memory.large_pages() == "glibc.malloc.hugetlb=0"
