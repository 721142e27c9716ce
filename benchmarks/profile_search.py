"""Where the time of a search goes: the share inside the network's own mathematics, and the rest.

    python benchmarks/profile_search.py --data DATA [--pairs 3]

Two measurements, put together: one trial's first epoch under PyTorch's profiler, operator by operator, on one thread
in one process; and one search, whose wall time is cut up by marks set around its parts and by its own ledger. DATA is
the folder with MNIST/raw; the work is that of same_work.py.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
from work import Work, arrays_of, cores

SCRIPT = Path(__file__).name
INNER = {  # an operator belongs to the innermost of these that it runs in; else to the network
    "#feed": "batches: picked out, scaled, laid out",
    "#metrics": "metrics",
    "#optimizer": "the optimizer",
}
KINDS = {  # of operators of the network, by what is in their names; the first that fits
    "convolution": ("conv",),
    "matrix product": ("addmm", "aten::mm", "linear", "matmul"),
    "batch norm": ("batch_norm",),
    "pooling, ReLU, loss": ("pool", "relu", "threshold", "softmax", "nll", "dropout"),
    "conversion of precision and layout": ("copy_", "_to_copy", "aten::to", "clone", "contiguous"),
}


def operators(work: Work) -> dict[str, Any]:
    """Profile one epoch; return the share of its wall time of each kind of operator."""
    import torch
    from torch.profiler import ProfilerActivity, profile, record_function

    import tunekit
    from tunekit import feeds, training
    from tunekit.config import complete

    def marked(function: Callable, name: str) -> Callable:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            with record_function(name):
                return function(*arguments, **options)

        return wrapped

    torch.set_num_threads(1)
    dataset = tunekit.Dataset.from_arrays(**arrays_of(work))
    changed = {"backbone": work.backbone, "precision": work.precision, "memory_format": work.memory_format}
    config = {**complete(changed), "seed": 0, "max_epochs": 3}
    epochs = training.train(config, dataset)
    next(epochs)  # memory is taken, kernels are chosen
    plain_s = next(epochs)[0]["epoch_s"]
    feeds.Feed._batch = marked(feeds.Feed._batch, "#feed")
    training.measure = marked(training.measure, "#metrics")
    step_of = training.plain_step
    training.plain_step = lambda optimizer: marked(step_of(optimizer), "#optimizer")
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        epoch_s = next(epochs)[0]["epoch_s"]
    kinds: Counter[str] = Counter()
    for event in profiled.events():
        kinds[_kind(event)] += event.self_cpu_time_total / 1e6
    kinds["Python between operators"] = max(0.0, epoch_s - sum(kinds.values()))
    return {"plain_s": plain_s, "profiled_s": epoch_s, "share": {kind: s / epoch_s for kind, s in kinds.items()}}


def _kind(event: Any) -> str:
    at = event
    while at is not None:
        for name, kind in INNER.items():
            if at.name.startswith(name):
                return kind
        at = at.cpu_parent
    for kind, words in KINDS.items():
        if any(word in event.name for word in words):
            return f"network: {kind}"
    return "network: everything else, autograd included"


def search(work: Work) -> dict[str, Any]:
    """Run one search, and return seconds since the epoch at each mark, and what its workers say of themselves."""
    marks = {"python": time.time()}
    import tunekit
    from tunekit import asked, cluster
    from tunekit.ledger import Ledger

    _ = tunekit.run  # imports everything
    marks["imported"] = time.time()
    spent: Counter[str] = Counter()

    def timed(owner: Any, attribute: str, name: str) -> None:
        function = getattr(owner, attribute)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            began = time.time()
            try:
                return function(*arguments, **options)
            finally:
                spent[name] += time.time() - began
                marks[name] = time.time()

        setattr(owner, attribute, wrapped)

    timed(asked, "choose_for", "arithmetic")
    timed(cluster, "_start", "ray_start")
    timed(cluster.ray, "shutdown", "ray_end")
    dataset = tunekit.Dataset.from_arrays(**arrays_of(work), name="work")
    marks["loaded"] = time.time()
    space = {
        "backbone": work.backbone,
        "lr": tunekit.loguniform(1e-4, 1e-2),
        "batch_size": tunekit.choice([32, 64, 128]),
    }
    results = tunekit.run(
        space, dataset, start_from=work.config_list, num_trials=work.configs, max_epochs=work.epochs,
        searcher="random", scheduler="none", verbose=0, name="work", folder=work.scratch,
    )  # fmt: skip
    marks["returned"] = time.time()
    for kind, pick in (("opened", min), ("started", min), ("ended", max)):
        marks[kind] = pick(event.time for event in Ledger(results.folder).events() if event.kind == kind)
    return {"marks": marks, "spent": dict(spent), "epochs_s": float(results.history["epoch_s"].sum())}


def main() -> None:
    """Profile, cut up, print, write down."""
    parser = measure.parser(__doc__, pairs=3)
    parser.add_argument("--data", required=True, help="the folder with MNIST/raw")
    parser.add_argument("--images", type=int, default=6000, help="to train on, and as many to validate on")
    parser.add_argument("--configs", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    work = Work(args.data, images=args.images, val_images=args.images, configs=args.configs, epochs=args.epochs)
    work = measure.with_arithmetic(work)
    runs: list[dict[str, Any]] = []
    kinds: dict[str, list[float]] = {}
    parts: dict[str, list[float]] = {}
    network = []
    for number in range(args.pairs):
        pair = {name: (SCRIPT, name, work) for name in ("operators", "search")}
        profiled, searched = measure.run_pair(number, pair).values()
        runs += [{"round": number, **profiled}, {"round": number, **searched}]
        for kind, share in profiled["share"].items():
            kinds.setdefault(kind, []).append(100 * share)
        for part, share in _parts(searched).items():
            parts.setdefault(part, []).append(100 * share)
        inside = sum(share for kind, share in profiled["share"].items() if kind.startswith("network"))
        network.append(100 * inside * searched["epochs_s"] / cores() / searched["wall_s"])
        print(number, f"{searched['wall_s']:.1f} s, {network[-1]:.0f} % in the network", flush=True)
    rows = [measure.row("wall time of a search inside the network's mathematics", network, unit="%")]
    rows += [measure.row(f"search: {part}", shares, unit="%") for part, shares in parts.items()]
    ranked = sorted(kinds.items(), key=lambda pair: -statistics.median(pair[1]))
    rows += [measure.row(f"epoch of one trial: {kind}", shares, unit="%") for kind, shares in ranked]
    title = (
        f"Where the time goes: {work.configs} configs of {work.epochs} epochs, {work.precision} {work.memory_format}"
    )
    measure.write(args.name or "profile_search", title, rows, runs)


def _parts(found: dict[str, Any]) -> dict[str, float]:
    """Return the share of a search's wall time of each of its parts; they add up to 1."""
    marks, spent = found["marks"], found["spent"]
    span = marks["ended"] - marks["started"]
    training = found["epochs_s"] / cores()
    parts = {
        "Python and imports": marks["imported"] - found["began"],
        "data read": marks["loaded"] - marks["imported"],
        "the fastest arithmetic measured": spent.get("arithmetic", 0.0),
        "checks, and the folder made": marks["opened"] - marks["loaded"] - spent.get("arithmetic", 0.0),
        "Ray started": spent["ray_start"],
        "workers started, torch imported in each": marks["started"] - marks["ray_start"],
        "epochs of training and validation": training,
        "between epochs: checkpoints, ledger, Ray, and cores with no trial left": span - training,
        "Ray ended": spent["ray_end"],
        "Python's exit": found["ended"] - marks["returned"],
    }
    parts["all else: data stored for the workers, Ray Tune set up, results"] = (
        found["ended"] - found["began"] - sum(parts.values())
    )
    return {part: seconds / (found["ended"] - found["began"]) for part, seconds in parts.items()}


if __name__ == "__main__" and not measure.inside((operators, search)):
    main()
