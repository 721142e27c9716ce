"""Every file name of an experiment, and the two ways a file is written: atomically, or not at all."""

import difflib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tunekit.errors import ExperimentError, StorageError

SUFFIX = ".safetensors"
MOST_JSON_BYTES = 2**22
ASIDE = ".tmp"  # ends the name of a file that is being written


def experiment_json(folder: Path) -> Path:
    """What was asked; written once. Its lock says who is working on the experiment."""
    return folder / "experiment.json"


def ledger_db(folder: Path) -> Path:
    """What happened; see ledger.py."""
    return folder / "ledger.db"


def backup_db(folder: Path) -> Path:
    """The ledger's backup; see rows.py."""
    return folder / "ledger.backup.db"


def test_json(folder: Path) -> Path:
    """The test split's figures; written once, when the test split is opened."""
    return folder / "test.json"


def report_html(folder: Path) -> Path:
    """The report: one page, made from the rest of the folder again and again."""
    return folder / "report.html"


def storage_json(folder: Path) -> Path:
    """The URL of the storage that has the checkpoints, where the folder is but this machine's part of an experiment."""
    return folder / "storage.json"


def tracker_folder(folder: Path) -> Path:
    """Where trackers keep what they keep."""
    return folder / "trackers"


def trial_folder(folder: Path, trial: int) -> Path:
    """One trial's checkpoints and its error.txt."""
    return folder / "trials" / f"{trial:04d}"


def epoch_checkpoint(trial_folder: Path, epoch: int) -> Path:
    """The checkpoint written at the end of an epoch (from 1)."""
    return trial_folder / f"{epoch:04d}{SUFFIX}"


def best_checkpoint(trial_folder: Path) -> Path:
    """The best epoch's checkpoint of a trial that has ended."""
    return trial_folder / f"best{SUFFIX}"


def epoch_checkpoints(trial_folder: Path) -> dict[int, Path]:
    """Return the epoch checkpoints that are there, oldest first."""
    return dict(sorted((int(path.stem), path) for path in trial_folder.glob(f"[0-9]*{SUFFIX}") if path.stem.isdigit()))


def no_experiment(folder: Path, missing: str = "experiment.json", url: str = "") -> ExperimentError:
    """Return what to say of a folder, or of the URL that it stands for, that holds no experiment."""
    why = f"it has no {missing}" if folder.is_dir() or url else "there is no such folder"
    beside = [] if url else sorted(path.parent.name for path in folder.absolute().parent.glob("*/experiment.json"))
    near = difflib.get_close_matches(folder.name, beside, n=8, cutoff=0)
    known = f"; beside it: {', '.join(near)}" if near else ""
    return ExperimentError(f"{url or folder} is no experiment: {why}{known}")


def check_links(experiment: Path) -> None:
    """Raise ExperimentError if anything that is written to in an experiment's folder is a link to somewhere else."""
    for path in (*experiment.iterdir(), *experiment.glob("trials/*"), *experiment.glob("trials/*/*")):
        if path.is_symlink():
            raise ExperimentError(f"{path} is a link, which nothing in an experiment is: move it away")


def error_txt(trial_folder: Path) -> Path:
    """Why a trial failed or diverged."""
    return trial_folder / "error.txt"


def make_private(folder: Path) -> Path:
    """Make a folder that only its owner may enter, and return it."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise StorageError(f"{folder} is a link, or somebody else's: move it away")
        folder.chmod(0o700)
    return folder


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what cannot be written, and what to do about it.

    Raises:
        StorageError: the disk is full or broken, or the folder may not be written.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({error.strerror or error}): what is there is safe; make room, or mend the "
            "folder's permissions, and run the same command again"
        ) from None


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(aside)` on a file beside `path`, flush it to disk and rename it: `path` is whole or not there.

    Raises:
        StorageError: as `writing`.
    """
    with writing(path):
        descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=ASIDE)
        os.close(descriptor)
        try:
            write(Path(aside))
            flush(Path(aside))
            os.replace(aside, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(aside)
            raise
        flush(path.parent)


def remove_asides(*folders: Path) -> None:
    """Delete what a process that was killed had begun to write in some folders."""
    for folder in folders:
        for path in folder.glob(f"*{ASIDE}*"):
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomic(path, lambda aside: aside.write_text(text, encoding="utf-8", errors="surrogateescape"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_new_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, unless it is there: who comes second leaves it as it is."""
    own = path.with_name(f".{path.name}.{os.getpid()}{ASIDE}")
    write_json(own, value)
    with writing(path):
        try:
            path.hardlink_to(own)
        except FileExistsError:
            pass
        except OSError:  # the file system knows no second names
            if not path.exists():
                os.replace(own, path)
        own.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: it is no JSON, or so large that nobody of ours wrote it.
    """
    with path.open("rb") as file:
        data = file.read(MOST_JSON_BYTES + 1)
    if len(data) > MOST_JSON_BYTES:
        raise ValueError(f"it is larger than {MOST_JSON_BYTES:,} bytes")
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
