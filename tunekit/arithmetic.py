"""Which arithmetic trains fastest on this machine: number format and memory layout, measured, not guessed.

Measured once per machine, backbone and image shape, on a few training steps; kept in the cache folder. An experiment
writes down what was chosen when it began, and goes on with that.
"""

import itertools
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import torch

from tunekit import memory, paths
from tunekit.backbones import backbones, build_model, image_shape
from tunekit.config import DEFAULTS, complete
from tunekit.datasets.store import cache_folder, locked, read_json
from tunekit.distributions import label_of
from tunekit.feeds import autocast, memory_format_of
from tunekit.space import Space, all_values, default_config
from tunekit.training import loss_of
from tunekit.versions import source_of

KEYS = ("backbone", "image_size", "precision", "memory_format")  # of a config: what a choice is for
Choices = dict[str, dict[str, str]]  # "cnn None auto auto" -> precision and memory_format
Speeds = dict[str, float]  # "bfloat16 channels_last" -> training images per second
GAIN = 1.1  # how much faster a lower precision has to be to be worth its rounding
LEAST_S, LEAST_STEPS = 0.15, 3  # each candidate is timed for so long, or a single step where that takes longer
MOST_VALUES = 2**19  # of a batch, on a CPU: 42 photographs of 64 px, 4 of 224 px; a large model's step takes a second
NO_BFLOAT16 = "AVX2"  # a processor that emulates it, at a tenth of float32's speed; to time that takes up to 10 s


def choose_for(space: Space, dataset: Any, device: torch.device) -> Choices:
    """Return what is chosen on a device for every config of a space that leaves something open: see `settled`."""
    axes = {key: all_values(space, key, DEFAULTS[key]) for key in KEYS}
    configs = (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
    base = complete(default_config(space, DEFAULTS))
    return {
        _name(config): {"device": device.type, **choose({**base, **config}, dataset, device)}
        for config in configs
        if "auto" in config.values()
    }


def settled(config: dict[str, Any], choices: Choices, device: torch.device | None = None) -> dict[str, Any]:
    """Return a config with the precision and memory_format that were chosen for it, where it says "auto".

    What was chosen on a CPU says nothing of a GPU: a device of another kind leaves the config as it is.
    """
    chosen = dict(choices.get(_name(config), {}))
    kind = chosen.pop("device", None)
    return config if device is not None and device.type != kind else {**config, **chosen}


def choose(config: dict[str, Any], dataset: Any, device: torch.device) -> dict[str, str]:
    """Return the precision and memory_format with which a config trains fastest here.

    Args:
        config: complete; what it fixes itself, holds.
        dataset: a Dataset, for the shape of its images.
        device: which is to train.

    Returns:
        precision: "float32" or "bfloat16", and memory_format: "channels_last" or "contiguous".
    """
    fixed = {key: config[key] for key in ("precision", "memory_format") if config[key] != "auto"}
    measured = speeds(config, dataset, device)
    allowed = {name: speed for name, speed in measured.items() if speed and set(fixed.values()) <= set(name.split())}
    if not allowed:  # nothing ran, or a layout was fixed by hand that was timed in the other precision alone
        return {"precision": "float32", "memory_format": "channels_last", **fixed}
    best = max(allowed, key=lambda name: _worth(name, allowed[name]))
    return dict(zip(("precision", "memory_format"), best.split(), strict=True))


def _worth(name: str, speed: float) -> float:
    return speed / (GAIN if name.startswith("bfloat16") else 1.0)


def speeds(config: dict[str, Any], dataset: Any, device: torch.device) -> Speeds:
    """Return how many images a second a config trains with each arithmetic: from the cache, or measured now.

    0 is what a model cannot be trained with at all: not all of PyTorch knows bfloat16.
    """
    key = _key(config, dataset, device)
    path = cache_folder() / "speeds.json"
    known = (read_json(path) or {}) if key else {}
    if key in known:
        return known[key]
    found = measure(config, dataset, device)
    if key:
        with locked("speeds"):
            paths.write_json(path, {**(read_json(path) or {}), key: found})
    return found


def measure(config: dict[str, Any], dataset: Any, device: torch.device) -> Speeds:
    """Time training steps on one thread in float32 and bfloat16, and the faster of the two in the other layout.

    Where bfloat16 is emulated, it is not timed.
    """
    emulated = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == NO_BFLOAT16
    precisions = ("float32",) if emulated else ("float32", "bfloat16")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as trials do
    memory.keep_freed()
    try:
        with torch.random.fork_rng(devices=[]):
            found = {f"{name} channels_last": _time(config, dataset, device, name) for name in precisions}
            faster = max(found, key=lambda name: _worth(name, found[name])).split()[0]
            found[f"{faster} contiguous"] = _time(config, dataset, device, faster, "contiguous")
    finally:
        torch.set_num_threads(threads)
        memory.give_back()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def _time(*arguments: Any) -> float:
    """Return the speed of `_steps`; 0 where the model fails, in whatever way: its own trial will tell."""
    try:
        return _steps(*arguments)
    except Exception:
        return 0.0


def _steps(
    config: dict[str, Any], dataset: Any, device: torch.device, precision: str, layout: str = "channels_last"
) -> float:
    config = {**config, "precision": precision, "memory_format": layout, "pretrained": False}
    shape = image_shape(config, dataset)
    count = _batch_size(config, shape, device)
    model = build_model(config, dataset).to(device).to(memory_format=memory_format_of(config)).train()
    images = torch.randn(count, *shape, device=device).contiguous(memory_format=memory_format_of(config))
    regression = dataset.task == "regression"
    targets = torch.zeros(count, device=device, dtype=torch.float32 if regression else torch.int64)

    def step() -> float:
        began = time.perf_counter()
        with autocast(config, device):
            outputs = model(images)
        loss_of(outputs, targets).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    step()  # slower than the rest: memory is taken, kernels are chosen
    taken = [step()]
    while taken[0] < LEAST_S and (len(taken) < LEAST_STEPS or sum(taken) < LEAST_S):
        taken.append(step())
    return count / min(taken)


def _batch_size(config: dict[str, Any], shape: tuple[int, ...], device: torch.device) -> int:
    """Return how many images are timed: on a GPU what trials train on, else near it; few are as fast in either."""
    if device.type == "cuda":
        return math.ceil(config["batch_size"] / config["micro_batches"])
    return max(4, min(64, MOST_VALUES // math.prod(shape)))


def _name(config: dict[str, Any]) -> str:
    return " ".join(str(label_of(config[key])) for key in KEYS)


def _key(config: dict[str, Any], dataset: Any, device: torch.device) -> str:
    """Return what a measurement is of; nothing for a model whose code cannot be told from another's."""
    backbone = config["backbone"]
    function = backbone if callable(backbone) else backbones[backbone] if backbone in backbones else None  # noqa: SIM401 - no dict
    source = source_of(function) if function is not None else ""
    if source is None:
        return ""
    shape, train = image_shape(config, dataset), config["freeze"] or "all"
    timed = [_batch_size(config, shape, device), *shape]
    return json.dumps([machine(device), torch.__version__, label_of(backbone), source, timed, train, dataset.task])


def machine(device: torch.device) -> str:
    """Return the name of the processor that a device is."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} {torch.backends.cpu.get_cpu_capability()}"
