"""A trained model outside its search: predicting on new images, and files that hold it, with no pickle in them."""

import hashlib
import importlib.util
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tunekit import paths, training
from tunekit.backbones import build_model
from tunekit.config import check_config, complete
from tunekit.datasets.base import Dataset
from tunekit.datasets.decoding import Preparation, decode_files
from tunekit.datasets.listing import shown
from tunekit.errors import CheckpointError, ConfigError, DataError
from tunekit.feeds import autocast
from tunekit.metrics import classification_report, pairwise_accuracy
from tunekit.preprocessing import Preprocessing

FORMAT = "tunekit-model-1"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's "L"


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model with all that predicting needs. Made by `Results.trained_model` and `load_model`.

    Args:
        module: in eval mode, on the CPU: normalised float32 (N, C, H, W) to (N, num_outputs).
        config: complete.
        dataset: what it was trained on, without the data: image shape, classes, mean and deviation.
    """

    module: torch.nn.Module
    config: dict[str, Any]
    dataset: Dataset

    @classmethod
    def of(cls, state: dict[str, torch.Tensor], config: dict[str, Any], dataset: Dataset) -> "TrainedModel":
        """Return the config's model with these weights."""
        try:
            module = build_model({**config, "pretrained": False}, dataset)
            module.load_state_dict(state)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            reason = " ".join(str(error).split())[:500]
            raise CheckpointError(
                f"these weights are of another model than {config.get('backbone')!r}: {reason}"
            ) from None
        return cls(module.to(memory_format=torch.channels_last).eval(), config, dataset)

    def test(self, dataset: Dataset) -> dict[str, Any]:
        """Return the figures of the dataset's test split, fit for JSON: see `Results.test`."""
        outputs, targets = training.predict(self.module, self.config, dataset, dataset.test)
        figures: dict[str, Any] = training.measure(outputs, targets, dataset.task)
        if len(dataset.comparisons):
            figures["pairwise_accuracy"] = pairwise_accuracy(outputs, dataset.test.rows, dataset.comparisons)
        figures = {f"test_{name}": value if math.isfinite(value) else None for name, value in figures.items()}
        if dataset.task == "classification":
            figures |= classification_report(outputs, targets, dataset.classes)
        return {**figures, "num_images": len(targets)}

    def predict(self, images: Any) -> pd.DataFrame:
        """Return predictions for new images, which are prepared exactly as in training.

        Args:
            images: uint8 (N, H, W) or (N, H, W, C) of the size trained on; a folder, searched with all below it; or a
                list of image files.

        Returns:
            One row per image: path (for files), and for classification class, probability, and a column of
            probabilities per class, "p/<class>"; for regression value.

        Raises:
            DataError: an image that cannot be read, or arrays of another shape; no image at all.
        """
        names, pixels = self._pixels(images)
        prepare = Preprocessing(self.config, self.dataset, torch.device("cpu"))
        outputs = []
        with torch.inference_mode():
            for part in torch.from_numpy(pixels).split(256):
                with autocast(self.config, torch.device("cpu")):
                    outputs.append(self.module(prepare(part)).float())
        frame = _frame(torch.cat(outputs), self.dataset)
        if names:
            frame.insert(0, "path", names)
        return frame

    def export(self, path: str | Path) -> list[Path]:
        """Write `path`.safetensors and `path`.json, which `load_model` opens, and `path`.onnx where onnx is installed.

        The ONNX model takes float32 (N, C, H, W), pixels 0..255 at the size trained at, and gives (N, num_outputs).

        Raises:
            ConfigError: the backbone is a function of your own, which no file can hold.
        """
        if callable(self.config["backbone"]):
            raise ConfigError("the backbone is a function of your own: give it a name with tunekit.register_backbone")
        weights, described = Path(f"{path}.safetensors"), Path(f"{path}.json")
        weights.parent.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.contiguous().clone() for name, tensor in self.module.state_dict().items()}
        paths.write_atomic(weights, lambda aside: save_file(state, aside))
        about = {
            "format": FORMAT,
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "config": self.config,
            "dataset": self.dataset.summary(),
        }
        paths.write_json(described, about)
        written = [weights, described]
        if importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxscript"):
            written.append(self._export_onnx(Path(f"{path}.onnx")))
        return written

    def _export_onnx(self, path: Path) -> Path:
        channels, height, width = self.dataset.image_shape
        size = (self.config["image_size"],) * 2 if self.config["image_size"] else (height, width)
        prepare = Preprocessing({**self.config, "image_size": None}, self.dataset, torch.device("cpu"))
        whole = _Normalised(self.module, prepare.scale, prepare.shift).eval()
        example = torch.zeros(2, channels, *size)
        program = torch.onnx.export(
            whole, (example,), dynamo=True, verbose=False, input_names=["pixels"], output_names=["outputs"],
            dynamic_shapes={"pixels": {0: torch.export.Dim("N")}},
        )  # fmt: skip
        assert program is not None
        paths.write_atomic(path, lambda aside: program.save(aside, external_data=False))
        return path

    def _pixels(self, images: Any) -> tuple[list[str], np.ndarray]:
        """Return (file names, uint8 (N, H, W, C)) of whatever was given."""
        channels, height, width = self.dataset.image_shape
        names: list[str] = []
        if isinstance(images, str | Path):
            names, pixels = _decode(_files_in(Path(images)), self.dataset)
        elif isinstance(images, Sequence) and images and isinstance(images[0], str | Path):
            names, pixels = _decode([Path(path) for path in images], self.dataset)
        else:
            pixels = np.asarray(images)
            pixels = pixels[..., None] if pixels.ndim == 3 else pixels
        pixels = _with_channels(pixels, channels)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (height, width, channels):
            raise DataError(
                f"images must be uint8 (N, {height}, {width}, {channels}), as in training, but are {pixels.dtype} "
                f"{pixels.shape}: resize them, or give their files"
            )
        return names, pixels


