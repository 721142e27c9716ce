"""Training loops in a few lines of PyTorch, which the peers and the bare loop share: plain, or with every trick."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional
from work import Work, arrays_of, network_of

from tunekit import memory
from tunekit.folding import folded

VAL_BATCH = 512


class Tensors(NamedTuple):
    """Train and val, float32 (N, C, H, W), normalised, with their targets: all in memory."""

    images: torch.Tensor
    targets: torch.Tensor
    val_images: torch.Tensor
    val_targets: torch.Tensor


class Tricks(NamedTuple):
    """How the arithmetic is done; as it stands, the plain loop of every tutorial."""

    precision: str = "float32"
    memory_format: str = "contiguous"
    fused: bool = False
    device: str = "cpu"
    keep_memory: bool = False

    @property
    def layout(self) -> torch.memory_format:
        """The order of pixels and channels in memory."""
        return torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """Return the context in which the precision holds."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16")


def tricks_of(work: Work) -> Tricks:
    """Return what tunekit found to be fastest here, and what else it does."""
    return Tricks(work.precision, work.memory_format, fused=True, device=work.device, keep_memory=work.keep_memory)


def tensors_of(work: Work, layout: torch.memory_format = torch.contiguous_format) -> Tensors:
    """Return the work's images as they go into the network."""
    arrays = arrays_of(work)
    return normalised(*arrays["train"], *arrays["val"], layout)


def normalised(
    images: np.ndarray,
    targets: np.ndarray,
    val_images: np.ndarray,
    val_targets: np.ndarray,
    layout: torch.memory_format,
) -> Tensors:
    """Return uint8 images (N, H, W, C) scaled by the mean and deviation of train, in the layout asked for."""
    pixels = images[:10_000] / np.float32(255)
    mean, deviation = (torch.tensor(f(pixels, axis=(0, 1, 2))) for f in (np.mean, np.std))

    def prepared(part: np.ndarray) -> torch.Tensor:
        scaled = (torch.from_numpy(part).float() / 255 - mean) / deviation
        return scaled.permute(0, 3, 1, 2).contiguous(memory_format=layout)

    return Tensors(prepared(images), torch.from_numpy(targets), prepared(val_images), torch.from_numpy(val_targets))


def train(config: dict[str, Any], data: Tensors, work: Work, tricks: Tricks) -> Iterator[dict[str, Any]]:
    """Train one config with Adam; yield accuracy (val loss for values), images a second, and the state, every epoch."""
    if tricks.keep_memory:
        memory.keep_freed()
        torch.set_flush_denormal(True)
    torch.manual_seed(work.seed)
    classes = not data.targets.is_floating_point()
    model = network_of(work, 10 if classes else 1).to(tricks.device, memory_format=tricks.layout)
    optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"], **({"fused": True} if tricks.fused else {}))
    for _ in range(work.epochs):
        began = time.perf_counter()
        model.train()
        for rows in torch.randperm(len(data.images), device=tricks.device).split(config["batch_size"]):
            optimizer.zero_grad()
            with tricks.autocast():
                outputs = model(data.images[rows].contiguous(memory_format=tricks.layout))
            _loss(outputs.float(), data.targets[rows]).backward()
            optimizer.step()
        if tricks.device == "cuda":
            torch.cuda.synchronize()
        images_per_s = len(data.images) / (time.perf_counter() - began)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        model.eval()
        with folded(model) if tricks.keep_memory else nullcontext():
            accuracy = _validate(model, data, tricks)
        yield {"accuracy": accuracy, "images_per_s": images_per_s, "state": state}


def _validate(model: torch.nn.Module, data: Tensors, tricks: Tricks) -> float:
    outputs = []
    with torch.inference_mode(), tricks.autocast():
        for images in data.val_images.split(VAL_BATCH):
            outputs.append(model(images).float())
    found = torch.cat(outputs)
    if data.val_targets.is_floating_point():
        return -_loss(found, data.val_targets).item()
    return (found.argmax(1) == data.val_targets).float().mean().item()


def _loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if targets.is_floating_point():
        return functional.mse_loss(outputs.reshape(targets.shape), targets)
    return functional.cross_entropy(outputs, targets)
