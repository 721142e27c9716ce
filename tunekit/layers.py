"""The layers of a model, as a table."""

import functools
from typing import Any, NamedTuple

import torch
from torch import nn

from tunekit.backbones import dry_run


class Layer(NamedTuple):
    """One row of `describe`: a layer's name and type, its output's shape without N, and its parameters."""

    name: str
    type: str
    output_shape: tuple[int, ...]
    num_parameters: int


def describe(config: dict[str, Any], dataset: Any) -> list[Layer]:
    """Return a model's layers in the order in which they run; the last row, named "total", is the whole model.

    Args:
        config, dataset: as for `build_model`.

    Returns:
        A row for each layer run; a parameter counts once, in the innermost layer that runs with it.

    Raises:
        ConfigError: as `check_backbone`.

    Example:
        >>> import numpy as np
        >>> from tunekit.datasets.base import Dataset
        >>> dataset = Dataset.from_arrays(train=(np.zeros((100, 28, 28), np.uint8), np.arange(100) % 10))
        >>> config = {"backbone": "mlp", "image_size": None, "dropout": None, "pretrained": False, "freeze": None}
        >>> for layer in describe(config, dataset):
        ...     print(*layer)
        backbone.0 Flatten (784,) 0
        backbone.1 Linear (128,) 100480
        backbone.2 ReLU (128,) 0
        head.0 Dropout (128,) 0
        head.1 Linear (10,) 1290
        total Sequential (10,) 101770
    """
    model, images = dry_run(config, dataset)
    rows: list[Layer] = []
    seen: set[int] = set()

    def note(name: str, layer: nn.Module, _: Any, output: Any) -> None:
        new = {id(value): value.numel() for value in layer.parameters() if id(value) not in seen}
        seen.update(new)
        if new or not any(layer.children()):
            first = output[0] if isinstance(output, tuple) else output  # attention gives its weights too
            shape = tuple(first.shape[1:]) if isinstance(first, torch.Tensor) else ()
            rows.append(Layer(name or "(rest)", type(layer).__name__, shape, sum(new.values())))

    for name, layer in model.named_modules():
        layer.register_forward_hook(functools.partial(note, name))
    output = model(images)
    return [
        *rows,
        Layer("total", type(model).__name__, tuple(output.shape[1:]), sum(map(torch.numel, model.parameters()))),
    ]