def load_model(path: str | Path) -> TrainedModel:
    """Return the model that `TrainedModel.export(path)` wrote.

    Args:
        path: with or without the suffix .safetensors or .json.

    Raises:
        CheckpointError: a file is missing, damaged, or no model of tunekit.
    """
    stem = Path(path).with_suffix("") if Path(path).suffix in (".safetensors", ".json") else Path(path)
    weights, described = Path(f"{stem}.safetensors"), Path(f"{stem}.json")
    try:
        about = paths.read_json(described)
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise CheckpointError(f"{described} describes no model of tunekit")
        if about["sha256"] != hashlib.sha256(weights.read_bytes()).hexdigest():
            raise CheckpointError(f"{weights} has been altered or damaged: its SHA-256 is not the one in {described}")
        state, config, dataset = load_file(weights), complete(about["config"]), Dataset.from_summary(about["dataset"])
    except (OSError, ValueError, TypeError, LookupError, SafetensorError) as error:
        raise CheckpointError(f"there is no whole model at {stem}: {error}") from None
    check_config(config, extra_keys=True)
    return TrainedModel.of(state, config, dataset)


class _Normalised(torch.nn.Module):
    """A model in front of which pixels 0..255 are normalised."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, module: torch.nn.Module, scale: torch.Tensor, shift: torch.Tensor) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.module(pixels * self.scale + self.shift)


def _frame(outputs: torch.Tensor, dataset: Dataset) -> pd.DataFrame:
    if dataset.task == "regression":
        return pd.DataFrame({"value": outputs.flatten().numpy()})
    shares = outputs.softmax(1).numpy()
    best = shares.argmax(1)
    classes = [dataset.classes[number] for number in best]
    each = {f"p/{name}": shares[:, number] for number, name in enumerate(dataset.classes)}
    return pd.DataFrame({"class": classes, "probability": shares.max(1), **each})


def _files_in(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    found = [Path(at) / name for at, _, names in os.walk(folder) for name in names if not name.startswith(".")]
    files = sorted(path for path in found if path.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"there are no images in {folder} ({', '.join(SUFFIXES)})")
    return files


def _decode(files: list[Path], dataset: Dataset) -> tuple[list[str], np.ndarray]:
    """Decode files as the dataset's own were: same cuts, same size."""
    absolute = [str(path.expanduser().absolute()) for path in files]
    root = Path(os.path.commonpath([os.path.dirname(path) for path in absolute]))
    how = Preparation(**{**dataset.preparation, "image_size": dataset.image_shape[1]})
    decoded = decode_files(root, [os.path.relpath(path, root) for path in absolute], how)
    if decoded.problems:
        first = [f"{shown(absolute[row])}: {reason}" for row, reason in list(decoded.problems.items())[:20]]
        raise DataError(
            f"{len(decoded.problems)} of {len(files)} images cannot be read: {'; '.join(first)}: leave them out"
        )
    return [shown(str(path)) for path in files], np.asarray(decoded.images)


def _with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Turn grey into colour, or colour into grey, as the model wants it."""
    if pixels.ndim == 4 and pixels.shape[3] == 1 and channels == 3:
        return np.repeat(pixels, 3, axis=3)
    if pixels.ndim == 4 and pixels.shape[3] == 3 and channels == 1:
        return (pixels @ GREY)[..., None].round().astype(np.uint8)
    return pixels
