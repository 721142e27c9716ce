"""A cluster of several nodes: trials are shared, survive the loss of nodes, and keep off those that lack the data."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fault_cluster import cluster_environment, kill_all

NODES = Path(__file__).with_name("nodes.py")


def run(scenario, folder):
    mark = secrets.token_hex(4)
    environment = cluster_environment(mark, Path(os.environ["XDG_CACHE_HOME"]))
    command = [sys.executable, NODES, scenario, folder]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    finally:
        kill_all(mark)  # an autoscaler's machines outlive its head
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert "error" not in found, found
    return found


def expected(max_epochs):
    return [[1 / (x + 10 / (epoch + 1)) for epoch in range(max_epochs)] for x in range(1, 7)]


@pytest.mark.long
def test_trials_are_shared_by_the_nodes(tmp_path):
    found = run("together", tmp_path)
    assert found["nodes"] == 2 and found["retries"] == 0 and found["best"]["x"] == 1
    assert found["epochs"] == expected(5)
    _, during, after = found["said"].split("machine ")  # the two tables' headings
    rows = [line.split() for line in during.splitlines() if " up " in line]
    assert len(rows) == 3 and sum(row[3] == "1" for row in rows) == 2, found["said"]  # the head has no CPU for trials
    assert all(re.search(r"\d+\.\d of \d+\.\d GB", line) for line in during.splitlines() if " up " in line)
    assert sorted(row[-1] for row in rows if row[3] == "1") != ["0", "0"]  # whose trials they are
    assert "2 running" in during and ("lost" in after or "silent" in after) and "6 finished" in after


@pytest.mark.long
def test_lost_nodes_cost_no_trial_and_no_retry(tmp_path):
    found = run("lost", tmp_path)
    assert found["states"] == ["finished"] and found["epochs"] == expected(8)
    assert found["retries"] >= 1 and found["counted"] == 0 and found["nodes"] == 3, found


@pytest.mark.long
def test_an_added_node_is_used(tmp_path):
    found = run("joined", tmp_path)
    assert found["nodes"] == 2 and found["epochs"] == expected(3) and found["large_pages"]


@pytest.mark.long
@pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("unshare") is None, reason="only root may hide folders from a node"
)
def test_a_node_without_the_data_is_left_out(tmp_path):
    found = run("without_data", tmp_path)
    assert found["states"] == ["finished"] and found["epochs"] == expected(5)
    assert found["counted"] == 0 and any("photos" in problem for problem in found["problems"]), found


@pytest.mark.long
def test_a_dataset_made_in_memory_goes_to_the_nodes(tmp_path):
    assert run("arrays", tmp_path)["epochs"] == expected(5)


@pytest.mark.long
def test_gpus_of_unlike_kinds_are_measured_apart(tmp_path):
    found = run("kinds", tmp_path)
    assert found["states"] == ["finished"] and found["nodes"] == 2
    measured = [line for line in found["said"].splitlines() if "could not be measured" in line]  # there is no CUDA
    assert len(measured) == 2, found["said"]


@pytest.mark.long
def test_machines_are_started_as_trials_wait_for_them(tmp_path):
    found = run("scaled", tmp_path)
    assert found["nodes"] == 2 and found["epochs"] == expected(5)
