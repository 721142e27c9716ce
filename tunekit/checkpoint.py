"""Checkpoints: one safetensors file an epoch, whole or not there, verified when read. No pickle.

The tensors of a state lie in the file as they are; all else of it (numbers, names, the nesting) is JSON in the file's
header, beside what the checkpoint is of (`about`: trial, config, epoch, history) and a SHA-256 over everything.
"""

import errno
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors_torch

from tunekit import paths
from tunekit.errors import CheckpointError, StorageError

FORMAT = "tunekit-1"


def save(path: Path, state: dict[str, Any], about: dict[str, Any]) -> None:
    """Write a checkpoint: aside, flushed, renamed.

    Args:
        path: the file.
        state: nested dicts, lists and tuples of tensors, numbers, strings, booleans and None.
        about: what the checkpoint is of; fit for JSON.

    Raises:
        CheckpointError: the state holds something else than the above.
        StorageError: the disk is full, say.
    """
    tensors, header = _described(state, about)
    paths.write_atomic(path, lambda aside: _write(tensors, aside, header))


def _write(tensors: dict[str, torch.Tensor], path: Path, header: dict[str, str]) -> None:
    with _saving():
        safetensors_torch.save_file(tensors, path, metadata=header)


def as_bytes(state: dict[str, Any], about: dict[str, Any]) -> bytes:
    """Return what `save` writes to a file.

    Raises:
        CheckpointError: as `save`.
    """
    tensors, header = _described(state, about)
    with _saving():
        return safetensors_torch.save(tensors, metadata=header)


@contextmanager
def _saving() -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        if "os error" in str(error):  # which is how safetensors tells of a full disk
            raise OSError(str(error)) from None
        raise CheckpointError(f"the state cannot be saved: {error}") from None


def _described(state: dict[str, Any], about: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    tensors: dict[str, torch.Tensor] = {}
    header = {"format": FORMAT, "state": json.dumps(_pack(state, tensors, "state")), "about": json.dumps(about)}
    storages: set[int] = set()
    for name, tensor in tensors.items():  # a copy only of what shares memory, which safetensors refuses
        storage = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    header["sha256"] = _digest(tensors, header)
    return tensors, header


def load(path: Path, device: str = "cpu") -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a checkpoint back and return (state, about).

    Raises:
        CheckpointError: the file is missing, torn, altered, or not a checkpoint of tunekit.
        StorageError: it may be whole, but this process can open no more files, say.
    """
    header = _header(path)
    with _reading(path), safe_open(path, framework="pt", device="cpu") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    return _verified(f"{path}", tensors, header, device)


def from_bytes(data: bytes, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (state, about) of what `as_bytes` returned; `name` is what errors call it.

    Raises:
        CheckpointError: as `load`.
    """
    header = _header_of(data, name)
    try:
        tensors = safetensors_torch.load(data)
    except SafetensorError as error:
        raise CheckpointError(f"checkpoint {name} cannot be read ({error}): delete it") from None
    return _verified(name, tensors, header, "cpu")


def header_size(data: bytes) -> int:
    """Return how many bytes hold a checkpoint's header, by its first eight, as safetensors' format has it."""
    return 8 + int.from_bytes(data[:8], "little")


def about_of(data: bytes, name: str) -> dict[str, Any]:
    """Return what a checkpoint is of, from its first `header_size` bytes (nothing is verified).

    Raises:
        CheckpointError: they are damaged, or of no checkpoint.
    """
    try:
        about: dict[str, Any] = json.loads(_header_of(data, name)["about"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CheckpointError(f"checkpoint {name} cannot be read ({error!r}): delete it") from None
    return about


def _header_of(data: bytes, name: str) -> dict[str, str]:
    try:
        header = json.loads(data[8 : header_size(data)])["__metadata__"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CheckpointError(f"checkpoint {name} cannot be read ({error!r}): delete it") from None
    return _of_this_format(header, name)


def _verified(
    name: str, tensors: dict[str, torch.Tensor], header: dict[str, str], device: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    if header.get("sha256") != _digest(tensors, header):
        raise CheckpointError(f"checkpoint {name} has been altered or damaged (its SHA-256 differs): delete it")
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    return _unpack(json.loads(header["state"]), tensors), json.loads(header["about"])


def about(path: Path) -> dict[str, Any]:
    """Return what a checkpoint is of, from its header alone (the tensors are not verified).

    Raises:
        CheckpointError, StorageError: as `load`.
    """
    return json.loads(_header(path)["about"])


def _header(path: Path) -> dict[str, str]:
    with _reading(path), safe_open(path, framework="pt", device="cpu") as file:
        header = file.metadata() or {}
    return _of_this_format(header, f"{path}")


def _of_this_format(header: dict[str, str], name: str) -> dict[str, str]:
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{name} is no checkpoint of this version of tunekit (format {header.get('format')!r})")
    return header


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Tell a file that is damaged or missing from a process that cannot open it: safetensors does not."""
    try:
        yield
    except (SafetensorError, OSError, RuntimeError) as error:
        try:
            with path.open("rb"), path.open("rb"), path.open("rb"):  # it has two of them open at once
                pass
        except OSError as cause:
            if cause.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise StorageError(
                    f"checkpoint {path} cannot be read now ({cause.strerror}): it is as it was"
                ) from None
        if isinstance(error, RuntimeError):
            raise
        raise CheckpointError(f"checkpoint {path} cannot be read ({error}): delete it") from None


def _digest(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> str:
    digest = hashlib.sha256()
    for key in ("format", "state", "about"):
        digest.update(f"{key}={header.get(key)}\n".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _pack(value: Any, tensors: dict[str, torch.Tensor], name: str) -> Any:
    """Return `value` as JSON, its tensors moved into `tensors` under their place in it."""
    if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_quantized:
        while name in tensors:  # {"a.b": ..., "a": {"b": ...}}, or {1: ..., "1": ...}
            name += "'"
        tensors[name] = value.detach().cpu().contiguous()
        return {"channels_last" if _is_channels_last(value) else "tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_key(key, name), _pack(item, tensors, f"{name}.{key}")] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [_pack(item, tensors, f"{name}.{i}") for i, item in enumerate(value)]
        return {type(value).__name__ if type(value) in (list, tuple) else "list": items}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind = "sparse or quantized tensor" if isinstance(value, torch.Tensor) else type(value).__name__
    raise CheckpointError(
        f"{name} in the state is a {kind}: a state may hold plain tensors, numbers, strings, None, and "
        "dicts, lists and tuples of them; convert it (e.g. with torch.from_numpy or .item())"
    )


def _is_channels_last(tensor: torch.Tensor) -> bool:
    return tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


def _key(key: Any, name: str) -> str | int:
    if isinstance(key, str | int) and not isinstance(key, bool):
        return key
    raise CheckpointError(f"a key of {name} in the state is {key!r}: keys must be strings or whole numbers")


def _unpack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "channels_last":  # fused optimizers walk parameters and moments side by side, as they lie in memory
        return tensors[content].contiguous(memory_format=torch.channels_last)
    if kind == "dict":
        return {key: _unpack(item, tensors) for key, item in content}
    items = [_unpack(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
