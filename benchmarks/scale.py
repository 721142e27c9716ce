"""How a search grows with its cluster: trials that only sleep and report, on 1, 2, 4 and 8 Ray nodes of this machine.

    python benchmarks/scale.py [--nodes 1 2 4 8] [--cpus 4] [--epoch-s 0.5] [--epochs 20]

Each logical CPU runs one trial, whose epoch takes so many seconds of sleep. Measured: the epochs a second of the whole
search against what its slots could give, and the processor time that each of the driver and Ray's head takes for an
epoch, which is what one head has to give to all workers together.
"""

import os
import resource
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
from work import Work

SCRIPT = Path(__file__).name


def sleeping_loop(config: dict[str, Any], dataset: Any, state: Any = None) -> Iterator[tuple[dict[str, float], dict]]:
    """Sleep through the epochs."""
    for epoch in range(state["epoch"] if state else 0, config["max_epochs"]):
        time.sleep(config["epoch_s"])
        yield {"val_accuracy": 1 - (config["x"] - 0.3) ** 2 / (epoch + 1)}, {"epoch": epoch + 1}


def search(work: Work) -> dict[str, Any]:
    """Search on work.images nodes of work.val_images CPUs each; an epoch takes work.size milliseconds."""
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    from ray.cluster_utils import Cluster

    import tunekit
    from tunekit.ledger import Ledger

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(work.images):
        cluster.add_node(num_cpus=work.val_images)
    slots = work.images * work.val_images
    space = {"x": tunekit.uniform(0, 1), "epoch_s": work.size / 1000}
    before = _seconds()
    results = tunekit.run(
        space, "digits", train=sleeping_loop, metric="val_accuracy", num_trials=work.configs * slots,
        max_epochs=work.epochs, searcher="random", scheduler="none", verbose=0, name="scale", folder=work.scratch,
        address=cluster.address,
    )  # fmt: skip
    spent = {name: after - before[name] for name, after in _seconds().items()}
    times = [event.time for event in Ledger(results.folder).events() if event.kind == "epoch"]
    cluster.shutdown()
    first, last = len(times) // 4, 3 * len(times) // 4  # while all slots are at work
    return {
        "slots": slots, "num_epochs": len(times), "spent_s": spent,
        "epochs_per_s": (last - first) / (times[last] - times[first]),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def _seconds() -> dict[str, float]:
    """Return the processor time that the driver and Ray's head have taken so far."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    found = {"driver": own.ru_utime + own.ru_stime, "head": 0.0}
    ticks = os.sysconf("SC_CLK_TCK")
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
        except OSError:  # it ended
            continue
        if name == "gcs_server" and os.stat(path).st_uid == os.getuid():
            found["head"] += sum(map(int, rest.split()[11:13])) / ticks
    return found


def main() -> None:
    """Measure each number of nodes, print what was found, write it down."""
    parser = measure.parser(__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--cpus", type=int, default=4, help="of each node: one trial each")
    parser.add_argument("--epoch-s", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--trials", type=int, default=3, help="for each slot")
    args = parser.parse_args()
    runs, rows = [], []
    for nodes in args.nodes:
        work = Work("", images=nodes, val_images=args.cpus, configs=args.trials, epochs=args.epochs,
                    size=round(args.epoch_s * 1000))  # fmt: skip
        parts = {"search": (SCRIPT, "search", work)}
        done = [measure.run_pair(number, parts)["search"] for number in range(args.pairs)]
        runs += [{"nodes": nodes, **found} for found in done]
        name = f"{nodes} nodes, {nodes * args.cpus} trials at once"
        ideal = nodes * args.cpus / args.epoch_s
        rows += [
            measure.row(f"{name}: epochs a second, of {ideal:g} possible", [f["epochs_per_s"] / ideal for f in done]),
            *(
                measure.row(f"{name}: processor time of the {who} for an epoch",
                            [1000 * f["spent_s"][who] / f["num_epochs"] for f in done], unit="ms")
                for who in ("driver", "head")
            ),
        ]  # fmt: skip
        print(rows[-3]["comparison"], measure.shown(rows[-3]), flush=True)
    measure.write(args.name or "scale", "A cluster that grows: trials that only sleep and report", rows, runs)


if __name__ == "__main__" and not measure.inside((search,)):
    main()
