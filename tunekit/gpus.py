"""How many trials share a GPU: found by training the largest configs of a space for a few batches on one."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tunekit import training
from tunekit.arithmetic import Choices, settled
from tunekit.backbones import Backbone, register_backbone
from tunekit.config import DEFAULTS, complete
from tunekit.datasets import load_published
from tunekit.datasets.base import Dataset
from tunekit.space import Space, all_values, default_config

HEADROOM = 1.15  # times what was measured: cuDNN's workspaces, and what the allocator cannot put back together
NUM_BATCHES, MOST_VAL = 3, 4096  # of train; images of val: its largest batches, of 12 px or more
UNEQUAL = 0.5  # of the most memory: backbones that need less than this of it are told of


class Need(NamedTuple):
    """What a trial needs of a GPU, in bytes.

    Args:
        most: by torch's allocator, of the largest config.
        context: beside that, by CUDA itself.
        total: what the GPU has.
        by_backbone: the most of each backbone's configs.
    """

    most: int
    context: int
    total: int
    by_backbone: dict[str, int]


def largest_configs(space: Space) -> dict[str, dict[str, Any]]:
    """Return, for each backbone of a space, its config with the largest images and batches, all of it trained."""
    most = {
        "batch_size": max(all_values(space, "batch_size", DEFAULTS["batch_size"])),
        "image_size": max(all_values(space, "image_size", None), key=lambda size: size or 0),
        "optimizer": "adamw" if all_values(space, "optimizer", DEFAULTS["optimizer"]) != ["sgd"] else "sgd",
        "freeze": None if None in all_values(space, "freeze", DEFAULTS["freeze"]) else "backbone",
    }
    default = default_config(space, DEFAULTS)
    backbones = all_values(space, "backbone", DEFAULTS["backbone"])
    return {str(backbone): {**default, "backbone": backbone, **most} for backbone in backbones}


def measure(
    configs: dict[str, dict[str, Any]],
    data: Path | Dataset,
    source: dict[str, Any],
    choices: Choices,
    backbones: dict[str, Backbone],
) -> Need:
    """Train each config for a few batches on this process's GPU, and return what that took.

    Args:
        configs: by backbone, as `largest_configs` gives them.
        data: the dataset, or the cache entry that holds it.
        source: the arguments of `load_dataset` that give it on a machine without that entry.
        choices: the arithmetic for configs that leave it open.
        backbones: those that a script registered, by name.
    """
    for name, backbone in backbones.items():
        register_backbone(name)(backbone)
    dataset = load_published(data, source) if isinstance(data, Path) else data
    device = torch.device("cuda")
    found = {}
    for label, config in configs.items():
        rows = NUM_BATCHES * config["batch_size"]
        train = replace(dataset.train, rows=dataset.train.rows[:rows])
        val = replace(dataset.val, rows=dataset.val.rows[:MOST_VAL])
        part = replace(dataset, train=train, val=val, fingerprint=f"{dataset.fingerprint}-{rows}-{MOST_VAL}")
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        whole = settled(complete(config), choices, device)
        next(training.train({**whole, "max_epochs": 1, "seed": 0}, part))
        found[label] = torch.cuda.max_memory_reserved(device)
    free, total = torch.cuda.mem_get_info(device)
    return Need(max(found.values()), total - free - torch.cuda.memory_reserved(device), total, found)


def share(need: Need, at_most: int) -> tuple[float, float, str]:
    """Return (the share of a GPU that a trial takes, the share of its memory that torch may use, both in words).

    Args:
        need: as measured.
        at_most: how many trials a GPU's part of the cores can run.

    Example:
        >>> share(Need(most=2 * 10**9, context=5 * 10**8, total=16 * 10**9, by_backbone={"cnn": 2 * 10**9}), at_most=16)
        (0.2, 0.168..., '5 trials share a GPU: cnn needs up to 2.3 of 16.0 GB')
    """
    number = max(1, min(at_most, int(need.total // (HEADROOM * need.most + need.context))))
    cap = max(need.total / number - need.context, 0.0) / need.total
    largest = max(need.by_backbone, key=lambda name: need.by_backbone[name])
    words = f"{number} trials share a GPU" if number > 1 else "each trial has a GPU"
    words += f": {largest} needs up to {HEADROOM * need.most / 1e9:.1f} of {need.total / 1e9:.1f} GB"
    small = [name for name, most in need.by_backbone.items() if most < UNEQUAL * need.most]
    if small:
        words += f"; {', '.join(small)} would do with less than half of that: searched alone, more run at once"
    return int(1e4 / number) / 1e4, cap, words
