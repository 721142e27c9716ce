"""Head-only trials of resnet18 at 224 px, on cached features and without the cache: epochs a second.

    python benchmarks/frozen_features.py --data DATA [--photos FOLDER] [--pairs 5]

DATA is the folder with make_placepulse.py. Where pretrained weights would lie, random ones do: how fast it is does not
depend on what the weights are. Each trial is the whole of `tunekit.training.train`, building the model and reading the
weights included, on one thread. The cache is turned off by
answering "not here" where the loop asks for features, as it is answered for models that they would not do for.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import measure
from work import Work, make_photographs

SCRIPT = Path(__file__).name
RATES = (1e-3, 3e-4, 3e-3, 1e-4)  # one a trial
METRICS = ("train_loss", "val_loss", "train_mse", "val_mse")


def with_cache(work: Work) -> dict[str, Any]:
    """Train once to fill the cache, which is timed by itself; then the trials."""
    filled = _trials(work.with_(configs=1, epochs=1))
    return {"filling_s": filled["trial_s"][0], **_trials(work)}


def without_cache(work: Work) -> dict[str, Any]:
    """Train the same trials on the images."""
    from tunekit import training

    training.frozen_features = lambda *_: None
    return _trials(work)


def _trials(work: Work) -> dict[str, Any]:
    import torch
    from torchvision import models

    import tunekit
    from tunekit import training
    from tunekit.config import complete

    torch.set_num_threads(1)
    torch.hub.set_dir(work.scratch)
    weights = Path(work.scratch, "checkpoints", models.get_model_weights(work.backbone).DEFAULT.url.rsplit("/", 1)[-1])
    weights.parent.mkdir(exist_ok=True)
    torch.manual_seed(0)
    torch.save(models.get_model(work.backbone).state_dict(), weights)
    dataset = tunekit.load_dataset(
        "placepulse", data_dir=work.data, image_size=work.size, val_fraction=0.2, test_fraction=0.1
    )
    asked = {"backbone": work.backbone, "pretrained": True, "freeze": "backbone", "precision": work.precision}
    trials, seconds, epochs = [], [], []
    for lr in RATES[: work.configs]:
        config = {**complete({**asked, "lr": lr}), "seed": 0, "max_epochs": work.epochs}
        began = time.perf_counter()
        trials.append([metrics for metrics, _ in training.train(config, dataset)])
        seconds.append(time.perf_counter() - began)
        epochs += [metrics["epoch_s"] for metrics in trials[-1]]
    measured = [[{name: metrics[name] for name in METRICS} for metrics in trial] for trial in trials]
    return {"trial_s": seconds, "epoch_s": epochs, "metrics": measured}


def main() -> None:
    """Run the pairs, print the ratios, write them down."""
    parser = measure.parser(__doc__)
    parser.add_argument("--data", required=True, help="the folder with make_placepulse.py")
    parser.add_argument("--photos", type=Path, help="where to keep the photographs that it makes")
    parser.add_argument("--images", type=int, default=1000, help="of which 7 in 10 are trained on")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--trials", type=int, default=2, choices=range(1, len(RATES) + 1))
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    args = parser.parse_args()
    runs: list[dict[str, Any]] = []
    trials, epochs, worth, far = [], [], [], []
    with tempfile.TemporaryDirectory() as temporary:
        place = make_photographs(args.data, args.photos or Path(temporary), args.images)
        work = Work(str(place), backbone="resnet18", size=224, configs=args.trials, epochs=args.epochs,
                    precision=args.precision)  # fmt: skip
        for number in range(args.pairs):
            names = ["with_cache", "without_cache"][:: -1 if number % 2 else 1]
            done = measure.run_pair(number, {name: (SCRIPT, name, work) for name in names})
            runs += [{"round": number, **done[name]} for name in names]
            kept, images = done["with_cache"], done["without_cache"]
            print(number, {name: [round(s, 2) for s in found["trial_s"]] for name, found in done.items()}, flush=True)
            trials.append(sum(images["trial_s"]) / sum(kept["trial_s"]))
            epochs.append(sum(images["epoch_s"]) / sum(kept["epoch_s"]))
            worth.append(sum(images["trial_s"]) / (sum(kept["trial_s"]) + kept["filling_s"]))
            far.append(_farthest(kept["metrics"], images["metrics"]))
    rows = [
        measure.row("epochs a second of head-only trials, cached features against images", epochs, "at least 50",
                    lambda ratio: ratio >= 50),
        measure.row(f"the same of whole trials of {args.epochs} epochs, model and weights included", trials),
        measure.row(f"the same with the cache filled, over {args.trials} trials of {args.epochs} epochs", worth),
        measure.row("metrics, largest relative difference", far, "at most 0.01", lambda most: most <= 0.01, unit=""),
    ]  # fmt: skip
    title = f"Frozen resnet18 at 224 px, {args.images:,} photographs, {args.precision}"
    measure.write(args.name or "frozen_features", title, rows, runs)


def _farthest(one: list[Any], other: list[Any]) -> float:
    """Return the largest relative difference between the metrics of the same epochs of the same trials."""
    pairs = (
        (mine[name], theirs[name])
        for mine_trial, their_trial in zip(one, other, strict=True)
        for mine, theirs in zip(mine_trial, their_trial, strict=True)
        for name in METRICS
    )
    return max(abs(mine - theirs) / abs(theirs) for mine, theirs in pairs)


if __name__ == "__main__" and not measure.inside((with_cache, without_cache)):
    main()
