"""What all comparisons share: each peer in a process of its own, pairs that alternate, ratios, and what is written.

A ratio is taken within a pair, of two runs that came one after the other: these machines are shared, and an absolute
time means nothing on them. Before each run the machine is looked at for a second; how idle it was is written down, and
how much of the cores' time other virtual machines took during it.
"""

import argparse
import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cores_time
from work import Work, cores

RESULTS = Path(__file__).parent / "results"
LEAST_IDLE = 0.9  # of the machine before a run; below it a warning is printed
MOST_STOLEN = 0.03  # of the cores' time in a run, by other virtual machines; usual here are 0.001 to 0.01
ATTEMPTS = 3  # at a pair that is disturbed, where hours are spent; the least disturbed counts
PACKAGES = ("tunekit", "torch", "torchvision", "ray", "optuna", "syne-tune", "numpy", "scipy", "pillow")
PRIVATE = ("--data", "--photos", "--state")  # arguments that name folders of this machine


def inside(peers: Iterable[Callable[[Work], dict[str, Any]]]) -> bool:
    """Where this process was started by `run_peer`, do the peer's work, write what it returns, and return True."""
    if sys.argv[1:2] != ["--inside"]:
        return False
    name, given, out = sys.argv[2:]
    peer = {peer.__name__: peer for peer in peers}[name]
    found = peer(Work(**json.loads(given)))
    Path(out).write_text(json.dumps(found))
    return True


def run_pair(number: int, parts: dict[str, tuple[str, str, Work]], keep: Path | None = None) -> dict[str, Any]:
    """Run some peers right after one another, as `run_peer` does; a pair or three that are compared.

    Where BENCH_STATE names a folder, what came of them lies there, and is taken from there by whoever runs the same at
    the same code: that is how a command of many hours goes on where it was cut off. A pair is whole, or run again; so
    is one there during which other virtual machines took more than MOST_STOLEN of the cores' time.

    Args:
        number: of the pair, from 0.
        parts: by name, the arguments of `run_peer`.
        keep: as there.

    Returns:
        By name, what each returned.
    """
    said = [[name, *peer, {**work.as_dict(), "data": "", "scratch": ""}] for name, (*peer, work) in parts.items()]
    digest = hashlib.sha256(json.dumps([code(), number, said]).encode()).hexdigest()[:16]
    folder = os.environ.get("BENCH_STATE")
    path = Path(folder, f"{digest}.json") if folder else None
    if path is not None and path.exists():
        return dict(json.loads(path.read_text()))
    attempts: list[dict[str, Any]] = []
    while not attempts or (path is not None and len(attempts) < ATTEMPTS and _stolen(attempts[-1]) > MOST_STOLEN):
        if attempts and keep is not None:
            shutil.rmtree(keep)  # a plan, say, is of work that is not done yet
        done = {name: run_peer(script, function, work, keep) for name, (script, function, work) in parts.items()}
        attempts.append(done)
        if _stolen(done) > MOST_STOLEN:
            print(f"other machines took up to {_stolen(done):.0%} of the cores' time", file=sys.stderr)
    done = min(attempts, key=_stolen)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(done))
    return done


def _stolen(pair: dict[str, Any]) -> float:
    return max(run["stolen"] for run in pair.values())


def with_arithmetic(work: Work) -> Work:
    """Return the work with the precision and memory_format that tunekit finds to be the fastest here."""
    found = run_pair(0, {"arithmetic": ("peers.py", "arithmetic", work)})["arithmetic"]
    return work.with_(precision=found["precision"], memory_format=found["memory_format"])


