"""Replay recorded learning curves: how many epochs does each tuner train until it is within 0.5 % of the best?

    python benchmarks/search_quality.py [--tables mnist ...] [--workers 1 4 16 100] [--seeds 30] [--methods all]

Tables come from `record_curves.py` (benchmarks/curves/*.parquet); --synthetic replays made-up ones, to try it. Measured
per search: epochs over all its trials, and simulated seconds, until some trial's val accuracy is within 0.005 of the
table's best; medians over the seeds with 95 % bootstrap intervals. A search that never gets there counts as infinite.
The defaults are chosen on digits and mnist, and judged on cifar10. Searches that were replayed stay in state files,
for as long as neither the table, nor the code, nor a version changes: the same command goes on.
"""

import argparse
import hashlib
import importlib.util
import inspect
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1"} if __name__ == "__main__" else {}

import measure
import numpy as np
from curves import HERE, Curves, read_curves, synthetic
from simulator import Outcome, simulate
from tuners import Forecasting, Promoting, Random, Tunekit
from tuners_of_others import OptunaPeer, RayPeer, SyneTunePeer

import tunekit

ASKED = inspect.signature(tunekit.run).parameters
DEFAULT = f"tunekit {ASKED['searcher'].default}"
RANDOM = "random search, all epochs"
SEARCHERS = ("tpe", "gp", "cmaes", "qmc", "random")
SCHEDULERS = ("asha", "asha(1, 2)", "asha(1, 4)", "asha(3, 3)", "hyperband", "median", "none")
PEERS: dict[str, Callable[..., Any]] = {
    RANDOM: Random,
    "optuna tpe, median": partial(OptunaPeer, pruner="median"),
    "optuna tpe, hyperband": partial(OptunaPeer, pruner="hyperband"),
    "ray optuna, asha 4 (default)": partial(RayPeer, factor=4),
    "ray optuna, asha 2 (tutorial)": partial(RayPeer, factor=2),
}
if importlib.util.find_spec("syne_tune") is not None:
    PEERS |= {f"syne tune {name}": partial(SyneTunePeer, name=name) for name in ("ASHA", "BOHB")}
METHODS: dict[str, Callable[..., Any]] = {
    **PEERS,
    **{f"{name}, repeats cost": partial(peer, free_repeats=False) for name, peer in PEERS.items() if name != RANDOM},
    **{f"tunekit {searcher} {scheduler}": partial(Tunekit, searcher=searcher, scheduler=scheduler)
       for searcher in SEARCHERS for scheduler in SCHEDULERS},
    **{f"tunekit {searcher} asha, told {told}": partial(Tunekit, searcher=searcher, scheduler="asha", told=told)
       for searcher in ("tpe", "gp", "cmaes") for told in ("finished", "nothing")},
    "tunekit forecast": Forecasting,
    "tunekit forecast, no first configs": partial(Forecasting, first=False),
    "syne tune ASHACQR": partial(SyneTunePeer, name="ASHACQR"),  # up to ten minutes a search: by its name, or with all
    **{f"tunekit {searcher} asha that promotes": partial(Promoting, searcher=searcher) for searcher in SEARCHERS},
}  # fmt: skip
Key = tuple[str, str, int, int, int]  # table, method, workers, seed, most trials


def main() -> None:
    """Replay what is missing, and write and print what came of it."""
    args = arguments()
    tables = open_tables(args.tables, args.synthetic)
    methods = chosen(args.methods)
    seeds, most = range(args.seeds), args.max_trials
    keys = [(t, m, w, s, most) for s in seeds for t in tables for w in args.workers for m in methods]
    if importlib.util.find_spec("syne_tune") is None:
        print("Syne Tune is left out: it is not installed")
    for name, curves in tables.items():
        print(f"{name}: {len(curves)} configs, {curves.max_epochs} epochs, best {curves.best:.4f}; "
              f"{curves.num_good} configs come within 0.5 % of it")  # fmt: skip
    outcomes = replay(keys, args)
    found = {name: summarise(name, args.workers, methods, outcomes) for name in tables}
    for name, results in found.items():
        show(name, results)
    if not args.synthetic:
        rows = [row for name, results in found.items() for row in promised(name, results)]
        about = {name: {"configs": len(t), "best": t.best, "within": t.num_good} for name, t in tables.items()}
        title = f"Epochs until within 0.5 % of the best: {DEFAULT}, medians of {args.seeds} seeds with 95 % intervals"
        measure.write(args.name, title, rows, [], tables=about, results=found)


