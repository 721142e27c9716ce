"""Crashes and errors injected into every system call that writes, and what must hold after each of them.

A process that has imported all does the work of `storage_work.py` in forks; strace counts a fork's system calls, and
in later ones ends it with SIGKILL, or lets a call fail, at each of them in turn. Needs Linux, strace and its ptrace.
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from storage_worker import Ended, Worker, is_aside, outcome

from tunekit.errors import TunekitError
from tunekit.ledger import Ledger, in_use_by

CALLS = ("write", "writev", "pwrite64", "pwritev", "rename", "renameat", "renameat2", "link", "linkat", "unlink",
         "unlinkat", "rmdir", "fsync", "fdatasync", "ftruncate", "fallocate", "mkdir", "chmod", "fchmod",
         "openat")  # fmt: skip
TRACE = ["-e", "trace=" + ",".join(f"?{call}" for call in CALLS)]  # "?": not every machine has each of them
FAULTS = {"crash": "signal=SIGKILL", "EIO": "error=EIO", "ENOSPC": "error=ENOSPC"}
Point = tuple[str, int, str]  # a system call's name, the how manieth of that name it is, what strace says of it
Found = tuple[int, list[str]]  # how many cases, and what went wrong in them


def unclear(ended: Ended) -> list[str]:
    """Return what is wrong with how a run ended that a fault hit and did not kill."""
    one_line = re.fullmatch(r"tunekit: [^\n]+\n", ended.error)
    if (ended.status, ended.error) == (0, "") or (ended.status == 2 and one_line):
        return []
    return [f"it ended with status {ended.status} and said {ended.error.strip()[-600:] or 'nothing'}"]


def broken(worker: Worker, folder: Path, runs: list[Ended], alike: bool = True) -> list[str]:
    """Return which invariants do not hold of a search's folder, after these runs, the last of them undisturbed.

    Args:
        worker: did the work.
        folder: the search's.
        runs: how each ended.
        alike: whether all must be as after a search that nothing disturbed.
    """
    found = []
    if runs[-1].status != 0 or runs[-1].error:
        return [f"the next run ended with status {runs[-1].status}: {runs[-1].error.strip()[-600:]}"]
    try:
        ledger = Ledger(folder, write=True)  # which checks all of it
        events = [list(event) for event in ledger.events()]
        ledger.close()
        got = outcome(folder)
    except TunekitError as error:
        return [f"it cannot be read back: {error}"]
    kept = {json.dumps(event) for event in events}
    proposals = {event[4]: (event[6]["seed"], event[6]["params"]["lr"]) for event in events if event[3] == "proposed"}
    known: set[tuple[int, float, int]] = set()
    for at, run in enumerate(runs):
        found += [f"acknowledged, and lost: {event}" for event in run.acknowledged if json.dumps(event) not in kept]
        found += [f"trained again in run {at}, though acknowledged: {again}" for again in sorted(run.trained & known)]
        known |= {(*proposals[event[4]], event[5]) for event in run.acknowledged if event[3] == "epoch"}
    if [event[0] for event in events] != list(range(1, len(events) + 1)):
        found.append("the events are not numbered without gaps")
    for trial in proposals:
        kinds = Counter(event[3] for event in events if event[4] == trial)
        epochs = [event[5] for event in events if event[4] == trial and event[3] == "epoch"]
        if (kinds["proposed"], kinds["ended"]) != (1, 1) or epochs != list(range(1, len(epochs) + 1)):
            found.append(f"trial {trial} has {dict(kinds)}, epochs {epochs}")
    if alike and got != worker.wanted:
        wanted = worker.wanted
        differing = [key for key in sorted({*wanted, *got}) if wanted.get(key) != got.get(key)]
        found += [f"{key} differs: {got.get(key)}, but undisturbed {wanted.get(key)}" for key in differing]
    found += [f"{path.name} was left behind" for path in folder.rglob("*") if is_aside(path)]
    if in_use_by(folder):
        found.append("the lock was not given back")
    return found


def points(worker: Worker, begin: Path | None = None) -> list[Point]:
    """Return every system call with which the work writes to the experiment's folder, in order.

    Args:
        worker: does the work.
        begin: what the work goes on with; None begins a new search.
    """
    folder = worker.new_folder(begin)
    ended = worker.work(folder, TRACE)
    assert ended.status == 0, ended.error
    counts: Counter[str] = Counter()
    calls = []
    lines = ended.log.splitlines()
    for line in lines:
        if match := re.match(rf"{lines[0].split()[0]} +(\w+)\(", line):  # of the work itself: strace counts for each
            counts[match[1]] += 1
            shown = line.replace(str(folder), "").split(" ", 1)[1]
            calls.append((match[1], counts[match[1]], shown, str(folder) in line))
    shutil.rmtree(folder.parent)
    flushed = {at for at, call in enumerate(calls[:-1]) if call[0] == "openat" and calls[at + 1][0] == "fsync"}
    reads = re.compile(r"O_RDONLY(?!.*O_CREAT)")
    return [
        (name, count, line)
        for at, (name, count, line, ours) in enumerate(calls)
        if ours and (name != "openat" or at in flushed or not reads.search(line))
    ]


def sweep(worker: Worker, fault: str, chosen: Iterable[Point], begin: Path | None = None) -> Found:
    """Let a fault hit each of these system calls, each in a search of its own; return (cases, what was wrong).

    Args:
        worker: does the work.
        fault: crash, EIO or ENOSPC.
        chosen: system calls, from `points`.
        begin: what the work goes on with; None begins a new search.
    """
    cases, found = 0, []
    for name, count, line in chosen:
        cases += 1
        folder = worker.new_folder(begin)
        hit = worker.work(folder, [*TRACE, "-e", f"inject={name}:{FAULTS[fault]}:when={count}"])
        wrong = []
        if hit.status != -9 if fault == "crash" else "(INJECTED)" not in hit.log:
            wrong.append(f"it was not hit (status {hit.status})")
        if fault != "crash":
            wrong += unclear(hit)
        wrong += broken(worker, folder, [hit, worker.work(folder)])
        found += [f"{fault} at {name} {count}, {line[:150]}: {text}" for text in wrong]
        shutil.rmtree(folder.parent)
    return cases, found


def half_done(worker: Worker) -> Path:
    """Return the folder of a search that was killed in its middle."""
    middle = [point for point in points(worker) if point[0] in ("rename", "renameat", "renameat2")]
    folder = worker.new_folder()
    name, count, _ = middle[len(middle) // 2]
    worker.work(folder, [*TRACE, "-e", f"inject={name}:signal=SIGKILL:when={count}"])
    return folder


def spread(items: list[Any], most: int) -> list[Any]:
    """Return at most so many of the items, spread evenly, with the first and the last."""
    if len(items) <= most:
        return items
    return [items[round(at * (len(items) - 1) / max(1, most - 1))] for at in range(most)]


def every(worker: Worker, half: Path, step: int = 1) -> dict[str, Found]:
    """Return what every sweep found, by its name: each fault, in a new search and in one that goes on.

    Args:
        worker: does the work.
        half: the folder of a search that was killed in its middle.
        step: 1 hits every call, n every nth.
    """
    found = {}
    for what, begin in (("a new search", None), ("a search that goes on", half)):
        chosen = points(worker, begin)[::step]
        for fault in FAULTS:
            found[f"{fault} at each call that writes, {what}"] = sweep(worker, fault, chosen, begin)
    return found
