"""Optimizers and learning-rate schedules, by name. A schedule is a formula, so that it needs no state to go on."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from tunekit.registry import Registry

Config = dict[str, Any]
optimizers: Registry[Callable[[list, Config], torch.optim.Optimizer]] = Registry("optimizer")
lr_schedules: Registry[Callable[[float], float]] = Registry("lr_schedule")


@optimizers.register("sgd")
def sgd(parameters: list, config: Config) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum (Nesterov's is off)."""
    options = {key: config[key] for key in ("lr", "momentum", "weight_decay")}
    return torch.optim.SGD(parameters, **options, fused=True)


@optimizers.register("adam")
def adam(parameters: list, config: Config) -> torch.optim.Optimizer:
    """Adam. Source: Kingma and Ba, arXiv:1412.6980."""
    return torch.optim.Adam(parameters, lr=config["lr"], weight_decay=config["weight_decay"], fused=True)


@optimizers.register("adamw")
def adamw(parameters: list, config: Config) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay. Source: Loshchilov and Hutter, arXiv:1711.05101."""
    return torch.optim.AdamW(parameters, lr=config["lr"], weight_decay=config["weight_decay"], fused=True)


@lr_schedules.register("constant")
def constant(progress: float) -> float:
    """The rate stays as it is."""
    return 1.0


@lr_schedules.register("cosine")
def cosine(progress: float) -> float:
    """Half a cosine wave from 1 to 0. Source: Loshchilov and Hutter, arXiv:1608.03983."""
    return (1 + math.cos(math.pi * progress)) / 2


@lr_schedules.register("one_cycle")
def one_cycle(progress: float) -> float:
    """Up from 1/25 over the first 30 %, then down to almost 0, both along a cosine; momentum stays as it is.

    Source: Smith and Topin, arXiv:1708.07120, with the figures of torch.optim.lr_scheduler.OneCycleLR.
    """
    rise, start, end = 0.3, 1 / 25, 1 / 25e4
    if progress < rise:
        return start + (1 - start) * (1 - math.cos(math.pi * progress / rise)) / 2
    return end + (1 - end) * (1 + math.cos(math.pi * (progress - rise) / (1 - rise))) / 2


@lr_schedules.register("inverse_time")
def inverse_time(progress: float) -> float:
    """1 / (1 + 9 * progress): a tenth of the rate is left at the end. Source: Robbins and Monro (1951), 1/t decay."""
    return 1 / (1 + 9 * progress)


def build_optimizer(model: torch.nn.Module, config: Config) -> torch.optim.Optimizer:
    """Return the config's optimizer over the parameters of `model` that are trained."""
    return optimizers[config["optimizer"]]([p for p in model.parameters() if p.requires_grad], config)


def plain_step(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """Return an optimizer's step without what PyTorch puts around it for hooks and profilers, of which there are none.

    That takes 0.1 ms each time: a hundredth of a step of `cnn`, a fiftieth of `lenet`'s, a twentieth of `mlp`'s.
    """
    step: Any = type(optimizer).step
    return partial(step.__wrapped__ if getattr(step, "hooked", False) else step, optimizer)


def learning_rate(config: Config, epochs_done: float) -> float:
    """Return the learning rate at a point of the training.

    Args:
        config: its lr, lr_schedule, warmup_epochs and max_epochs.
        epochs_done: 0..max_epochs, with its fraction: 1.5 is the middle of the second epoch.

    Example:
        >>> config = {"lr": 0.1, "lr_schedule": "cosine", "warmup_epochs": 0, "max_epochs": 4}
        >>> [round(learning_rate(config, epoch), 3) for epoch in (0, 1, 2, 3)]
        [0.1, 0.085, 0.05, 0.015]
    """
    warmup = config["warmup_epochs"]
    if epochs_done < warmup:
        return config["lr"] * min(max(epochs_done, 0.01) / warmup, 1.0)  # not 0 at the first step: it would be lost
    progress = (epochs_done - warmup) / max(config["max_epochs"] - warmup, 1e-9)
    return config["lr"] * lr_schedules[config["lr_schedule"]](min(progress, 1.0))
