"""Record tables of complete learning curves by real training, for `search_quality.py` to replay.

    python benchmarks/record_curves.py --data-dir DIR --cifar DIR [--only TABLE] [--limit N] [--estimate]

Three tables (see curves.py): cnn_small on digits, lenet on 6,000 MNIST images, cnn_small on 5,000 CIFAR-10 images; of
each a full grid of 189 configs, 27 epochs. One process of one thread a core; one small file per config in a state
folder, so that the same command goes on where it stopped. A table that is complete is written to
benchmarks/curves/<table>.parquet: config, lr, batch_size, momentum, weight_decay, epoch, val_accuracy, epoch_s
(CPU seconds: what else the machine does while it records, hours long, does not count).

A training that diverged (val_accuracy NaN) ends there, as in a search; the rest of its curve is NaN, at the same cost.
"""

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import platform
import signal
import statistics
import time
from pathlib import Path
from typing import Any

# Before torch is imported, here and in the workers.
os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} if __name__ == "__main__" else {}

import numpy as np
import pandas as pd
import torch
from curves import HERE, METRIC, RECIPES, load

from tunekit import arithmetic, paths
from tunekit.datasets import Dataset
from tunekit.training import derive_seed, train

CPU = torch.device("cpu")
SPLITS = ("train", "val", "test")
dataset: Dataset  # of a worker


def main() -> None:
    """Record what is missing of each table, and write those that are complete."""
    args = arguments()
    torch.set_num_threads(1)
    for table in args.only or RECIPES:
        found = load(table, args.data_dir, args.cifar)
        if found is None:
            print(f"{table}: left out, as --{'cifar' if table == 'cifar10' else 'data-dir'} was not given")
            continue
        configs = settled(table, found, args.state)
        if args.estimate:
            estimate(table, found, configs, args.epochs, args.jobs)
            continue
        folder = prepare(table, found, configs, args.epochs, args.state)
        record(table, folder, configs, args)
        write(table, folder, configs, args)


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data-dir", type=Path, help="holds MNIST/raw")
    parser.add_argument("--cifar", type=Path, help="CIFAR-10 as a folder of class folders of images")
    parser.add_argument("--only", action="append", choices=list(RECIPES), help="this table; may be given again")
    parser.add_argument("--limit", type=int, help="train at most so many configs of each table now")
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, of one thread each")
    parser.add_argument("--state", type=Path, default=HERE / ".state" / "curves", help="what was trained so far")
    parser.add_argument("--out", type=Path, default=HERE / "curves")
    parser.add_argument("--estimate", action="store_true", help="time two epochs of each batch size, and stop")
    return parser.parse_args()


def settled(table: str, found: Dataset, state: Path) -> list[dict[str, Any]]:
    """Return a table's configs with the arithmetic that suits this machine, chosen once for the whole table."""
    configs, path = RECIPES[table].configs, state / f"{table}-arithmetic.json"
    if not path.exists():
        state.mkdir(parents=True, exist_ok=True)
        paths.write_json(path, arithmetic.choose(configs[0], found, CPU))
    return [{**config, **json.loads(path.read_text())} for config in configs]


def prepare(table: str, found: Dataset, configs: list[dict[str, Any]], epochs: int, state: Path) -> Path:
    """Return the folder for what is trained: another one where anything that matters is different."""
    text = json.dumps([found.fingerprint, configs, epochs], sort_keys=True)
    folder = state / f"{table}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "data.npz").exists():
        parts = {name: getattr(found, name) for name in SPLITS}
        arrays = {
            f"{name}_{kind}": getattr(part, kind) for name, part in parts.items() for kind in ("images", "targets")
        }
        np.savez(folder / "partial.npz", **arrays)
        (folder / "partial.npz").replace(folder / "data.npz")
    return folder


