"""Batches of a split, ready for a model on its device: images prepared a whole batch at a time, or features."""

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from tunekit.datasets.base import Dataset, Split
from tunekit.memory import usable_memory
from tunekit.preprocessing import Preprocessing, draw_mirrored

GPU_SHARE = 0.4  # of a GPU's free memory, at most, holds a dataset whole
BYTES_AHEAD = 2**26  # of pinned memory, at most, for the batch that is on its way to a GPU
MEMORY_SHARE = 0.5  # of the memory that may be used; a dataset that is larger is streamed from the disk
BLOCK_BYTES, WINDOW_BYTES = 2**22, 2**30  # lie together, and are shuffled together, of such a dataset
WINDOW_SHARE = 1 / 32  # of the memory, at most: two are in it at once, for each trial
ASKED_BYTES = 2**17  # in one go: Linux reads no more ahead than its disk's read_ahead_kb, whatever it is asked for


class Feed:
    """Batches of one split.

    Args:
        config: its batch_size, micro_batches, oversample, memory_format and what `Preprocessing` takes.
        dataset: which the split is of.
        split: which images.
        device: where the batches are to be.
        features: float32 (V, N, ...), what a frozen backbone makes of the split's images, to be given in their place;
            V is 2 where the second are of the images mirrored, which training draws among.
        beside: a feed of another split of the dataset: the images that it has on the device are there for both.
    """

    def __init__(
        self, config: dict[str, Any], dataset: Dataset, split: Split, device: torch.device,
        features: torch.Tensor | None = None, beside: "Feed | None" = None,
    ) -> None:  # fmt: skip
        self.prepare = Preprocessing(config, dataset, device) if features is None else None
        self.memory_format = memory_format_of(config)
        self.batch_size, self.micro_batches = config["batch_size"], config["micro_batches"]
        self.weights = balancing_weights(split.targets, dataset.task) if config["oversample"] else None
        self.task, self.device, self.num_images = dataset.task, device, len(split)
        self.pool = split.all_images if features is None else None
        if features is None:
            pool = split.all_images
            self.inputs, self.targets = torch.from_numpy(pool), torch.from_numpy(split.all_targets)
            if beside is not None and beside.pool is pool:
                self.inputs, self.targets = beside.inputs, beside.targets
            self.rows = torch.from_numpy(split.rows)
            self.file = (pool.filename, pool.offset) if isinstance(pool, np.memmap) and pool.filename else None
        else:
            self.inputs, self.targets = features, torch.from_numpy(split.targets)
            self.rows = torch.arange(self.num_images)
        if device.type == "cuda" and self.inputs.nbytes < GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
            self.inputs, self.targets = self.inputs.to(device), self.targets.to(device)
        self.rows = self.rows.to(self.inputs.device)
        large = features is None and self.weights is None and self.inputs.device.type == "cpu"
        large = large and self.inputs.nbytes > MEMORY_SHARE * usable_memory()
        window = min(WINDOW_BYTES, WINDOW_SHARE * usable_memory())
        self.window = max(1, int(window) // self.inputs[0].numel()) if large else 0  # images; 0 where all fit

    @property
    def num_steps(self) -> int:
        """How many batches `shuffled` gives: a last batch of one image joins the one before it."""
        return max(1, (self.num_images + self.batch_size - 2) // self.batch_size)

    def shuffled(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (inputs, targets) in random order, each image once; with oversample, drawn by weight."""
        starts = range(0, self.num_images, self.batch_size)[: self.num_steps]
        rows = self.rows[self._order().to(self.rows.device)]
        for start, end in itertools.pairwise([*starts, self.num_images]):
            if self.window and start // self.window != (start - self.batch_size) // self.window:
                self._read_ahead(rows[start // self.window * self.window :][: 2 * self.window])
            yield self._batch(rows[start:end], training=True)

    def _order(self) -> torch.Tensor:
        """Return the images' order in this epoch; where they stream, blocks of neighbours on the disk stay together."""
        if self.weights is not None:
            return torch.multinomial(self.weights, self.num_images, replacement=True)
        if not self.window:
            return torch.randperm(self.num_images)
        blocks = self.rows.argsort().split(max(1, self.window * BLOCK_BYTES // WINDOW_BYTES))
        mixed = torch.cat([blocks[number] for number in torch.randperm(len(blocks))])
        return torch.cat([part[torch.randperm(len(part))] for part in mixed.split(self.window)])

    def _read_ahead(self, rows: torch.Tensor) -> None:
        """Have the system read images from their file meanwhile, in the order in which they lie there."""
        if self.file is None or not len(rows) or not hasattr(os, "posix_fadvise"):
            return
        (path, offset), size = self.file, self.inputs[0].numel()
        with suppress(OSError), open(path, "rb") as file:  # it may have been cleared: its pages are mapped still
            rows = rows.sort().values
            gaps = (rows.diff() * size > BLOCK_BYTES).nonzero().flatten() + 1  # between what is not wanted now
            for near in rows.tensor_split(gaps):
                first, end = (offset + int(row) * size for row in (near[0], near[-1] + 1))
                for at in range(first, end, ASKED_BYTES):
                    os.posix_fadvise(file.fileno(), at, min(ASKED_BYTES, end - at), os.POSIX_FADV_WILLNEED)

    def in_order(self, most_pixels: int = 2**19) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (inputs, targets) in the split's order, in batches as large as the caches like."""
        size = self.prepare.size or max(self.inputs.shape[1:3]) if self.prepare else 0
        each = size**2 or self.inputs[0, 0].numel()
        for rows in self.rows.split(max(32, most_pixels // each) // self.micro_batches or 1):
            yield self._batch(rows, training=False)

    def _batch(self, rows: torch.Tensor, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
        targets = self._to_device(self.targets.index_select(0, rows))  # a CPU takes six times as long for targets[rows]
        if self.prepare is not None:
            inputs = self.prepare(self._to_device(self.inputs.index_select(0, rows)), training)
            return inputs.contiguous(memory_format=self.memory_format), targets
        if training and len(self.inputs) == 2:
            views = draw_mirrored(len(rows), self.device).to(rows.device).long()
            return self._to_device(self.inputs[views, rows]), targets
        return self._to_device(self.inputs[0].index_select(0, rows)), targets

    def _to_device(self, part: torch.Tensor) -> torch.Tensor:
        """Move a part of the data; from pinned memory, so that a GPU goes on computing meanwhile."""
        if self.device.type == "cuda" and part.device.type == "cpu" and part.nbytes < BYTES_AHEAD:
            part = part.pin_memory()
        return part.to(self.device, non_blocking=True)


def balancing_weights(targets: np.ndarray, task: str) -> torch.Tensor:
    """Return a weight per image (N,) that gives each class, or each tenth of the range of values, the same chance."""
    if task == "classification":
        bins = targets
    else:
        edges = np.linspace(targets.min(), targets.max(), 11)[1:-1]
        bins = np.digitize(targets, edges)
    return torch.from_numpy(1 / np.bincount(bins)[bins])


def autocast(config: dict[str, Any], device: torch.device) -> torch.autocast:
    """Return the context in which the config's precision holds."""
    precision = config["precision"]
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32")


def memory_format_of(config: dict[str, Any]) -> torch.memory_format:
    """Return the order in which a config has the pixels of a batch in memory; "auto" is channels_last."""
    return torch.contiguous_format if config["memory_format"] == "contiguous" else torch.channels_last
