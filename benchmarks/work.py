"""The work that everyone is given, to the letter: the images, the networks and the list of configs.

Imports numpy alone until a network is asked for, so that nobody's start is slowed by what he does not use.
"""

import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

# (learning rate, batch size) for Adam, the first of them tunekit's default config, which it always tries first.
CONFIGS = (
    (1e-3, 64), (3e-4, 128), (3e-3, 32), (5e-4, 32), (2e-3, 128), (5e-4, 64), (1e-3, 128), (2e-3, 32),
    (3e-4, 64), (3e-3, 128), (1e-3, 32), (5e-4, 128), (2e-3, 64), (3e-4, 32), (3e-3, 64), (2e-4, 64),
)  # fmt: skip
TEST_IMAGES = 500  # a tunekit dataset has a test split; nobody opens it here
CLASSES = 10


@dataclass(frozen=True)
class Work:
    """What is to be done, and with what.

    Args:
        data: the folder with MNIST/raw/*-ubyte.
        scratch: a folder of this run's own, deleted after it.
        backbone: cnn, lenet or resnet18.
        images, val_images: how many to train on, and to validate on after every epoch.
        size: px; 28, or 64, for which each pixel is doubled, a border added and grey made colour.
        configs: how many of CONFIGS, from the first.
        epochs: of each config.
        seed: of weights and order.
        precision, memory_format: what tunekit measured to be the fastest here, for those peers that are to use it.
        checkpoints: whether the Ray Tune peers save one with each report, as Ray's tutorial does.
        device: cpu or cuda.
        gpus: of each trial of tunekit; "auto" is what fits, and none where there are none.
        keep_memory: whether those with every trick keep the memory that a step frees, take denormal numbers for
            zero, and validate with batch norm folded into convolutions and faster pooling, as tunekit does.
    """

    data: str
    scratch: str = ""
    backbone: str = "cnn"
    images: int = 6000
    val_images: int = 6000
    size: int = 28
    configs: int = 16
    epochs: int = 3
    seed: int = 0
    precision: str = "float32"
    memory_format: str = "contiguous"
    checkpoints: bool = True
    device: str = "cpu"
    gpus: float | str = "auto"
    keep_memory: bool = True

    def __post_init__(self) -> None:
        """Let the data be found from any folder: a peer may have one of its own."""
        object.__setattr__(self, "data", os.path.abspath(self.data))

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return 1 if self.size == 28 else 3

    @property
    def config_list(self) -> list[dict[str, Any]]:
        """The configs, in the order in which they are tried."""
        return [{"lr": lr, "batch_size": batch_size} for lr, batch_size in CONFIGS[: self.configs]]

    @property
    def num_trained(self) -> int:
        """How many images are trained on in all."""
        return self.images * self.epochs * self.configs

    def with_(self, **changed: Any) -> "Work":
        """Return the same work with something changed."""
        return replace(self, **changed)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        return asdict(self)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rows_of(work: Work) -> dict[str, np.ndarray]:
    """Return which of MNIST's 60,000 train images are train, val and test: the same for everyone."""
    order = np.random.default_rng(0).permutation(60_000)
    ends = np.cumsum([work.images, work.val_images, TEST_IMAGES])
    return dict(zip(("train", "val", "test"), np.split(order[: ends[-1]], ends[:-1]), strict=True))


def arrays_of(work: Work) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return (images uint8 (N, H, W, C), targets int64 (N,)) of each split."""
    raw = Path(work.data, "MNIST", "raw")
    images = np.fromfile(raw / "train-images-idx3-ubyte", np.uint8)[16:].reshape(-1, 28, 28, 1)
    targets = np.fromfile(raw / "train-labels-idx1-ubyte", np.uint8)[8:].astype(np.int64)
    return {split: (_sized(images[rows], work), targets[rows]) for split, rows in rows_of(work).items()}


def _sized(images: np.ndarray, work: Work) -> np.ndarray:
    if work.size == 28:
        return images
    doubled = images.repeat(2, axis=1).repeat(2, axis=2)
    border = (work.size - doubled.shape[1]) // 2
    padded = np.pad(doubled, ((0, 0), (border, border), (border, border), (0, 0)))
    return np.ascontiguousarray(padded.repeat(3, axis=3))


def network_of(work: Work, outputs: int = CLASSES) -> Any:
    """Return the network, not yet trained: tunekit's own small ones, or torchvision's resnet18.

    Nothing else of tunekit is imported for it.
    """
    if work.backbone == "resnet18":
        from torchvision.models import resnet18

        return resnet18(num_classes=outputs)
    from tunekit import small_cnns

    task = "classification" if outputs > 1 else "regression"
    shape = (work.channels, work.size, work.size)
    about = SimpleNamespace(
        image_shape=shape, num_channels=work.channels, num_outputs=outputs, task=task, target_mean=0
    )
    return getattr(small_cnns, work.backbone)({"dropout": None}, about)


def make_photographs(data: str, folder: Path, images: int) -> Path:
    """Make a folder of photographs in Place Pulse's layout, unless it is there already, and return it.

    Args:
        data: the folder with make_placepulse.py and cifar10-jpeg.tar.xz.
        folder: where; one that lasts spares making it again.
        images: how many.
    """
    place = folder / f"placepulse-{images}"
    if not (place / "truth.csv").exists():
        made = [sys.executable, str(Path(data, "make_placepulse.py")), str(place), "--images", str(images)]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    return place