def promised(table: str, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the default's epochs are beside random search's, and beside the best peer's, with their intervals.

    And those of its variants, where they were asked for.
    """
    rows = []
    for found in (found for found in results if found["method"].startswith(DEFAULT)):
        to_random, to_peer = (
            [math.inf if v is None else v for v in found[key]] for key in ("to_random", "to_best_peer")
        )
        name = f"{table}, {found['workers']} workers{found['method'].removeprefix(DEFAULT)}: epochs"
        note = f"reached in {found['reached']} searches"
        rows.append(measure.row(f"{name}, of random search's", to_random, "at most 0.2", lambda x: x <= 0.2, note=note))
        peer = next(row for row in results if (row["workers"], row["method"]) == (found["workers"], found["best_peer"]))
        note = f"{peer['method']}, reached in {peer['reached']} searches"
        beside = measure.row(f"{name}, of the best peer's", to_peer, "no worse", note=note)
        rows.append({**beside, "met": to_peer[1] <= 1 and math.isfinite(to_peer[0])})
    return rows


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tables", nargs="+", help="their names; all that were recorded when not given")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 4, 16, 100])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--max-trials", type=int, default=1_000, help="of a search; random search tries all configs")
    parser.add_argument("--methods", nargs="+", default=["judge"], help="judge: tunekit's default and the peers; all; "
                        f"or any of: {'; '.join(METHODS)}")  # fmt: skip
    parser.add_argument("--name", default="search_quality", help="of the file in benchmarks/results")
    parser.add_argument("--synthetic", type=int, default=0, help="replay so many made-up tables instead")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--state", type=Path, default=HERE / ".state" / "search_quality")
    return parser.parse_args()


def open_tables(names: list[str] | None, num_synthetic: int) -> dict[str, Curves]:
    """Return the tables that are to be replayed, by name."""
    known = sorted(path.stem for path in (HERE / "curves").glob("*.parquet"))
    names = names or ([f"synthetic-{seed}" for seed in range(num_synthetic)] if num_synthetic else known)
    if not names:
        raise SystemExit("no tables in benchmarks/curves: run benchmarks/record_curves.py first, or try --synthetic 1")
    return {name: curves_of(name) for name in names}


@cache
def curves_of(name: str) -> Curves:
    """Return a table by its name."""
    if name.startswith("synthetic-"):
        return synthetic(int(name.rsplit("-", 1)[1]))
    return read_curves(HERE / "curves" / f"{name}.parquet")


def chosen(asked: list[str]) -> list[str]:
    """Return the methods asked for; tunekit's default and random search are always among them."""
    names = [name for word in asked for name in {"judge": PEERS, "all": METHODS}.get(word, [word])]
    if unknown := [name for name in names if name not in METHODS]:
        raise SystemExit(f"unknown methods: {', '.join(unknown)}; known: {'; '.join(METHODS)}")
    return list(dict.fromkeys([DEFAULT, RANDOM, *names]))


def replay(keys: list[Key], args: argparse.Namespace) -> dict[Key, Outcome]:
    """Return the outcome of every search, in so many processes; what the state files hold is not done again."""
    files = {table: state_file(args.state, table) for table in dict.fromkeys(key[0] for key in keys)}
    outcomes: dict[Key, Outcome] = {}
    for line in (line for path in files.values() for line in path.read_text().splitlines()):
        if line.endswith("]]"):  # or the write was cut short
            key, outcome = json.loads(line)
            outcomes[tuple(key)] = Outcome(*outcome)
    missing = [key for key in keys if key not in outcomes]
    print(f"{len(keys)} searches, {len(missing)} to replay", flush=True)
    began = shown = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with context.Pool(max(1, min(args.jobs, len(missing)))) as pool:
        for done, (key, outcome) in enumerate(pool.imap_unordered(search, missing), start=1):
            outcomes[key] = outcome
            with files[key[0]].open("a") as file:
                file.write("\n" + json.dumps([key, outcome]))
            if time.monotonic() - shown > 15:
                shown = time.monotonic()
                left = (shown - began) / done * (len(missing) - done)
                print(f"{done} of {len(missing)}, {left / 60:.1f} min left", flush=True)
    return {key: outcomes[key] for key in keys}


def search(key: Key) -> tuple[Key, Outcome]:
    """Replay one search."""
    table, method, workers, seed, most = key
    curves = curves_of(table)
    tuner = METHODS[method](curves, seed, max_trials=most) if method != RANDOM else Random(curves, seed)
    return key, simulate(curves, tuner, workers)


def state_file(folder: Path, table: str) -> Path:
    """Return where a table's outcomes are kept: another file where anything they depend on is different."""
    folder.mkdir(parents=True, exist_ok=True)
    code = [HERE / f"{name}.py" for name in ("curves", "simulator", "tuners", "tuners_of_others")]
    ours = "proposer samplers forecaster beginnings forecasts candidates encoding paces pausing schedulers space grids "
    ours += "distributions events scores quantiles outcomes"
    code += [Path(tunekit.__file__).parent / f"{name}.py" for name in ours.split()]
    data = HERE / "curves" / f"{table}.parquet"
    digest = hashlib.sha256(json.dumps(measure.versions()).encode())
    for path in [*code, data] if data.exists() else code:
        digest.update(path.read_bytes())
    path = folder / f"{table}-{digest.hexdigest()[:12]}.jsonl"
    path.touch()
    return path


def summarise(table: str, workers: list[int], methods: list[str], outcomes: dict[Key, Outcome]) -> list[dict[str, Any]]:
    """Return a row per number of workers and method: medians, their intervals, and the ratio to random search."""
    rows = []
    for count in workers:
        found = {
            method: [outcome for key, outcome in outcomes.items() if key[:3] == (table, method, count)]
            for method in methods
        }
        epochs = {method: values_of(found[method], "epochs") for method in methods}
        best_peer = min((name for name in methods if name in PEERS), key=lambda name: float(np.median(epochs[name])))
        for method in methods:
            rows.append({
                "workers": count,
                "method": method,
                "epochs": with_interval(epochs[method]),
                "seconds": with_interval(values_of(found[method], "seconds")),
                "reached": sum(outcome.reached for outcome in found[method]),
                "trials": float(np.median([outcome.trials for outcome in found[method]])),
                "to_random": with_interval(epochs[method], epochs[RANDOM]),
                "to_best_peer": with_interval(epochs[method], epochs[best_peer]),
                "best_peer": best_peer,
            })  # fmt: skip
    return rows


def values_of(outcomes: list[Outcome], field: str) -> np.ndarray:
    """Return what searches cost, infinite where they did not get there."""
    return np.array([getattr(outcome, field) if outcome.reached else np.inf for outcome in outcomes], float)


def with_interval(values: np.ndarray, others: np.ndarray | None = None) -> list[float | None]:
    """Return the median of values, or its ratio to others' median, with its 95 % bootstrap interval; None: infinite."""
    random = np.random.default_rng(0)

    def medians(of: np.ndarray) -> np.ndarray:
        drawn = np.median(of[random.integers(0, len(of), (4000, len(of)))], axis=1)
        return np.concatenate([[np.median(of)], drawn])

    found = medians(values)
    if others is not None:
        with np.errstate(invalid="ignore"):
            found = np.nan_to_num(found / medians(others), nan=1.0, posinf=np.inf)  # neither got there: equal
    low, high = np.quantile(found[1:], [0.025, 0.975], method="nearest")
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in (found[0], low, high)]


