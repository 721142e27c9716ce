"""Kills: the driver, all of its processes, single workers, at random instants. Each returns (cases, failures)."""

import os
import random
import signal
import subprocess
import time
from contextlib import suppress

import leftovers
from cases import Case, noting

from tunekit.events import ENDED
from tunekit.ledger import Ledger

Found = tuple[int, list[str]]  # how many cases, and what went wrong in them
WORKER = ("ray::RayTrial", "ray::ResourceTrainable")  # what a worker with a trial calls itself, idle and in a step
TURNS = ["--searcher", "forecast", "--scheduler", "auto"]  # trials pause, and go on
SEARCHES = (["--data", "digits"], ["--loop", "counted", *TURNS], ["--data", "mnist", *TURNS])  # taken in turn
MOST_RETRIES = 3  # of one trial: a fourth death ends it
FIRST_GUESS_S = 5.0


def driver_kills(count: int, seed: int = 0, group: bool = False, most_each: int = 6) -> Found:
    """Kill the driver of real searches at random instants; run the same command again until it ends by itself.

    Args:
        count: of kills, over as many searches as that takes.
        seed: of the instants.
        group: kill all workers, and Ray, in the same moment.
        most_each: kills of one search.
    """
    chosen, failures, done, turn = random.Random(seed), [], 0, seed
    starts = [FIRST_GUESS_S]
    while done < count:
        options = SEARCHES[turn % len(SEARCHES)]
        turn += 1
        with Case(6, "--epochs", "5", *options) as case:
            with noting(failures, f"{' '.join(options)} killed at random"):
                _strike(case, chosen, min(chosen.randint(2, most_each), count - done), starts, group)
                case.finish()
                case.check(reproduce=options == ["--data", "digits"])
            done += max(1, case.num_kills)
    return done, failures


def group_kills(count: int, seed: int = 0) -> Found:
    """Kill the driver, its workers and Ray in one moment."""
    return driver_kills(count, seed, group=True)


def train_kills(count: int, seed: int = 0, most_each: int = 6) -> Found:
    """Kill tunekit.train, which needs no Ray, at random instants: it ends with the very values of an unkilled one."""
    chosen, failures, done = random.Random(seed), [], 0
    starts = [FIRST_GUESS_S]
    options = ("--alone", "--epochs", "12", "--loop", "counted")
    with Case(1, *options) as whole:
        with noting(failures, "tunekit.train, not killed"):
            whole.finish(whole.fork())
            whole.check()
        while done < count and not failures:
            with Case(1, *options) as case:
                with noting(failures, "tunekit.train killed at random"):
                    _strike(case, chosen, min(chosen.randint(2, most_each), count - done), starts, False)
                    case.finish(case.fork())
                    case.check(reference=whole.folder)
                done += max(1, case.num_kills)
    return done, failures


def _strike(case: Case, chosen: random.Random, kills: int, starts: list[float], group: bool) -> None:
    """Kill a command again and again; `starts` holds how long it took to its first epoch, as far as is known."""
    for _ in range(kills):
        early = chosen.random() < 0.4
        process = case.start() if early and case.num_trials > 1 else case.fork()
        if early:  # while it imports, reads the data, starts Ray
            with suppress(subprocess.TimeoutExpired):
                process.wait(chosen.uniform(0, 1.2 * starts[-1]))
        else:
            began = time.monotonic()
            case.wait_for_epochs(1, process)
            starts.append(time.monotonic() - began)
            case.wait_for_epochs(chosen.randint(0, 2), process)
            time.sleep(chosen.uniform(0, 0.5))
        if not case.kill(process, group):
            case.finish(process)
            return
        if chosen.random() < 0.5:  # else at once, while the dead driver's workers still live
            time.sleep(chosen.uniform(0, 3))


