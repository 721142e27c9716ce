"""What a frozen backbone makes of a dataset, computed once: every trial that shares it trains its head alone."""

import copy
import hashlib
import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from tunekit.datasets.base import Dataset
from tunekit.datasets.store import aside, cache_folder, locked, make_room, read_json, sizes_match, write_json
from tunekit.feeds import Feed, autocast
from tunekit.heads import head_of
from tunekit.versions import source_of

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
    shifted, and not where the disk lacks the room. What other trials may share is cached; weights drawn from this
    trial's seed are its own, and what they make of the images is deleted with the process.

    Args:
        model: whose backbone is frozen.
        config: complete.
        dataset: with data.
        device: the model's.
    """
    if config["freeze"] != "backbone" or "crop" in config["augment"]:
        return None
    path = head_of(model)
    head, folder = model.get_submodule(path), cache_folder() / "features"
    key = _key(model, path, config, dataset, device)
    with suppress(OSError):  # which another process may delete meanwhile
        if key and _is_whole(folder / key):
            return _open(folder / key, head)
    example = _example(model, path, config, dataset, device)
    if example is None:
        return None
    num_images = {part: dataset.num_images[part] * (1 + _mirrors(part, config)) for part in PARTS}
    num_bytes = 4 * example.numel() * sum(num_images.values())
    make_room(num_bytes)
    if num_bytes > FREE_SHARE * shutil.disk_usage(folder).free:
        return None
    try:
        if not key:
            with tempfile.TemporaryDirectory(dir=folder, prefix=".new-", ignore_cleanup_errors=True) as made:
                _compute(Path(made), model, head, config, dataset, device)
                return _open(Path(made), head)
        with locked(key):  # the first trial computes them; those that share them wait
            if not _is_whole(folder / key):
                with aside(folder / key) as new:
                    _compute(new, model, head, config, dataset, device)
            return _open(folder / key, head)
    except OSError:  # the disk is full: each epoch sees the images, then
        return None


def _open(folder: Path, head: nn.Module) -> Features:
    """Map features; a map outlives its file."""
    return Features(head, *(torch.from_numpy(np.load(folder / f"{part}.npy", mmap_mode="c")) for part in PARTS))


def _compute(
    folder: Path, model: nn.Module, head: nn.Module, config: dict[str, Any], dataset: Dataset, device: torch.device
) -> None:
    """Run the frozen part over train and val."""
    model.eval()
    feed = None
    for part in PARTS:
        feed = Feed(config, dataset, getattr(dataset, part), device, beside=feed)
        at, stored = 0, None
        for images, _ in feed.in_order():
            views = [images, images.flip(3)][: 1 + _mirrors(part, config)]
            seen = [_input_of(head, model, view, config) for view in views]
            inputs = torch.stack([view for view in seen if view is not None]).cpu()
            if stored is None:
                shape = (len(views), feed.num_images, *inputs.shape[2:])
                stored = np.lib.format.open_memmap(folder / f"{part}.npy", mode="w+", dtype=np.float32, shape=shape)
            stored[:, at : at + len(images)] = inputs.numpy()
            at += len(images)
        assert isinstance(stored, np.memmap)
        stored.flush()
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.npy")}
    about = {"name": f"{dataset.name}, {_label(config)}", "shape": [sum(dataset.num_images[p] for p in PARTS)]}
    write_json(folder / "features.json", {**about, "bytes": sizes})


def _mirrors(part: str, config: dict[str, Any]) -> bool:
    return part == "train" and config["augment"] == "flip"


def _input_of(head: nn.Module, model: nn.Module, images: torch.Tensor, config: dict[str, Any]) -> torch.Tensor | None:
    """Return what goes into the head when a model sees a batch; None unless it is one tensor, once."""
    seen: list[Any] = []
    hook = head.register_forward_pre_hook(lambda _, *inputs: seen.append(inputs), with_kwargs=True)
    try:
        with torch.inference_mode(), autocast(config, images.device):
            model(images)
    finally:
        hook.remove()
    if len(seen) != 1 or seen[0][1] or len(seen[0][0]) != 1 or not isinstance(seen[0][0][0], torch.Tensor):
        return None
    return seen[0][0][0].float()


def _example(
    model: nn.Module, path: str, config: dict[str, Any], dataset: Dataset, device: torch.device
) -> torch.Tensor | None:
    """Return what goes into the head for one image, if that is all that its outputs come from: tried on two images.

    None too where the frozen part does something else in training, such as a dropout before the head.
    """
    if any(isinstance(child, nn.Dropout) and child.p and name != path for name, child in model.named_children()):
        return None  # it belongs to the head, as GoogLeNet's does
    head = model.get_submodule(path)
    images, _ = next(Feed(config, dataset, dataset.train, device).in_order())
    images = images[:2]
    kept = copy.deepcopy(head.state_dict())  # batch norms of the head would learn from the try
    inputs = _input_of(head, model.train(), images, config)
    head.load_state_dict(kept)
    as_used = _input_of(head, model.eval(), images, config)
    if inputs is None or as_used is None or not torch.equal(inputs, as_used):
        return None
    with torch.inference_mode(), autocast(config, device):
        outputs = head(as_used)
        same = isinstance(outputs, torch.Tensor) and torch.equal(outputs, model(images))
    return as_used[0] if same else None


def _key(model: nn.Module, head: str, config: dict[str, Any], dataset: Dataset, device: torch.device) -> str:
    """Return a name for the features: of all that they depend on, weights and code included; "" if none is safe.

    Weights that are drawn from the trial's seed are shared with no other trial.
    """
    if not (config["pretrained"] or callable(config["backbone"])):
        return ""
    prepared = [config[key] for key in ("image_size", "pretrained", "augment", "precision", "memory_format")]
    about = [dataset.fingerprint, _label(config), *prepared, torch.__version__, device.type]
    own = [type(part) for part in model.modules() if not type(part).__module__.startswith(("torch.", "torchvision."))]
    sources = [source_of(part) for part in own + [config["backbone"]] * callable(config["backbone"])]
    if None in sources:
        return ""
    digest = hashlib.blake2b(json.dumps([*about, *sources]).encode(), digest_size=16)
    for name, value in model.state_dict().items():
        if isinstance(value, torch.Tensor) and not name.startswith(f"{head}."):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
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