def show(table: str, rows: list[dict[str, Any]]) -> None:
    """Print a table's rows, the fewest epochs first, and whether the default holds what is promised."""

    def text(values: list[float | None], digits: int = 0) -> str:
        middle, low, high = ("inf" if value is None else f"{value:.{digits}f}" for value in values)
        return f"{middle} [{low}, {high}]"

    for count in dict.fromkeys(row["workers"] for row in rows):
        some = sorted((row for row in rows if row["workers"] == count), key=lambda row: row["epochs"][0] or np.inf)
        print(f"\n{table}, {count} workers".ljust(45) + "epochs".rjust(22) + "seconds".rjust(26) + "reached".rjust(9)
              + "trials".rjust(8) + "x random".rjust(22))  # fmt: skip
        for row in some:
            print(f"  {row['method']:42}{text(row['epochs']):>22}{text(row['seconds']):>26}{row['reached']:>9}"
                  f"{row['trials']:>8.0f}{text(row['to_random'], 2):>22}")  # fmt: skip
        ours = next(row for row in some if row["method"] == DEFAULT)
        fifth, low = ours["to_random"][0], ours["to_best_peer"][1]
        print(f"  {DEFAULT}: {'at most' if fifth is not None and fifth <= 0.2 else 'MORE THAN'} 1/5 of random search; "
              f"{'no worse' if low is not None and low <= 1 else 'WORSE'} than the best peer ({ours['best_peer']}), "
              f"{text(ours['to_best_peer'], 2)} x")  # fmt: skip


if __name__ == "__main__":
    main()
