"""From stored pixels to what a model sees, a whole batch at a time, on the model's device."""

from typing import Any

import torch
from torch.nn import functional

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision.models' own


class Preprocessing:
    """Turns uint8 (N, H, W, C) into float32 (N, C, H', W'): scaled, resized, normalised, and augmented in training.

    Args:
        config: its image_size (pixels a side, or None), pretrained and augment.
        dataset: its mean and std, per channel, for pixels in 0..1.
        device: where the batches are.
    """

    def __init__(self, config: dict[str, Any], dataset: Any, device: torch.device) -> None:
        imagenet = config["pretrained"] and dataset.num_channels == 3
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if imagenet else (dataset.mean, dataset.std)
        self.scale = (1 / (255 * torch.tensor(std, device=device)))[:, None, None]
        self.shift = (-torch.tensor(mean, device=device) / torch.tensor(std, device=device))[:, None, None]
        self.size = config["image_size"]
        self.augment = config["augment"]

    def __call__(self, images: torch.Tensor, training: bool = False) -> torch.Tensor:
        """Return a batch ready for the model, its memory in channels_last order."""
        batch = images.permute(0, 3, 1, 2).to(torch.float32)  # the permuted order is channels_last as it stands
        if self.size and batch.shape[2:] != (self.size, self.size):
            batch = functional.interpolate(batch, (self.size, self.size), mode="bilinear", antialias=True)
        scale, shift = (along_rows(values, batch.shape[3]) for values in (self.scale, self.shift))
        batch = batch.mul_(scale).add_(shift)  # a new tensor since it became float
        if training and "crop" in self.augment:
            batch = random_shift(batch)
        if training and "flip" in self.augment:
            batch = random_flip(batch)
        return batch.contiguous(memory_format=torch.channels_last)


def along_rows(values: torch.Tensor, width: int) -> torch.Tensor:
    """Return values per channel (C, 1, 1) as (C, 1, width), in memory as a row of a channels_last batch is.

    A product with them goes through memory in one piece; three numbers at a time take a CPU four times as long.
    """
    return values if len(values) == 1 else values.permute(1, 2, 0).repeat(1, width, 1).permute(2, 0, 1)


def random_flip(batch: torch.Tensor) -> torch.Tensor:
    """Mirror each image (N, C, H, W) left to right with a chance of one half."""
    mirrored = draw_mirrored(len(batch), batch.device)
    return torch.where(mirrored[:, None, None, None], batch.flip(3), batch)


def draw_mirrored(count: int, device: torch.device) -> torch.Tensor:
    """Return which of so many images are mirrored, bool (count,): each with a chance of one half."""
    return torch.rand(count, device=device) < 0.5


def random_shift(batch: torch.Tensor) -> torch.Tensor:
    """Move each image (N, C, H, W) by up to an eighth of its side each way; what comes in is 0, the mean colour.

    Source: the pad-and-crop of He et al., arXiv:1512.03385, section 4.2 (4 px of 32).
    """
    count, _, height, width = batch.shape
    pad = max(1, max(height, width) // 8)
    windows = functional.pad(batch, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1)
    top, left = torch.randint(0, 2 * pad + 1, (2, count), device=batch.device)
    return windows[torch.arange(count, device=batch.device), :, top, left]
