"""Training loops for the fault cases. They are imported by name, in the driver and in the workers."""

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tunekit import training
from tunekit.config import complete

ALL_WAYS = ("good", "exit", "sys_exit", "segfault", "abort", "raise", "nan", "memory", "no_memory", "always_exit")
EPOCHS = 4


def counted(config: dict[str, Any], dataset: Any, state: Any = None) -> Iterator[tuple[dict, dict]]:
    """tunekit's own loop, which notes who trains what, and each epoch that it has trained."""
    key = f"{config['seed']} {config['lr']}"
    torch.set_num_threads(1)  # machines that run tests are busy, and threads that wait for each other lose most there
    note(f"begin {os.getpid()} {key}")
    for metrics, after in training.train(complete(config), dataset, state):
        note(f"epoch {key} {metrics['epoch']}")
        yield metrics, after


def dying(config: dict[str, Any], dataset: Any, state: Any = None) -> Iterator[tuple[dict, dict]]:
    """Die in the way that the config says at the third epoch: once, or always."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for epoch in range(state["epoch"] + 1 if state else 1, EPOCHS + 1):
        time.sleep(0.05)
        if epoch == 3 and config["way"] != "good":
            die(config["way"])
        broken = epoch == 3 and config["way"] == "nan"
        yield {"val_accuracy": float("nan") if broken else epoch / 10}, {"epoch": epoch}


def die(way: str) -> None:
    """Die; by the process's death only once a way, unless the way says always."""
    if way == "raise":
        raise ValueError("this config cannot work")
    if way == "memory":
        raise MemoryError("no more of it")
    if way == "no_memory":
        torch.empty(2**50, dtype=torch.uint8)  # a real failure to allocate
    if way == "always_exit":
        os._exit(0)
    if way == "nan" or not once(way):
        return
    if way == "exit":
        os._exit(0)
    if way == "sys_exit":
        sys.exit(0)
    if way == "segfault":
        ctypes.string_at(0)
    if way == "abort":
        os.kill(os.getpid(), signal.SIGABRT)


def failing(config: dict[str, Any], dataset: Any, state: Any = None) -> Iterator[tuple[dict, dict]]:
    """Fail alike, whatever the config."""
    raise ValueError("no such file")
    yield


def instant(config: dict[str, Any], dataset: Any, state: Any = None) -> Iterator[tuple[dict, dict]]:
    """Ten epochs without work: what is left is the time that the search itself takes."""
    for epoch in range(state["epoch"] + 1 if state else 1, config["max_epochs"] + 1):
        yield {"val_accuracy": config["lr"] * epoch}, {"epoch": epoch}


def once(what: str) -> bool:
    """Return whether this is the first time, in all processes of the case, that this is asked."""
    try:
        Path(f"{os.environ['TUNEKIT_FAULT_LOG']}-{what}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def note(line: str) -> None:
    """Add a line to the case's log, whole even if others write at the same time."""
    log = os.open(os.environ["TUNEKIT_FAULT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(log, f"{line}\n".encode())
    finally:
        os.close(log)
