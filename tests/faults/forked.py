"""Processes that start at once: forked from one that has imported everything, which takes seconds otherwise."""

import multiprocessing
import os
import signal
import sys
import tempfile
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from subprocess import TimeoutExpired

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["tunekit.experiment", "sklearn.datasets", "torch._dynamo", "fault_search", "fault_loops"]
)


class Forked:
    """A command of fault_search.py that runs in a fork; to be used as subprocess.Popen is.

    Args:
        command: python, the script and its arguments.
        environment: all of it.
        output: the file that gets all that it prints.
    """

    def __init__(self, command: list[str], environment: dict[str, str], output: Path) -> None:
        self.process: ForkServerProcess = SERVER.Process(target=_run, args=(command[1:], environment, output))
        self.process.start()
        assert self.process.pid is not None
        self.pid: int = self.process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended, as Popen tells it; None while it runs."""
        return self.process.exitcode

    def poll(self) -> int | None:
        """Return how it ended, or None."""
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, and return how.

        Raises:
            TimeoutExpired: it has not.
        """
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise TimeoutExpired("a fork", timeout or 0)
        return self.process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)


def _run(arguments: list[str], environment: dict[str, str], output: Path) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # found again, by TMPDIR
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.argv = arguments
    sys.path.insert(0, str(Path(arguments[0]).parent))
    import fault_search

    fault_search.main()
