"""Breaks clusters on purpose, again and again, and writes down what was lost: `make faults-cluster`.

    python fault_cluster.py [--nodes 30] [--heads 10] [--links 10] [--out docs/faults-cluster.md]

- nodes: one of two machines is killed in the middle of a search, and another comes, so many times in one search;
- heads: head, machines and driver are all killed at once, at any moment; a new cluster, on a machine that knows nothing
  but the URL, goes on; so many times in one search, whose storage is an S3 server on loopback;
- links: of two hosts that are network namespaces of this machine, one is cut off for 5 to 60 s, so many times.

The searches are of a grid with a fixed seed, so that what they must come to is known to the last digit.
"""

import argparse
import contextlib
import datetime
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]
MARK = "TUNEKIT_FAULT"  # in the environment of all processes of a cluster


def cluster_environment(mark, home):
    """The environment of a cluster of its own."""
    from s3 import CREDENTIALS

    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {**os.environ, **token, **CREDENTIALS, MARK: mark, "XDG_CACHE_HOME": str(home)}


def kill_all(mark):
    """Kill every process of a cluster; return how many there were."""
    killed = 0
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}\0".encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                os.kill(int(path.parent.name), signal.SIGKILL)
                killed += 1
    return killed


def curve(x, max_epochs):
    """What a trial of nodes.slow comes to."""
    return [1 / (x + 10 / (epoch + 1)) for epoch in range(max_epochs)]


