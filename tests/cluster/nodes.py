"""A Ray cluster of several nodes on this machine, on which a search goes on while they come and go.

    python nodes.py SCENARIO FOLDER [NUMBER]

prints what came of it, as JSON. It is a program of its own, as a process has one connection to Ray; a token is in its
environment.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

from ray._raylet import GcsClient
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.cluster_utils import Cluster

sys.path.append(str(Path(__file__).resolve().parent.parent))
from s3 import free_port

import tunekit
from tunekit import claims, session
from tunekit.errors import ExperimentError
from tunekit.ledger import Ledger

SPACE = {"x": tunekit.grid([1, 2, 3, 4, 5, 6])}
ASKED = {"searcher": "grid", "scheduler": "none", "max_epochs": 5, "verbose": 0, "name": "first"}


def slow(config, dataset, state=None):
    """Train nothing, slowly enough for nodes to be lost in the middle; epochs count on from the state."""
    for epoch in range(state["epoch"] if state else 0, config["max_epochs"]):
        time.sleep(config.get("epoch_s", 0.3))
        large_pages = float("glibc.malloc.hugetlb=1" in os.environ.get("GLIBC_TUNABLES", ""))
        accuracy = 1 / (config["x"] + 10 / (epoch + 1))
        yield {"val_accuracy": accuracy, "large_pages": large_pages}, {"epoch": epoch + 1}


def start(*cpus, **options):
    """Start a head without CPUs, and nodes of so many each; return the cluster and the nodes."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    return cluster, [cluster.add_node(num_cpus=number, **options) for number in cpus]


def searching(cluster, folder, **asked):
    """Search in a thread, as only the main one may start nodes; return the thread and what it comes to."""
    found = {}

    def search():
        try:
            asking = {"space": SPACE, "dataset": "digits", "train": slow, "folder": folder, **ASKED, **asked}
            asking["metric"] = "val_accuracy"
            found["results"] = tunekit.run(
                asking.pop("space"), asking.pop("dataset"), address=cluster.address, **asking
            )
        except BaseException as error:
            found["error"] = f"{type(error).__name__}: {error}"

    thread = threading.Thread(target=search)
    thread.start()
    return thread, found


def events(folder):
    """The events of the search so far."""
    path = Path(folder) / "first"
    if not (path / "ledger.db").exists():
        return []
    try:
        ledger = Ledger(path)
    except ExperimentError:  # it is being made
        return []
    try:
        return list(ledger.events())
    finally:
        ledger.close()


