"""Models by name: the small ones, every torchvision classification model with a new head, and the user's own."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from tunekit import compiler
from tunekit.errors import ConfigError, TunekitError, UnknownNameError, unknown_name
from tunekit.heads import freeze_backbone, settled
from tunekit.registry import Registry
from tunekit.small_cnns import SMALL
from tunekit.torchvision_models import pretrained_state, torchvision_model, torchvision_names

compiler.import_when_used()  # else dry runs and optimizers import it

QUICK_PX = 64  # a side, up to which a small model is tried for real: sooner than torch's algebra of shapes is imported

Backbone = Callable[[dict[str, Any], Any], nn.Module]

backbones: Registry[Backbone] = Registry("backbone")
for _function in SMALL:
    backbones.register(_function.__name__)(_function)


def register_backbone(name: str) -> Callable[[Backbone], Backbone]:
    """Return a decorator that makes a model known by name.

    Args:
        name: what `config["backbone"]` is to say. The function takes (config, dataset) and returns a module that
            maps float32 images (N, C, H, W) of `dataset.image_shape` to (N, `dataset.num_outputs`).

    Raises:
        ConfigError: another function has that name.

    Example:
        >>> @register_backbone("linear")
        ... def linear(config, dataset):
        ...     channels, height, width = dataset.image_shape
        ...     return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, dataset.num_outputs))
    """
    return backbones.register(name)


def backbone_names() -> list[str]:
    """Return every name that `config["backbone"]` may have: the registered ones, then torchvision's."""
    return [*backbones, *(name for name in torchvision_names() if name not in backbones)]


def build_model(config: dict[str, Any], dataset: Any) -> nn.Module:
    """Return a new model that maps float32 images (N, C, H, W) to (N, num_outputs).

    Args:
        config: `backbone`: a name, or a function (config, dataset) -> nn.Module; `image_size`: pixels a side, or
            None for the dataset's own; `dropout`: 0..1, before the last layer (torchvision models: all dropout of
            the head, which gets one if it has none), or None for the backbone's own; `pretrained`: start from
            torchvision's ImageNet weights; `freeze`: "backbone" trains the head alone, None everything.
        dataset: a Dataset, which may be without data. The function gets it with `image_shape` as the model sees it.

    Raises:
        UnknownNameError: no backbone has that name.
        ConfigError: there are no pretrained weights, they could not be downloaded, or nothing can be frozen.

    Example:
        >>> import numpy as np
        >>> from tunekit.datasets.base import Dataset
        >>> dataset = Dataset.from_arrays(train=(np.zeros((100, 28, 28), np.uint8), np.arange(100) % 10))
        >>> config = {"backbone": "lenet", "image_size": None, "dropout": None, "pretrained": False, "freeze": None}
        >>> build_model(config, dataset)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """
    name = config["backbone"]
    dataset = dataclasses.replace(dataset, image_shape=image_shape(config, dataset))
    if callable(name):
        model = settled(name(config, dataset), dataset.image_shape)
    elif name in backbones:
        _check_pretrained(config)
        model = settled(backbones[name](config, dataset), dataset.image_shape)
    elif name in torchvision_names():
        model = torchvision_model(name, config, dataset)
    else:
        raise UnknownNameError(unknown_name("backbone", name, backbone_names()))
    if config["freeze"] == "backbone":
        freeze_backbone(model)
    return model


def image_shape(config: dict[str, Any], dataset: Any) -> tuple[int, int, int]:
    """Return (C, H, W) of the images as the model gets them."""
    size = config["image_size"]
    return dataset.image_shape if size is None else (dataset.num_channels, size, size)


