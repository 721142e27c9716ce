"""What happens to a search short of a crash at random: signals, twins, moves, wrong clocks, loops that misbehave."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from cases import Case, noting
from fault_loops import ALL_WAYS

import tunekit
from tunekit import paths
from tunekit.ledger import Ledger

Found = tuple[int, list[str]]  # how many cases, and what went wrong in them
STATUS = {signal.SIGTERM: {143}, signal.SIGHUP: {129}, signal.SIGINT: {130, -signal.SIGINT}}
SHIM = Path(__file__).with_name("clock_shim.c")


def signals(count: int = 4, seed: int = 0) -> Found:
    """SIGTERM, SIGHUP, Ctrl-C, and Ctrl-C twice: the search stops within 30 s, says how to go on, and goes on."""
    chosen, failures = random.Random(seed), []
    for number in [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, None][:count]:
        with Case(4, "--loop", "counted") as case, noting(failures, number.name if number else "Ctrl-C twice"):
            process = case.start()
            case.wait_for_epochs(chosen.randint(1, 4), process)
            time.sleep(chosen.uniform(0, 0.3))
            process.send_signal(number or signal.SIGINT)
            if number is None:
                time.sleep(chosen.uniform(0, 0.5))
                process.send_signal(signal.SIGINT)
            status = case.wait(process, 30)
            assert status in STATUS[number or signal.SIGINT], f"it ended with {status}:\n{case.printed()}"
            if number:
                assert "Run the same command again" in case.printed(), f"it did not say how to go on: {case.printed()}"
            case.num_kills = 1
            case.finish()
            case.check()
    return count, failures


def twice_at_once(count: int = 2) -> Found:
    """The same command while it runs already: the second is refused, and the first does not notice."""
    failures: list[str] = []
    for turn in range(count):
        options = ["--alone", "--epochs", "24"] if turn % 2 else ["--epochs", "12", "--scheduler", "none"]
        with Case(1 if turn % 2 else 8, *options) as case, noting(failures, f"twice at once, {options[0]}"):
            first = case.fork()
            case.wait_for_epochs(1, first)
            began = time.monotonic()
            status = case.wait(case.fork(), 60)
            printed, took_s = case.printed(), time.monotonic() - began
            assert first.poll() is None, "the first ended too early to tell"
            assert status == 1 and "in use by another run" in printed, f"the second ended with {status}: {printed}"
            assert str(first.pid) in printed, f"the second does not name the first: {printed}"
            assert took_s < 10, f"the second took {took_s:.0f} s to say so"
            case.finish(first)
            case.check()
    return count, failures


def moved() -> Found:
    """Kill it, give the folder another name elsewhere, go on there from the folder alone."""
    failures: list[str] = []
    with Case(4) as case, noting(failures, "folder moved"):
        process = case.start()
        case.wait_for_epochs(2, process)
        case.kill(process)
        new = case.root / "elsewhere" / "y"
        new.parent.mkdir()
        case.folder.rename(new)
        case.folder = new
        status = case.wait(case.start([sys.executable, "-m", "tunekit", "resume", str(new)]))
        assert status == 0, f"manual step: tunekit resume ended with {status}: {case.printed()}"
        case.finish()  # nothing is left to do
        case.check()
    return 1, failures


def wrong_clock() -> Found:
    """The clock on the wall is a day behind in the second run and a year ahead in the third; 0 cases without gcc."""
    failures: list[str] = []
    if shutil.which("gcc") is None:
        return 0, failures
    with Case(1, "--alone", "--epochs", "12", "--loop", "counted") as case, noting(failures, "wrong clock"):
        shim = case.root / "shim.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, SHIM, "-ldl"], check=True)
        for shift_s in (0, -86400):
            process = case.start(LD_PRELOAD=str(shim), FAULT_CLOCK_SHIFT_S=str(shift_s))
            case.wait_for_epochs(2, process)
            case.kill(process)
        case.finish(LD_PRELOAD=str(shim), FAULT_CLOCK_SHIFT_S=str(365 * 86400))
        case.check()
        ledger = Ledger(case.folder)
        opened = [event.time for event in ledger.events() if event.kind == "opened"]
        durations = [trial.duration_s for trial in ledger.trials().values()]
        ledger.close()
        assert opened[1] < opened[0] - 80000 < opened[2] - 3e7, f"the clock was not shifted: {opened}"
        assert all(0 < duration < 600 for duration in durations), f"durations {durations}"
    return 1, failures


def stale_lock() -> Found:
    """An owner that hangs holds its lock; killed, it leaves none, whatever the ledger says of who has it."""
    failures: list[str] = []
    with Case(1, "--alone", "--epochs", "12", "--loop", "counted") as case, noting(failures, "stale lock"):
        process = case.start()
        case.wait_for_epochs(2, process)
        process.send_signal(signal.SIGSTOP)
        status = case.wait(case.start(), 60)
        assert status == 1 and "in use by another run" in case.printed(), f"ended with {status}: {case.printed()}"
        case.kill(process)
        case.finish()
        case.check()
    return 1, failures


def read_only() -> Found:
    """The folder may not be written: it says so in one line and changes nothing; results can still be read."""
    failures: list[str] = []
    with Case(1, "--alone", "--epochs", "12", "--loop", "counted") as case, noting(failures, "read-only folder"):
        process = case.start()
        case.wait_for_epochs(2, process)
        case.kill(process)
        before = _contents(case.folder)
        mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
        locked = ("unshare", "-m", "sh", "-c", mount, str(case.folder))
        if os.geteuid():
            locked = ()
            case.folder.chmod(0o500)
        read = f"import tunekit; print(len(tunekit.load_results({str(case.folder)!r}).history))"
        status = case.wait(case.start([sys.executable, "-c", read], before=locked))
        assert status == 0, f"it cannot be read: {case.printed()}"
        status = case.wait(case.start(before=locked))
        last = case.printed().splitlines()[-1]
        assert status == 1 and re.match(r"tunekit\.errors\.\w+Error: ", last), f"ended with {status}: {case.printed()}"
        assert str(case.folder) in last, f"the error does not name the folder: {last}"
        case.folder.chmod(0o700)
        assert _contents(case.folder) == before, "the folder was changed"
        case.finish()
        case.check()
    return 1, failures


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".db-shm"}


def fails_alike() -> Found:
    """Every config fails in the same way: the search ends early, with the reason, once."""
    failures: list[str] = []
    with Case(50, "--loop", "failing") as case, noting(failures, "fails alike"):
        status = case.wait(case.start())
        assert status == 1 and "failed alike: ValueError: no such file" in case.printed(), case.printed()
        trials = tunekit.load_results(case.folder).trials
        assert len(trials) < 10, f"{len(trials)} trials were begun"
        case.check(num_trials=None)
    return 1, failures


def ways_to_die() -> Found:
    """Exits, a segmentation fault, an exception, NaN, no memory: each in one trial, and no other is touched by it."""
    failures: list[str] = []
    options = ("--loop", "dying", "--ways", ",".join(ALL_WAYS), "--scheduler", "none")
    with Case(len(ALL_WAYS), *options) as case, noting(failures, "ways to die"):
        case.finish()
        trials = {trial.config["way"]: trial for trial in tunekit.load_results(case.folder).trials.values()}
        ends = {"raise": "failed", "nan": "diverged", "memory": "failed", "no_memory": "failed"}
        ends["always_exit"] = "failed"
        case.check(states={trials[way].number: state for way, state in ends.items()})
        for way, retries in {"good": 0, "exit": 1, "sys_exit": 1, "segfault": 1, "abort": 1, "raise": 0}.items():
            assert trials[way].num_retries == retries, f"{way}: tried again {trials[way].num_retries} times"
        for way, trial in trials.items():
            epochs = 3 if way == "nan" else 2 if way in ends else 4
            assert len(trial.history) == epochs, f"{way}: {len(trial.history)} epochs, not {epochs}"
            said = paths.error_txt(paths.trial_folder(case.folder, trial.number))
            assert (way not in ends) or trial.reason in said.read_text(), f"{way}: the reason is not in error.txt"
        for way, reason in {"memory": "MemoryError", "no_memory": "memory", "raise": "this config cannot"}.items():
            assert reason in trials[way].reason, f"{way}: the reason is {trials[way].reason!r}"
    return len(ALL_WAYS), failures


def determinism(count: int = 2, seed: int = 0) -> Found:
    """One trial at a time: killed anywhere and gone on with, it gives the same trials and values to the last bit."""
    chosen, failures = random.Random(seed), []
    options = ("--one-at-a-time", "--epochs", "3", "--loop", "counted")
    with Case(5, *options, at_once=1) as whole:
        with noting(failures, "determinism, not killed"):
            whole.finish()
            whole.check()
        for _ in range(0 if failures else count):
            with Case(5, *options, at_once=1) as case, noting(failures, "determinism"):
                for _ in range(2):
                    process = case.start()
                    case.wait_for_epochs(chosen.randint(1, 4), process)
                    time.sleep(chosen.uniform(0, 0.5))
                    case.kill(process, group=chosen.random() < 0.5)
                case.finish()
                case.check(reference=whole.folder)
    return count, failures


def first_writes(count: int = 12, first: int = 0) -> Found:
    """Kill it at each of the first times that it waits for the disk, from its folder's making on; 0 without strace."""
    failures: list[str] = []
    if shutil.which("strace") is None:
        return 0, failures
    states: Counter[str] = Counter()
    for when in range(first + 1, first + count + 1):
        with Case(1, "--alone", "--epochs", "2") as case, noting(failures, f"killed at fsync {when}"):
            strace = ("strace", "-f", "-qq", "-o", str(case.root / "strace.txt"), "-e",
                      "trace=fsync,fdatasync", "-e", f"inject=fsync,fdatasync:signal=SIGKILL:when={when}")  # fmt: skip
            status = case.wait(case.start(before=strace))
            states["killed" if status in (-signal.SIGKILL, 128 + signal.SIGKILL) else "ended"] += 1
            case.acknowledged.read_copy(case.folder, case.root / "copy")
            case.finish(case.fork())
            case.check()
    if not states["killed"] and not first:
        failures.append("strace killed nothing")
    return count, failures
