"""The checkpoints of one trial: files in its folder, or in a storage that every machine reaches.

Each is known by its epoch, or as "best": a second name of the best epoch's, which outlives the epoch's own.
"""

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from tunekit import checkpoint, paths
from tunekit.errors import CheckpointError
from tunekit.storage import Storage, joined

BEST = "best"
Loaded = tuple[dict[str, Any], dict[str, Any]]


class TrialFiles(Protocol):
    """What a trial's checkpoints can be asked for, wherever they lie."""

    def prepare(self) -> None:
        """Make ready to save: what a worker that was killed had begun to write is deleted."""

    def names(self) -> list[int | str]:
        """Return the epochs that are there, oldest first, then "best" if it is."""

    def save(self, epoch: int, state: dict[str, Any], about: dict[str, Any]) -> None:
        """Write an epoch's checkpoint, whole or not at all; see `checkpoint.save`."""

    def load(self, name: int | str) -> Loaded:
        """Return (state, about) of a checkpoint, verified; see `checkpoint.load`."""

    def keep_as_best(self, epoch: int) -> None:
        """Give an epoch's checkpoint the name "best" too, in place of what had it."""

    def delete(self, names: Iterable[int | str]) -> None:
        """Delete some checkpoints; those that are not there are no matter."""

    def clear(self) -> None:
        """Delete all checkpoints, whole or half written."""


def trial_files(place: Path | str, trial: int) -> TrialFiles:
    """Return the checkpoints of a trial, by the experiment's folder or URL and the trial's number."""
    return LocalFiles(place, trial) if isinstance(place, Path) else RemoteFiles(place, trial)


def epochs_of(files: TrialFiles) -> list[int]:
    """Return the epochs of which a trial has checkpoints, oldest first."""
    return [name for name in files.names() if isinstance(name, int)]


def best_state(place: Path | str, trial: int, epoch: int | None) -> dict[str, Any]:
    """Return the state of a trial's best epoch.

    Raises:
        CheckpointError: it is not there, or damaged.
    """
    files = trial_files(place, trial)
    for name in reversed(files.names()):
        if name in (BEST, epoch):
            state, about = files.load(name)
            if about["epoch"] == epoch:
                return state
    raise CheckpointError(f"the checkpoint of trial {trial} at epoch {epoch} is not in {place}")


class LocalFiles:
    """A trial's checkpoints in its folder."""

    def __init__(self, place: Path, trial: int) -> None:
        self.folder = paths.trial_folder(place, trial)

    def prepare(self) -> None:
        """As `TrialFiles`."""
        with paths.writing(self.folder):
            paths.remove_asides(paths.make_private(self.folder))

    def names(self) -> list[int | str]:
        """As `TrialFiles`."""
        best = [BEST] if self._path(BEST).exists() else []
        return [*paths.epoch_checkpoints(self.folder), *best]

    def save(self, epoch: int, state: dict[str, Any], about: dict[str, Any]) -> None:
        """As `TrialFiles`."""
        checkpoint.save(paths.epoch_checkpoint(self.folder, epoch), state, about)

    def load(self, name: int | str) -> Loaded:
        """As `TrialFiles`."""
        return checkpoint.load(self._path(name))

    def keep_as_best(self, epoch: int) -> None:
        """As `TrialFiles`."""
        with paths.writing(self.folder):
            paths.link_atomic(self._path(epoch), self._path(BEST))

    def delete(self, names: Iterable[int | str]) -> None:
        """As `TrialFiles`."""
        with paths.writing(self.folder):
            for name in names:
                self._path(name).unlink(missing_ok=True)

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

    def __init__(self, place: str, trial: int) -> None:
        self.storage = Storage(str(joined(place, "trials", f"{trial:04d}")))

    def prepare(self) -> None:
        """Nothing: a storage shows a file when it is whole."""

    def names(self) -> list[int | str]:
        """As `TrialFiles`."""
        found = self.storage.sizes()
        epochs = sorted(int(name.split(".")[0]) for name in found if re.fullmatch(r"\d+\.safetensors", name))
        return [*epochs, *([BEST] if _file(BEST) in found else [])]

    def save(self, epoch: int, state: dict[str, Any], about: dict[str, Any]) -> None:
        """As `TrialFiles`."""
        with tempfile.TemporaryDirectory(prefix="tunekit-save-") as scratch:
            path = Path(scratch, _file(epoch))
            checkpoint.save(path, state, about)
            self.storage.put(path, _file(epoch))

    def load(self, name: int | str) -> Loaded:
        """As `TrialFiles`."""
        with tempfile.TemporaryDirectory(prefix="tunekit-load-") as scratch:
            path = Path(scratch, _file(name))
            try:
                self.storage.get(_file(name), path)
                return checkpoint.load(path)
            except (CheckpointError, FileNotFoundError) as error:
                raise CheckpointError(f"checkpoint {_file(name)} of {self.storage.url}: {error}") from None

    def keep_as_best(self, epoch: int) -> None:
        """As `TrialFiles`."""
        self.storage.copy(_file(epoch), _file(BEST))

    def delete(self, names: Iterable[int | str]) -> None:
        """As `TrialFiles`."""
        self.storage.delete(map(_file, names))

    def clear(self) -> None:
        """As `TrialFiles`."""
        self.delete(self.names())


def _file(name: int | str) -> str:
    return f"{name:04d}{paths.SUFFIX}" if isinstance(name, int) else f"{name}{paths.SUFFIX}"
