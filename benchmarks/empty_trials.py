"""What a trial and a result cost when training costs nothing.

    python benchmarks/empty_trials.py [--trials 1000 10000] [--searchers random forecast] [--rates 1 10 200] [--pairs 5]

- a search of so many trials that train nothing, less the start and end of Ray with no trial at all, per trial; the
  same number of empty trials in Ray Tune itself, with reused workers, less the start and end of Ray as it comes,
  stands beside it;
- the last trials of a search against those about the 100th: the time from one trial's end to the next one's, the median
  of five times 100 trials, as a hundred take but a second or three, and a shared machine may be disturbed for as long;
- the driver's memory, which is its peak;
- so many results a second from all workers together, for ten seconds: what arrives, and how fast.

Trials have one epoch and an empty state; each one's checkpoint and events are written as ever.
"""

import os
import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measure
from work import Work, cores

SCRIPT = Path(__file__).name
MOST_MS, MOST_GROWTH = 50, 1.2


def empty_loop(config: dict[str, Any], dataset: Any, state: Any = None) -> Iterator[tuple[dict[str, float], dict]]:
    """Train nothing: one epoch with a value that a searcher can learn from."""
    yield {"val_accuracy": 1 - (config["x"] - 0.3) ** 2 - (config["y"] - 0.7) ** 2}, {}


def paced_loop(config: dict[str, Any], dataset: Any, state: Any = None) -> Iterator[tuple[dict[str, float], dict]]:
    """Train nothing, at a pace: results at fixed times, none left out where it falls behind."""
    began = time.monotonic()
    for epoch in range(config["max_epochs"]):
        time.sleep(max(0.0, began + epoch / config["pace"] - time.monotonic()))
        yield {"val_accuracy": 0.5}, {}


def nothing(work: Work) -> dict[str, Any]:
    """Start Ray as tunekit does, run nothing, and end it."""
    import tunekit
    from tunekit.cluster import ray_session

    _ = tunekit.run  # imports all that a search imports
    with ray_session(None):
        return {}


def forecast(work: Work) -> dict[str, Any]:
    """Search with tunekit's default searcher."""
    return _search(work, "forecast")


def tpe(work: Work) -> dict[str, Any]:
    """Search with Optuna's TPE."""
    return _search(work, "tpe")


def random(work: Work) -> dict[str, Any]:
    """Search with tunekit and independent draws."""
    return _search(work, "random")


