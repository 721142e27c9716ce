"""Jobs on a cluster's head: they outlive the connection that started them, and how they ended is known."""

import os
import pty
import shlex
import signal
import subprocess
import sys
import time

import pytest

from tunekit.cluster_jobs import jobs, jobs_folder, start_job, stop_jobs
from tunekit.errors import ClusterError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return jobs_folder()


def state_of(name):
    return next(job for job in jobs() if job["name"] == name)


def wait_for(name, state):
    until = time.monotonic() + 120
    while state_of(name)["state"] != state:
        assert time.monotonic() < until, state_of(name)
        time.sleep(0.1)
    return state_of(name)


def test_a_job_gets_its_arguments_and_ends(folder):
    (folder / "first.py").write_text("import sys, os; print(os.environ['RAY_AUTH_MODE'], sys.argv[1:])")
    start_job("first", ["--lr", "a b", "$(id)"])
    assert wait_for("first", "finished")["last_line"] == "token ['--lr', 'a b', '$(id)']"
    assert oct(folder.stat().st_mode & 0o777) == "0o700"


def test_a_job_that_fails(folder):
    (folder / "bad.py").write_text("raise SystemExit(3)")
    start_job("bad", [])
    wait_for("bad", "failed")
    with pytest.raises(ClusterError, match="there is no"):
        start_job("unknown", [])


def test_a_job_that_is_cut_off(folder):
    (folder / "long.py").write_text("import os, time; print(os.getppid(), os.getpid(), flush=True); time.sleep(60)")
    start_job("long", [])
    with pytest.raises(ClusterError, match="running already"):
        start_job("long", [])
    while not (pids := (folder / "long.log").read_text().split()):
        time.sleep(0.1)
    for pid in map(int, pids):
        os.kill(pid, signal.SIGKILL)
    wait_for("long", "cut off")


def test_jobs_are_asked_to_end(folder):
    """A search that is asked to end does so cleanly; what is over is left alone."""
    script = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit('cleanly')); print('on'); time.sleep(60)"
    (folder / "search.py").write_text(script)
    (folder / "over.py").write_text("")
    start_job("over", [])
    wait_for("over", "finished")
    start_job("search", [])
    while "on" not in (folder / "search.log").read_text():
        time.sleep(0.1)
    stop_jobs()
    assert state_of("search")["state"] == "failed" and state_of("search")["last_line"] == "cleanly"
    assert state_of("over")["state"] == "finished"


def test_a_job_outlives_the_terminal_that_it_was_started_in(folder):
    """As when the laptop sleeps: the terminal hangs up, and what runs in its foreground hears of it."""
    (folder / "slow.py").write_text("import time; time.sleep(2); print('to the end')")
    start = shlex.join([sys.executable, "-m", "tunekit", "cluster", "start-job", "slow"])
    ours, theirs = pty.openpty()
    line = f"{start}; echo started > {folder}/started; exec sleep 60"
    shell = subprocess.Popen(["setsid", "--ctty", "bash", "-c", line], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    while not (folder / "started").exists():
        time.sleep(0.05)
    os.close(ours)
    assert shell.wait(timeout=10) == -signal.SIGHUP
    assert wait_for("slow", "finished")["last_line"] == "to the end"
