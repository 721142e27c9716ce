"""The same work to the letter, done by tunekit and by others; wall time of the whole call.

    python benchmarks/same_work.py --data DATA [--pairs 5] [--peers ray_fast ...]

A fixed list of 16 configs, 3 epochs each, nobody stops a trial early: see work.py and peers.py. DATA is the folder
with MNIST/raw. tunekit starts with an empty cache each time, and so measures which arithmetic is fastest again.
"""

import statistics
from collections import defaultdict
from typing import Any

import measure
from work import Work

OURS = "tunekit_run"
PEERS = {  # name: what it is, and how many times as long as tunekit it has to take
    "ray_tutorial": ("the Ray Tune tutorial's way", 3.0),
    "ray_tensors": ("Ray Tune, reused workers, tensors loaded once, plain float32", 2.0),
    "optuna_example": ("Optuna's PyTorch example", 2.5),
    "ray_fast": ("Ray Tune with all that tunekit does in its loop", 1.0),
    "ray_tutorial_two": ("the Ray Tune tutorial's way, two cores and two loaders a trial", 3.0),
}
USUAL = [name for name in PEERS if name != "ray_tutorial_two"]


def main() -> None:
    """Run the pairs, print the ratios, write them down."""
    parser = measure.parser(__doc__)
    parser.add_argument("--data", required=True, help="the folder with MNIST/raw")
    parser.add_argument("--images", type=int, default=6000, help="to train on, and as many to validate on")
    parser.add_argument("--configs", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=USUAL)
    parser.add_argument("--no-checkpoints", action="store_true", help="let the Ray Tune peers save none")
    args = parser.parse_args()
    work = Work(
        args.data, images=args.images, val_images=args.images, configs=args.configs, epochs=args.epochs,
        checkpoints=not args.no_checkpoints,
    )  # fmt: skip
    work = measure.with_arithmetic(work)
    runs: list[dict[str, Any]] = []
    ratios, gaps = defaultdict(list), defaultdict(list)
    for number, names in measure.triplets(args.peers, OURS, args.pairs):
        done = measure.run_pair(number, {name: ("peers.py", name, work.with_(seed=number)) for name in names})
        for name in names:
            found = done[name]
            runs.append({"round": number, **found})
            print(
                f"{number} {name:<18} {found['wall_s']:7.1f} s  {statistics.mean(found['accuracies']):.4f}", flush=True
            )
            if name != OURS:
                ratios[name].append(found["wall_s"] / done[OURS]["wall_s"])
                pairs = zip(found["accuracies"], done[OURS]["accuracies"], strict=True)
                gaps[name] += [ours - theirs for theirs, ours in pairs]
    rows = [_speed(name, ratios[name], _equal(gaps[name])) for name in args.peers]
    used = f"{work.precision} {work.memory_format}"
    title = f"The same work ({used}): how many times as long as tunekit the others take"
    measure.write(args.name or "same_work", title, rows, runs)


def _speed(name: str, ratios: list[float], note: str) -> dict[str, Any]:
    what, least = PEERS[name]
    return measure.row(what, ratios, f"at least {least:g}", lambda ratio: ratio >= least, note=note)


def _equal(gaps: list[float]) -> str:
    """Say how far tunekit's accuracies are from a peer's, config by config, and whether that is noise."""
    mean = statistics.mean(gaps)
    error = 1.96 * statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else 0.0
    verdict = "no difference shown" if abs(mean) <= error else "more than noise"
    return f"accuracy of tunekit less theirs {mean:+.4f} +/- {error:.4f}: {verdict}"


if __name__ == "__main__":
    main()
