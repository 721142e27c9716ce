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
    """Run the same search on MNIST with safe writes on and off in turn; return how much longer it takes with."""
    failures: list[str] = []
    took: dict[str, list[float]] = {"on": [], "off": []}
    for turn in range(2 * pairs):
        sync = ("on", "off")[(turn + turn // 2) % 2]  # on off off on on off ...: neither has the warmer machine
        options = (
            "--data",
            "mnist-large",
            "--loop",
            "safe_writes:train",
            "--scheduler",
            "none",
            "--searcher",
            "random",
        )
        with Case(num_trials, "--epochs", str(epochs), *options) as case, noting(failures, f"safe writes {sync}"):
            case.finish(TUNEKIT_FAULT_SYNC=sync)
            case.check()
            ledger = Ledger(case.folder)
            events = [event for event in ledger.events() if event.kind in ("started", "epoch")]
            ledger.close()
            took[sync].append(events[-1].at_s - events[0].at_s)
            epoch_s = statistics.median(event.data["epoch_s"] for event in events if event.kind == "epoch")
            print(f"  safe writes {sync}: {took[sync][-1]:.1f} s, an epoch {epoch_s:.1f} s", flush=True)
    if failures:
        return 2 * pairs, failures, {}
    ratios = [on / off for on, off in zip(took["on"], took["off"], strict=True)]
    measured = {
        "overhead of safe writes": f"{statistics.median(ratios) - 1:+.1%} (median of {pairs} pairs; "
        f"{', '.join(f'{ratio - 1:+.1%}' for ratio in ratios)})",
        "seconds with": [round(value, 1) for value in took["on"]],
        "seconds without": [round(value, 1) for value in took["off"]],
        "seconds an epoch": round(epoch_s, 1),
    }
    return 2 * pairs, failures, measured


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
