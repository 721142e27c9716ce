"""Tunekit against two bare processes, one thread each, with no framework: images a second.

    python benchmarks/bare_loop.py --data DATA [--pairs 5] [--backbones cnn lenet resnet18]

The bare loop is measured twice: as tuning guides have it, with channels_last, the fastest precision and the fused
optimizer; and with what else tunekit does: memory that a step frees is kept, denormal numbers are zero, and batch norm
is folded in validation.
All are timed whole, from the start of Python to its end, on the same list of configs; and, beside that, from the first
trial's start to the last one's end. DATA is the folder with MNIST/raw; resnet18 gets its images at 64 px.
"""

from typing import Any

import measure
from work import Work

LEAST = 0.85
AMOUNTS: dict[str, dict[str, int]] = {  # so that the bare loop takes a minute or two on two cores
    "cnn": {"images": 6000, "val_images": 6000, "configs": 16, "epochs": 3},
    "lenet": {"images": 6000, "val_images": 6000, "configs": 16, "epochs": 10},
    "resnet18": {"images": 3000, "val_images": 1000, "configs": 4, "epochs": 3, "size": 64},
}


def main() -> None:
    """Run the pairs, print the ratios, write them down."""
    parser = measure.parser(__doc__)
    parser.add_argument("--data", required=True, help="the folder with MNIST/raw")
    parser.add_argument("--backbones", nargs="+", choices=AMOUNTS, default=list(AMOUNTS))
    for amount in ("images", "val-images", "configs", "epochs"):
        parser.add_argument(f"--{amount}", type=int, help="another amount than the usual one")
    args = parser.parse_args()
    given = {key: getattr(args, key) for key in ("images", "val_images", "configs", "epochs")}
    given = {key: value for key, value in given.items() if value is not None}
    rows, runs, chosen = [], [], {}
    for backbone in args.backbones:
        work = measure.with_arithmetic(Work(args.data, backbone=backbone, **{**AMOUNTS[backbone], **given}))
        chosen[backbone] = {"precision": work.precision, "memory_format": work.memory_format}
        rows += _compare(work, args.pairs, runs)
    measure.write(args.name or "bare_loop", "Against the bare loop: share of its images a second", rows, runs,
                  arithmetic=chosen)  # fmt: skip


def _compare(work: Work, num_pairs: int, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    whole, trials, kept, speeds = [], [], [], []
    for number in range(num_pairs):
        names = ["bare", "tunekit_run", "bare, memory kept"][:: -1 if number % 2 else 1]
        each = {name: work.with_(seed=number, keep_memory=name != "bare") for name in names}
        done = measure.run_pair(number, {name: ("peers.py", name.split(",")[0], each[name]) for name in names})
        for name in names:
            speed = work.num_trained / done[name]["wall_s"]
            runs.append({"round": number, "backbone": work.backbone, "images_per_s": speed, **done[name], "peer": name})
            print(
                f"{number} {work.backbone:<9} {name:<17} {done[name]['wall_s']:7.1f} s {speed:8.0f} images/s",
                flush=True,
            )
        whole.append(done["bare"]["wall_s"] / done["tunekit_run"]["wall_s"])
        kept.append(done["bare, memory kept"]["wall_s"] / done["tunekit_run"]["wall_s"])
        trials.append(done["bare"]["span_s"] / done["tunekit_run"]["span_s"])
        speeds.append(work.num_trained / done["bare"]["wall_s"])
    used = f"{work.precision} {work.memory_format}, {work.configs} configs of {work.epochs} epochs"
    name = f"{work.backbone} at {work.size} px"
    return [
        measure.row(f"{name}, whole call", whole, f"at least {LEAST}", lambda share: share >= LEAST, note=used),
        measure.row(f"{name}, first trial's start to last one's end", trials),
        measure.row(f"{name}, whole call, beside a bare loop with its memory, denormals, batch norm", kept),
        measure.row(f"{name}, the bare loop, whole call", speeds, unit="images/s"),
    ]


if __name__ == "__main__":
    main()
