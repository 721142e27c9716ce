"""What a Ray worker runs: one loop around the training generator, which saves a checkpoint and reports, epoch by epoch.

A worker and the driver talk in messages, plain dicts: "started", then "epoch" each epoch, then "ended". The worker does
not begin the next epoch before the driver has the last one's message in its ledger.
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
from ray import tune

from tunekit import checkpoint, memory, paths, training
from tunekit.arithmetic import Choices, settled
from tunekit.backbones import Backbone, register_backbone
from tunekit.config import complete
from tunekit.datasets import open_dataset
from tunekit.datasets.base import Dataset
from tunekit.errors import CheckpointError, StorageError, TrainingError
from tunekit.scores import is_better
from tunekit.space import Space, draw_config

Message = dict[str, Any]
TrainFunction = Callable[..., Iterator[tuple[dict[str, float], dict[str, Any]]]]


@dataclass(frozen=True)
class TrialSetup:
    """What all trials of an experiment share.

    Args:
        folder: the experiment's.
        dataset: the cache entry that holds the data, or the dataset itself.
        space: from which a trial's params make its config.
        metric, mode: what best means.
        max_epochs: the most epochs a trial gets.
        train: a training loop of the form (config, dataset, state=None) -> iterator of (metrics, state).
        num_threads: how many threads torch may use; None leaves it as it is.
        choices: the arithmetic for configs that leave it open; see `arithmetic.settled`.
        gpu_memory: the share of a GPU's memory that torch may use, 0..1; None is no limit.
        backbones: those that a script registered, by name: a worker knows only what it imports.
    """

    folder: Path
    dataset: Path | Dataset
    space: Space
    metric: str
    mode: str
    max_epochs: int
    train: TrainFunction = training.train
    num_threads: int | None = 1
    choices: Choices = field(default_factory=dict)
    backbones: dict[str, Backbone] = field(default_factory=dict)
    gpu_memory: float | None = None


def run_trial(setup: TrialSetup, request: dict[str, Any]) -> Iterator[Message]:
    """Train one trial, going on from its newest checkpoint, and yield a message at its start, each epoch and its end.

    Args:
        setup: what all trials share.
        request: trial (its number), proposal (params, the draws that make its config, seed, and more), micro_batches
            (see `events.Trial`) and epoch: how many of its epochs the ledger holds. A checkpoint ahead of that is not
            used.
    """
    yield {"kind": "started", "node": platform.node()}
    memory.keep_freed()
    try:
        yield from _epochs(setup, request)
        last = {"kind": "ended", "state": "finished"}
    except StorageError as error:  # no fault of the trial's: it goes on when there is room again
        last = {"kind": "unwritable", "reason": str(error)}
    except Exception as error:  # whatever a training loop raises ends this trial, with its reason, and no other
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        kind = {"kind": "out_of_memory"} if is_out_of_memory(error) else {"kind": "ended", "state": "failed"}
        last = {**kind, "reason": reason, "traceback": traceback.format_exc()}
    gc.collect()  # an error holds on to all that it came by: here its tensors go, before this process runs what is next
    memory.give_back()
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
    dataset = open_dataset(setup.dataset) if isinstance(setup.dataset, Path) else setup.dataset
    folder = paths.make_private(paths.trial_folder(setup.folder, request["trial"]))
    with paths.writing(folder):
        paths.remove_asides(folder)  # of a worker that was killed
        state, history, warnings = newest_state(folder, request["epoch"])
        if history:
            keep_newest(folder, history, setup.metric, setup.mode)  # the last attempt may have ended before it did
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
        checkpoint.save(paths.epoch_checkpoint(folder, epoch), state_after, about)
        yield {"kind": "epoch", "epoch": epoch, "metrics": history[-1]}
        with paths.writing(folder):
            keep_newest(folder, history, setup.metric, setup.mode)
        if epoch >= setup.max_epochs:
            break
    if not history:
        raise TrainingError("the training loop ended without yielding a single (metrics, state)")


def can_go_on(train: TrainFunction) -> bool:
    """Return whether a training loop reads its third argument, the state; True where that cannot be told."""
    code = getattr(train, "__code__", None)
    if code is None or code.co_argcount < 3 or code.co_varnames[2] in code.co_cellvars:
        return True
    loaded = (step.argval for step in dis.get_instructions(code) if step.opname.startswith("LOAD"))
    state = code.co_varnames[2]
    return any(state in names if isinstance(names, tuple) else state == names for names in loaded)


def newest_state(folder: Path, epoch: int) -> tuple[dict[str, Any] | None, list[dict[str, float]], list[str]]:
    """Return (state, history, warnings) of a trial's newest valid checkpoint that is not ahead of `epoch`.

    State is None and history empty where there is none. Checkpoints ahead of `epoch` were never acknowledged, and are
    deleted; a warning tells of each that is damaged.
    """
    warnings = []
    for number, path in reversed(paths.epoch_checkpoints(folder).items()):
        if number > epoch:
            path.unlink()
            continue
        try:
            state, about = checkpoint.load(path)
        except CheckpointError as error:
            warnings.append(f"{error}; going on from the one before")
            continue
        if about["epoch"] == number:
            return state, about["history"], warnings
    return None, [], warnings


def keep_newest(folder: Path, history: list[dict[str, float]], metric: str, mode: str) -> None:
    """Give the newest epoch's checkpoint its second name if it is the best, and delete all but the two newest."""
    best, newest = None, len(history)
    for metrics in history[:-1]:
        best = metrics[metric] if is_better(metrics[metric], best, mode) else best
    if is_better(history[-1][metric], best, mode):
        paths.link_atomic(paths.epoch_checkpoint(folder, newest), paths.best_checkpoint(folder))
    for epoch, path in paths.epoch_checkpoints(folder).items():
        if epoch not in (newest - 1, newest):  # later ones are damaged, or were passed over for a damaged one
            path.unlink()


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
        TrainingError: they are no dict of name to number, or `metric` is missing.
    """
    if not isinstance(metrics, dict):
        raise TrainingError(f"a training loop yields (metrics, state), metrics a dict; got {shortened(metrics)}")
    floats = {}
    for name, value in metrics.items():
        try:
            floats[str(name)] = value if isinstance(value, int) else float(value)
        except (TypeError, ValueError):
            raise TrainingError(f"metric {name!r} must be a number, but is {shortened(value)}") from None
    if metric not in floats:
        raise TrainingError(
            f"the training loop yielded no {metric!r}, which the search optimises; it yielded {', '.join(floats)}"
        )
    return floats


def shortened(value: Any) -> str:
    """Return a value as Python writes it, of one line at most: it may be a whole model."""
    return textwrap.shorten(repr(value), 100)


class RayTrial(tune.Trainable):
    """Ray's side of a trial: each step is one message. A process runs many trials, one after the other."""

    def setup(self, config: dict[str, Any], setup: TrialSetup | None = None) -> None:
        """Start with the first trial of this process."""
        self.trial_setup = setup
        if setup is not None and setup.gpu_memory is not None:
            torch.cuda.set_per_process_memory_fraction(setup.gpu_memory)
        gc.freeze()  # what was imported stays: a trial's end need not look through it for what may go
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Go over to another trial."""
        assert self.trial_setup is not None
        self.messages = run_trial(self.trial_setup, json.loads(new_config["request"]))
        return True

    def step(self) -> dict[str, Any]:
        """Return the next message, as JSON so that Ray takes no part in it."""
        return {"message": json.dumps(next(self.messages))}
