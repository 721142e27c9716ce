"""One GPU: a trial that has it alone against the bare loop, and trials that share it against one after the other.

    python benchmarks/gpu.py --data DATA [--pairs 5] [--backbones cnn resnet18]

DATA is the folder with MNIST/raw; resnet18 gets its images at 64 px. `--device cpu` tries the program where there is no
GPU: what it prints then is of no use.
"""

import statistics
import sys
from typing import Any

import measure
from work import Work

LEAST = 0.85
AMOUNTS: dict[str, dict[str, int]] = {
    "cnn": {"images": 40_000, "val_images": 10_000, "configs": 8, "epochs": 3},
    "resnet18": {"images": 20_000, "val_images": 5_000, "configs": 8, "epochs": 2, "size": 64},
}


def bare(work: Work) -> dict[str, Any]:
    """No framework: every config after the other in one process, tensors on the GPU, and every trick."""
    import loops

    tricks = loops.tricks_of(work)
    data = loops.Tensors(*(part.to(work.device) for part in loops.tensors_of(work, tricks.layout)))
    return {
        "speeds": [e["images_per_s"] for config in work.config_list for e in loops.train(config, data, work, tricks)]
    }


def main() -> None:
    """Run the pairs, print the ratios, write them down."""
    parser = measure.parser(__doc__)
    parser.add_argument("--data", required=True, help="the folder with MNIST/raw")
    parser.add_argument("--backbones", nargs="+", choices=AMOUNTS, default=list(AMOUNTS))
    parser.add_argument("--images", type=int, help="another number than the usual one, for a try")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    args = parser.parse_args()
    name = _gpu() if args.device == "cuda" else "no GPU"
    rows: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    for backbone in args.backbones:
        few = {"images": args.images, "val_images": args.images} if args.images else {}
        work = Work(args.data, backbone=backbone, device=args.device, **{**AMOUNTS[backbone], **few})
        work = measure.with_arithmetic(work)
        rows += _compare(work, args.pairs, runs)
    measure.write(args.name or "gpu", f"One GPU: {name}", rows, runs)


def _compare(work: Work, num_pairs: int, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    share, faster = [], []
    peers = {  # name: script, function, GPUs of each trial
        "bare": ("gpu.py", "bare", 1),
        "alone": ("peers.py", "tunekit_run", 1 if work.device == "cuda" else 0),
        "shared": ("peers.py", "tunekit_run", "auto"),
    }
    for number in range(num_pairs):
        names = list(peers)[:: -1 if number % 2 else 1]
        parts = {}
        for name in names:
            script, function, gpus = peers[name]
            parts[name] = script, function, work.with_(seed=number, gpus=gpus)
        done = measure.run_pair(number, parts)
        runs += [{"round": number, "backbone": work.backbone, **done[name], "peer": name} for name in names]
        share.append(statistics.median(done["alone"]["speeds"]) / statistics.median(done["bare"]["speeds"]))
        faster.append(done["alone"]["span_s"] / done["shared"]["span_s"])
        print(number, work.backbone, f"{share[-1]:.2f} {faster[-1]:.2f}", flush=True)
    name, used = f"{work.backbone} at {work.size} px", f"{work.precision} {work.memory_format}"
    return [
        measure.row(f"{name}: images a second as it trains, of the bare loop's", share, f"at least {LEAST}",
                    lambda found: found >= LEAST, note=used),
        measure.row(f"{name}: trials that share it, against one after the other", faster),
    ]  # fmt: skip


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        sys.exit("there is no GPU here that torch can use: run this on a machine with one")
    return torch.cuda.get_device_name()


if __name__ == "__main__" and not measure.inside((bare,)):
    main()
