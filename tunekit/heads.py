"""What is done to the last layers of any model: make them for a dataset, find them, train them alone."""

import functools
from typing import Any

import torch
from torch import nn

from tunekit.errors import ConfigError


def output_layer(num_features: int, dataset: Any) -> nn.Linear:
    """Return the last layer for a dataset; for regression it starts from the mean of the train targets.

    Args:
        num_features: numbers per image that go in; the layer maps (N, num_features) to (N, num_outputs).
        dataset: its num_outputs, task and target_mean.

    Example:
        >>> from types import SimpleNamespace
        >>> output_layer(84, SimpleNamespace(num_outputs=1, task="regression", target_mean=5.0)).bias.tolist()
        [5.0]
    """
    layer = nn.Linear(num_features, dataset.num_outputs)
    start_from_mean(layer, dataset)
    return layer


def start_from_mean(layer: nn.Linear | nn.Conv2d, dataset: Any) -> None:
    """For regression set a last layer's bias to the mean of the train targets, else leave it as it is."""
    if dataset.task == "regression" and layer.bias is not None:
        nn.init.constant_(layer.bias, dataset.target_mean)


def last_layer(model: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d] | None:
    """Return a model's last linear layer or convolution, with its name; None if it has neither.

    Example:
        >>> last_layer(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4, 2)))
        ('2', Linear(in_features=4, out_features=2, bias=True))
    """
    layers = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    return layers[-1] if layers else None


def head_of(model: nn.Module) -> str:
    """Return the name of a model's head: the outermost part that holds the last layer but not all parameters.

    Raises:
        ConfigError: the model has no parameters but its last layer's.

    Example:
        >>> head_of(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
        '2'
    """
    last = last_layer(model)
    parts = last[0].split(".") if last else []
    paths = [".".join(parts[: depth + 1]) for depth in range(len(parts))]
    num_all = sum(1 for _ in model.parameters())
    head = next((path for path in paths if sum(1 for _ in model.get_submodule(path).parameters()) < num_all), None)
    if head is None:
        raise ConfigError("freeze='backbone' leaves nothing frozen: the model has no parameters but its last layer's")
    return head


def freeze_backbone(model: nn.Module) -> None:
    """Train the head alone: see `head_of`.

    The rest stays in eval mode too (before each forward: `model.train()` would undo it), so that frozen batch
    norms keep their statistics. Source: the fine-tuning guide of Keras, "Transfer learning & fine-tuning".

    Args:
        model: any model; changed in place.

    Raises:
        ConfigError: the model has no parameters but its last layer's.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> freeze_backbone(model)
        >>> [name for name, value in model.named_parameters() if value.requires_grad]
        ['2.weight', '2.bias']
    """
    head = head_of(model)
    model.requires_grad_(False)
    model.get_submodule(head).requires_grad_(True)
    model.register_forward_pre_hook(functools.partial(_rest_in_eval, head))


def _rest_in_eval(head: str, model: nn.Module, images: Any) -> None:
    if model.training:
        for child in model.children():
            child.train(isinstance(child, nn.Dropout))  # one that stands alone belongs to the head (GoogLeNet)
        model.get_submodule(head).train()


def settled(model: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return the model after its lazy layers, if it has any, have seen the shape (C, H, W) of an image."""
    if any(isinstance(parameter, nn.UninitializedParameter) for parameter in model.parameters()):
        with torch.no_grad():
            model.eval()(torch.zeros(2, *image_shape))
    return model
