"""Scripts that run on a cluster's head by themselves: they go on when whoever sent them shuts the laptop.

A job is a script with a log, in one folder on the head. It runs in a session of its own, so that the end of the SSH
connection does not reach it, under a small process that holds a lock while it runs and writes down how it ended: a
job with neither was cut off, by whatever ended the machine.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tunekit.errors import ClusterError
from tunekit.locks import take_lock
from tunekit.paths import make_private, read_json, write_json

FOLDER = Path("tunekit/jobs")  # in the home folder of the head
MOST_SHOWN = 200  # characters of a log's last line
LONGEST_END_S = 30.0  # of a job that is asked to end
END_OF_LOG = 4096  # bytes, in which its last line is looked for


def jobs_folder() -> Path:
    """Return the folder of this machine's jobs, which only its owner may enter; it is made if it is not there."""
    return make_private(Path.home() / FOLDER)


def start_job(name: str, arguments: list[str]) -> None:
    """Start a script that lies in the folder of jobs, in its own session; return at once.

    Args:
        name: the job's; the script is NAME.py, and what it prints goes to NAME.log.
        arguments: the script's.

    Raises:
        ClusterError: there is no such script, or the job runs already.
    """
    script = jobs_folder() / f"{name}.py"
    if not script.is_file():
        raise ClusterError(f"there is no {script} to run")
    lock = take_lock(script.with_suffix(".lock"), create=True)
    if lock is None:
        raise ClusterError(f"job {name} is running already")
    write_json(script.with_suffix(".json"), {"began": time.time(), "arguments": arguments})
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    with script.with_suffix(".log").open("ab") as log:
        words = ["setsid", "--fork", sys.executable, "-m", "tunekit", "cluster", "run-job", name, "--", *arguments]
        subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=Path.home(), check=True,
            pass_fds=[lock],
        )  # fmt: skip
    os.close(lock)  # the job has it now


def run_job(name: str, arguments: list[str]) -> int:
    """Run a job's script to its end, write down how it ended, and return its exit status; `start_job` starts this."""
    script = jobs_folder() / f"{name}.py"
    child = subprocess.Popen([sys.executable, "-u", str(script), *arguments])
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    _note(script.with_suffix(".json"), pid=os.getpid())  # from now on the job can be stopped
    status = child.wait()
    _note(script.with_suffix(".json"), status=status)
    return status


def stop_jobs() -> None:
    """Ask this machine's running jobs to end, as a search does cleanly, and wait until they have.

    Raises:
        ClusterError: one does not end.
    """
    until = time.monotonic() + LONGEST_END_S
    asked: set[int] = set()
    while running := [path for path in jobs_folder().glob("*.json") if _is_running(path)]:
        for pid in {read_json(path).get("pid") for path in running} - asked - {None}:
            asked.add(pid)
            with suppress(ProcessLookupError):  # who holds the job's lock has this pid, but may have ended just now
                os.kill(pid, signal.SIGTERM)
        if time.monotonic() > until:
            raise ClusterError(f"job {running[0].stem} does not end")
        time.sleep(0.1)


def jobs() -> list[dict[str, Any]]:
    """Return this machine's jobs, the oldest first: name, state (running, finished, failed, cut off), last line."""
    found = []
    for path in jobs_folder().glob("*.json"):
        is_running, job = _is_running(path), read_json(path)
        state = "running" if is_running else {None: "cut off", 0: "finished"}.get(job.get("status"), "failed")
        found.append({"name": path.stem, "state": state, "began": job["began"], "last_line": _last_line(path)})
    return sorted(found, key=lambda job: job["began"])


def _is_running(path: Path) -> bool:
    lock = take_lock(path.with_suffix(".lock"), create=True)
    if lock is not None:
        os.close(lock)
    return lock is None


def _note(path: Path, **values: int) -> None:
    write_json(path, {**read_json(path), **values})


def _last_line(path: Path) -> str:
    with path.with_suffix(".log").open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - END_OF_LOG))
        lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:MOST_SHOWN] if lines else ""
