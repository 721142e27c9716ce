"""A plan against the search that it is of: how far off `tunekit plan` is, on three searches.

    python benchmarks/plan.py --data DATA [--pairs 3] [--cases digits mnist photographs]

DATA is the folder with MNIST/raw and cifar10-jpeg.tar.xz. In each round a process plans a search and another one does
it, with the same cache. The ratio is the search's time, from its process's start to its exit, to what was predicted.
"""

import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
from work import Work, arrays_of

SCRIPT = Path(__file__).name
IMAGES, VAL_IMAGES = 6000, 2000  # of MNIST


def digits(work: Work) -> dict[str, Any]:
    """The space digits with all defaults: 20 trials, up to 10 epochs, searcher forecast."""
    return {"space": "digits", "dataset": "digits"}


def mnist(work: Work) -> dict[str, Any]:
    """A part of MNIST: two backbones, few trials, all of their epochs."""
    import tunekit

    space = {"backbone": tunekit.choice(["cnn", "lenet"]), "lr": tunekit.loguniform(3e-4, 1e-2),
             "batch_size": tunekit.choice([32, 64, 128])}  # fmt: skip
    arrays = arrays_of(work)
    dataset = tunekit.Dataset.from_arrays(**arrays)
    return {"space": space, "dataset": dataset, "num_trials": 6, "max_epochs": 4, "searcher": "random",
            "scheduler": "none"}  # fmt: skip


def photographs(work: Work) -> dict[str, Any]:
    """A folder of JPEGs of 32 px, with TPE and asha."""
    import tunekit

    space = {"backbone": tunekit.choice(["cnn", "cifar_net"]), "lr": tunekit.loguniform(3e-4, 1e-2),
             "batch_size": tunekit.choice([32, 128]), "augment": "flip"}  # fmt: skip
    return {"space": space, "dataset": work.data, "num_trials": 12, "max_epochs": 9, "searcher": "tpe",
            "scheduler": "asha"}  # fmt: skip


CASES = {case.__name__: case for case in (digits, mnist, photographs)}


def peer(case: str, dry_run: bool) -> Callable[[Work], dict[str, Any]]:
    """Return what plans a search, or does it."""

    def act(work: Work) -> dict[str, Any]:
        import tunekit

        found = tunekit.run(**CASES[case](work), dry_run=dry_run, verbose=0, name=case, folder=work.scratch)
        if not dry_run:
            return {"num_epochs": len(found.history)}
        return {"predicted_s": found.duration_s, "training_s": found.training_s, "num_epochs": found.num_epochs}

    act.__name__ = f"{'plan' if dry_run else 'search'}_{case}"
    return act


def main() -> None:
    """Run the pairs, print the ratios, write them down."""
    parser = measure.parser(__doc__, pairs=3)
    parser.add_argument("--data", required=True, help="the folder with MNIST/raw and cifar10-jpeg.tar.xz")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = Work(args.data, images=IMAGES, val_images=VAL_IMAGES)
        for case in args.cases:
            if case == "photographs":
                with tarfile.open(Path(args.data, "cifar10-jpeg.tar.xz")) as archive:
                    archive.extractall(Path(temporary, "photographs"), filter="data")
                work = work.with_(data=str(Path(temporary, "photographs", "test")))  # 10,000 images
            ratios = []
            for number in range(args.pairs):
                cache = Path(temporary, f"cache-{case}-{number}")
                parts = {kind: (SCRIPT, f"{kind}_{case}", work) for kind in ("plan", "search")}
                planned, searched = measure.run_pair(number, parts, cache).values()
                runs += [{"round": number, "case": case, **done} for done in (planned, searched)]
                ratios.append(searched["wall_s"] / planned["predicted_s"])
                seconds = f"planned {planned['predicted_s']:.1f} s in {planned['wall_s']:.1f} s"
                print(number, case, f"{seconds}, took {searched['wall_s']:.1f} s", flush=True)
            name = f"{case}: time of the search against what was planned"
            note = f"{searched['num_epochs']} epochs, {planned['num_epochs']:.0f} planned"
            rows.append(measure.row(name, ratios, "0.7 to 1.3", lambda ratio: 0.7 <= ratio <= 1.3, note=note))
    measure.write(args.name or "plan", "What `tunekit plan` predicts, against the search", rows, runs)


PEERS = [peer(case, dry_run) for case in CASES for dry_run in (True, False)]

if __name__ == "__main__" and not measure.inside(PEERS):
    main()
