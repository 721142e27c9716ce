"""The long harness: every family of faults, with many cases each; prints a table and writes it down.

    python tests/faults/harness.py [--quick] [--only NAME ...] [--state FOLDER] [--out docs/faults.md]

What each family found is kept in the state folder as it goes: the same command goes on where it was cut off.
"""

import argparse
import datetime
import json
import os
import platform
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import damage
import disks
import kills
import load
import mishaps
import storage
import storage_worker

from tunekit.versions import versions

KINDS = {"lost": r"\blost\b|acknowledged", "duplicates": r"duplicate|twice", "manual steps": r"manual step|hangs"}


@dataclass
class Family:
    """One kind of fault.

    Args:
        about: what is done, in a few words.
        run: takes how many cases and a seed, and returns (cases, failures), or (cases, failures, what was measured).
        count: how many cases in all; in parts of `part`, each of which is kept.
        quick: how many with --quick.
    """

    about: str
    run: Callable[[int, int], Any]
    count: int = 1
    part: int = 1
    quick: int = 1


@dataclass
class Outcome:
    """What a family found so far."""

    asked: int = 0
    cases: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)

    def add(self, asked: int, found: Any, seconds: float) -> None:
        """Take in one part."""
        cases, failures, *measured = found
        self.asked += asked
        self.cases += cases
        self.seconds += seconds
        self.failures += failures
        self.measured |= measured[0] if measured else {}

    def count(self, kind: str) -> int:
        """Return how many of the failures are of a kind."""
        return sum(bool(re.search(KINDS[kind], failure.splitlines()[0])) for failure in self.failures)


def families(quick: bool) -> dict[str, Family]:
    """Return all families by name; `quick` is of those whose cases are not counted one by one."""
    load_trials, pairs, step = (200, 1, 20) if quick else (2000, 3, 1)
    return {
        "driver": Family("the driver of a search killed at random", kills.driver_kills, 78, 6, 6),
        "group": Family("driver, workers and Ray killed at once", kills.group_kills, 30, 6, 3),
        "train": Family("tunekit.train killed at random", kills.train_kills, 100, 20, 6),
        "worker": Family("one worker killed", kills.worker_kills, 100, 20, 5),
        "hung": Family("one worker stopped (SIGSTOP)", kills.hung_workers, 4, 2),
        "hung-between": Family("workers that hang as they start, or change trials", one(kills.hung_between_trials)),
        "ways": Family("exits, segmentation fault, exception, NaN, no memory", one(mishaps.ways_to_die)),
        "signals": Family("SIGTERM, SIGHUP, Ctrl-C once and twice", mishaps.signals, 4, 4, 4),
        "twice": Family("the same command twice at once", lambda count, seed: mishaps.twice_at_once(count), 2, 2, 2),
        "moved": Family("the folder moved, and gone on with", one(mishaps.moved)),
        "clock": Family("the clock a day back, then a year ahead", one(mishaps.wrong_clock)),
        "lock": Family("an owner that hangs, then dies", one(mishaps.stale_lock)),
        "read-only": Family("a folder that may not be written", one(mishaps.read_only)),
        "alike": Family("every trial fails alike", one(mishaps.fails_alike)),
        "determinism": Family("killed, gone on with: the same bits", mishaps.determinism, 6, 3),
        "first-writes": Family("killed at each fsync of a run", mishaps.first_writes, 24, 6, 4),
        "storage": Family("a crash or error at every write", one(lambda: swept(storage.every, step=step))),
        "damage": Family("files cut, flipped, with sectors lost", one(lambda: swept(damage.every, step=step))),
        "disks": Family("disks full, read-only, out of inodes", one(lambda: swept(disks.every, step_kib=4 * step))),
        "attacks": Family("attacks of every kind", one(load.attacks)),
        "load": Family("trials without work: results a second", one(lambda: load.many_results(load_trials))),
        "ledger": Family("a ledger of 10,000 trials opened", one(load.large_ledger)),
        "overhead": Family("the same search with and without safe writes", one(lambda: load.overhead(pairs))),
    }


def one(run: Callable[[], Any]) -> Callable[[int, int], Any]:
    """Return a family's function of one that takes no count."""
    return lambda count, seed: run()


def swept(every: Callable[..., dict[str, Any]], **options: int) -> tuple[int, list[str], dict[str, Any]]:
    """Run the sweeps of a module of storage faults, and return them as one family's outcome."""
    if not storage_worker.can_trace() or (every is disks.every and not storage_worker.can_mount()):
        return 0, [], {"left out": "this process may not trace others, or not mount"}
    with storage_worker.Worker() as worker:
        found = every(worker, storage.half_done(worker), **options)
    failures = [f"{name}: {failure}" for name, (_, failed) in found.items() for failure in failed]
    return sum(cases for cases, _ in found.values()), failures, {name: cases for name, (cases, _) in found.items()}


