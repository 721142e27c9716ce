"""The decoding processes: started once, asked in chunks, replaced when a file kills one of them."""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from rich.progress import Progress

from tunekit.errors import DataError

CHUNK = 64  # files per request: enough to keep a process busy, few enough to share them evenly
DEATHS = {
    int(signal.SIGALRM): "took more than a minute to decode",
    int(signal.SIGKILL): "had its decoder killed (no memory?)",
}


class Workers:
    """As many decoding processes as cores, for the length of a `with` block.

    Args:
        num_files: how many files there will be; a few files get one process.

    Example:
        >>> with Workers(1) as workers:
        ...     workers.ask([{"path": "/nowhere.jpg", "stamp": [0, 0, 0]}], "reading")
        [{'problem': 'cannot be read: No such file or directory'}]
    """

    def __init__(self, num_files: int) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.workers = [_Worker() for _ in range(max(1, min(cores, num_files // CHUNK)))]

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.end()

    def ask(self, requests: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
        """Return one answer per request, in order; show progress on a terminal.

        Args:
            requests: see decode_worker.py.
            what: the words beside the progress bar.
        """
        idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self.workers:
            idle.put(worker)

        def ask_next(chunk: list[dict[str, Any]]) -> list[dict[str, Any]]:
            worker = idle.get()
            try:
                return list(worker.ask(chunk))
            finally:
                idle.put(worker)

        chunks = [requests[start : start + CHUNK] for start in range(0, len(requests), CHUNK)]
        answers: list[dict[str, Any]] = []
        threads = ThreadPoolExecutor(len(self.workers))
        with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
            shown = progress.add_task(what, total=len(requests))
            try:
                for found in threads.map(ask_next, chunks):
                    answers += found
                    progress.update(shown, completed=len(answers))
            except BaseException:  # Ctrl-C above all: the threads wait for processes, so these must end first
                self.__exit__()
                raise
            finally:
                threads.shutdown(cancel_futures=True)
        return answers


class _Worker:
    """One decoding process, started when first asked."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.ended = False

    def ask(self, requests: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield an answer per request; a file at which the process dies is bad, those after it get a new process."""
        while requests and not self.ended:
            if self.process and self.process.poll() is not None:  # it died idle, and no file is to blame
                _cause_of_death(self.process)
                self.process = None
            process = self.process = self.process or _start()
            num_answered = 0
            try:
                print(json.dumps(requests), file=process.stdin, flush=True)
                for _ in requests:
                    yield json.loads(_line(process))
                    num_answered += 1
            except (OSError, ValueError):  # a broken pipe, or no line
                self.process = None
                yield {"problem": _cause_of_death(process)}
                num_answered += 1
            requests = requests[num_answered:]

    def end(self) -> None:
        """End the process, and start none again."""
        self.ended = True
        if self.process is not None:
            self.process.kill()
            _cause_of_death(self.process)


def _start() -> "subprocess.Popen[str]":
    program = Path(__file__).with_name("decode_worker.py")
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as words:
        # -P: beside the program lies images.py, and no folder of ours may hide a module of Python's
        process = subprocess.Popen(
            [sys.executable, "-P", str(program)], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words,
        )  # fmt: skip
        if _line(process) != "ready\n":
            cause = _cause_of_death(process)
            words.seek(0)
            raise DataError(f"the decoding process does not start ({cause}): {words.read()[-500:]}")
    return process


def _line(process: "subprocess.Popen[str]") -> str:
    stdout: IO[str] | None = process.stdout
    return stdout.readline() if stdout else ""


def _cause_of_death(process: "subprocess.Popen[str]") -> str:
    """Wait for a process that ends, close its pipes, and say why it ended."""
    code = process.wait()
    for pipe in (process.stdin, process.stdout):
        try:
            if pipe:
                pipe.close()
        except OSError:  # what was still to be written has no reader
            pass
    return DEATHS.get(-code) or f"crashed its decoder (exit status {code})"
