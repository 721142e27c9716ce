"""What the best model does on val, and the images it is most wrong about: for the report."""

import base64
import io
import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from tunekit import training
from tunekit.datasets.base import Dataset
from tunekit.inference import TrainedModel
from tunekit.metrics import classification_report

NUM_IMAGES = 12
THUMBNAIL_PX = (64, 96)  # smaller images are enlarged to the first, larger ones made as small as the second
MOST_DOTS = 2000  # predictions that are drawn; the histograms are of all
NUM_BINS = 32


def look(model: TrainedModel, dataset: Dataset) -> dict[str, Any]:
    """Return what a model does on the val split, fit for JSON.

    Args:
        model: the best one.
        dataset: with its data.

    Returns:
        num_images; images: those it is most wrong about, each with src (a data URI), text and name; for
        classification interval, per_class and confusion as `metrics.classification_report` has them; for regression
        dots (true, predicted) and both histograms: edges and counts.
    """
    outputs, targets = training.predict(model.module, model.config, dataset, dataset.val)
    regression = dataset.task == "regression"
    found = _values(outputs, targets) if regression else classification_report(outputs, targets, dataset.classes)
    if regression:
        wrong = (outputs.reshape(-1) - targets).abs()
    else:
        loss = functional.cross_entropy(outputs, targets, reduction="none")
        wrong = torch.where(outputs.argmax(1) == targets, -math.inf, loss)
    wrong = torch.where(wrong.isnan(), math.inf, wrong)
    worst = [row for row in wrong.argsort(descending=True)[:NUM_IMAGES].tolist() if wrong[row] > -math.inf]
    images = []
    for row in worst:
        of_all = int(dataset.val.rows[row])
        images.append({
            "src": thumbnail(np.asarray(dataset.val.all_images[of_all])),
            "text": _in_words(outputs[row], targets[row], dataset),
            "name": str(dataset.names[of_all]) if len(dataset.names) else f"val image {row}",
        })  # fmt: skip
    return {**found, "num_images": len(targets), "images": images}


def thumbnail(image: np.ndarray) -> str:
    """Return an image, uint8 (H, W, C), as a small PNG in a data URI."""
    small, large = THUMBNAIL_PX
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    longest = max(picture.size)
    factor = min(1.0, large / longest) if longest > small else math.ceil(small / longest)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    how = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
    file = io.BytesIO()
    picture.convert("RGB").resize(size, how).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _values(outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
    predicted, true = outputs.reshape(-1).double().numpy(), targets.double().numpy()
    known = np.isfinite(predicted)
    predicted, true = predicted[known], true[known]
    rows = np.unique(np.linspace(0, len(true) - 1, min(MOST_DOTS, len(true))).astype(int))
    edges = np.histogram_bin_edges(np.concatenate([predicted, true, [0.0] * (not len(true))]), NUM_BINS)
    counts = {
        name: np.histogram(values, edges)[0].tolist() for name, values in (("true", true), ("predicted", predicted))
    }
    dots = [[float(f"{true[row]:.5g}"), float(f"{predicted[row]:.5g}")] for row in rows]
    return {"dots": dots, "edges": edges.tolist(), "counts": counts}


def _in_words(output: torch.Tensor, target: torch.Tensor, dataset: Dataset) -> str:
    if dataset.task == "regression":
        return f"true {target.item():.4g}, predicted {output.item():.4g}"
    shares = output.softmax(0)
    said = int(shares.argmax())
    return f"is {dataset.classes[int(target)]}, taken for {dataset.classes[said]} ({shares[said].item():.0%} sure)"
