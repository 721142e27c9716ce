"""Checkpoints: what comes back is what went in, or an error; nothing in between, and no pickle."""

import math
import os
import pickle
import subprocess
import sys

import pytest
import torch

from tunekit import checkpoint
from tunekit.errors import CheckpointError

SHARED = torch.arange(6.0)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small checkpoint, as bytes."""
    path = tmp_path_factory.mktemp("checkpoint") / "1.safetensors"
    state = {"model": {"weight": torch.arange(5.0), "flag": torch.tensor([True])}, "epoch": 3}
    checkpoint.save(path, state, {"trial": 7, "history": [{"val_loss": 0.5}]})
    return path.read_bytes()


def same(a, b):
    """Whether two states are equal, of the same types, tensor by tensor, bit by bit."""
    if isinstance(a, torch.Tensor):
        if not isinstance(b, torch.Tensor) or (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        return torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) if a.is_floating_point() else torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(type(k) is type(m) and same(a[k], b[m]) for k, m in zip(a, b, strict=True))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"int keys": {0: "a", 1: "b"}, "tuple": (1, [2.5, None]), "bools": [True, False, 1, 0], "": {"": ""}},
        {"floats": [0.1, 1e300, math.inf, -0.0, math.nan], "big": 2**70, "text": 'é"\n\\ \x00 😀'},
        {"types": [torch.ones(3, dtype=d) for d in (torch.bfloat16, torch.float16, torch.float64, torch.int64)]},
        {"bool": torch.tensor([True, False]), "bytes": torch.arange(3, dtype=torch.uint8)},
        {"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4), "one": torch.ones(1, 1, 1, 1)},
        {"nan": torch.tensor([math.nan, math.inf, -math.inf])},
        {"turned": torch.arange(6.0).reshape(2, 3).T, "part": torch.arange(10)[::3], "wide": torch.ones(1).expand(4)},
        {"shared": SHARED, "again": SHARED, "view": SHARED[2:4]},
        {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}, "a.b'": torch.full((1,), 2.0)},
        {"keys": {1: torch.zeros(1), "1": torch.ones(1)}},
        {"needs grad": torch.ones(2, requires_grad=True).detach()},
    ],
    ids=lambda state: next(iter(state), "nothing"),
)
def test_a_state_comes_back_as_it_was(state, tmp_path):
    path = tmp_path / "1.safetensors"
    checkpoint.save(path, state, {"epoch": 1})
    back, about = checkpoint.load(path)
    assert same(state, back) and about == {"epoch": 1} == checkpoint.about(path)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_an_optimizers_state_comes_back_as_it_was(name, tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1)
    model(torch.rand(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    state = {"model": dict(model.state_dict()), "optimizer": optimizer.state_dict()}
    checkpoint.save(tmp_path / "1.safetensors", state, {})
    back, _ = checkpoint.load(tmp_path / "1.safetensors")
    assert same(state, back)
    optimizer.load_state_dict(back["optimizer"])


def test_the_order_in_memory_comes_back_too(tmp_path):
    """Fused optimizers go through weights and moments as they lie in memory: of unlike order, they mix them up."""
    images = torch.rand(2, 3, 4, 5)
    state = {"last": images.to(memory_format=torch.channels_last), "first": images}
    checkpoint.save(tmp_path / "1.safetensors", state, {})
    back, _ = checkpoint.load(tmp_path / "1.safetensors")
    assert same(state, back)
    assert {key: tensor.stride() for key, tensor in back.items()} == {key: t.stride() for key, t in state.items()}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (object(), "state.a.b in the state is a object"),
        ({1, 2}, "is a set"),
        (b"bytes", "is a bytes"),
        ({(1, 2): 3}, r"a key of state.a.b in the state is \(1, 2\)"),
        ({None: 3}, "keys must be strings or whole numbers"),
        (torch.rand(3).to_sparse(), "state.a.b in the state is a sparse"),
    ],
)
def test_what_a_checkpoint_cannot_hold_is_refused(value, text, tmp_path):
    with pytest.raises(CheckpointError, match=text):
        checkpoint.save(tmp_path / "1.safetensors", {"a": {"b": value}}, {})
    assert os.listdir(tmp_path) == []


def test_every_altered_byte_is_noticed(written, tmp_path):
    path = tmp_path / "1.safetensors"
    for offset in range(len(written)):
        for mask in (0x01, 0x80):
            altered = bytearray(written)
            altered[offset] ^= mask
            path.write_bytes(altered)
            with pytest.raises(CheckpointError, match=r"delete it|no checkpoint of this version"):
                checkpoint.load(path)
    path.write_bytes(written)
    checkpoint.load(path)


def test_every_torn_file_is_noticed(written, tmp_path):
    path = tmp_path / "1.safetensors"
    for size in range(0, len(written), 7):
        path.write_bytes(written[:size])
        with pytest.raises(CheckpointError, match="delete it"):
            checkpoint.load(path)
    path.write_bytes(written + b"\0")
    with pytest.raises(CheckpointError):
        checkpoint.load(path)


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_in_its_place_is_refused_and_not_run(tmp_path):
    path, sprung = tmp_path / "1.safetensors", tmp_path / "sprung"
    for write in (
        lambda: path.write_bytes(pickle.dumps(Trap(sprung))),
        lambda: torch.save({"model": Trap(sprung)}, path),
    ):
        write()
        with pytest.raises(CheckpointError, match="cannot be read"):
            checkpoint.load(path)
        with pytest.raises(CheckpointError, match="cannot be read"):
            checkpoint.about(path)
    assert not sprung.exists()


def test_files_that_are_not_there_or_not_ours(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(tmp_path / "1.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(tmp_path)
    save_file({"weight": torch.ones(2)}, tmp_path / "theirs.safetensors")
    with pytest.raises(CheckpointError, match="no checkpoint of this version of tunekit"):
        checkpoint.load(tmp_path / "theirs.safetensors")


def test_a_write_that_fails_leaves_the_old_file(written, tmp_path):
    path = tmp_path / "1.safetensors"
    path.write_bytes(written)
    with pytest.raises(CheckpointError):
        checkpoint.save(path, {"a": object()}, {})
    with pytest.raises(TypeError):
        checkpoint.save(path, {"a": 1}, {"not json": object()})
    assert path.read_bytes() == written and os.listdir(tmp_path) == [path.name]


def test_a_checkpoint_that_cannot_be_opened_now_is_not_called_damaged(tmp_path):
    """A process with no file left to open: its checkpoint is whole, and is not to be passed over for an older one."""
    checkpoint.save(tmp_path / "0001.safetensors", {"weight": torch.zeros(3)}, {"epoch": 1})
    program = """
import os, resource, sys
from pathlib import Path
from tunekit import checkpoint
from tunekit.errors import StorageError
path = Path(sys.argv[1])
checkpoint.load(path)
for spare in (0, 1):
    held = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 1 + spare, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        checkpoint.load(path)
    except StorageError as error:
        print(f"{spare}: {error}")
    os.close(held[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "0001.safetensors")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["0", "1"]
    assert done.stdout.count("cannot be read now (Too many open files)") == 2
