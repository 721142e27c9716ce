"""What runs a tracker: a process beside the driver that reads the ledger, and may lag, die and catch up.

The driver starts it, and closes its standard input when the search is over; when the driver dies, the system does.
Either way it reads the ledger to the end and goes. It remembers which trials it has told its tracker all of.
"""

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunekit import paths
from tunekit.errors import ExperimentError
from tunekit.events import Trial, trials_from
from tunekit.ledger import Ledger
from tunekit.safe_text import redacted
from tunekit.trackers import Environment, environment_of, log_file, take_tracker_lock, trackers

EVERY_S = 1.0  # how often a tracker looks into the ledger
RETRY_S = 30.0  # after a tracker died, until it is started again


def check_trackers(tracker: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the trackers that a call asks for, checked.

    Raises:
        UnknownNameError: no tracker has this name.
        MissingExtraError: a tracker's library is not installed.
        ConfigError: a tracker cannot log anywhere as things stand.

    Example:
        >>> check_trackers("wandbb")
        Traceback (most recent call last):
        tunekit.errors.UnknownNameError: unknown tracker 'wandbb': did you mean 'wandb'? Known: tensorboard, wandb
    """
    names = (tracker,) if isinstance(tracker, str) else tuple(dict.fromkeys(tracker or ()))
    for name in names:
        environment_of(name, Path())
    return names


@contextlib.contextmanager
def tracked(names: Sequence[str], folder: Path, options: Mapping[str, str] | None = None) -> Iterator[list[str]]:
    """Track an experiment while the block runs.

    Args:
        names: of trackers.
        folder: the experiment's; its ledger must be there, with something in it.
        options: a sweep's project and entity.

    Yields:
        A list that holds, after the block, what people should know: that a tracker has not caught up, and why.
    """
    notes: list[str] = []
    tracking = start(names, folder, options)
    try:
        yield notes
    finally:
        notes += tracking.stop()


def start(names: Sequence[str], folder: Path, options: Mapping[str, str] | None = None) -> "Tracking":
    """Start a process for each tracker that is not switched off, and return what stops them.

    Raises:
        UnknownNameError, MissingExtraError, ConfigError: as `check_trackers`.
    """
    environments = {name: environment_of(name, folder) for name in names}
    return Tracking(folder, {name: made for name, made in environments.items() if made is not None}, options or {})


def sync(folder: str | Path, tracker: str = "wandb") -> bool:
    """Tell a tracker all that it has not heard yet of an experiment, however long that takes.

    Args:
        folder: the experiment's.
        tracker: its name.

    Returns:
        False where the tracker is switched off.

    Raises:
        UnknownNameError, MissingExtraError, ConfigError: as `check_trackers`.
        ExperimentError: there is no such experiment, a tracker is at work on it, or the tracker failed.
    """
    folder = Path(folder)
    Ledger(folder).close()
    lock = take_tracker_lock(folder, tracker)
    if lock is None:
        raise ExperimentError(f"tracker {tracker!r} is at work on {folder}: it catches up by itself")
    os.close(lock)
    tracking = start([tracker], folder)
    for note in tracking.stop(timeout_s=None):
        raise ExperimentError(note)
    return bool(tracking.processes)


class Tracking:
    """The processes of an experiment's trackers. Made by `start`."""

    def __init__(self, folder: Path, environments: dict[str, Environment], options: Mapping[str, str]) -> None:
        self.folder, self.environments, self.options = folder, environments, options
        self.stopping = threading.Event()
        self.processes = {name: self._start(name) for name in environments}
        self.keeper = threading.Thread(target=self._keep, daemon=True)
        self.keeper.start()

    def stop(self, timeout_s: float | None = 60.0) -> list[str]:
        """Let every tracker read the ledger to its end, and return what people should know of those that did not.

        Args:
            timeout_s: for all of them; those that are not done by then are killed. None is no limit.
        """
        self.stopping.set()
        self.keeper.join()
        until = math.inf if timeout_s is None else time.monotonic() + timeout_s
        for name in self.processes:
            self._restart_if_dead(name)
            _hang_up(self.processes[name])
        notes = []
        for name in self.processes:
            code = self._wait(name, until)
            if code is not None and code < 0 and self._restart_if_dead(name):  # killed as it was told to stop
                _hang_up(self.processes[name])
                code = self._wait(name, until)
            why = f"it was not done after {timeout_s} s" if code is None else _reason(self.folder, name, code)
            if why:
                notes.append(f"tracker {name!r} has not been told all ({why}): tunekit sync {self.folder}")
        return notes

    def _wait(self, name: str, until: float) -> int | None:
        """Return the code a process ended with, or None, and kill it, if it has not ended by then."""
        process = self.processes[name]
        try:
            return process.wait(None if until == math.inf else max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _keep(self) -> None:
        while not self.stopping.wait(RETRY_S):
            for name in self.processes:
                self._restart_if_dead(name)

    def _restart_if_dead(self, name: str) -> bool:
        process = self.processes[name]
        if process.poll() not in (None, 0):
            with contextlib.suppress(OSError):  # no memory, no processes left: the search goes on without
                self.processes[name] = self._start(name)
                _hang_up(process)
        return self.processes[name] is not process

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        """Start a tracker's process: in a session of its own, where no Ctrl-C reaches it."""
        return subprocess.Popen(
            [sys.executable, "-m", "tunekit.tracking", name, str(self.folder), json.dumps(dict(self.options))],
            env=self.environments[name], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            bufsize=0, start_new_session=True,
        )  # fmt: skip


def main(name: str, folder: Path, options: dict[str, str]) -> int:
    """Be a tracker's process; return 0 when all was told."""
    try:
        follow(name, folder, options)
    except Exception as error:
        text = redacted(" ".join(f"{type(error).__name__}: {error}".split()))
        with log_file(folder, name).open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        os._exit(1)  # without the tracker's own farewells: they may never return
    return 0


def follow(name: str, folder: Path, options: dict[str, str]) -> None:
    """Tell a tracker what the ledger holds and it has not heard of, until the driver is done or gone."""
    driver = os.getppid()

    def done(wait_s: float) -> bool:
        return bool(select.select([0], [], [], wait_s)[0]) or os.getppid() != driver

    while (lock := take_tracker_lock(folder, name)) is None:  # one of an earlier run is still at work
        time.sleep(EVERY_S / 5)
    path = paths.tracker_folder(folder) / f"{name}.json"
    told = _read(path)
    options = told["options"] = told["options"] | options
    ledger, tracker = Ledger(folder), trackers[name](folder, options)
    finished = set(told["finished"].setdefault(tracker.destination, []))
    trials: dict[int, Trial] = {}
    heard, last = 0, False
    while not last:
        last = done(EVERY_S)
        for event in list(ledger.events(after=heard)):
            heard = event.number
            trials_from([event], trials)
            if event.trial is None or event.trial in finished:
                continue
            trial = trials[event.trial]
            if event.kind == "epoch":
                tracker.log(trial, event)
            elif event.kind == "ended":
                tracker.end(trial, event)
                finished.add(trial.number)
        if sorted(finished) != told["finished"][tracker.destination]:
            told["finished"][tracker.destination] = sorted(finished)
            paths.write_json(path, told)
    tracker.close()
    ledger.close()
    os.close(lock)


def _hang_up(process: subprocess.Popen[bytes]) -> None:
    """Tell a tracker's process that the search is over: in a word too, as a fork of the driver may hold the pipe."""
    assert process.stdin is not None
    if not process.stdin.closed:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"stop")
        process.stdin.close()


def _read(path: Path) -> dict[str, Any]:
    """Return what was told before; all is told again where that is lost, which trackers bear."""
    empty: dict[str, Any] = {"options": {}, "finished": {}}
    with contextlib.suppress(FileNotFoundError, ValueError):
        return empty | paths.read_json(path)
    return empty


def _reason(folder: Path, name: str, code: int) -> str:
    """Return why a tracker's process ended as it did; nothing where it ended well."""
    path = log_file(folder, name)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if code == 1 and path.exists() else []
    return "" if code == 0 else lines[-1] if lines else f"it ended with code {code}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])))
