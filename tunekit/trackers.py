"""Trackers by name: other places that an experiment is shown in. `tunekit.tracking` reads to them from the ledger.

A tracker lives in a process of its own, where its library may block or die without harm to the search. It is told of
trials in the ledger's order, and of all of a trial again where it was cut off before the trial's end.
"""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Protocol

from tunekit import paths
from tunekit.errors import MissingExtraError
from tunekit.events import Event, Trial
from tunekit.locks import take_lock
from tunekit.registry import Registry
from tunekit.tensorboard_tracker import TensorBoard
from tunekit.wandb_tracker import Wandb

Environment = dict[str, str]


class Tracker(Protocol):
    """One place that an experiment is shown in. It is named like its library, and like the extra that brings that.

    Args:
        folder: the experiment's.
        options: what the sweep says of the place, such as its project.
    """

    destination: str  # where it logs to; what was logged is remembered for each
    SECRETS: ClassVar[tuple[str, ...]]  # names of environment variables that no other process needs

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None: ...

    @staticmethod
    def environment(environ: Mapping[str, str], folder: Path) -> Environment | None:
        """Return the environment of its process, or None where it is switched off.

        Raises:
            ConfigError: it cannot log anywhere as things stand.
        """

    def log(self, trial: Trial, event: Event) -> None:
        """Show an epoch of a trial."""

    def end(self, trial: Trial, event: Event) -> None:
        """Show that a trial has ended, and how; all of it is in its place when this returns."""

    def close(self) -> None:
        """Let go of trials that have not ended."""


trackers: Registry[type[Tracker]] = Registry("tracker")
trackers.register("tensorboard")(TensorBoard)
trackers.register("wandb")(Wandb)


def environment_of(name: str, folder: Path) -> Environment | None:
    """Return the environment of a tracker's process, without the secrets of others; None where it is switched off.

    Raises:
        UnknownNameError: no tracker has this name.
        MissingExtraError: its library is not installed.
        ConfigError: it cannot log anywhere as things stand.
    """
    tracker, library = trackers[name], importlib.util.find_spec(name)
    if library is None or library.origin is None:  # a folder of this name in this one is no library
        raise MissingExtraError(f"tracker {name!r} needs a library that is missing: pip install 'tunekit[{name}]'")
    secrets = {secret for other in trackers if other != name for secret in trackers[other].SECRETS}
    return tracker.environment({key: value for key, value in os.environ.items() if key not in secrets}, folder)


def log_file(folder: Path, name: str) -> Path:
    """What went wrong with a tracker."""
    return paths.tracker_folder(folder) / f"{name}.log"


def take_tracker_lock(folder: Path, name: str) -> int | None:
    """Take a tracker's lock, or return None where a process of its is at work."""
    return take_lock(paths.make_private(paths.tracker_folder(folder)) / f"{name}.lock", create=True)
