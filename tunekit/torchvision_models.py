"""torchvision's classification models, fitted to a dataset: image size, channels, outputs. All families alike.

torchvision is imported when one is asked for, not before: that takes seconds, in every Ray worker.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunekit.errors import ConfigError
from tunekit.heads import last_layer, start_from_mean


@functools.cache
def torchvision_names() -> tuple[str, ...]:
    """Return the names of torchvision's classification models."""
    from torchvision import models

    return tuple(models.list_models(module=models))


def torchvision_model(name: str, config: dict[str, Any], dataset: Any) -> nn.Module:
    """Return a torchvision model that maps (N, C, H, W), the dataset's image shape, to (N, num_outputs).

    Args:
        name: one of `torchvision_names()`.
        config: `pretrained` and `dropout`, as `build_model` has them.
        dataset: its image_shape, num_channels, num_outputs, task and target_mean.

    Raises:
        ConfigError: the weights could not be downloaded, or the model takes no images of this shape.
    """
    model = _trunk(name, config["pretrained"], dataset.image_shape[1:])
    for part in ("AuxLogits", "aux1", "aux2"):  # Inception's and GoogLeNet's extra outputs
        if hasattr(model, part):
            setattr(model, part, None)
            model.aux_logits = False
    _adapt_first_convolution(model, dataset.num_channels)
    _replace_head(model, config["dropout"], dataset)
    return model


def _trunk(name: str, pretrained: bool, image_size: tuple[int, int]) -> Any:
    """Return the model as torchvision makes it; the transformers of fixed image size for this one, (H, W) in px."""
    from torchvision import models

    options: dict[str, Any] = {"init_weights": not pretrained} if name in ("googlenet", "inception_v3") else {}
    if name.startswith("vit_"):
        if image_size[0] != image_size[1]:
            raise ConfigError(f"backbone {name!r} takes square images only, but they are {image_size}: set image_size")
        options["image_size"] = image_size[0]
    elif name.startswith("maxvit_"):
        options["input_size"] = image_size
    if not pretrained:
        return models.get_model(name, weights=None, **options)
    state = pretrained_state(name)
    if not name.startswith(("vit_", "maxvit_")):
        return models.get_model(name, weights="DEFAULT", progress=False, **options)
    model: Any = models.get_model(name, weights=None, **options)  # torchvision has its weights for one size only
    if name.startswith("vit_"):
        state = models.vision_transformer.interpolate_embeddings(image_size[0], model.patch_size, state)
    model.load_state_dict(state)
    return model


def pretrained_state(name: str) -> Any:
    """Return torchvision's best ImageNet weights for a model, downloaded to torch hub's cache if they are not there.

    Raises:
        ConfigError: they could not be downloaded; the text says where to put them.
    """
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rsplit("/", 1)[-1])
        raise ConfigError(
            f"the pretrained weights of {name!r} could not be downloaded ({error}): get {weights.url} on a machine "
            f"with network and put it at {file}, or set pretrained to False"
        ) from error


def _adapt_first_convolution(model: Any, num_channels: int) -> None:
    """Make the first convolution take `num_channels`: grey then gives what three equal channels gave."""
    first: Any = next(part for part in model.modules() if isinstance(part, nn.Conv2d))
    if num_channels == first.in_channels:
        return
    summed = first.weight.detach().sum(1, keepdim=True)
    first.weight = nn.Parameter(summed.repeat(1, num_channels, 1, 1) / num_channels)
    first.in_channels = num_channels
    if hasattr(model, "transform_input"):
        model.transform_input = False  # it shifts three channels from ImageNet's mean to Inception's


def _replace_head(model: nn.Module, dropout: float | None, dataset: Any) -> None:
    """Put a new last layer for the dataset's outputs in place of that of ImageNet's 1000 classes."""
    found = last_layer(model)
    if found is None or getattr(found[1], "out_features", getattr(found[1], "out_channels", 0)) != 1000:
        raise ConfigError(
            f"{type(model).__name__} does not end in a layer of 1000 outputs: its head cannot be replaced"
        )
    name, old = found
    new: nn.Module
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, dataset.num_outputs)
    else:  # SqueezeNet: a 1 x 1 convolution, and a ReLU that would keep outputs from going below 0
        new = nn.Conv2d(old.in_channels, dataset.num_outputs, 1)
        model.set_submodule("classifier.2", nn.Identity())
    start_from_mean(new, dataset)
    model.set_submodule(name, new)
    if dropout is not None:
        _set_dropout(model, name, dropout)


def _set_dropout(model: nn.Module, last: str, p: float) -> None:
    """Set the dropout of the head, or put one before the layer named `last` where the head has none."""
    head = model.get_submodule(last.split(".")[0])
    found = [part for part in (*head.modules(), *model.children()) if isinstance(part, nn.Dropout)]
    for part in found:
        part.p = p
    if not found:
        model.set_submodule(last, nn.Sequential(nn.Dropout(p), model.get_submodule(last)))
