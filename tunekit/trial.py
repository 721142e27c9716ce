"""What a worker runs: one loop around the training generator, which saves a checkpoint and reports, epoch by epoch.

A worker and the driver talk in messages, plain dicts: "started", then "epoch" each epoch; "ended" if that was not as
far as a trial goes. The worker does not begin an epoch before the driver has the last one's message in its ledger.
"""

import dis
import gc
import json
import platform
import textwrap
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tunekit import memory, training
from tunekit.arithmetic import Choices, settled
from tunekit.backbones import Backbone, register_backbone
from tunekit.config import complete
from tunekit.datasets import load_published
from tunekit.datasets.base import Dataset
from tunekit.denormals import denormals_are_zero
from tunekit.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    MisplacedError,
    StorageError,
    TrainingError,
    UnknownNameError,
)
from tunekit.scores import best_epoch
from tunekit.space import Space, draw_config
from tunekit.trial_files import TrialFiles, epochs_of, trial_files

MOST_METRICS = 2**20  # bytes, as JSON, of an epoch: the ledger keeps them, and each look at a search reads all

Message = dict[str, Any]
TrainFunction = Callable[..., Iterator[tuple[dict[str, float], dict[str, Any]]]]


@dataclass(frozen=True)
class TrialSetup:
    """What all trials of an experiment share.

    Args:
        folder: the experiment's, or the URL of the storage that has its checkpoints.
        dataset: the cache entry that holds the data, or the dataset itself.
        source: the arguments of `load_dataset` that give the data again on a machine without that entry.
        space: from which a trial's params make its config.
        metric, mode: what best means.
        max_epochs: the most epochs a trial gets.
        train: a training loop of the form (config, dataset, state=None) -> iterator of (metrics, state).
        num_threads: how many threads torch may use; None leaves it as it is.
        choices: the arithmetic for configs that leave it open; see `arithmetic.settled`.
        backbones: those that a script registered, by name: a worker knows only what it imports.
    """

    folder: Path | str
    dataset: Path | Dataset
    space: Space
    metric: str
    mode: str
    max_epochs: int
    train: TrainFunction = training.train
    num_threads: int | None = 1
    choices: Choices = field(default_factory=dict)
    backbones: dict[str, Backbone] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)


def run_trial(setup: TrialSetup, request: dict[str, Any]) -> Iterator[Message]:
    """Train one trial, going on from its newest checkpoint, and yield a message at its start, each epoch and its end.

    An epoch's message says whether it is the last, after which there is nothing to wait for: what is left to do for the
    trial's checkpoints is done as its end is written down; see `kept.KeptCheckpoints`.

    Args:
        setup: what all trials share.
        request: trial (its number), proposal (params, the draws that make its config, seed, and more), micro_batches
            (see `events.Trial`) and epoch: how many of its epochs the ledger holds. A checkpoint ahead of that is not
            used.
    """
    yield {"kind": "started", "node": platform.node()}
    memory.keep_freed()
    try:
        with denormals_are_zero():
            yield from _epochs(setup, request)
        last = {"kind": "ended", "state": "finished"}
    except MisplacedError as error:
        last = {"kind": "misplaced", "reason": str(error)}
    except StorageError as error:  # no fault of the trial's: it goes on when there is room again, or on a machine that
        kind = "unwritable" if isinstance(setup.folder, Path) else "misplaced"  # may use the storage
        last = {"kind": kind, "reason": str(error)}
    except Exception as error:  # whatever a training loop raises ends this trial, with its reason, and no other
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        how = {"kind": "out_of_memory"} if is_out_of_memory(error) else {"kind": "ended", "state": "failed"}
        last = {**how, "reason": reason, "traceback": traceback.format_exc()}
    finally:  # whoever listened may have heard enough
        gc.collect()  # an error holds on to all that it came by: here its tensors go, before this process goes on
        memory.give_back(unless=memory.FOR_THE_NEXT)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    yield last


def _epochs(setup: TrialSetup, request: dict[str, Any]) -> Iterator[Message]:
    if setup.num_threads:
        torch.set_num_threads(setup.num_threads)
    proposal = request["proposal"]
    drawn = draw_config(setup.space, lambda name, _: proposal["params"][name])
    builtin = setup.train is training.train
    whole = complete(drawn) if builtin else {"micro_batches": 1, **drawn}
    config = settled(whole, setup.choices, training.pick_device()) if builtin else whole
    config["micro_batches"] *= request["micro_batches"]
    config = {**config, "seed": proposal["seed"], "max_epochs": setup.max_epochs}
    for name, backbone in setup.backbones.items():
        register_backbone(name)(backbone)
    dataset = data_of(setup)
    files = trial_files(setup.folder, request["trial"])
    files.prepare()
    state, history, warnings = newest_state(files, request)
    if history:
        keep_newest(files, history, setup.metric, setup.mode)  # the last attempt may have ended before it did
    for warning in warnings:
        yield {"kind": "warned", "text": warning}
    if len(history) >= setup.max_epochs:  # it was killed between its last epoch and its end
        return
    training.seed_epoch(config["seed"], len(history))  # for a loop that does not: this process ran other trials
    for yielded in setup.train(config, dataset, state):
        metrics, state_after = checked_pair(yielded)
        history.append(checked_metrics(metrics, setup.metric))
        epoch = len(history)
        about = {"trial": request["trial"], **proposal, "epoch": epoch, "history": history}
        files.save(epoch, state_after, about)
        yield {"kind": "epoch", "epoch": epoch, "metrics": history[-1], "last": epoch >= setup.max_epochs}
        keep_newest(files, history, setup.metric, setup.mode)
        if epoch >= setup.max_epochs:
            break
    if not history:
        raise TrainingError("the training loop ended without yielding a single (metrics, state)")