def code() -> str:
    """Return a digest of what is measured, and of what measures it."""
    digest = hashlib.sha256()
    for path in sorted([*RESULTS.parent.glob("*.py"), *RESULTS.parent.parent.glob("tunekit/**/*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def run_peer(script: str, name: str, work: Work, keep: Path | None = None) -> dict[str, Any]:
    """Run a peer in a process of its own.

    Args:
        script: the file that has it, and ends in `inside`.
        name: the function's.
        work: what it is to do; scratch is filled in here.
        keep: a cache folder that lasts; without one each run begins with an empty one.

    Returns:
        What it returned, with wall_s, of the whole process from start to exit, and of the cores' time, 0..1: idle,
        before it began, and stolen, by other virtual machines while it ran.
    """
    os.sync()  # what the last run wrote is not to be paid for by this one
    idle = cores_time.idle_share()
    if idle < LEAST_IDLE:
        print(f"the machine was only {idle:.0%} idle before {name}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="b-", ignore_cleanup_errors=True) as scratch:  # short: Ray's sockets
        cache = keep or Path(scratch, "cache")
        cache.mkdir(exist_ok=True, mode=0o700)
        out, log = Path(scratch, "out.json"), Path(scratch, "log.txt")
        given = json.dumps(work.with_(scratch=scratch).as_dict())
        command = [sys.executable, str(Path(__file__).with_name(script)), "--inside", name, given, str(out)]
        began, before = time.time(), cores_time.ticks()
        with log.open("w") as file:
            environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "RAY_USAGE_STATS_ENABLED": "0"}
            code = subprocess.run(command, stdout=file, stderr=file, env=environment, check=False).returncode
        ended, stolen = time.time(), cores_time.share(before, cores_time.STEAL)
        if code:
            raise SystemExit(f"{name} failed:\n{log.read_text()[-4000:]}")
        found = json.loads(out.read_text())
    return {
        "peer": name,
        "wall_s": ended - began,
        "idle": idle,
        "stolen": stolen,
        "began": began,
        "ended": ended,
        **found,
    }


def triplets(peers: Sequence[str], ours: str, num_pairs: int) -> Iterable[tuple[int, list[str]]]:
    """Yield (round, names): two peers with us between them, so that each is next to us; turned about every round.

    Example:
        >>> list(triplets(["a", "b", "c"], "us", 2))
        [(0, ['a', 'us', 'b']), (0, ['c', 'us']), (1, ['b', 'us', 'a']), (1, ['us', 'c'])]
    """
    for number in range(num_pairs):
        for at in range(0, len(peers), 2):
            first, *second = peers[at : at + 2]
            names = [first, ours, *second]
            yield number, names[::-1] if number % 2 else names


def row(comparison: str, values: Sequence[float], target: str = "", met: Callable[[float], bool] | None = None,
        unit: str = "x", note: str = "") -> dict[str, Any]:  # fmt: skip
    """Return one comparison: the values' median and spread, and whether the median meets the target.

    Args:
        comparison: what is compared with what.
        values: one a pair.
        target: in words; empty where nothing was promised.
        met: says whether a median meets it.
        unit: of the values.
        note: anything else that one should know.
    """
    median = statistics.median(values)
    described = {"comparison": comparison, "target": target, "unit": unit, "values": list(values), "note": note}
    spread = {"median": median, "min": min(values), "max": max(values)}
    return {**described, **spread, "met": bool(met(median)) if met else None}


def shown(found: dict[str, Any]) -> str:
    """Return a row's median and spread as text."""
    digits = 0 if found["median"] >= 1000 else 1 if found["median"] >= 100 else 2 if found["median"] >= 1 else 3
    text = f"{found['median']:,.{digits}f} {found['unit']}"
    return f"{text} ({found['min']:,.{digits}f} to {found['max']:,.{digits}f})" if len(found["values"]) > 1 else text


def write(name: str, title: str, rows: list[dict[str, Any]], runs: list[dict[str, Any]], **more: Any) -> None:
    """Print a table, and write results/<name>.json: rows, every run, versions, machine, command and date."""
    width = max(len(found["comparison"]) for found in rows)
    print(f"\n{title}")
    for found in rows:
        verdict = {True: "met", False: "MISSED", None: ""}[found["met"]]
        print(f"  {found['comparison']:<{width}}  {shown(found):<32} {found['target']:<16} {verdict}  {found['note']}")
    about = {
        "title": title,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "command": command(),
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**about, "rows": rows, **more, "runs": runs}, indent=1) + "\n")
    print(f"written to {path.relative_to(RESULTS.parent.parent)}")


def versions() -> dict[str, str]:
    """Return the versions of what figures depend on, where it is installed."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # Syne Tune's is no dependency
            found[package] = importlib.metadata.version(package)
    return found


def command() -> str:
    """Return the command that is running, without the names of this machine's folders."""
    words = list(sys.argv[1:])
    for at, word in enumerate(words):
        if at and words[at - 1] in PRIVATE:
            words[at] = words[at - 1].strip("-").upper()
        elif word.startswith(tuple(f"{name}=" for name in PRIVATE)):
            words[at] = f"{word.split('=')[0]}={word.split('=')[0].strip('-').upper()}"
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def commit() -> str:
    """Return the commit that is measured, with a + where files have been changed since; "" outside a repository."""
    options: dict[str, Any] = {"cwd": RESULTS.parent, "capture_output": True, "text": True, "check": False}
    try:
        name = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], **options).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "--", "../tunekit"], **options).stdout.strip()
    except OSError:
        return ""
    return f"{name}+" if name and changed else name


def machine() -> dict[str, Any]:
    """Return what the machine is: processor, cores, memory, what arithmetic it has, system and Python."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    fields = {line.split(":")[0].strip(): line.split(":", 1)[1].strip() for line in lines if ":" in line}
    flags = set(fields.get("flags", "").split()) & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}
    return {
        "processor": fields.get("model name", platform.processor()),
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "flags": sorted(flags),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }


def parser(text: str | None, pairs: int = 5) -> argparse.ArgumentParser:
    """Return a parser with the arguments that all comparisons have."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--pairs", type=int, default=pairs, help=f"how often each pair is run; {pairs}")
    made.add_argument("--name", help="of the file in benchmarks/results; for a try that is not to be kept, say")
    return made
