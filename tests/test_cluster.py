"""The Ray that we start on this machine: no more of it than a search needs, and ready when it is."""

import sys
from pathlib import Path

import pytest
import ray
import torch

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
