"""Names to things: one Registry for every family of names, so that all unknown names fail alike."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from tunekit.errors import ConfigError, UnknownNameError, unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """A family of named things, filled by a decorator.

    Args:
        kind: what the things are called in an error, e.g. "dataset".

    Example:
        >>> greetings = Registry("greeting")
        >>> @greetings.register("hello")
        ... def hello():
        ...     return "hello"
        >>> greetings["hello"]()
        'hello'
        >>> greetings["helo"]
        Traceback (most recent call last):
        tunekit.errors.UnknownNameError: unknown greeting 'helo': did you mean 'hello'? Known: hello
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters a thing under `name`.

        Raises:
            ConfigError: `name` is taken by another thing.
        """

        def enter(thing: T) -> T:
            taken = self._things.get(name)
            if taken is not None and _identity(taken) != _identity(thing):
                raise ConfigError(f"{self.kind} {name!r} is registered already, by {taken!r}: choose another name")
            self._things[name] = thing
            return thing

        return enter

    def __getitem__(self, name: str) -> T:
        try:
            return self._things[name]
        except (KeyError, TypeError):
            raise UnknownNameError(unknown_name(self.kind, name, self)) from None

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._things))


def _identity(thing: object) -> tuple[object, object]:
    """Where a thing was defined: the same function defined again (a notebook cell, a reload) replaces itself."""
    return getattr(thing, "__module__", None), getattr(thing, "__qualname__", id(thing))
