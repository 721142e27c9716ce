"""How much faster trials train whose denormal numbers are taken for zero: see tunekit/denormals.py.

    python benchmarks/denormals.py --data DATA [--pairs 3]

tunekit's own epoch loop, on one thread, with and without; images a second of the last third of the epochs. DATA is the
folder with MNIST/raw.
"""

import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import measure
from work import Work, arrays_of

SCRIPT = Path(__file__).name
CONFIGS = {
    "Adam": {"optimizer": "adam", "lr": 1e-3, "batch_size": 32},
    "SGD with momentum 0.9": {"optimizer": "sgd", "momentum": 0.9, "lr": 1e-2, "batch_size": 32},
}


def as_zero(work: Work) -> dict[str, Any]:
    """Train as trials do."""
    from tunekit.denormals import denormals_are_zero

    with denormals_are_zero():
        return _trained(work)


def as_they_are(work: Work) -> dict[str, Any]:
    """Train as PyTorch does by itself."""
    return _trained(work)


def _trained(work: Work) -> dict[str, Any]:
    import torch

    import tunekit
    from tunekit import memory, training
    from tunekit.config import complete

    torch.set_num_threads(1)
    memory.keep_freed()
    dataset = tunekit.Dataset.from_arrays(**arrays_of(work))
    changed = {"backbone": work.backbone, "precision": work.precision, "memory_format": work.memory_format}
    found: dict[str, Any] = {"speeds": {}, "denormals": {}, "accuracies": []}
    for name, config in CONFIGS.items():
        whole = {**complete({**changed, **config}), "seed": work.seed, "max_epochs": work.epochs}
        done = list(training.train(whole, dataset))
        found["speeds"][name] = [metrics["images_per_s"] for metrics, _ in done]
        found["accuracies"].append(done[-1][0]["val_accuracy"])
        averages = [a for state in done[-1][1]["optimizer"]["state"].values() for a in state.values()]
        smallest = torch.finfo(torch.float32).tiny
        tiny = sum(int(((a != 0) & (a.abs() < smallest)).sum()) for a in averages if torch.is_tensor(a))
        found["denormals"][name] = tiny
    return found


def main() -> None:
    """Run the pairs, print the ratios, write them down."""
    parser = measure.parser(__doc__)
    parser.add_argument("--data", required=True, help="the folder with MNIST/raw")
    parser.add_argument("--epochs", type=int, default=9)
    args = parser.parse_args()
    work = measure.with_arithmetic(Work(args.data, val_images=500, epochs=args.epochs))
    runs: list[dict[str, Any]] = []
    ratios = defaultdict(list)
    for number in range(args.pairs):
        names = ["as_zero", "as_they_are"][:: -1 if number % 2 else 1]
        done = measure.run_pair(number, {name: (SCRIPT, name, work.with_(seed=number)) for name in names})
        runs += [{"round": number, **found} for found in done.values()]
        for name in CONFIGS:
            speeds = {peer: statistics.median(done[peer]["speeds"][name][-(args.epochs // 3) :]) for peer in done}
            ratios[name].append(speeds["as_zero"] / speeds["as_they_are"])
            print(
                f"{number} {name:<22} {speeds['as_zero']:7.0f} against {speeds['as_they_are']:.0f} images/s", flush=True
            )
    rows = [measure.row(f"{name}: images a second", found) for name, found in ratios.items()]
    title = f"Denormal numbers as zero, in the last third of {args.epochs} epochs of {work.backbone}"
    measure.write(args.name or "denormals", title, rows, runs)


if __name__ == "__main__":
    if not measure.inside((as_zero, as_they_are)):
        main()