def record(table: str, folder: Path, configs: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Train what is missing, in random order, so that the time left is known early."""
    order = [int(number) for number in np.random.default_rng(0).permutation(len(configs))]
    missing = [number for number in order if not path_of(folder, number).exists()]
    jobs = [(folder, number, {**configs[number], "max_epochs": args.epochs}) for number in missing[: args.limit]]
    if not jobs:
        return
    print(f"{table}: {len(configs) - len(missing)} of {len(configs)} configs are done, {len(jobs)} to train now")
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(args.jobs, len(jobs)), open_worker, (folder,)) as pool:
        for done, number in enumerate(pool.imap_unordered(train_one, jobs), start=1):
            taken = time.monotonic() - began
            left = taken / done * (len(jobs) - done)
            best = max(finite(read(folder, number)[METRIC]), default=math.nan)
            print(f"{table}: {done}/{len(jobs)}, config {number} best {best:.4f}, {taken / 60:.1f} min, "
                  f"{left / 60:.1f} min left", flush=True)  # fmt: skip


def open_worker(folder: Path) -> None:
    """Begin a worker process: one thread, the data in memory, and Ctrl-C left to the main process."""
    global dataset
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    with np.load(folder / "data.npz") as arrays:
        pairs = {name: (arrays[f"{name}_images"], arrays[f"{name}_targets"]) for name in SPLITS}
    dataset = Dataset.from_arrays(**pairs)


def train_one(job: tuple[Path, int, dict[str, Any]]) -> int:
    """Train one config and write its curve down, whole or not at all."""
    folder, number, config = job
    found = curve(config, number, dataset)
    as_json = {name: [value if math.isfinite(value) else None for value in values] for name, values in found.items()}
    paths.write_json(path_of(folder, number), as_json)
    return number


def curve(config: dict[str, Any], number: int, found: Dataset) -> dict[str, list[float]]:
    """Return a config's val_accuracy and epoch_s by epoch; the seed is the config's own, as a trial's is."""
    values, seconds, began = [], [], time.process_time()
    for metrics, _ in train({**config, "seed": derive_seed(0, "curve", number)}, found):
        values.append(metrics[METRIC])
        seconds.append(time.process_time() - began)
        began += seconds[-1]
        if not math.isfinite(metrics[METRIC]):
            left = config["max_epochs"] - len(values)
            return {METRIC: values + [math.nan] * left, "epoch_s": seconds + [statistics.median(seconds)] * left}
    return {METRIC: values, "epoch_s": seconds}


def estimate(table: str, found: Dataset, configs: list[dict[str, Any]], epochs: int, jobs: int) -> None:
    """Print how long a table would take: CPU time of the second epoch of one config of each batch size.

    CPU time, as the machine may be busy with something else now.
    """
    by_size = {}
    for size in RECIPES[table].grid["batch_size"]:
        config = next(config for config in configs if config["batch_size"] == size)
        ends = [time.process_time() for _ in train({**config, "max_epochs": 2, "seed": 0}, found)]
        by_size[size] = ends[1] - ends[0]
    total = sum(by_size[config["batch_size"]] for config in configs) * epochs / jobs
    shown = ", ".join(f"{seconds:.3f} s at batch {size}" for size, seconds in by_size.items())
    print(f"{table}: an epoch takes {shown}; {len(configs)} configs x {epochs} epochs on {jobs} cores: "
          f"{total / 60:.1f} min", flush=True)  # fmt: skip


def write(table: str, folder: Path, configs: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Write a table's Parquet file, if all of it is there."""
    missing = sum(not path_of(folder, number).exists() for number in range(len(configs)))
    if missing:
        print(f"{table}: {missing} configs are missing: the same command without --limit goes on")
        return
    grid, frames = RECIPES[table].grid, []
    for number, config in enumerate(configs):
        axes = {name: config[name] for name in grid}
        epochs = range(1, args.epochs + 1)
        frames.append(pd.DataFrame({"config": number, **axes, "epoch": epochs, **read(folder, number)}))
    frame = pd.concat(frames, ignore_index=True)
    frame = frame.astype({"config": "int16", "epoch": "int16", METRIC: "float32", "epoch_s": "float32"})
    frame.attrs = {
        "grid": json.dumps(grid),
        "made_of": json.dumps({**configs[0], **{name: "see the columns" for name in grid}}, default=str),
        "machine": f"{arithmetic.machine(CPU)}, {args.jobs} processes of one thread",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
    }
    args.out.mkdir(parents=True, exist_ok=True)
    target = args.out / f"{table}.parquet"
    frame.to_parquet(target.with_suffix(".partial"), compression="zstd", index=False)
    target.with_suffix(".partial").replace(target)
    print(f"{table}: {target} ({target.stat().st_size / 1e3:.0f} kB), best val accuracy {frame[METRIC].max():.4f}")


def path_of(folder: Path, number: int) -> Path:
    """Return where a config's curve is kept."""
    return folder / f"{number:04}.json"


def read(folder: Path, number: int) -> dict[str, list[float]]:
    """Return a config's curve."""
    found = json.loads(path_of(folder, number).read_text())
    return {name: [math.nan if value is None else value for value in values] for name, values in found.items()}


def finite(values: list[float]) -> list[float]:
    """Return those values that are finite."""
    return [value for value in values if math.isfinite(value)]


if __name__ == "__main__":
    main()