def main() -> int:
    """Run the families that are asked for and not done yet; return 1 if anything failed in any."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few cases of each family")
    parser.add_argument("--only", nargs="+", default=[], choices=list(families(True)), help="these families alone")
    parser.add_argument("--state", type=Path, default=None, help="where outcomes are kept; a new one begins anew")
    parser.add_argument("--out", type=Path, default=None, help="the file that gets the table")
    asked = parser.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup ignores, as then would all that is started here
    signal.signal(signal.SIGINT, signal.default_int_handler)
    outcomes: dict[str, Outcome] = {}
    chosen = {name: family for name, family in families(asked.quick).items() if name in (asked.only or [name])}
    for name, family in chosen.items():
        path = asked.state / f"{name}.json" if asked.state else None
        outcome = Outcome(**json.loads(path.read_text())) if path and path.exists() else Outcome()
        outcomes[name] = outcome
        count = family.quick if asked.quick else family.count
        while outcome.asked < count:
            part = min(family.part, count - outcome.asked)
            began = time.monotonic()
            try:
                found = family.run(part, outcome.asked)
            except Exception as error:
                found = (0, [f"the harness itself failed: {type(error).__name__}: {error}"])
            outcome.add(part, found, time.monotonic() - began)
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(asdict(outcome), indent=1))
            now = datetime.datetime.now().strftime("%H:%M:%S")
            print(f"{now} {name}: {outcome.cases} cases, {len(outcome.failures)} failures", flush=True)
            for failure in found[1]:
                print(f"    {failure}", flush=True)
    report = table(chosen, outcomes)
    print(report)
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(document(report, outcomes))
    return int(any(outcome.failures for outcome in outcomes.values()))


def table(chosen: dict[str, Family], outcomes: dict[str, Outcome]) -> str:
    """Return the table, in Markdown."""
    lines = [f"| family | what is done | cases | {' | '.join(KINDS)} | failures | seconds |", "|---|---|" + "--:|" * 6]
    for name, outcome in outcomes.items():
        numbers = [
            outcome.cases,
            *(outcome.count(kind) for kind in KINDS),
            len(outcome.failures),
            round(outcome.seconds),
        ]
        lines.append(f"| {name} | {chosen[name].about} | {' | '.join(f'{number:,}' for number in numbers)} |")
    totals = [sum(outcome.count(kind) for outcome in outcomes.values()) for kind in KINDS]
    totals = [sum(o.cases for o in outcomes.values()), *totals, sum(len(o.failures) for o in outcomes.values())]
    seconds = round(sum(outcome.seconds for outcome in outcomes.values()))
    return "\n".join([*lines, f"| **all** | | {' | '.join(f'**{number:,}**' for number in [*totals, seconds])} |"])


def document(report: str, outcomes: dict[str, Outcome]) -> str:
    """Return what docs/faults.md says."""
    command = shlex.join(["python", "tests/faults/harness.py", *sys.argv[1:]])
    command = re.sub(r" --state \S+", "", command)
    cpus = (
        re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if os.path.exists("/proc/cpuinfo") else []
    )
    known = ", ".join(f"{name} {version}" for name, version in versions().items() if isinstance(version, str))
    measured = [
        f"- **{name}**: " + "; ".join(f"{what}: {value}" for what, value in outcome.measured.items())
        for name, outcome in outcomes.items() if outcome.measured
    ]  # fmt: skip
    failures = [f"- **{name}**: {text.splitlines()[0]}" for name, o in outcomes.items() for text in o.failures]
    minutes = sum(outcome.seconds for outcome in outcomes.values()) / 60
    system = f"{cpus[0] if cpus else platform.machine()}), {platform.system()} {platform.release()}"
    return f"""# Faults: what was done to tunekit, and what came out

Made by `{command}` on {datetime.date.today():%d %B %Y}, in {minutes:.0f} minutes,
on {os.cpu_count()} cores ({system}; {known}.

After every case the same is checked (`tests/faults/invariants.py`): as many trials ended as were asked for; everything
that was acknowledged is there, once; the winner is the ledger's best, and its checkpoint holds that value; every file
opens; no process, port or temporary folder is left. A manual step is anything but running the same command again.

{report}

## What was measured

{chr(10).join(measured) or "Nothing."}

## Failures

{chr(10).join(failures) or "None."}
"""


if __name__ == "__main__":
    sys.exit(main())