def check_backbone(config: dict[str, Any], dataset: Any) -> int:
    """Check that a backbone takes a dataset's images, without computing much.

    Args:
        config, dataset: as for `build_model`. torchvision's weights are downloaded here, so that no trial lacks them.

    Returns:
        The bytes of the model's weights.

    Raises:
        UnknownNameError: no backbone has that name.
        ConfigError: the images are too small for the trunk, the outputs are not (N, num_outputs), or as `build_model`.

    Example:
        >>> import numpy as np
        >>> from tunekit.datasets.base import Dataset
        >>> dataset = Dataset.from_arrays(train=(np.zeros((100, 8, 8), np.uint8), np.arange(100) % 10))
        >>> config = {"backbone": "lenet", "image_size": None, "dropout": None, "pretrained": False, "freeze": None}
        >>> check_backbone(config, dataset)
        Traceback (most recent call last):
        tunekit.errors.ConfigError: backbone 'lenet' cannot take images of 8 x 8 px; the next size that it can take \
is 12 px: set image_size to 12 or more, or choose another backbone
    """
    model, _ = dry_run(config, dataset)
    _check_pretrained(config)
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def _check_pretrained(config: dict[str, Any]) -> None:
    """Raise an error if a backbone has no pretrained weights, or they cannot be had; the user's own see to theirs."""
    name = config["backbone"]
    if callable(name) or not config["pretrained"]:
        return
    if name not in backbones:
        pretrained_state(name)
    elif backbones[name] in SMALL:
        raise ConfigError(
            f"backbone {name!r} has no pretrained weights: set pretrained to False, or nest it in the choice, "
            'as {"name": "resnet18", "pretrained": True}'
        )


class _EmptyWeights(TorchFunctionMode):
    """Makes weights that take no memory (meta device), and all else real: RegNet computes its widths with tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {**(kwargs or {}), "device": "meta"} if func is torch.empty else kwargs or {}
        return func(*args, **kwargs)


def dry_run(config: dict[str, Any], dataset: Any) -> tuple[nn.Module, torch.Tensor]:
    """Return a model in eval mode and two images that it has been shown to take; on the meta device if large."""
    small = config["backbone"] in {function.__name__ for function in SMALL}
    quick = small and max(image_shape(config, dataset)[1:]) <= QUICK_PX
    try:
        return _try(config, dataset, "cpu" if quick else "meta")
    except TunekitError:
        raise
    except Exception as error:  # whatever a model raises: too small an image comes in many forms
        cause = error
    name = getattr(config["backbone"], "__name__", config["backbone"])
    shape = image_shape(config, dataset)
    size = _next_size(config, dataset, min(shape[1:]))
    if size:
        raise ConfigError(
            f"backbone {name!r} cannot take images of {shape[1]} x {shape[2]} px; the next size that it can take is "
            f"{size} px: set image_size to {size} or more, or choose another backbone"
        ) from cause
    try:
        return _try(config, dataset, "cpu")
    except Exception as error:
        raise ConfigError(f"backbone {name!r} failed on images of {shape}: {type(error).__name__}: {error}") from error


def _try(config: dict[str, Any], dataset: Any, device: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a model in eval mode and two images, when it gives what it should; else raise whatever goes wrong."""
    images = torch.zeros(2, *image_shape(config, dataset), device=device)
    if device == "meta":
        with _EmptyWeights():
            model = build_model({**config, "pretrained": False}, dataset).to("meta").eval()
    else:
        with torch.random.fork_rng(devices=[]):  # the caller's own random numbers are as they were
            model = build_model(config, dataset).eval()
    output = model(images)
    if not isinstance(output, torch.Tensor) or output.shape != (2, dataset.num_outputs):
        got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ConfigError(f"a backbone must return a tensor (N, {dataset.num_outputs}), but gave {got} for N = 2")
    return model, images


def _next_size(config: dict[str, Any], dataset: Any, size: int) -> int | None:
    """Return a larger image size, in px, that works while the one below it does not; None if none to 512 does."""

    def works(side: int) -> bool:
        try:
            _try({**config, "image_size": side}, dataset, "meta")
        except Exception:  # as above; the first failure is the one that is told
            return False
        return True

    fails = size
    for side in (*range(16, 257, 16), 320, 384, 448, 512):
        if side > size and works(side):
            while side - fails > 1:
                middle = (side + fails) // 2
                side, fails = (middle, fails) if works(middle) else (side, middle)
            return side
        fails = max(size, side)
    return None
