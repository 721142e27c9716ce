"""What a search costs on this machine, measured by a tiny search of the same kind: same Ray, workers, loop, neighbours.

Each kind of config (backbone, image size, what is frozen) is trained on a few images for some epochs, with the smallest
and the largest batches of the space, as many trials side by side as the real search has. Nothing of it stays.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunekit import training
from tunekit.arithmetic import speeds
from tunekit.asked import Asked
from tunekit.config import DEFAULTS, complete
from tunekit.costs import KEYS, Measured, measured_from
from tunekit.datasets import load_dataset
from tunekit.datasets.base import Dataset, Split
from tunekit.datasets.store import KINDS, cache_folder, read_json, size_of
from tunekit.distributions import grid, label_of
from tunekit.engine import Engine
from tunekit.events import Event
from tunekit.ledger import Ledger
from tunekit.paths import SUFFIX
from tunekit.recorder import Recorder
from tunekit.schedulers import Decisions
from tunekit.session import finish, open_folder, session
from tunekit.space import Config, all_values, default_config
from tunekit.usage import watched_memory

NUM_EPOCHS = 3  # of each trial that measures; its first, in which memory is taken, does not count
EPOCH_S = 1.5  # that an epoch of the slowest backbone is to take, by the images that it is given
LEAST_IMAGES = 32
NUM_SEEN, NUM_TIMED = 8, 4  # trials, with which a searcher's choice is timed
OWN_LOOP = 20  # of a loop of one's own, whose speed is not known before: one in so many images, at least 256


def measure(asked: Asked, cpus_per_trial: int, gpus_per_trial: float | str) -> Measured:
    """Run the tiny search, in a folder that is gone afterwards, and return what it took.

    Args:
        asked: of the real one.
        cpus_per_trial, gpus_per_trial: of each trial.

    Raises:
        TrainingError: none of its trials came to a result.
    """
    load_s, decide_s = _load_s(asked.dataset), _decide_s(asked)
    points = _points(asked)
    slots = max(2, (os.cpu_count() or 1) // cpus_per_trial)  # at the most
    copies = [points[number % len(points)] for number in range(max(slots, len(points)))]
    space = {"point": grid([{"name": str(number), **point} for number, point in enumerate(copies)])}
    few = _few(asked, points)
    tiny = replace(
        asked, space=space, dataset=few, max_epochs=NUM_EPOCHS, searcher="grid", scheduler="none", start_from=()
    )
    device = torch.device("cpu") if gpus_per_trial == 0 else training.pick_device()
    with tempfile.TemporaryDirectory(prefix="tunekit-plan-", ignore_cleanup_errors=True) as folder:
        place, _ = open_folder(Path(folder), "plan", tiny, device)
        with session(place, {}, verbose=0) as ledger, watched_memory() as most:
            recorder = Recorder(ledger, Decisions("none", NUM_EPOCHS, asked.metric, asked.mode), len(copies), None)
            engine = Engine(tiny, ledger, recorder, cpus_per_trial, gpus_per_trial, None, address=None)
            engine.search(tiny.proposer(), len(copies), lambda: None)
        finish(recorder, place, verbose=0)
        ledger = Ledger(place)
        events = list(ledger.events())
        ledger.close()
        sizes = [path.stat().st_size for path in place.glob(f"trials/*/*{SUFFIX}")]
    gigabytes = max(most) / 1e9, max(sizes, default=0) / 1e9, _uncached(few)
    return measured_from(events, tiny, copies, engine.at_once, (load_s, decide_s), gigabytes)


def _points(asked: Asked) -> list[Config]:
    """Return the configs to measure: every kind with the smallest and the largest batches; of one's own loop, one."""
    default = default_config(asked.space, DEFAULTS)
    if asked.train is not training.train:
        return [default]
    sizes = all_values(asked.space, "batch_size", DEFAULTS["batch_size"])
    batches = sorted({min(sizes), max(sizes)})
    kinds: list[Config] = [{}]
    for key in KEYS:
        values = _distinct(all_values(asked.space, key, DEFAULTS[key]))
        kinds = [{**kind, key: value} for kind in kinds for value in values]
    return [{**default, **kind, "batch_size": batch} for kind in kinds for batch in batches]


def _distinct(values: list[Any]) -> list[Any]:
    return list({str(label_of(value)): value for value in values}.values())


def _few(asked: Asked, points: list[Config]) -> Dataset:
    """Return so many of the images, spread evenly, that an epoch of the slowest point takes EPOCH_S."""
    data = asked.dataset
    whole = data.num_images["train"]
    if asked.train is training.train:
        device = training.pick_device()
        known = [max(speeds(complete(point), data, device).values()) for point in points]
        slowest = min((speed for speed in known if speed), default=LEAST_IMAGES)
        number = max(LEAST_IMAGES, int(EPOCH_S * slowest))
    else:
        number = max(256, whole // OWN_LOOP)

    def some(split: Split) -> Split:
        count = min(number, len(split))
        return replace(split, rows=split.rows[np.linspace(0, len(split) - 1, count).astype(np.int64)])

    train, val = some(data.train), some(data.val)
    counts = {**data.num_images, "train": len(train), "val": len(val)}
    mark = f"{data.fingerprint}-{len(train)}"  # its features are not the whole's
    return replace(data, train=train, val=val, num_images=counts, fingerprint=mark, source={})


def _uncached(few: Dataset) -> float:
    """Delete what the cache has of those images; return the gigabytes of features that there were, for each of them."""
    images, total = sum(few.num_images[part] for part in ("train", "val")), 0
    for entry in (cache_folder() / "features").iterdir():
        described = read_json(entry / KINDS["features"]) or {}
        if described.get("shape") == [images] and str(described.get("name", "")).startswith(f"{few.name}, "):
            total += size_of(entry)
            shutil.rmtree(entry, ignore_errors=True)
    for entry in (cache_folder() / "datasets").glob(f"{few.fingerprint}-*"):
        shutil.rmtree(entry, ignore_errors=True)
    return total / 1e9 / images


def _decide_s(asked: Asked) -> float:
    """Return the seconds that the searcher takes over a choice, when it has seen NUM_SEEN trials of invented scores."""
    proposer, random = asked.proposer(), np.random.default_rng(0)
    took, times = 0.0, 0
    for number in range(0 if proposer.grid else NUM_SEEN + NUM_TIMED):
        began = time.perf_counter()
        proposer.turn(sys.maxsize, ())
        found = proposer.propose(number)
        if found is None:
            break
        if number >= NUM_SEEN:
            took, times = took + time.perf_counter() - began, times + 1
        source, params = found
        proposed = {"params": params, "role": "search", "source": source}
        proposer.hear(Event(0, 0.0, 0.0, "proposed", number, None, proposed))
        for epoch in range(1, NUM_EPOCHS + 1):
            proposer.hear(Event(0, 0.0, 0.0, "epoch", number, epoch, {asked.metric: random.random()}))
    return took / max(1, times)


def _load_s(dataset: Dataset) -> float:
    """Return the seconds that a process takes to import everything and to load the data from the cache."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import tunekit.experiment"], check=True, capture_output=True)
    if dataset.source:
        load_dataset(**dataset.source)
    return time.perf_counter() - began
