"""The checkpoints of one trial: files in its folder, or in a storage that every machine reaches.

Each is known by its epoch, and is written once. When the trial has ended, the best epoch's is called "best".
"""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from tunekit import checkpoint, paths
from tunekit.errors import CheckpointError
from tunekit.storage import Storage, joined

BEST = "best"
NUM_CHECKPOINTS = 3  # of a trial that has not ended, at the most: the two newest, and the best
Loaded = tuple[dict[str, Any], dict[str, Any]]


class TrialFiles(Protocol):
    """What a trial's checkpoints can be asked for, wherever they lie."""

    def prepare(self) -> None:
        """Make ready to save."""

    def names(self) -> list[int | str]:
        """Return the epochs that are there, oldest first, then "best" if it is."""

    def save(self, epoch: int, state: dict[str, Any], about: dict[str, Any]) -> None:
        """Write an epoch's checkpoint, whole or not at all; see `checkpoint.save`."""

    def load(self, name: int | str) -> Loaded:
        """Return (state, about) of a checkpoint, verified; see `checkpoint.load`."""

    def about(self, name: int | str) -> dict[str, Any]:
        """Return what a checkpoint is of; see `checkpoint.about`."""

    def delete(self, epochs: Iterable[int]) -> None:
        """Delete some epochs' checkpoints; those that are not there are no matter."""

    def keep_only(self, epoch: int) -> None:
        """Call an epoch's checkpoint "best", if it is not called that yet, and delete all others, whole or not.

        Where there is none of that epoch, damaged say, all stay.
        """

    def clear(self) -> None:
        """Delete all checkpoints, whole or half written."""


def trial_files(place: Path | str, trial: int, fence: Callable[[], object] = int) -> TrialFiles:
    """Return the checkpoints of a trial, by the experiment's folder or URL, the trial's number, and see `Storage`."""
    return LocalFiles(place, trial) if isinstance(place, Path) else RemoteFiles(place, trial, fence)


def having_checkpoints(place: Path | str) -> set[int]:
    """Return the trials of an experiment of which there is any checkpoint, whole or half written."""
    if isinstance(place, Path):
        names = [path.parent.name for path in place.glob(f"trials/*/*{paths.SUFFIX}*")]
    else:
        names = [name.split("/")[1] for name in Storage(place).sizes("trials") if name.endswith(paths.SUFFIX)]
    return {int(name) for name in names if name.isdigit()}


def epochs_of(files: TrialFiles) -> list[int]:
    """Return the epochs of which a trial has checkpoints, oldest first."""
    return [name for name in files.names() if isinstance(name, int)]


def best_state(place: Path | str, trial: int, epoch: int | None) -> dict[str, Any]:
    """Return the state of a trial's best epoch.

    Raises:
        CheckpointError: it is not there, or damaged.
    """
    files = trial_files(place, trial)
    wrong = f"the checkpoint of trial {trial} at epoch {epoch} is not in {place}"
    for _ in range(2):  # between the look and the reading, the trial may have ended, and its best got its name
        for name in reversed(files.names()):
            if name in (BEST, epoch):
                try:
                    state, about = files.load(name)
                except CheckpointError as error:
                    wrong = str(error)
                    continue
                if about["epoch"] == epoch:
                    return state
    raise CheckpointError(wrong)


class LocalFiles:
    """A trial's checkpoints in its folder."""

    def __init__(self, place: Path, trial: int) -> None:
        self.folder = paths.trial_folder(place, trial)

    def prepare(self) -> None:
        """As `TrialFiles`."""
        paths.make_private(self.folder)

    def names(self) -> list[int | str]:
        """As `TrialFiles`."""
        best = [BEST] if self._path(BEST).exists() else []
        return [*paths.epoch_checkpoints(self.folder), *best]

    def save(self, epoch: int, state: dict[str, Any], about: dict[str, Any]) -> None:
        """As `TrialFiles`."""
        checkpoint.save(self._path(epoch), state, about)

    def load(self, name: int | str) -> Loaded:
        """As `TrialFiles`."""
        return checkpoint.load(self._path(name))

    def about(self, name: int | str) -> dict[str, Any]:
        """As `TrialFiles`."""
        return checkpoint.about(self._path(name))

    def delete(self, epochs: Iterable[int]) -> None:
        """As `TrialFiles`."""
        with paths.writing(self.folder):
            for epoch in epochs:
                self._path(epoch).unlink(missing_ok=True)

    def keep_only(self, epoch: int) -> None:
        """As `TrialFiles`."""
        with paths.writing(self.folder):
            if self._path(epoch).exists():
                os.replace(self._path(epoch), self._path(BEST))
            paths.remove_asides(self.folder)
            if self._path(BEST).exists():
                self.delete(epochs_of(self))

    def clear(self) -> None:
        """As `TrialFiles`; the folder goes too, if nothing else is in it."""
        with paths.writing(self.folder):
            for path in self.folder.glob(f"*{paths.SUFFIX}*"):
                path.unlink(missing_ok=True)
            if self.folder.exists() and not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _path(self, name: int | str) -> Path:
        if isinstance(name, int):
            return paths.epoch_checkpoint(self.folder, name)
        return paths.best_checkpoint(self.folder)


class RemoteFiles:
    """A trial's checkpoints in a storage, of an experiment that is known by its URL."""

    def __init__(self, place: str, trial: int, fence: Callable[[], object] = int) -> None:
        self.storage = Storage(str(joined(place, "trials", f"{trial:04d}")), fence=fence)

    def prepare(self) -> None:
        """Nothing: a storage has no folders."""

    def names(self) -> list[int | str]:
        """As `TrialFiles`."""
        found = self.storage.sizes()
        epochs = sorted(int(name.split(".")[0]) for name in found if re.fullmatch(r"\d+\.safetensors", name))
        return [*epochs, *([BEST] if _file(BEST) in found else [])]

    def save(self, epoch: int, state: dict[str, Any], about: dict[str, Any]) -> None:
        """As `TrialFiles`."""
        self.storage.write(_file(epoch), checkpoint.as_bytes(state, about))

    def load(self, name: int | str) -> Loaded:
        """As `TrialFiles`."""
        return checkpoint.from_bytes(self._there(name, self.storage.read(_file(name))), self._named(name))

    def about(self, name: int | str) -> dict[str, Any]:
        """As `TrialFiles`."""
        head = self._there(name, self.storage.read_head(_file(name), checkpoint.header_size))
        return checkpoint.about_of(head, self._named(name))

    def delete(self, epochs: Iterable[int]) -> None:
        """As `TrialFiles`."""
        self.storage.delete(map(_file, epochs))

    def keep_only(self, epoch: int) -> None:
        """As `TrialFiles`."""
        there = self.names()
        if epoch in there:
            self.storage.copy(_file(epoch), _file(BEST))
        if epoch in there or BEST in there:
            self.delete(name for name in there if isinstance(name, int))

    def clear(self) -> None:
        """As `TrialFiles`."""
        self.storage.delete(map(_file, self.names()))

    def _named(self, name: int | str) -> str:
        return f"{_file(name)} of {self.storage.url}"

    def _there(self, name: int | str, data: bytes | None) -> bytes:
        if data is None:
            raise CheckpointError(f"checkpoint {self._named(name)} is not there")
        return data


def _file(name: int | str) -> str:
    return f"{name:04d}{paths.SUFFIX}" if isinstance(name, int) else f"{name}{paths.SUFFIX}"