def data_of(setup: TrialSetup) -> Dataset:
    """Return the dataset, opened on this machine.

    Raises:
        MisplacedError: the data is not on this machine, or it does not see the experiment's folder.
    """
    if isinstance(setup.folder, Path) and not setup.folder.exists():
        raise MisplacedError(f"it does not see {setup.folder}: give a folder that every machine sees, or a URL")
    if isinstance(setup.dataset, Dataset):
        return setup.dataset
    try:
        return load_published(setup.dataset, setup.source)
    except (ConfigError, DataError, StorageError, UnknownNameError) as error:  # of whatever only this machine lacks
        raise MisplacedError(str(error)) from None


def can_go_on(train: TrainFunction) -> bool:
    """Return whether a training loop reads its third argument, the state; True where that cannot be told."""
    code = getattr(train, "__code__", None)
    if code is None or code.co_argcount < 3 or code.co_varnames[2] in code.co_cellvars:
        return True
    loaded = (step.argval for step in dis.get_instructions(code) if step.opname.startswith("LOAD"))
    state = code.co_varnames[2]
    return any(state in names if isinstance(names, tuple) else state == names for names in loaded)


def newest_state(
    files: TrialFiles, request: dict[str, Any]
) -> tuple[dict[str, Any] | None, list[dict[str, float]], list[str]]:
    """Return (state, history, warnings) of a trial's newest valid checkpoint that is not ahead of what was requested.

    State is None and history empty where there is none. A warning tells of each that is damaged. What is newer is of no
    use, but stays until its epoch is trained again: it may be another worker's, which has taken over from this one.
    """
    warnings: list[str] = []
    for number in reversed(epochs_of(files)):
        if number > request["epoch"]:  # it was never acknowledged
            continue
        try:
            state, about = files.load(number)
            if about["epoch"] == number and about["params"] == request["proposal"]["params"]:
                return state, about["history"], warnings
            warnings.append(f"the checkpoint of epoch {number} is another one's; going on from the one before")
        except CheckpointError as error:
            warnings.append(f"{error}; going on from the one before")
    return None, [], warnings


def keep_newest(files: TrialFiles, history: list[dict[str, float]], metric: str, mode: str) -> None:
    """Delete the checkpoints before the two newest, but for the best epoch's."""
    best = best_epoch(history, metric, mode)
    files.delete(epoch for epoch in epochs_of(files) if epoch < len(history) - 1 and epoch != best)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that the memory of the host or of a GPU was not enough."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # of torch on the CPU, of oneDNN, of CUDA and its libraries
    words = ("can't allocate memory", "could not create a primitive", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def checked_pair(yielded: Any) -> tuple[Any, Any]:
    """Return what a training loop yielded, as (metrics, state).

    Raises:
        TrainingError: it is no pair.
    """
    if not isinstance(yielded, tuple) or len(yielded) != 2:
        raise TrainingError(f"a training loop yields (metrics, state), but this one yielded {shortened(yielded)}")
    return yielded


def checked_metrics(metrics: Any, metric: str) -> dict[str, float]:
    """Return an epoch's metrics as plain floats.

    Raises:
        TrainingError: they are no dict of name to number, or too many, or `metric` is missing.
    """
    if not isinstance(metrics, dict):
        raise TrainingError(f"a training loop yields (metrics, state), metrics a dict; got {shortened(metrics)}")
    floats = {}
    for name, value in metrics.items():
        try:
            floats[str(name)] = value if isinstance(value, int) else float(value)
        except (TypeError, ValueError):
            raise TrainingError(f"metric {name!r} must be a number, but is {shortened(value)}") from None
    if len(json.dumps(floats)) > MOST_METRICS:
        raise TrainingError(
            f"the {len(floats)} metrics of an epoch are more than {MOST_METRICS >> 20} MiB as JSON: metrics are a few "
            "numbers that tell how well it goes; what else there is belongs into the state, or a file"
        )
    if metric not in floats:
        raise TrainingError(
            f"the training loop yielded no {metric!r}, which the search optimises; it yielded {', '.join(floats)}"
        )
    return floats


def shortened(value: Any) -> str:
    """Return a value as Python writes it, of one line at most: it may be a whole model."""
    return textwrap.shorten(repr(value), 100)
