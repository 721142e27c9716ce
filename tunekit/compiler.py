"""torch.compile's machinery, `torch._dynamo`, imported when somebody compiles, and not before.

Importing it takes a process two seconds. torch's optimizers do so as they are made, and dry runs on the meta device,
only to ask it to leave some functions alone: until something is compiled there is nothing else to do for them.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

import torch

NAME = "torch._dynamo"


class CompilerLater(ModuleType):
    """Stands in the place of torch._dynamo until it is asked for anything but to leave a function alone."""

    def __init__(self) -> None:
        super().__init__(NAME, __doc__)
        self.left_alone: list[tuple[Any, bool]] = []

    def disable(self, function: Any = None, recursive: bool = True, wrapping: bool = True, **more: Any) -> Any:
        """Return a function as it is, where torch itself asks: nothing is compiled yet."""
        if wrapping:
            return self._real().disable(function, recursive, **more)
        self.left_alone.append((function, recursive))
        return function

    def graph_break(self, *_: Any) -> None:
        """Do nothing: there is no graph."""

    def __getattr__(self, name: str) -> Any:
        """Return what the real one has by this name."""
        if name.startswith("__") and name != "__path__":  # those who look through all modules ask for these
            raise AttributeError(name)
        return getattr(self._real(), name)

    def _real(self) -> ModuleType:
        """Return the real one, imported now if need be, and told what is to be left alone."""
        if sys.modules.get(NAME) is self:
            del sys.modules[NAME]
            real = importlib.import_module(NAME)
            for function, recursive in self.left_alone:
                setattr(function, "__dynamo_disable", real.disable(function, recursive, wrapping=False))
        return sys.modules[NAME]


def import_when_used() -> None:
    """Put off the import of torch._dynamo, unless it has happened."""
    if NAME not in sys.modules:
        sys.modules[NAME] = torch._dynamo = CompilerLater()
