"""What metrics are called, which way is up, and which of two values is better. Knows no tensors."""

import math

# Of each task: the metric a search optimises unless told otherwise, and its mode.
DEFAULT_METRIC = {"classification": ("val_accuracy", "max"), "regression": ("val_mse", "min")}
# What a higher value of each metric means, by the name behind the split.
HIGHER_IS_BETTER = {"accuracy": True, "r2": True, "pearson": True, "pairwise_accuracy": True,
                    "loss": False, "mse": False, "mae": False}  # fmt: skip
EPOCH_METRICS = ("epoch", "lr", "epoch_s", "images_per_s")


def metric_names(task: str) -> list[str]:
    """Return the names of all metrics that an epoch of the built-in training loop gives.

    Example:
        >>> metric_names("classification")
        ['train_loss', 'val_loss', 'train_accuracy', 'val_accuracy', 'epoch', 'lr', 'epoch_s', 'images_per_s']
    """
    measured = ["loss", "accuracy"] if task == "classification" else ["loss", "mse", "mae", "r2", "pearson"]
    return [f"{split}_{name}" for name in measured for split in ("train", "val")] + list(EPOCH_METRICS)


def best_epoch(history: list[dict[str, float]], metric: str, mode: str) -> int | None:
    """Return the epoch (from 1) with the best value of a metric, the first of equals; None if none has one.

    Example:
        >>> best_epoch([{"val_loss": 2.0}, {"val_loss": 1.0}, {"val_loss": 1.0}], "val_loss", "min")
        2
    """
    best, value = None, None
    for epoch, metrics in enumerate(history, start=1):
        if metric in metrics and is_better(metrics[metric], value, mode):
            best, value = epoch, metrics[metric]
    return best


def is_better(value: float, than: float | None, mode: str) -> bool:
    """Return whether a metric's value beats another; NaN beats nothing, and anything finite beats None or NaN.

    Example:
        >>> is_better(0.9, 0.8, "max"), is_better(float("nan"), None, "max")
        (True, False)
    """
    if not math.isfinite(value):
        return False
    if than is None or not math.isfinite(than):
        return True
    return value > than if mode == "max" else value < than
