"""What a fault case runs: one experiment on real data, with tunekit.run, or with tunekit.train and no Ray.

python tests/faults/fault_search.py EXPERIMENT NUM_TRIALS [--alone] [--data mnist] [--loop counted] ...
"""

import argparse
import importlib
import os
from pathlib import Path
from typing import Any

import torch

import tunekit
from tunekit import choice, grid, loguniform

DATA = Path(os.environ.get("TUNEKIT_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
SPACE = {"backbone": "cnn_small", "lr": loguniform(1e-4, 1e-1), "batch_size": choice([16, 24])}
CONFIG = {"backbone": "cnn_small", "lr": 3e-3, "batch_size": 16}


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("experiment", type=Path)
    parser.add_argument("num_trials", type=int)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--data", default="digits", choices=["digits", "mnist", "mnist-large"])
    parser.add_argument("--loop", default=None, help="a function of fault_loops, or module:function")
    parser.add_argument("--ways", default="", help="of fault_loops.dying, with commas")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--backbone", default="cnn_small")
    parser.add_argument("--one-at-a-time", action="store_true")
    parser.add_argument("--timeout", type=float, default=None)
    parser.add_argument("--scheduler", default="asha")
    parser.add_argument("--searcher", default="tpe")
    return parser.parse_args()


def main() -> None:
    """Run it."""
    asked = arguments()
    module, _, function = (asked.loop or "").rpartition(":")
    loop = getattr(importlib.import_module(module or "fault_loops"), function) if asked.loop else None
    where = {"name": asked.experiment.name, "folder": asked.experiment.parent}
    if asked.alone:
        torch.set_num_threads(1)
        tunekit.train(CONFIG, dataset(asked.data), max_epochs=asked.epochs, train=loop, **where)
        return
    space: dict[str, Any] = {**SPACE, "backbone": asked.backbone}
    if asked.ways:
        space, asked.searcher = {"way": grid(asked.ways.split(","))}, "grid"
    tunekit.run(
        space,
        dataset(asked.data),
        num_trials=asked.num_trials,
        max_epochs=asked.epochs,
        train=loop,
        searcher=asked.searcher,
        scheduler=asked.scheduler,
        trial_timeout_s=asked.timeout,
        cpus_per_trial=(os.cpu_count() or 1) if asked.one_at_a_time else max(1, (os.cpu_count() or 1) // 2),
        **where,
    )


def dataset(name: str) -> Any:
    """Return the digits, or a part of MNIST: an epoch takes about half a second, or five of the large one."""
    if name == "digits":
        return name
    mnist = tunekit.load_dataset("mnist", data_dir=DATA)
    scale = 10 if name == "mnist-large" else 1
    counts = {"train": 700 * scale, "val": 300 * scale, "test": 300}
    splits = {s: (getattr(mnist, s).images[:count], getattr(mnist, s).targets[:count]) for s, count in counts.items()}
    return tunekit.Dataset.from_arrays(**splits, name=name)


if __name__ == "__main__":
    main()
