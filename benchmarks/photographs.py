"""Photographs on disk, 4,000 in Place Pulse's layout: read once, and then as fast as tensors in memory.

    python benchmarks/photographs.py --data DATA [--photos FOLDER] [--pairs 5] [--backbones cnn resnet18]

DATA is the folder with make_placepulse.py and the photographs it takes; FOLDER keeps what it makes for the next time.
Two comparisons:

- the first pass over all photographs, in seconds from its call to its end, worker processes included: tunekit reads,
  checks, decodes and stores them; torchvision's ImageFolder gives them to a DataLoader with a worker for each core;
- training: images a second while an epoch trains, in the trials of a search from the second one on, and in those of
  the bare loop of as many processes, whose images are float tensors in memory.
"""

import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
from work import Work, cores, make_photographs

SCRIPT = Path(__file__).name
SIZE, EPOCHS, CONFIGS = 64, 2, 4
SPLITS = {"val_fraction": 0.05, "test_fraction": 0.3}  # Place Pulse's own
_kept: dict[str, Any] = {}  # of the bare loop: what its processes share


def first_pass(work: Work) -> dict[str, Any]:
    """Read every photograph with tunekit: its cache is empty. Imports are timed of neither: pandas reads the tables."""
    import pandas  # noqa: F401

    from tunekit import load_dataset

    began = time.perf_counter()
    dataset = load_dataset("placepulse", data_dir=work.data, image_size=work.size)
    return {"pass_s": time.perf_counter() - began, "count": sum(dataset.num_images.values())}


def image_folder(work: Work) -> dict[str, Any]:
    """Read every photograph with torchvision and PyTorch: the same square, to floats.

    https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html, and "Enable asynchronous
    data loading" of https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html: num_workers.
    """
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    steps = [transforms.Resize(work.size), transforms.CenterCrop(work.size), transforms.ToTensor()]
    began = time.perf_counter()
    folder = datasets.ImageFolder(work.data, transforms.Compose(steps))  # images/ is its one class
    count = sum(len(images) for images, _ in DataLoader(folder, batch_size=64, num_workers=cores()))
    return {"pass_s": time.perf_counter() - began, "count": count}


def search(work: Work) -> dict[str, Any]:
    """Train with tunekit on the photographs, and return images a second of each epoch from the second trial on."""
    import tunekit

    space = {
        "backbone": work.backbone,
        "optimizer": "adam",
        "lr": tunekit.loguniform(1e-4, 1e-2),
        "precision": work.precision,
        "memory_format": work.memory_format,
    }
    dataset = tunekit.load_dataset("placepulse", data_dir=work.data, image_size=work.size, **SPLITS)
    results = tunekit.run(
        space, dataset, num_trials=work.configs, max_epochs=work.epochs, searcher="random", scheduler="none",
        verbose=0, name="photographs", folder=work.scratch,
    )  # fmt: skip
    history = results.history
    return {"speeds": history[history["trial"] >= 1]["images_per_s"].tolist()}


def in_memory(work: Work) -> dict[str, Any]:
    """Train the bare loop on the same photographs, as tensors in memory, in a process for each core."""
    import loops
    import torch

    import tunekit

    torch.set_num_threads(1)
    dataset = tunekit.load_dataset("placepulse", data_dir=work.data, image_size=work.size, **SPLITS)
    tricks = loops.tricks_of(work)
    train, val = ((part.images, part.targets) for part in (dataset.train, dataset.val))
    _kept.update(work=work, tricks=tricks, data=loops.normalised(*train, *val, tricks.layout))
    with multiprocessing.get_context("fork").Pool(cores()) as pool:
        speeds = pool.map(_bare_speeds, [10**-exponent for exponent in (3, 4, 2.5, 3.5)][: work.configs], chunksize=1)
    return {"speeds": [speed for config in speeds[1:] for speed in config]}


def _bare_speeds(lr: float) -> list[float]:
    import loops

    config = {"lr": lr, "batch_size": 64}
    return [epoch["images_per_s"] for epoch in loops.train(config, _kept["data"], _kept["work"], _kept["tricks"])]


def main() -> None:
    """Run the pairs, print the ratios, write them down."""
    parser = measure.parser(__doc__)
    parser.add_argument("--data", required=True, help="the folder with make_placepulse.py")
    parser.add_argument("--photos", type=Path, help="where to keep the photographs that it makes")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--backbones", nargs="*", default=["cnn", "resnet18"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = make_photographs(args.data, args.photos or Path(temporary), args.images)
        work = Work(str(place), size=SIZE, configs=CONFIGS, epochs=EPOCHS)
        runs: list[dict[str, Any]] = []
        rows = _decoding(work, args.pairs, runs)
        cache = Path(temporary, "cache")  # decoded by the first run that needs it, for all that train
        for backbone in args.backbones:
            rows.append(_training(work.with_(backbone=backbone), args.pairs, runs, cache))
    title = f"Photographs on disk: {args.images:,} JPEGs of 400 x 300 px, used at {SIZE} px"
    measure.write(args.name or "photographs", title, rows, runs)


def _decoding(work: Work, num_pairs: int, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ratios, speeds = [], []
    for number in range(num_pairs):
        names = ["first_pass", "image_folder"][:: -1 if number % 2 else 1]
        done = measure.run_pair(number, {name: (SCRIPT, name, work) for name in names})
        assert done["first_pass"]["count"] == done["image_folder"]["count"]
        runs += [{"round": number, **done[name]} for name in names]
        ratios.append(done["image_folder"]["pass_s"] / done["first_pass"]["pass_s"])
        speeds.append(done["first_pass"]["count"] / done["first_pass"]["pass_s"] / cores())
        print(number, {name: round(found["pass_s"], 1) for name, found in done.items()}, flush=True)
    name = "first pass against ImageFolder and DataLoader, images per core and second"
    return [
        measure.row(name, ratios, "at least 1", lambda ratio: ratio >= 1),
        measure.row("first pass, per core", speeds, unit="images/s"),
    ]


def _training(work: Work, num_pairs: int, runs: list[dict[str, Any]], cache: Path) -> dict[str, Any]:
    work = measure.with_arithmetic(work)
    shares = []
    for number in range(num_pairs):
        names = ["in_memory", "search"][:: -1 if number % 2 else 1]
        done = measure.run_pair(number, {name: (SCRIPT, name, work) for name in names}, cache)
        runs += [{"round": number, "backbone": work.backbone, **done[name]} for name in names]
        medians = {name: statistics.median(found["speeds"]) for name, found in done.items()}
        shares.append(medians["search"] / medians["in_memory"])
        print(number, work.backbone, {name: round(speed) for name, speed in medians.items()}, flush=True)
    name = f"{work.backbone}: training from the second trial on, share of the speed on tensors in memory"
    used = f"{work.precision} {work.memory_format}"
    return measure.row(name, shares, "at least 0.95", lambda share: share >= 0.95, note=used)


if __name__ == "__main__" and not measure.inside((first_pass, image_folder, search, in_memory)):
    main()
