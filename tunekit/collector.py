"""Python's garbage collector, kept from what was imported: torch, Ray and pandas make 300,000 objects, which stay.

Looking through them as they come, again and again, is a sixth of their import; looking through them as Python ends,
where all may go, takes most of a second. What was imported at rest counts as young, and would be looked through three
times within the next second, once for each generation.
"""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_rest() -> Iterator[None]:
    """Collect nothing while the block imports; afterwards as before, but all that is there counts as old."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # of what somebody has frozen, nothing is to thaw
            gc.freeze()
            gc.unfreeze()  # into the oldest generation
        if before:
            gc.enable()


@atexit.register
def _end_soon() -> None:
    """Collect what is garbage once more, and leave the rest to the end of the process."""
    gc.collect()
    gc.freeze()
