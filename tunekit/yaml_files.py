"""YAML files that people hand in: read as plain data, within bounds, and with no key written twice."""

import re
from pathlib import Path
from typing import Any

import yaml

from tunekit.errors import SpaceError

MOST_BYTES = 2**20
MOST_NODES = 50_000  # once every alias stands for what it names
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")  # YAML 1.2's; PyYAML takes 1e-4 for text


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds: dicts, lists, strings, numbers, True, False and None.

    Args:
        path: a regular file of at most 1 MiB in UTF-8, with one document.

    Raises:
        SpaceError: there is no such file, it is too large, is no YAML, names a Python object, holds a key twice, or
            is an alias bomb; the text gives the line.
    """
    if not path.is_file():
        raise SpaceError(f"{path} is no file")
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    return parse_yaml(data, path)


def parse_yaml(data: bytes, where: Any) -> Any:
    """Return what a YAML text holds, as `read_yaml` does; `where` says in errors where it comes from.

    Example:
        >>> parse_yaml(b"[1, two, 3.0]", "here")
        [1, 'two', 3.0]
    """
    if len(data) > MOST_BYTES:
        raise SpaceError(f"{where} is larger than {MOST_BYTES:,} bytes, the most for YAML")
    try:
        text = data.decode("utf-8-sig")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            _check_node(where, root, {})
        return yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError, OverflowError) as error:
        raise SpaceError(f"{where} cannot be read as YAML: {_in_one_line(error)}") from None


def number_of(value: Any) -> Any:
    """Return a number that YAML took for text, such as 1e-4; any other value as it is.

    Example:
        >>> number_of("1e-4"), number_of("adam")
        (0.0001, 'adam')
    """
    return float(value) if isinstance(value, str) and "e" in value.lower() and NUMBER.fullmatch(value) else value


def _check_node(path: Any, node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return how many nodes a node stands for, or raise for what is not plain data; `sizes` knows those seen."""
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise SpaceError(f"{path}:{node.start_mark.line + 1} holds an alias of itself")
        return sizes[id(node)]
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        raise SpaceError(f"{path}:{node.start_mark.line + 1} names {node.tag}: plain data is all that is read")
    sizes[id(node)] = 0
    inside: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        _check_keys(path, node)
        inside = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        inside = node.value
    sizes[id(node)] = size = 1 + sum(_check_node(path, part, sizes) for part in inside)
    if size > MOST_NODES:
        raise SpaceError(f"{path}:{node.start_mark.line + 1} holds over {MOST_NODES:,} values, with its aliases")
    return size


def _check_keys(path: Any, node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise SpaceError(f"{path}:{line} has a key that is no single word")
        if key.value in lines:
            raise SpaceError(f"{path}:{line} has the key {key.value!r} again, after line {lines[key.value]}: keep one")
        lines[key.value] = line


def _in_one_line(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return " ".join(str(error).split())
