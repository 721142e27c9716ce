"""Tensors in, floats out: what is measured of predictions, averaged over images."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

LUCK = 0.02  # so that the noise of a model at chance is not taken for learning


def classification_metrics(outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """Return the accuracy of logits (N, num_classes) for class numbers (N,), 0..1.

    It is NaN where a logit is not finite: a model that diverged still has a largest output, which means nothing.
    """
    if not bool(outputs.isfinite().all()):
        return {"accuracy": math.nan}
    return {"accuracy": (outputs.argmax(1) == targets).double().mean().item()}


def regression_metrics(outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """Return mse, mae, r2 and pearson of predictions (N,) or (N, 1) for values (N,).

    r2 and pearson are NaN where the targets, or for pearson the predictions, do not vary.

    Example:
        >>> regression_metrics(torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([1.0, 2.0, 3.0]))["mae"]
        0.6666666666666666
    """
    predicted, targets = outputs.reshape(len(targets)).double(), targets.double()
    error = predicted - targets
    mse = error.square().mean().item()
    spread = targets.var(correction=0).item()
    stacked = torch.stack([predicted, targets])
    varies = bool((stacked.var(dim=1, correction=0) > 0).all()) if len(targets) > 1 else False
    return {
        "mse": mse,
        "mae": error.abs().mean().item(),
        "r2": 1 - mse / spread if spread > 0 else math.nan,
        "pearson": torch.corrcoef(stacked)[0, 1].item() if varies else math.nan,
    }


def chance(targets: np.ndarray, task: str) -> dict[str, float]:
    """Return, by metric, what one prediction for all images gets, and LUCK: what is no better has learned nothing.

    LUCK is a share of the way from there to a perfect model, so that there is room above it on any val split, however
    small or uneven.

    Args:
        targets: class numbers (N,), or values (N,).
        task: classification, or regression.

    Example:
        >>> chance(np.array([0] * 50 + [1] * 50), "classification")["accuracy"]
        0.51
    """
    if task == "classification":
        shares = np.unique(targets, return_counts=True)[1] / len(targets)
        of_constant, perfect = {"accuracy": shares.max(), "loss": -(shares * np.log(shares)).sum()}, {"accuracy": 1.0}
    else:
        mae = np.abs(targets - np.median(targets)).mean()
        of_constant, perfect = (
            {"mse": targets.var(), "mae": mae, "r2": 0.0, "pearson": 0.0},
            {"r2": 1.0, "pearson": 1.0},
        )
    return {name: float(value + LUCK * (perfect.get(name, 0.0) - value)) for name, value in of_constant.items()}


def wilson_interval(successes: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, 95 % by default, 0..1.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).

    Example:
        >>> [round(bound, 3) for bound in wilson_interval(95, 100)]
        [0.888, 0.978]
    """
    if total == 0:
        return 0.0, 1.0
    share = successes / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def classification_report(outputs: torch.Tensor, targets: torch.Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Return the confusion matrix, and accuracy with its 95 % Wilson interval over all and per class.

    Args:
        outputs: logits (N, num_classes).
        targets: class numbers (N,).
        classes: the classes' names.

    Returns:
        interval: (low, high) of the accuracy, 0..1; per_class: name -> accuracy, interval, num_images; confusion:
        num_classes rows of counts, a row a true class, a column a predicted one.
    """
    pairs = targets.cpu() * len(classes) + outputs.argmax(1).cpu()
    confusion = torch.bincount(pairs, minlength=len(classes) ** 2).reshape(len(classes), len(classes)).tolist()
    right = [row[number] for number, row in enumerate(confusion)]
    totals = [sum(row) for row in confusion]
    per_class = {
        name: {"accuracy": r / t if t else None, "interval": wilson_interval(r, t), "num_images": t}
        for name, r, t in zip(classes, right, totals, strict=True)
    }
    return {"interval": wilson_interval(sum(right), len(targets)), "per_class": per_class, "confusion": confusion}


def pairwise_accuracy(predicted: torch.Tensor, rows: Any, comparisons: Any) -> float:
    """Return the share of comparisons, 0..1, in which the image that people chose is predicted higher than the other.

    A tie is not right. It is NaN without comparisons, or where a prediction is not finite.

    Args:
        predicted: (N,) or (N, 1), a value per image.
        rows: (N,), each image's row in the dataset: `dataset.test.rows`.
        comparisons: (P, 2), rows of the image chosen and of the other: `dataset.comparisons`. All are among `rows`.

    Example:
        >>> pairwise_accuracy(torch.tensor([1.0, 2.0, 3.0]), [10, 20, 30], [[20, 10], [30, 20], [10, 30]])
        0.6666666666666666
    """
    rows, pairs = torch.as_tensor(rows), torch.as_tensor(comparisons).reshape(-1, 2)
    values = torch.as_tensor(predicted).reshape(len(rows)).cpu()
    if not len(pairs) or not bool(values.isfinite().all()):
        return math.nan
    order = rows.argsort()
    chosen, other = values[order[torch.searchsorted(rows[order], pairs.T.contiguous())]]
    return (chosen > other).double().mean().item()
