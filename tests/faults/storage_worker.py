"""A process that has imported all, and does the work of `storage_work.py` in forks: traced, or limited."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tunekit import checkpoint, paths
from tunekit.ledger import Ledger

WORK = Path(__file__).with_name("storage_work.py")
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # in memory: fsync there takes no time


class Ended(NamedTuple):
    """How the work ended."""

    status: int
    said: list[dict[str, Any]]
    error: str
    log: str  # strace's

    @property
    def acknowledged(self) -> list[list[Any]]:
        """The events that the ledger took, in order."""
        return [line["acknowledged"] for line in self.said if "acknowledged" in line]

    @property
    def trained(self) -> set[tuple[int, float, int]]:
        """Every epoch that was trained, as (the trial's seed, its lr, epoch)."""
        return {tuple(line["trained"]) for line in self.said if "trained" in line}


class Worker:
    """A process that does the work as often as wanted, each time in a fork. It has mounts of its own if it may."""

    def __init__(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="tunekit-storage-", dir=SCRATCH))
        private = ["unshare", "--mount"] if can_mount() else []
        self.process = subprocess.Popen(
            [*private, sys.executable, str(WORK), "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=self.scratch, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
        assert self.process.stdout and self.process.stdout.readline() == "ready\n"
        self.num_folders = 0
        self.reference_folder = self.new_folder()
        self.reference = self.work(self.reference_folder)
        assert self.reference.status == 0, self.reference.error
        self.wanted = outcome(self.reference_folder)

    def new_folder(self, like: Path | None = None) -> Path:
        """Return the path of an experiment's folder that is not there yet; or a copy of another."""
        self.num_folders += 1
        folder = self.scratch / f"{self.num_folders}" / "experiment"
        folder.parent.mkdir()
        return Path(shutil.copytree(like, folder)) if like else folder

    def work(self, folder: Path, strace: Iterable[str] = (), read: bool = False, **more: dict[str, Any]) -> Ended:
        """Search in a folder, or go on there; or only read what is there.

        Args:
            folder: the experiment's.
            strace: its arguments, if it is to trace the work.
            read: whether to read only.
            more: limits (of `setrlimit`, by name), fill (see `storage_work.filler`).
        """
        log = self.scratch / "log"
        log.write_text("")
        request = {"folder": folder, "strace": list(strace), "read": read, "log": log, "limits": {}, "fill": {}, **more}
        assert self.process.stdin and self.process.stdout
        print(json.dumps(request, default=str), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        lines = answer["text"].splitlines(keepends=True)
        said = [json.loads(line) for line in lines if line.startswith("{")]
        error = "".join(line for line in lines if not line.startswith("{"))
        return Ended(answer["status"], said, error, log.read_text(errors="replace"))

    def run(self, *command: str) -> None:
        """Run a command among this process's mounts."""
        subprocess.run(["nsenter", "-t", str(self.process.pid), "-m", *command], check=True)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        """End the process, and delete all its folders."""
        self.process.kill()
        self.process.communicate()
        shutil.rmtree(self.scratch)


def can_mount() -> bool:
    """Whether this process may have mounts of its own."""
    return shutil.which("unshare") is not None and not subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
    ).returncode  # fmt: skip


def can_trace() -> bool:
    """Whether strace is here, and may attach to a process that is not its own child."""
    if shutil.which("strace") is None:
        return False
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as traced:  # ends when its input does
        tracer = subprocess.Popen(
            ["strace", "-o", "/dev/null", "-p", str(traced.pid)], stderr=subprocess.PIPE, text=True
        )
        assert tracer.stderr and traced.stdin
        said = tracer.stderr.readline()
        traced.stdin.close()
        tracer.communicate()
    return "attached" in said


def outcome(folder: Path) -> dict[str, Any]:
    """Return all that a search leaves but clocks, process numbers and the ledger's file: as text, fit to compare."""
    ledger = Ledger(folder)
    trials = {
        str(number): json.dumps([trial.state, trial.reason, trial.proposal, trial.history])
        for number, trial in ledger.trials().items()
    }
    ledger.close()
    ours = (path for path in sorted(folder.rglob("*")) if path.is_file() and "ledger." not in path.name
            and path.name != "report.html")  # which says when it was made  # fmt: skip
    return {**trials, **{str(path.relative_to(folder)): content(path) for path in ours if not is_aside(path)}}


def content(path: Path) -> str:
    """Return what is in a file, in short: of a checkpoint what it holds, as its bytes come in any order."""
    if path.suffix != paths.SUFFIX:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    state, about = checkpoint.load(path)
    return f"{hashlib.sha256(state['weight'].numpy().tobytes()).hexdigest()} {state['epoch']} {json.dumps(about)}"


def is_aside(path: Path) -> bool:
    """Whether a file is one that was being written: ours, SQLite's or safetensors'."""
    return ".tmp" in path.name
