"""What the machines of a cluster are doing: asked of each by a task of a moment, which takes no slot from a trial."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tunekit.cluster import ray_session
from tunekit.events import ENDED, Trial

PATIENCE_S = 30.0  # for a machine to answer: it may have to start a process for it
GPU_QUERY = "utilization.gpu,memory.used,memory.total"


def nodes_of(address: str | None, trials: Iterable[Trial] = ()) -> list[dict[str, Any]]:
    """Return one dict per machine of a cluster: name, state, cpus, gpus, load, memory_gb, gpu_use and its trials.

    Args:
        address: of the cluster, or "auto".
        trials: of an experiment that runs there, to say which run where.

    Raises:
        ClusterError: it cannot be joined.
    """
    running: dict[str, list[int]] = {}
    for trial in trials:
        if trial.state == "running":
            running.setdefault(trial.node_id, []).append(trial.number)
    with ray_session(address):
        known = ray.nodes()
        look = ray.remote(num_cpus=0, max_retries=0)(look_around)
        asked = {
            node["NodeID"]: look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote()
            for node in known
            if node["Alive"]
        }  # fmt: skip
        done, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=PATIENCE_S)
        found = []
        for node in known:
            answer = asked.get(node["NodeID"])
            seen = _answer(answer) if answer in done else {}
            have = node["Resources"]
            found.append({
                "name": node["NodeManagerHostname"], "address": node["NodeManagerAddress"],
                "state": ("up" if seen else "silent") if node["Alive"] else "lost",
                "cpus": int(have.get("CPU", 0)), "gpus": int(have.get("GPU", 0)),
                "load": None, "memory_gb": None, "gpu_use": "", **seen,
                "trials": running.get(node["NodeID"], []),
            })  # fmt: skip
    return sorted(found, key=lambda node: (node["state"] == "lost", node["name"]))


def _answer(asked: Any) -> dict[str, Any]:
    """Return what a machine said; nothing where it was lost meanwhile, of which Ray does not know at once."""
    try:
        return ray.get(asked)
    except ray.exceptions.RayError:
        return {}


def look_around() -> dict[str, Any]:
    """Return what this machine is busy with: load (processes that want a core), memory_gb (used, whole), gpu_use."""
    known = Path("/proc/meminfo")
    lines = [line.split() for line in known.read_text().splitlines()] if known.exists() else []
    kilobytes = {words[0].rstrip(":"): int(words[1]) for words in lines}
    whole, free = kilobytes.get("MemTotal", 0), kilobytes.get("MemAvailable", 0)
    memory_gb = ((whole - free) * 1024 / 1e9, whole * 1024 / 1e9) if whole else None
    return {"load": os.getloadavg()[0], "memory_gb": memory_gb, "gpu_use": _gpu_use()}


def _gpu_use() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    asked = [program, f"--query-gpu={GPU_QUERY}", "--format=csv,noheader,nounits"]
    answer = subprocess.run(asked, capture_output=True, text=True, timeout=PATIENCE_S, check=False).stdout
    rows = [row.split(", ") for row in answer.splitlines()]
    known = [row for row in rows if len(row) == 3 and all(value.isdigit() for value in row)]  # some tell "[N/A]"
    return "; ".join(f"{use} %, {int(used) / 1024:.1f} of {int(whole) / 1024:.1f} GB" for use, used, whole in known)


def queue_of(trials: Iterable[Trial]) -> dict[str, int]:
    """Return how many trials are in each state."""
    states = [trial.state for trial in trials]
    return {state: states.count(state) for state in ("running", "waiting", "paused", *ENDED) if state in states}
