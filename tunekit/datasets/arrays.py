"""What base.py needs to know of arrays: whether they are images and targets, their hash, their mean and deviation."""

import hashlib
from typing import Any

import numpy as np
import torch

from tunekit.errors import DataError

MOST_PX = 2**15  # of an image's side


def checked_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return an image's shape (C, H, W) as it was written down, or raise ValueError for one that no image has."""
    if len(shape) != 3 or not all(isinstance(side, int) and 0 < side <= MOST_PX for side in shape):
        raise ValueError(f"no image has the shape {shape}")
    return shape[0], shape[1], shape[2]


def array_hash(array: np.ndarray) -> str:
    """Return a hash of an array's values, type and shape."""
    digest = hashlib.blake2b(f"{array.dtype}{array.shape}".encode(), digest_size=16)
    for start in range(0, len(array), 4096):  # in blocks: a memory map may be larger than memory
        digest.update(np.ascontiguousarray(array[start : start + 4096]).data)
    return digest.hexdigest()


def pixel_statistics(images: np.ndarray, rows: np.ndarray, most: int = 10_000) -> tuple[tuple, tuple]:
    """Return mean and standard deviation per channel, of pixels scaled to 0..1, over at most `most` images."""
    sample = images[np.sort(rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)])]
    counts = [np.bincount(sample[..., channel].ravel(), minlength=256) for channel in range(images.shape[3])]
    levels = np.arange(256) / 255
    mean = [float(count @ levels / count.sum()) for count in counts]
    variance = [float(count @ (levels - m) ** 2 / count.sum()) for count, m in zip(counts, mean, strict=True)]
    return tuple(mean), tuple(max(v**0.5, 1 / 255) for v in variance)


def checked(split: str, images: Any, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return images as (N, H, W, C) and targets as (N,), or say what is wrong with them."""
    images, targets = np.asarray(images), np.asarray(targets)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(
            f"{split} images must be uint8 (N, H, W) or (N, H, W, C), but are {images.dtype} {images.shape}: "
            "scale pixels to 0..255 and use .astype('uint8')"
        )
    if images.ndim == 3:
        images = images[..., None]
    if targets.shape != (len(images),):
        raise DataError(f"{split} targets must be one per image, ({len(images)},), but are of shape {targets.shape}")
    if len(images) == 0:
        raise DataError(f"{split} holds no images")
    if images.shape[3] not in (1, 3):
        raise DataError(f"{split} images must have 1 or 3 channels in the last axis, but are {images.shape}")
    if np.issubdtype(targets.dtype, np.floating):
        if not np.isfinite(targets).all():
            raise DataError(f"{split} targets must be finite; {int((~np.isfinite(targets)).sum())} are not")
    elif not np.issubdtype(targets.dtype, np.integer):
        raise DataError(f"{split} targets must be whole numbers (classes) or floats (values), but are {targets.dtype}")
    elif targets.min() < 0:
        raise DataError(f"{split} targets must be class numbers from 0, but the smallest is {targets.min()}")
    return images, targets


def read_torch(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Read every (image, target) of a torch dataset into two arrays."""
    images, targets = [], []
    for image, target in (dataset[i] for i in range(len(dataset))):
        if isinstance(image, torch.Tensor):
            if image.is_floating_point():
                if image.min() < 0 or image.max() > 1:
                    raise DataError("float images must lie in 0..1: leave normalising to tunekit (drop Normalize)")
                image = (image * 255).round().to(torch.uint8)
            image = image.permute(1, 2, 0).numpy()
        elif getattr(image, "mode", "L") not in ("L", "RGB"):  # a palette's indices would pass for grey values
            raise DataError(f"PIL images must be of mode L or RGB, but one is {image.mode}: use .convert('RGB')")
        pixels = np.asarray(image)
        images.append(pixels[..., None] if pixels.ndim == 2 else pixels)
        targets.append(target.item() if isinstance(target, torch.Tensor) else target)
        if images[-1].shape != images[0].shape:
            raise DataError(f"all images must be of one size, but {images[0].shape} and {images[-1].shape} are there")
    if not images:
        raise DataError("a torch dataset that was given holds no images")
    return np.stack(images), np.array(targets)