def wait_for(condition, seconds=120):
    """Wait until something holds."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.05)


def epochs_of(folder):
    return sum(event.kind == "epoch" for event in events(folder))


def summed_up(found):
    """What came of a search: its trials, its retries, and the nodes that it ran on."""
    if "error" in found:
        return {"error": found["error"]}
    frame = found["results"].dataframe
    ledger = Ledger(found["results"].folder)
    happened = list(ledger.events())
    ledger.close()
    retries = [event.data for event in happened if event.kind == "retry"]
    return {
        "best": found["results"].best_config,
        "states": sorted(set(frame["state"])),
        "epochs": [[metrics["val_accuracy"] for metrics in t.history] for t in found["results"].trials.values()],
        "large_pages": all(m.get("large_pages") for t in found["results"].trials.values() for m in t.history),
        "retries": len(retries),
        "counted": sum(retry["counts"] for retry in retries),
        "nodes": len({event.data["node_id"] for event in happened if event.kind == "started"}),
        "problems": [retry["reason"] for retry in retries],
    }


def together(folder):
    """Two nodes share the trials; what they do is seen meanwhile, and when one is lost afterwards."""
    cluster, nodes = start(1, 1)
    thread, found = searching(cluster, folder, space={**SPACE, "epoch_s": 2.0})
    wait_for(lambda: epochs_of(folder) >= 3)
    status = [sys.executable, "-m", "tunekit", "status", f"{folder}/first", "--address", cluster.address]
    found["said"] = subprocess.run(status, capture_output=True, text=True, check=True).stdout
    thread.join()
    cluster.remove_node(nodes[0], allow_graceful=False)
    found["said"] += subprocess.run(status, capture_output=True, text=True, check=True).stdout
    return cluster, found


def lost(folder, times=1):
    """Nodes are lost with what runs on them, and others come."""
    cluster, nodes = start(1, 1)
    thread, found = searching(cluster, folder, max_epochs=5 + 3 * times)
    for _ in range(times):
        before = epochs_of(folder)
        wait_for(lambda before=before: epochs_of(folder) >= before + 4 or not thread.is_alive())
        cluster.remove_node(nodes.pop(0), allow_graceful=False)
        nodes.append(cluster.add_node(num_cpus=1))
    thread.join()
    return cluster, found


def again(url, max_epochs):
    """A search in a storage begins, or goes on where another cluster left it."""
    cluster, _ = start(2)
    session.SILENT_S = claims.LONGEST_TRY_S = 3.0  # the last one is known to be dead
    found = {}
    found["results"] = tunekit.run(
        SPACE, "digits", train=slow, folder=url, metric="val_accuracy", address=cluster.address,
        **ASKED | {"max_epochs": max_epochs},
    )  # fmt: skip
    return cluster, found


def joined(folder):
    """A node is added to a search that began on one."""
    cluster, _ = start(1)
    thread, found = searching(cluster, folder, space={**SPACE, "epoch_s": 1.0}, max_epochs=3)
    wait_for(lambda: epochs_of(folder) >= 1)
    added = time.time()
    cluster.add_node(num_cpus=1)
    wait_for(lambda: len({e.data["node_id"] for e in events(folder) if e.kind == "started"}) == 2)
    found["after_s"] = time.time() - added
    thread.join()
    return cluster, found


def without_data(folder):
    """One of two nodes has neither the cache nor the files that the data came from."""
    import numpy as np
    from PIL import Image

    photos = Path(folder) / "photos"
    for number in range(40):
        path = photos / ("cats" if number % 2 else "dogs") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
    data = tunekit.load_dataset(photos)
    cluster, _ = start(1)
    hidden = f"mount -t tmpfs none {os.environ['XDG_CACHE_HOME']} && mount -t tmpfs none {photos}"
    ray = f"{Path(sys.executable).with_name('ray')} start --address {cluster.address} --num-cpus 2 --block"
    with subprocess.Popen(
        [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            f"{hidden} && exec {ray}",
        ],
        stdout=subprocess.DEVNULL,
    ) as bare:
        wait_for(lambda: len(cluster.list_all_nodes()) == 2 and registered(cluster) == 3)
        thread, found = searching(cluster, folder, dataset=data)
        thread.join()
        bare.kill()
    return cluster, found


def registered(cluster):
    """How many nodes the head knows."""
    return len(GcsClient(address=cluster.address).get_all_node_info())


def arrays(folder):
    """A dataset made in memory goes to the nodes with the trials."""
    import numpy as np

    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)
    data = tunekit.Dataset.from_arrays(train=(images, np.arange(60) % 2), name="made")
    bare = Path(folder) / "bare"
    bare.mkdir(mode=0o700)
    os.environ["XDG_CACHE_HOME"], before = str(bare), os.environ["XDG_CACHE_HOME"]
    cluster, _ = start(1)
    os.environ["XDG_CACHE_HOME"] = before
    thread, found = searching(cluster, folder, dataset=data)
    thread.join()
    return cluster, found


def kinds(folder):
    """Two nodes have GPUs of unlike kinds (in name only): what a trial needs of each is measured on each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for kind in ("small", "large"):
        cluster.add_node(num_cpus=2, num_gpus=1, resources={f"accelerator_type:{kind}": 1})
    space = {"backbone": "mlp", "batch_size": tunekit.grid([16, 32, 64, 128])}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        thread, found = searching(cluster, folder, space=space, train=None, max_epochs=2, verbose=1)
        thread.join()
    found["said"] = said.getvalue()
    return cluster, found


def scaled(folder):
    """Of an autoscaling cluster there is but a head: the machines come as trials wait for them."""
    address = f"127.0.0.1:{free_port()}"
    provider = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
    config = {
        "cluster_name": "fake", "max_workers": 2, "idle_timeout_minutes": 1, "head_node_type": "ray.head.default",
        "provider": {"type": "external", "module": provider, "gcs_address": address, "disable_node_updaters": True,
                     "disable_launch_config_check": True, "use_node_id_as_ip": True},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
    }  # fmt: skip
    lists = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
             "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files")  # fmt: skip
    config |= {name: [] for name in lists} | {"file_mounts": {}, "auth": {}, "upscaling_speed": 1.0}
    os.environ["HOME"] = str(folder)  # where `ray up` leaves this
    path = Path(folder, "ray_bootstrap_config.yaml")
    path.write_text(json.dumps(config))
    fake = {"RAY_FAKE_CLUSTER": "1", "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
            "RAY_enable_autoscaler_v2": "0"}  # fmt: skip
    ray = Path(sys.executable).with_name("ray")
    words = f"{ray} start --head --num-cpus 0 --block --node-ip-address 127.0.0.1 --include-dashboard=false".split()
    words += ["--port", address.partition(":")[2], f"--autoscaling-config={path}"]
    head = subprocess.Popen(words, env={**os.environ, **fake}, stdout=subprocess.DEVNULL)
    cluster = types.SimpleNamespace(address=address, shutdown=head.kill)
    wait_for(lambda: answers(address))
    thread, found = searching(cluster, folder)
    thread.join()
    return cluster, found


def answers(address):
    """Whether a head is up."""
    try:
        return bool(GcsClient(address=address).get_all_node_info())
    except Exception:  # of Ray's, of several kinds, while it starts
        return False


SCENARIOS = {each.__name__: each for each in (together, lost, again, joined, without_data, arrays, kinds, scaled)}

if __name__ == "__main__":
    made, what = SCENARIOS[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:]))
    print(json.dumps({**summed_up(what), "after_s": what.get("after_s"), "said": what.get("said")}))
    made.shutdown()