def lose_nodes(times):
    """Lose machines in one search; return the row of the table."""
    with tempfile.TemporaryDirectory(prefix="tunekit-faults-") as scratch:
        environment = cluster_environment(secrets.token_hex(4), Path(scratch, "home"))
        command = [sys.executable, str(HERE / "nodes.py"), "lost", scratch, str(times)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return ["a machine is killed", times, f"failed: {done.stderr.strip().splitlines()[-1:]}", "-"]
        found = json.loads(done.stdout.splitlines()[-1])
    whole = found.pop("epochs", None) == [curve(x, 5 + 3 * times) for x in range(1, 7)]
    lost = sum(state != "finished" for state in found["states"])
    held = whole and not lost and not found["counted"] and found["best"] == {"x": 1}
    return ["a machine is killed", times, f"{found['retries']} trials moved, {found['counted']} counted against them",
            f"{lost} trials lost" if held else f"BROKEN: {found | {'whole': whole}}"]  # fmt: skip


def lose_heads(times):
    """Lose the whole cluster in one search, again and again; return the row of the table."""
    from s3 import Server

    max_epochs, chance = 40 * times // 10 + 10, random.Random(0)
    known, lost_epochs, kills = {}, 0, 0
    with tempfile.TemporaryDirectory(prefix="tunekit-faults-") as scratch, Server() as server:
        url = server.url("faults")
        for number in range(times + 1):
            mark = secrets.token_hex(4)
            environment = cluster_environment(mark, Path(scratch, f"home-{number}"))
            command = [sys.executable, str(HERE / "nodes.py"), "again", url, str(max_epochs)]
            log = Path(scratch, f"log-{number}")
            with log.open("w") as file:
                driver = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
            before, until = epochs_there(url, environment), time.monotonic() + 300
            for name, epoch in known.items():
                lost_epochs += max(0, epoch - before.get(name, 0))
            while number < times and driver.poll() is None and time.monotonic() < until:
                known = epochs_there(url, environment)
                if sum(known.values()) > sum(before.values()) + 3:
                    break
                time.sleep(0.2)
            if number < times and driver.poll() is None:
                time.sleep(chance.uniform(0, 2))
                known = epochs_there(url, environment)
                kills += kill_all(mark) > 0
                driver.wait()
            else:
                driver.wait()
                break
        said = log.read_text().strip().splitlines()
        kill_all(mark)
    try:
        found = json.loads(said[-1])
    except (ValueError, IndexError):
        return ["head, machines and driver are killed", kills, f"failed: {said[-1:]}", "-"]
    whole = found.pop("epochs", None) == [curve(x, max_epochs) for x in range(1, 7)]
    held = whole and found["states"] == ["finished"] and found["best"] == {"x": 1} and not lost_epochs
    return ["head, machines and driver are killed; another machine goes on from the URL", kills,
            f"{lost_epochs} epochs that were saved trained again",
            "0 trials lost" if held else f"BROKEN: {found | {'whole': whole}}"]  # fmt: skip


LINKS = """
import sys, time
import tunekit

def slow(config, dataset, state=None):
    for epoch in range(state["epoch"] if state else 0, config["max_epochs"]):
        time.sleep(2)
        yield {"val_accuracy": 1 / (config["x"] + 10 / (epoch + 1))}, {"epoch": epoch + 1}

results = tunekit.run({"x": tunekit.grid(list(range(1, 13)))}, "digits", train=slow, metric="val_accuracy",
    searcher="grid", scheduler="none", max_epochs=int(sys.argv[2]), address="auto", folder=sys.argv[1], name="first")
print("best", results.best_config)
"""


def cut_links(times):
    """Cut the network of one of two hosts for 5 to 60 s, again and again; return the row of the table."""
    from test_hosts import Hosts, cut, hosts_sh

    import tunekit

    max_epochs, chance, cuts = 10 * times, random.Random(0), 0
    with tempfile.TemporaryDirectory(prefix="tunekit-faults-") as scratch:
        folder = Path(scratch)
        hosts_sh("up", folder / "hosts", 2, Path(sys.prefix).resolve())
        try:
            hosts = Hosts(folder)
            hosts.write_checkout()
            hosts.run("up", "--yes")
            hosts.wait("2 local.cluster.node", 120)
            job = hosts.submit("links", LINKS, str(folder / "shared"), str(max_epochs))
            time.sleep(30)
            while cuts < times and " running " in (told := hosts.run("status").stdout):
                cut(hosts.names[1], chance.uniform(5, 60))
                cuts += 1
                time.sleep(chance.uniform(20, 40))
            until = time.monotonic() + 3000
            while "best {" not in hosts.run("log", job).stdout and time.monotonic() < until:
                time.sleep(5)
            found = tunekit.load_results(folder / "shared" / "first")
            said = hosts.run("log", job).stdout
        finally:
            hosts_sh("down", folder / "hosts")
        whole = [[metrics["val_accuracy"] for metrics in trial.history] for trial in found.trials.values()]
        moved = sum(trial.num_retries for trial in found.trials.values())
        held = whole == [curve(x, max_epochs) for x in range(1, 13)] and "best {'x': 1}" in said and not moved
        nodes = sorted({trial.node for trial in found.trials.values()})
    return ["the network of a host is cut for 5 to 60 s", cuts, f"{moved} losses counted; last on {', '.join(nodes)}",
            "0 trials lost" if held else f"BROKEN: {said[-500:]} {told[-500:]}"]  # fmt: skip


def epochs_there(url, environment):
    """The newest epoch of each trial in the storage."""
    from tunekit.storage import Storage, joined

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ[name] = environment[name]
    newest = {}
    for name in Storage(joined(url, "first")).sizes("trials"):
        _, trial, file = name.split("/")
        if file.split(".")[0].isdigit():
            newest[trial] = max(newest.get(trial, 0), int(file.split(".")[0]))
    return newest


def main():
    """Break, look, write the table; exit with 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=30)
    parser.add_argument("--heads", type=int, default=10)
    parser.add_argument("--links", type=int, default=10)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rows = [
        breaks(times)
        for breaks, times in ((lose_nodes, asked.nodes), (lose_heads, asked.heads), (cut_links, asked.links))
        if times
    ]
    lines = ["| what | times | what it cost | |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    print("\n".join(lines))
    if asked.out:
        text = (
            "# What was broken on clusters, and what was lost\n\nWritten by `make faults-cluster` on "
            f"{datetime.date.today()}: searches of six trials, whose every epoch is known beforehand.\n\n"
        )
        asked.out.write_text(text + "\n".join(lines) + "\n")
    return int(any(not str(row[-1]).startswith("0 trials lost") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
