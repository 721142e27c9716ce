"""What a frozen backbone makes of a dataset, computed once: every trial that shares it trains its head alone."""

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from tunekit.datasets.base import Dataset
from tunekit.datasets.store import aside, cache_folder, locked, make_room, read_json, sizes_match, write_json
from tunekit.feeds import Feed, autocast
from tunekit.heads import head_of

PARTS = ("train", "val")
FREE_SHARE = 0.5  # of the cache's disk, at most, for the features of one backbone


class Features(NamedTuple):
    """A model's head, and what goes into it for each image of train and val, float32 (V, N, ...): see `Feed`."""

    head: nn.Module
    train: torch.Tensor
    val: torch.Tensor


def frozen_features(
    model: nn.Module, config: dict[str, Any], dataset: Dataset, device: torch.device
) -> Features | None:
    """Return the features of a frozen backbone, from the cache or computed now; None where they would not do.

    They do where the head is all that comes after the frozen part, as in nearly all models; not where images are
    shifted, and not where the disk lacks the room.

    Args:
        model: whose backbone is frozen.
        config: complete.
        dataset: with data.
        device: the model's.
    """
    if config["freeze"] != "backbone" or "crop" in config["augment"]:
        return None
    path = head_of(model)
    head = model.get_submodule(path)
    if _drops_before(model, path) or not _ends_in(model, head, config, dataset, device):
        return None
    folder = cache_folder() / "features" / _key(model, path, config, dataset)
    with locked(folder.name):  # the first trial computes them; those that share them wait
        if not _is_whole(folder) and not _compute(folder, model, head, config, dataset, device):
            return None
    return Features(head, *(torch.from_numpy(np.load(folder / f"{part}.npy", mmap_mode="c")) for part in PARTS))


def _compute(
    folder: Path, model: nn.Module, head: nn.Module, config: dict[str, Any], dataset: Dataset, device: torch.device
) -> bool:
    """Run the frozen part over train and val; return whether there was room for what it gave."""
    model.eval()
    with aside(folder) as new:
        for part in PARTS:
            feed, at, stored = Feed(config, dataset, getattr(dataset, part), device), 0, None
            mirror = part == "train" and config["augment"] == "flip"
            for images, _ in feed.in_order():
                views = [_input_of(head, model, view, config) for view in (images, images.flip(3))[: 1 + mirror]]
                inputs = torch.stack(views).cpu()
                if stored is None:
                    shape = (len(views), feed.num_images, *inputs.shape[2:])
                    num_bytes = math.prod(shape) * 4
                    make_room(num_bytes)
                    if num_bytes > FREE_SHARE * shutil.disk_usage(folder.parent).free:
                        return False
                    stored = np.lib.format.open_memmap(new / f"{part}.npy", mode="w+", dtype=np.float32, shape=shape)
                stored[:, at : at + len(images)] = inputs.numpy()
                at += len(images)
            assert isinstance(stored, np.memmap)
            stored.flush()
        sizes = {path.name: path.stat().st_size for path in new.glob("*.npy")}
        about = {"name": f"{dataset.name}, {_label(config)}", "shape": [sum(dataset.num_images[p] for p in PARTS)]}
        write_json(new / "features.json", {**about, "bytes": sizes})
    return True


def _input_of(head: nn.Module, model: nn.Module, images: torch.Tensor, config: dict[str, Any]) -> torch.Tensor:
    """Return what goes into the head when a model sees a batch."""
    seen: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        with torch.inference_mode(), autocast(config, images.device):
            model(images)
    finally:
        hook.remove()
    return seen[0].float()


def _ends_in(model: nn.Module, head: nn.Module, config: dict[str, Any], dataset: Dataset, device: torch.device) -> bool:
    """Return whether a model's outputs are its head's, and nothing is done to them after: tried on two images."""
    model.eval()
    images, _ = next(Feed(config, dataset, dataset.train, device).in_order())
    images = images[:2]
    with torch.inference_mode(), autocast(config, device):
        return torch.equal(head(_input_of(head, model, images, config)), model(images))


def _drops_before(model: nn.Module, head: str) -> bool:
    """Return whether a dropout that belongs to the head comes before it, as GoogLeNet's does."""
    return any(isinstance(child, nn.Dropout) and child.p and name != head for name, child in model.named_children())


def _key(model: nn.Module, head: str, config: dict[str, Any], dataset: Dataset) -> str:
    """Return a name for the features: of all that they depend on, the weights included."""
    prepared = [config[key] for key in ("image_size", "pretrained", "augment", "precision", "memory_format")]
    digest = hashlib.blake2b(json.dumps([dataset.fingerprint, _label(config), *prepared]).encode(), digest_size=16)
    for name, tensor in model.state_dict().items():
        if not name.startswith(f"{head}."):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    for name, part in model.named_modules():  # two models may have the same weights and do different things with them
        if not f"{name}.".startswith(f"{head}."):
            digest.update(f"{name} {type(part).__qualname__} {part.extra_repr()}".encode())
    return digest.hexdigest()


def _label(config: dict[str, Any]) -> str:
    backbone = config["backbone"]
    return f"{backbone.__module__}:{backbone.__qualname__}" if callable(backbone) else str(backbone)


def _is_whole(folder: Path) -> bool:
    described = read_json(folder / "features.json")
    return described is not None and sizes_match(folder, described)