def worker_kills(count: int, seed: int = 0, num_trials: int = 24) -> Found:
    """Kill single workers of a running search, one every few seconds: each trial goes on from its checkpoint."""
    chosen, failures, done = random.Random(seed), [], 0
    while done < count:
        with Case(num_trials, "--epochs", "6", "--scheduler", "none", "--loop", "counted") as case:
            with noting(failures, "workers killed"):
                process = case.start()
                case.wait_for_epochs(1, process)
                while done + case.num_kills < count and process.poll() is None:
                    time.sleep(chosen.uniform(0, 1.5))
                    kill_worker(case, chosen, signal.SIGKILL)
                case.finish(process)
                case.check()
                _check_retries(case)
            done += max(1, case.num_kills)
    return done, failures


def hung_workers(count: int, seed: int = 0) -> Found:
    """Stop single workers (SIGSTOP): a trial without an epoch for its timeout is killed and tried again."""
    chosen, failures = random.Random(seed), []
    for _ in range(count):
        with (
            Case(3, "--epochs", "20", "--scheduler", "none", "--timeout", "12", "--loop", "counted") as case,
            noting(failures, "hung worker"),
        ):
            process = case.start()
            while process.poll() is None and len(_begun(case)) < case.at_once:  # who starts has two minutes, not 12 s
                time.sleep(0.1)
            while process.poll() is None and not kill_worker(case, chosen, signal.SIGSTOP):
                time.sleep(0.2)
            case.num_kills = 1
            case.finish(process)
            case.check()
            assert _check_retries(case), "nobody was killed"
    return count, failures


def hung_between_trials() -> Found:
    """Have a worker hang as it imports the training loop, and as it leaves a trial for the next one."""
    failures: list[str] = []
    options = ("--epochs", "2", "--scheduler", "none", "--timeout", "6", "--loop", "hanging_loop:hanging")
    with Case(6, *options) as case, noting(failures, "hangs between trials"):
        case.finish()
        case.num_kills = 2
        case.check()
        silent = sorted(reason for reason in _check_retries(case) if "no sign of life" in reason)
        assert [reason.split(" for ")[1] for reason in silent] == ["120 s and was killed", "6 s and was killed"], silent
    return 2, failures


def kill_worker(case: Case, chosen: random.Random, number: signal.Signals) -> bool:
    """Send a signal to one worker, unless a trial might have died too often; wait until the ledger has a retry."""
    before = _retries(case)
    if any(times >= MOST_RETRIES for times in before.values()):
        return False
    workers = [pid for pid, name in leftovers.processes(case.marker).items() if name.startswith(WORKER)]
    case.acknowledged.read(case.folder)
    if not workers:
        return False
    with suppress(ProcessLookupError):
        os.kill(chosen.choice(workers), number)
        case.num_kills += number == signal.SIGKILL
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        now = _retries(case)
        if sum(now.values()) > sum(before.values()) or now.keys() != before.keys():
            break  # a trial was lost, or has ended in the very moment
        time.sleep(0.1)
    return True


def _retries(case: Case) -> dict[int, int]:
    """Return how often each trial that has not ended was tried again."""
    ledger = Ledger(case.folder)
    trials = ledger.trials()
    ledger.close()
    return {number: trial.num_retries for number, trial in trials.items() if trial.state not in ENDED}


def _begun(case: Case) -> set[str]:
    """Return the pids of the workers that have begun to train."""
    lines = case.log.read_text().splitlines() if case.log.exists() else []
    return {line.split()[1] for line in lines if line.startswith("begin ")}


def _check_retries(case: Case) -> list[str]:
    ledger = Ledger(case.folder)
    retries = [event.data["reason"] for event in ledger.events() if event.kind == "retry"]
    ledger.close()
    few = case.num_kills // 2  # a worker may have died between two trials
    assert few <= len(retries) <= case.num_kills, f"{case.num_kills} workers killed, {len(retries)} retries: {retries}"
    assert all(retries), "a retry without a reason"
    return retries
