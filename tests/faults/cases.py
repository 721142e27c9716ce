"""A case: one experiment in a folder of its own, run as a command that is killed, and run again until it ends."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import invariants
import leftovers
from acknowledged import Acknowledged
from forked import Forked

from tunekit.errors import TunekitError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LOG = "TUNEKIT_FAULT_LOG"
Process = subprocess.Popen | Forked
MOST_S = 300.0  # what a command may take, on a machine that others use too


class Case:
    """One experiment, and everything that its processes may touch: temporary files, cache, home, log.

    Args:
        num_trials: of the search; 1 with "--alone", which is tunekit.train, without Ray.
        options: further ones of fault_search.py.
        at_once: how many trials run side by side.
    """

    def __init__(self, num_trials: int, *options: str, at_once: int = 2) -> None:
        self.num_trials, self.options, self.at_once = num_trials, options, 1 if "--alone" in options else at_once
        self.marker = uuid.uuid4().hex
        self.root = Path(tempfile.mkdtemp(prefix="tf-"))  # a short name: Unix sockets lie below it
        self.folder, self.temp, self.log = self.root / "e" / "x", self.root / "t", self.root / "log.txt"
        for name in ("t", "c", "h"):
            (self.root / name).mkdir(mode=0o700)
        outside = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TUNE_"))}
        self.environment = {
            **outside, leftovers.MARK: self.marker, LOG: str(self.log), "TMPDIR": str(self.temp),
            "HOME": str(self.root / "h"), "XDG_CACHE_HOME": str(self.root / "c"), "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)]), "PYTHONWARNINGS": "default",
        }  # fmt: skip
        self.acknowledged = Acknowledged()
        self.outputs: list[Path] = []
        self.num_kills = 0

    def __enter__(self) -> "Case":
        return self

    def __exit__(self, *error: object) -> None:
        for pid in leftovers.processes(self.marker):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def command(self) -> list[str]:
        """The command, the same however often it is run."""
        script = str(HERE / "fault_search.py")
        return [sys.executable, script, str(self.folder), str(self.num_trials), *self.options]

    def start(self, command: list[str] | None = None, before: tuple[str, ...] = (), **extra: str) -> subprocess.Popen:
        """Start the command, or another, in a process group of its own; `before` is put before it."""
        self.outputs.append(self.root / f"output-{len(self.outputs)}.txt")
        with self.outputs[-1].open("wb") as file:
            return subprocess.Popen(
                [*before, *(command or self.command)], stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                cwd=ROOT, env={**self.environment, **extra}, start_new_session=True,
            )  # fmt: skip

    def fork(self) -> Forked:
        """Start the command from a process that has imported everything: sooner, but not as people do."""
        self.outputs.append(self.root / f"output-{len(self.outputs)}.txt")
        self.outputs[-1].touch()
        return Forked(self.command, self.environment, self.outputs[-1])

    def kill(self, process: Process, group: bool = False) -> bool:
        """Kill the driver, or all of its process group, at once; return whether it had not ended before."""
        self.acknowledged.read(self.folder)
        if process.poll() is not None:
            return False
        if group:  # the driver last: while it lives nobody else notices
            for pid in leftovers.processes(self.marker):
                if pid != process.pid:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        self.num_kills += process.returncode == -signal.SIGKILL
        self.acknowledged.read_copy(self.folder, self.root / "copy")
        return process.returncode == -signal.SIGKILL

    def wait(self, process: Process, most_s: float = MOST_S) -> int:
        """Return how a command ended.

        Raises:
            AssertionError: it did not.
        """
        try:
            return process.wait(timeout=most_s)
        except subprocess.TimeoutExpired:
            shown = self.printed()
            raise AssertionError(f"hangs: not ended after {most_s:g} s; it printed:\n{shown}") from None

    def finish(self, process: Process | None = None, **extra: str) -> None:
        """Run the same command until it ends by itself, or wait for the one that runs: it must go on, unaided."""
        status = self.wait(process or self.start(**extra))
        assert status == 0, f"manual step: the same command ended with {status}:\n{self.printed()}"

    def printed(self) -> str:
        """Return the last lines that the newest command printed."""
        return "\n".join(self.outputs[-1].read_text(errors="replace").splitlines()[-12:])

    def wait_for_epochs(self, count: int, process: Process | None = None, most_s: float = 120.0) -> int:
        """Wait until the ledger holds so many epochs more than now, or the process has ended; return how many."""
        begin = len(self.acknowledged.read(self.folder).epochs)
        deadline = time.monotonic() + most_s
        while time.monotonic() < deadline and (process is None or process.poll() is None):
            here = len(self.acknowledged.read(self.folder).epochs)
            if here >= begin + count:
                return here
            time.sleep(0.1)
        assert process is not None and process.poll() is not None, f"no {count} epochs after {most_s:g} s"
        return len(self.acknowledged.read(self.folder).epochs)

    def check(self, **expected: object) -> None:
        """Check everything that must hold once the command has ended by itself."""
        for output in self.outputs:
            self.acknowledged.read_printed(output)
        arguments = {"num_trials": self.num_trials, "marker": self.marker, "temp": self.temp, **expected}
        invariants.check(self.folder, acknowledged=self.acknowledged, **arguments)
        again = leftovers.trained_again(self.log)
        assert again <= self.num_kills * self.at_once, (
            f"work done again: {again} epochs after {self.num_kills} kills of {self.at_once} trials at once"
        )


@contextmanager
def noting(failures: list[str], what: str) -> Iterator[None]:
    """Add what goes wrong in the block to the failures, as text."""
    try:
        yield
    except (AssertionError, TunekitError) as error:
        failures.append(f"{what}: {error}")
