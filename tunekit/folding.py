"""Batch norm that is part of the convolution before it while a model is evaluated: a fifth less work for the `cnn`.

In evaluation batch norm scales and shifts each channel by numbers that stay the same, and so may the weights of the
convolution. Source: Jacob et al., arXiv:1712.05877, 3.2; torch.nn.utils.fusion.
"""

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


@contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Have each convolution that a batch norm follows in an nn.Sequential do the work of both, within the block.

    Nothing else sees what goes from the one to the other there, so that outputs differ by rounding alone. Layers that a
    `forward` of the model's own calls stay as they are, and so do those with hooks, and models that torch.compile made,
    which would be compiled again.

    Args:
        model: in eval mode, and run by no other thread within the block; after it the model is as it was.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
        >>> with folded(model):
        ...     print(type(model[1]).__name__)
        Identity
        >>> print(type(model[1]).__name__)
        BatchNorm2d
    """
    modules = list(model.modules())
    if any(_is_compiled(module) for module in modules):
        yield
        return
    uses = Counter(id(child) for module in modules for child in module._modules.values())
    before: list[tuple[nn.Module, str, nn.Module | None]] = []
    try:
        for module in modules:
            for first, second in pairwise(module._modules) if _is_plain(module) else ():
                conv, norm = module._modules[first], module._modules[second]
                if _can_fold(conv, norm) and uses[id(conv)] == uses[id(norm)] == 1:
                    before += [(module, first, conv), (module, second, norm)]
                    module._modules |= {first: _both(conv, norm), second: nn.Identity()}
        yield
    finally:
        for module, name, child in before:
            module._modules[name] = child


def _is_compiled(module: nn.Module) -> bool:
    return "_orig_mod" in module._modules or module._compiled_call_impl is not None


def _is_plain(module: nn.Module) -> bool:
    """Return whether a module does no more than to run its layers in turn."""
    return type(module).forward is nn.Sequential.forward


def _can_fold(conv: Any, norm: Any) -> bool:
    """Return whether two layers are a convolution and a batch norm with averages of its own, and have no hooks."""
    if type(conv) is not nn.Conv2d or type(norm) is not nn.BatchNorm2d:
        return False
    hooks = (part for layer in (conv, norm) for part in (layer._forward_hooks, layer._forward_pre_hooks))
    return not norm.training and norm.running_mean is not None and not any(hooks)


def _both(conv: Any, norm: Any) -> nn.Module:
    """Return a convolution that does the work of both: the same, but for its weights."""
    means = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    with torch.no_grad():
        weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, *means)
    both = copy.copy(conv)
    both._parameters = {"weight": weight, "bias": bias}
    return both
