"""Run every benchmark, one after the other, and write RESULTS.md.

    python benchmarks/run.py --data DATA [--full]

Without --full a cut of each, half an hour in all on two cores, whose files end in `_cut`: as starting takes a larger
share of less work, its ratios are nearer to 1. With it the whole, hours: pairs that were run at this code before are
not run again, so that the same command goes on where it was cut off. Tables of learning curves (`record_curves.py`)
are not recorded anew. The machine must be idle otherwise.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time

import measure

CUT = {  # name: arguments
    "same_work": "--data DATA --images 3000 --configs 8 --pairs 1",
    "bare_loop": "--data DATA --backbones cnn --images 3000 --configs 8 --pairs 1",
    "photographs": "--data DATA --backbones cnn --pairs 1",
    "frozen_features": "--data DATA --images 300 --epochs 5 --pairs 1",
    "denormals": "--data DATA --epochs 6 --pairs 1",
    "empty_trials": "--trials 300 --searchers forecast --rates 200 --pairs 1",
    "search_quality": "--workers 4 --seeds 10",
    "profile_search": "--data DATA --images 3000 --configs 8 --pairs 1",
    "plan": "--data DATA --pairs 1",
}
FULL = {
    "same_work": "--data DATA",
    "bare_loop": "--data DATA",
    "photographs": "--data DATA",
    "frozen_features": "--data DATA",
    "denormals": "--data DATA",
    "empty_trials": "--trials 1000 10000",
    "search_quality": "",
    "profile_search": "--data DATA",
    "plan": "--data DATA",
}


def main() -> int:
    """Run them, and say how long each took; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder with MNIST/raw and make_placepulse.py")
    parser.add_argument("--full", action="store_true")
    asked = parser.parse_args()
    failed, environment = 0, dict(os.environ)
    if asked.full:
        environment["BENCH_STATE"] = str(measure.RESULTS.parent / ".state" / "runs")
    for name, arguments in (FULL if asked.full else CUT).items():
        arguments = arguments if asked.full else f"{arguments} --name {name}_cut"
        said = shlex.join(["python", f"benchmarks/{name}.py", *arguments.split()])
        words = [asked.data if word == "DATA" else word for word in arguments.split()]
        print(f"\n{said}", flush=True)
        began = time.monotonic()
        script = str(measure.RESULTS.parent / f"{name}.py")
        failed |= subprocess.run([sys.executable, script, *words], env=environment, check=False).returncode
        print(f"{name}: {(time.monotonic() - began) / 60:.1f} min", flush=True)
    report = str(measure.RESULTS.parent / "report.py")
    failed |= subprocess.run([sys.executable, report], check=False).returncode
    return int(failed != 0)


if __name__ == "__main__":
    sys.exit(main())
