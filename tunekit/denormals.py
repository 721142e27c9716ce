"""Numbers too small for a processor to compute with at its full speed, below 1.2e-38: zero while a trial trains.

An optimizer's average of a gradient that is zero from some step on, as a dead unit's, shrinks by a tenth each step:
after some 750 of them it is denormal, and rounding keeps it from ever becoming zero. Source: IEEE 754-2019, 3.4;
Intel 64 and IA-32 Architectures Optimization Reference Manual, "Floating-point Exceptions"; torch.set_flush_denormal.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

DENORMAL = 1e-40  # in float32


@contextmanager
def denormals_are_zero() -> Iterator[None]:
    """Have this thread take denormal numbers for zero; it is as it was afterwards.

    Threads that torch starts meanwhile do so too, from then on; those it started before do not. Does nothing on a
    processor that cannot.

    Example:
        >>> with denormals_are_zero():
        ...     bool(torch.tensor([1e-40]) * 1 == 0)
        True
        >>> bool(torch.tensor([1e-40]) * 1 == 0)
        False
    """
    before = (torch.full((1,), DENORMAL) * 1).count_nonzero().item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
