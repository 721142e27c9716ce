"""Python's garbage collector, kept from what was imported: torch, Ray and pandas make 300,000 objects, which stay.

Looking through them as they come, again and again, is a sixth of their import; looking through them as Python ends,
where all may go, takes most of a second.
"""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_rest() -> Iterator[None]:
    """Collect nothing while the block imports; afterwards as before."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@atexit.register
def _end_soon() -> None:
    """Collect what is garbage once more, and leave the rest to the end of the process."""
    gc.collect()
    gc.freeze()
