"""The five small models of the textbooks, each one short function `(config, dataset) -> nn.Module`.

All are an `nn.Sequential` of two parts, `backbone` (the trunk) and `head` (the last layers), for images of
`dataset.image_shape`; `config["dropout"]` (None: the model's own) is what comes before the last layer.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tunekit.heads import output_layer


class Flatten(nn.Flatten):
    """nn.Flatten that gives its gradient back in channels_last where its input was.

    PyTorch's comes back contiguous, with which the layers before take longer: a hundredth of a step of `cnn`, a
    thirtieth of one of `lenet`.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return images (N, C, H, W) as (N, C * H * W)."""
        if images.requires_grad and images.is_contiguous(memory_format=torch.channels_last):
            images.register_hook(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))
        return super().forward(images)


def mlp(config: dict[str, Any], dataset: Any) -> nn.Module:
    """One hidden layer of 128 with ReLU and dropout 0.5: 784-128-10 on 28 x 28 grey images with 10 classes.

    Source: the tutorials of TensorFlow and Flux on MNIST; dropout from Srivastava et al., JMLR 15 (2014).
    """
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(_size(dataset.image_shape), 128), nn.ReLU())
    return _join(backbone, _dropout(config, 0.5), output_layer(128, dataset))


def cnn(config: dict[str, Any], dataset: Any) -> nn.Module:
    """Two 3 x 3 convolutions, 32 and 64, each with batch norm, 2 x 2 max pooling and ReLU; then 512 and the outputs.

    From 4 px. Source: batch norm from Ioffe & Szegedy, arXiv:1502.03167.
    """
    return _two_convolutions((32, 64), True, config, dataset)


def cnn_small(config: dict[str, Any], dataset: Any) -> nn.Module:
    """The `cnn` with 16 and 32 channels and no batch norm. From 4 px."""
    return _two_convolutions((16, 32), False, config, dataset)


def lenet(config: dict[str, Any], dataset: Any) -> nn.Module:
    """LeNet-5 with sigmoids and average pooling, 6-16-120-84, Xavier uniform weights. From 12 px.

    Source: LeCun et al., Proc. IEEE 86 (1998), in the form of Zhang et al., "Dive into Deep Learning", 7.6
    (first convolution padded by 2 for 28 x 28); weights from Glorot & Bengio, AISTATS 2010.
    """
    backbone = nn.Sequential(
        nn.Conv2d(dataset.num_channels, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2), Flatten(),
    )  # fmt: skip
    sides = [((side // 2) - 4) // 2 for side in dataset.image_shape[1:]]
    model = _join(
        backbone,
        nn.Linear(_size([16, *sides]), 120), nn.Sigmoid(),
        nn.Linear(120, 84), nn.Sigmoid(),
        _dropout(config, 0.0), output_layer(84, dataset),
    )  # fmt: skip
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
    return model


def cifar_net(config: dict[str, Any], dataset: Any) -> nn.Module:
    """Two 5 x 5 convolutions, 6 and 16, with 2 x 2 max pooling and ReLU; then 120, 84 and the outputs. From 16 px.

    Source: the PyTorch tutorial "Training a Classifier", on CIFAR-10.
    """
    backbone = nn.Sequential(
        nn.Conv2d(dataset.num_channels, 6, 5), nn.MaxPool2d(2), nn.ReLU(),  # the same as ReLU first, with less work
        nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
    )  # fmt: skip
    sides = [((side - 4) // 2 - 4) // 2 for side in dataset.image_shape[1:]]
    return _join(
        backbone,
        nn.Linear(_size([16, *sides]), 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(),
        _dropout(config, 0.0), output_layer(84, dataset),
    )  # fmt: skip


SMALL = (mlp, cnn, cnn_small, lenet, cifar_net)  # all of them, each known by its function's name


def _two_convolutions(channels: tuple[int, int], norm: bool, config: dict[str, Any], dataset: Any) -> nn.Module:
    layers: list[nn.Module] = []
    num_in = dataset.num_channels
    for num_out in channels:
        layers.append(nn.Conv2d(num_in, num_out, 3, padding=1))
        if norm:
            layers.append(nn.BatchNorm2d(num_out))
        layers += [nn.MaxPool2d(2), nn.ReLU()]  # the same as the other way round, with a quarter of the work
        num_in = num_out
    height, width = (side // 4 for side in dataset.image_shape[1:])
    backbone = nn.Sequential(*layers, Flatten())
    hidden = nn.Linear(_size([num_in, height, width]), 512)
    return _join(backbone, hidden, nn.ReLU(), _dropout(config, 0.0), output_layer(512, dataset))


def _join(backbone: nn.Module, *head: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(backbone=backbone, head=nn.Sequential(*head)))


def _dropout(config: dict[str, Any], default: float) -> nn.Dropout:
    return nn.Dropout(default if config["dropout"] is None else config["dropout"])


def _size(shape: Sequence[int]) -> int:
    """Return how many numbers an array (C, H, W) holds."""
    if min(shape) < 1:
        raise ValueError(f"nothing is left of the image after convolutions and pooling: {tuple(shape)}")
    return math.prod(shape)
