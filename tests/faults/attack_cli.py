"""The public face as an attacked person uses it: the command line, a small table of images, an experiment on it."""

import contextlib
import csv
import hashlib
import io
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tunekit.cli import main

LITTLE_MEMORY = 200 * 2**20  # bytes: what refusing something may take
COMMANDS = ("results", "test", "predict", "export")


class Answer(NamedTuple):
    """How a command ended: 0 well, 2 with a message for people, 1 with a traceback."""

    status: int
    stdout: str
    stderr: str

    @property
    def printed(self) -> str:
        return self.stdout + self.stderr

    @property
    def in_short(self) -> str:
        return (
            f"{self.status}: {self.stderr.strip().splitlines()[-1][:300] if self.stderr.strip() else self.stdout[:300]}"
        )

    @property
    def is_refused(self) -> bool:
        return self.status == 2 and self.stderr.startswith("tunekit: ") and "Traceback" not in self.printed


def command(*arguments: object, cwd: Path | None = None) -> Answer:
    """Run the command line in this process."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(cwd or Path()):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            status = 1
            err.write(traceback.format_exc())
    return Answer(status, out.getvalue(), err.getvalue())


def look_at(experiment: Path, *, cwd: Path, commands: tuple[str, ...] = COMMANDS) -> Iterator[tuple[str, Answer]]:
    """Run commands on an experiment, whose files have been tampered with; yield each with its answer."""
    more = {"predict": [table(cwd / "new").parent / "images", "--out", cwd / "out.csv"], "export": [cwd / "exported"]}
    for name in commands:
        yield name, command(name, experiment, *more.get(name, []), cwd=cwd)


def table(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), num_each: int = 12) -> Path:
    """Write a table of random images of some classes, and return it."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    path = folder / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "target"])
        for number in range(num_each * len(classes)):
            image = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / "images" / f"{number}.png")
            writer.writerow([f"images/{number}.png", classes[number % len(classes)]])
    return path


def trained(folder: Path, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Train on a small table, with the test split opened, and return the experiment's folder."""
    config = ("backbone=mlp", "batch_size=8")
    data = table(folder / "data", classes)
    answer = command("train", *config, "--dataset", data, "--max-epochs", 2, "--name", "first", "--folder", folder)
    assert answer.status == 0, answer
    return folder / "first"


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    """Return every path below a folder with its mode and a hash of what it holds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path)] = path.lstat().st_mode, hashlib.sha256(content).hexdigest()
    return found


def memory_of(call: Callable[[], object]) -> int:
    """Return by how many bytes this process grows at most during a call."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = _peak()
    call()
    return _peak() - before


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
