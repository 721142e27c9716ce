"""Load: how many results a second a search takes, how fast a large ledger opens, what safe writes cost."""

import os
import statistics
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as tree
from pathlib import Path
from typing import Any

import repairs
from cases import HERE, ROOT, Case, noting

from tunekit.ledger import Ledger

Found = tuple[int, list[str], dict[str, Any]]  # how many cases, what went wrong in them, what was measured
EPOCHS = 10


def many_results(num_trials: int = 2000) -> Found:
    """Search with trials that do no work, two at once: every result is in the ledger; return how many came a second."""
    failures: list[str] = []
    measured: dict[str, Any] = {}
    options = ("--loop", "instant", "--epochs", str(EPOCHS), "--scheduler", "none", "--searcher", "random")
    with Case(num_trials, *options) as case, noting(failures, "load"):
        case.finish(case.fork())
        ledger = Ledger(case.folder)
        times = [event.at_s for event in ledger.events() if event.kind == "epoch"]
        ledger.close()
        assert len(times) == num_trials * EPOCHS, f"lost: {num_trials * EPOCHS - len(times)} results"
        case.check()
        windows = [1000 / (last - first) for first, last in zip(times, times[1000:], strict=False)]
        measured = {
            "trials": num_trials,
            "results": len(times),
            "results a second, all along": round(len(times) / (times[-1] - times[0]), 1),
            "results a second, best 1,000": round(max(windows), 1) if windows else None,
            "results a second, worst 1,000": round(min(windows), 1) if windows else None,
        }
    return 1, failures, measured


def large_ledger(num_trials: int = 10_000, most_s: float = 5.0) -> Found:
    """Open a ledger of 10,000 trials of 10 epochs, to read it, and to go on writing: less than 5 s each."""
    failures: list[str] = []
    measured: dict[str, Any] = {"trials": num_trials}
    with tempfile.TemporaryDirectory(prefix="tf-") as place, noting(failures, "large ledger"):
        read_s, write_s = repairs.opened_s(Path(place) / "x", num_trials)
        measured |= {"seconds to read": round(read_s, 2), "seconds to open for writing": round(write_s, 2)}
        assert max(read_s, write_s) < most_s, f"it took {read_s:.1f} and {write_s:.1f} s"
    return 2, failures, measured


def overhead(pairs: int = 3, num_trials: int = 4, epochs: int = 3) -> Found:
    """Run the same search on MNIST with safe writes on and off in turn; return which share of its time they take.

    What is compared is the time between two epochs of a trial, in which checkpoint and ledger are written: the epochs
    themselves take a fifth more or less from one run to the next on machines that are shared, and would hide it.
    """
    failures: list[str] = []
    found: dict[str, list[tuple[float, float]]] = {"on": [], "off": []}
    loop = ("--loop", "safe_writes:train", "--scheduler", "none", "--searcher", "random")
    for turn in range(2 * pairs):
        sync = ("on", "off")[(turn + turn // 2) % 2]  # on off off on on off ...: neither has the warmer machine
        options = ("--data", "mnist-large", "--epochs", str(epochs), *loop)
        with Case(num_trials, *options) as case, noting(failures, f"safe writes {sync}"):
            case.finish(TUNEKIT_FAULT_SYNC=sync)
            case.check()
            found[sync].append(between_epochs(case.folder))
            gap_s, epoch_s = found[sync][-1]
            print(f"  safe writes {sync}: {1000 * gap_s:.0f} ms between epochs of {epoch_s:.1f} s", flush=True)
    if failures:
        return 2 * pairs, failures, {}
    shares = {sync: [gap_s / (gap_s + epoch_s) for gap_s, epoch_s in runs] for sync, runs in found.items()}
    extra = [on - off for on, off in zip(shares["on"], shares["off"], strict=True)]
    measured = {
        "overhead of safe writes": f"{statistics.median(extra):.2%} of the time (median of {pairs} pairs; "
        f"{', '.join(f'{share:.2%}' for share in extra)})",
        "between two epochs, all that is done there": f"{statistics.median(shares['on']):.2%} of the time",
        "milliseconds between epochs, with": [round(1000 * gap_s) for gap_s, _ in found["on"]],
        "without": [round(1000 * gap_s) for gap_s, _ in found["off"]],
        "seconds an epoch": [round(epoch_s, 1) for runs in found.values() for _, epoch_s in runs],
    }
    return 2 * pairs, failures, measured


def between_epochs(folder: Path) -> tuple[float, float]:
    """Return the means, over all epochs but each trial's first, of the seconds before an epoch and of its own."""
    ledger = Ledger(folder)
    ends: dict[int, float] = {}
    gaps, took = [], []
    for event in ledger.events():
        if event.kind == "epoch" and event.trial is not None:
            if event.trial in ends:
                took.append(event.data["epoch_s"])
                gaps.append(event.at_s - ends[event.trial] - took[-1])
            ends[event.trial] = event.at_s
    ledger.close()
    return statistics.mean(gaps), statistics.mean(took)


def attacks() -> Found:
    """Run the tests of attacks; return how many families and probes there were."""
    failures: list[str] = []
    files = sorted(str(path.relative_to(ROOT)) for path in HERE.glob("test_attacks*.py"))
    report = Path(tempfile.gettempdir()) / f"tf-attacks-{os.getpid()}.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "long or not long", f"--junitxml={report}", *files]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    measured = read_junit(report)
    report.unlink(missing_ok=True)
    if run.returncode:
        failures.append(f"pytest ended with {run.returncode}: {run.stdout[-2000:]}")
    return measured["probes"], failures, measured


def read_junit(report: Path) -> dict[str, int]:
    """Return how many families (test functions) and probes (what they record as `probes`, else each test) there are."""
    families, probes, skipped = set(), 0, 0
    for case in tree.parse(report).iter("testcase") if report.exists() else ():
        if case.find("skipped") is not None:
            skipped += 1
            continue
        families.add((case.get("classname"), (case.get("name") or "").partition("[")[0]))
        told = [int(p.get("value", 1)) for p in case.iter("property") if p.get("name") == "probes"]
        probes += sum(told) if told else 1
    return {"families": len(families), "probes": probes, "skipped": skipped}