def ray_tune(work: Work) -> dict[str, Any]:
    """Run as many empty trials in Ray Tune, with reused workers and random draws.

    https://docs.ray.io/en/latest/tune/api/doc/ray.tune.TuneConfig.html: reuse_actors.
    """
    from ray import tune

    def trial(config: dict[str, float]) -> None:
        tune.report({"accuracy": 1 - (config["x"] - 0.3) ** 2 - (config["y"] - 0.7) ** 2})

    tuner = tune.Tuner(
        trial,
        param_space={"x": tune.uniform(0, 1), "y": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(num_samples=work.configs, metric="accuracy", mode="max", reuse_actors=True),
        run_config=tune.RunConfig(storage_path=os.path.join(work.scratch, "results"), verbose=0),
    )
    with _ray_as_it_comes(work):
        tuner.fit()
    return {"peak_mb": _peak_mb()}


def ray_nothing(work: Work) -> dict[str, Any]:
    """Start Ray as it comes, run nothing, and end it."""
    from ray import tune

    _ = tune.Tuner  # imports all that a search imports
    with _ray_as_it_comes(work):
        return {}


@contextmanager
def _ray_as_it_comes(work: Work) -> Iterator[None]:
    import ray

    ray.init(address="local", _temp_dir=os.path.join(work.scratch, "ray"))
    try:
        yield
    finally:
        ray.shutdown()


def paced(work: Work) -> dict[str, Any]:
    """Let every worker give work.images results a second, as many as work.epochs; say how many arrive, and how fast."""
    import tunekit
    from tunekit.ledger import Ledger

    pace = work.images / cores()
    results = _run(work.with_(configs=cores()), "random", paced_loop, {"pace": pace})

    times: dict[int, list[float]] = {}
    for event in Ledger(results.folder).events():
        if event.kind == "epoch":
            times.setdefault(event.trial, []).append(event.time)
    arrived = sum(map(len, times.values()))
    assert tunekit.load_results(results.folder).history.shape[0] == arrived
    held = sum((len(each) - 1) / (each[-1] - each[0]) for each in times.values())
    return {"arrived": arrived, "given": cores() * work.epochs, "held_per_s": held}


def _search(work: Work, searcher: str) -> dict[str, Any]:
    from tunekit.ledger import Ledger

    results = _run(work, searcher, empty_loop, {})
    ends = [event.time for event in Ledger(results.folder).events() if event.kind == "ended"]
    assert len(ends) == work.configs and set(results.dataframe["state"]) == {"finished"}
    found: dict[str, Any] = {"peak_mb": _peak_mb(), "early_ms": None, "late_ms": None}
    if len(ends) >= 1000:
        found |= {"early_ms": _each_ms(ends[50:551]), "late_ms": _each_ms(ends[-501:])}
    return found


def _each_ms(ends: list[float]) -> float:
    """Return the median, over every 100 trials, of the milliseconds from one trial's end to the next one's."""
    return 10 * statistics.median(ends[at + 100] - ends[at] for at in range(0, len(ends) - 100, 100))


def _run(work: Work, searcher: str, loop: Any, constants: dict[str, Any]) -> Any:
    import tunekit

    space = {"x": tunekit.uniform(0, 1), "y": tunekit.uniform(0, 1), **constants}
    return tunekit.run(
        space, "digits", train=loop, metric="val_accuracy", num_trials=work.configs, max_epochs=max(1, work.epochs),
        searcher=searcher, scheduler="none", verbose=0, name="empty", folder=work.scratch,
    )  # fmt: skip


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run the pairs, print what was found, write it down."""
    parser = measure.parser(__doc__)
    parser.add_argument("--trials", type=int, nargs="*", default=[1000])
    parser.add_argument("--searchers", nargs="+", choices=("random", "tpe", "forecast"), default=["random", "forecast"])
    parser.add_argument("--rates", type=int, nargs="*", default=[1, 10, 200], help="results a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="for which each rate is held")
    args = parser.parse_args()
    runs: list[dict[str, Any]] = []
    rows = []
    for count in args.trials:
        rows += _counted(Work("", configs=count, epochs=1), args.searchers, args.pairs, runs)
    for rate in args.rates:
        rows.append(_paced(rate, args.seconds, args.pairs, runs))
    measure.write(args.name or "empty_trials", "Trials and results that cost nothing themselves", rows, runs)


def _counted(work: Work, searchers: list[str], num_pairs: int, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    each: dict[str, list[float]] = {name: [] for name in (*searchers, "ray_tune")}
    growth: dict[str, list[float]] = {name: [] for name in searchers}
    memory: dict[str, list[float]] = {name: [] for name in each}
    for number in range(num_pairs):
        names = ["nothing", "ray_nothing", *each][:: -1 if number % 2 else 1]
        done = measure.run_pair(number, {name: (SCRIPT, name, work) for name in names})
        runs += [{"round": number, "trials": work.configs, **done[name]} for name in names]
        print(number, {name: round(found["wall_s"], 1) for name, found in done.items()}, flush=True)
        for name in each:
            none = done["ray_nothing" if name == "ray_tune" else "nothing"]["wall_s"]
            each[name].append(1000 * (done[name]["wall_s"] - none) / work.configs)
            memory[name].append(done[name]["peak_mb"])
            if name in growth and done[name]["late_ms"]:
                growth[name].append(done[name]["late_ms"] / done[name]["early_ms"])
    rows = []
    for name in each:
        ours = name in searchers
        what = f"{work.configs:,} empty trials, {f'tunekit with {name}' if ours else 'Ray Tune itself, reused workers'}"
        target, met = (f"at most {MOST_MS}", lambda ms: ms <= MOST_MS) if ours else ("", None)
        rows.append(measure.row(f"{what}: each", each[name], target, met, unit="ms"))
        if growth.get(name):
            target, met = (
                (f"at most {MOST_GROWTH}", lambda r: r <= MOST_GROWTH) if work.configs >= 10_000 else ("", None)
            )
            rows.append(measure.row(f"{what}: the last against the 100th", growth[name], target, met))
        rows.append(measure.row(f"{what}: the driver's memory at its peak", memory[name], unit="MB"))
    return rows


def _paced(rate: int, seconds: float, num_pairs: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    reached, lost = [], 0
    epochs = max(2, round(rate * seconds / cores()))
    for number in range(num_pairs):
        found = measure.run_pair(number, {"paced": (SCRIPT, "paced", Work("", images=rate, epochs=epochs))})["paced"]
        runs.append({"round": number, "rate": rate, **found})
        reached.append(found["held_per_s"] / rate)
        lost += found["given"] - found["arrived"]
        print(number, rate, found["arrived"], round(found["held_per_s"], 1), flush=True)
    name = f"{rate} results a second for {seconds:g} s: share of that pace that is held"
    return measure.row(name, reached, "at least 0.95, none lost", lambda share: share >= 0.95 and not lost,
                       note=f"{lost} lost")  # fmt: skip


if __name__ == "__main__" and not measure.inside((nothing, ray_nothing, forecast, tpe, random, ray_tune, paced)):
    main()
