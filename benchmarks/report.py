"""Write RESULTS.md from benchmarks/results/*.json: a row for each comparison.

python benchmarks/report.py [--out benchmarks/RESULTS.md]
"""

import argparse
import json
from pathlib import Path
from typing import Any

import measure

HERE = Path(__file__).parent
ORDER = (
    "same_work",
    "bare_loop",
    "photographs",
    "frozen_features",
    "denormals",
    "search_quality",
    "empty_trials",
    "profile_search",
    "scale",
    "plan",
    "gpu",
)
VERDICTS = {True: "yes", False: "**no**", None: ""}
INTRODUCTION = """# Results of the benchmarks

Written by `python benchmarks/report.py` from `benchmarks/results/*.json`, which hold every single run. Each number is
the median over pairs of runs that came one after the other in one process of measuring, with the smallest and the
largest in brackets: absolute times mean little on shared machines. Each run is a process of its own, timed from its
start to its exit, imports included, on a machine that is looked at for a second before it. With
`make bench-full`, a pair during which other virtual machines took more than 3 % of the cores' time is run again, twice
at most, and the least disturbed counts.
"""


def place(name: str) -> tuple[int, str]:
    """Return where a file's section goes: with its benchmark's, whose name it begins with."""
    return next((i for i, benchmark in enumerate(ORDER) if name.startswith(benchmark)), len(ORDER)), name


def section(name: str, found: dict[str, Any]) -> str:
    """Return one file's comparisons as Markdown."""
    header = "| comparison | median (spread) | target | met | |", "|---|---|---|---|---|"
    lines = [f"## {found['title']} ({name})", "", *header]
    for row in found["rows"]:
        cells = [row["comparison"], measure.shown(row), row["target"], VERDICTS[row["met"]], row["note"]]
        lines.append("| " + " | ".join(cell.strip().replace("|", "\\|") for cell in cells) + " |")
    versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
    idle = [run["idle"] for run in found["runs"] if "idle" in run]
    made = f"{found['date']}, commit {found.get('commit') or 'unknown'}"
    lines += ["", f"`{found['command']}`, {made}; {on(found['machine'])}; {versions}."]
    if idle:
        lines[-1] += f" Idle before a run: {min(idle):.0%} at the least."
    stolen = [run["stolen"] for run in found["runs"] if "stolen" in run]
    if stolen:
        lines[-1] += f" Taken by other virtual machines during a run: {max(stolen):.1%} at the most."
    return "\n".join(lines) + "\n"


def on(machine: dict[str, Any]) -> str:
    """Return a machine in words."""
    flags = f" with {', '.join(machine['flags'])}" if machine["flags"] else ""
    return (
        f"{machine['cores']} cores of {machine['processor']}{flags}, {machine['memory_gb']} GB, "
        f"{machine['system']}, Python {machine['python']}"
    )


def main() -> None:
    """Read what there is, and write it down; files of another form, and tries, are left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md")
    out = parser.parse_args().out
    files = {path.stem: path for path in measure.RESULTS.glob("*.json") if not path.stem.startswith("try")}
    sections = []
    for name in sorted(files, key=place):
        found = json.loads(files[name].read_text())
        if isinstance(found, dict) and {"title", "rows", "runs", "command", "machine", "versions"} <= set(found):
            sections.append(section(name, found))
        else:
            print(f"left out, as it is of another form: {name}.json")
    out.write_text("\n".join([INTRODUCTION, *sections]))
    print(f"{len(sections)} sections written to {out.name}")


if __name__ == "__main__":
    main()
