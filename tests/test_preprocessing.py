"""From stored pixels to what a model sees."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from tunekit.preprocessing import IMAGENET_MEAN, Preprocessing, random_flip, random_shift

CPU = torch.device("cpu")


def make(images, *, training=False, mean=0.5, std=0.25, **changed):
    channels = images.shape[3]
    dataset = SimpleNamespace(num_channels=channels, mean=(mean,) * channels, std=(std,) * channels)
    config = {"image_size": None, "pretrained": False, "augment": "none", **changed}
    return Preprocessing(config, dataset, CPU)(images, training)


def random_images(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_pixels_are_scaled_and_normalised():
    images = random_images(5, 6, 7, 3)
    batch = make(images)
    expected = (images.permute(0, 3, 1, 2).double() / 255 - 0.5) / 0.25
    assert batch.dtype == torch.float32 and batch.shape == (5, 3, 6, 7)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(batch.double(), expected, rtol=0, atol=1e-5)


def test_each_channel_has_its_own_mean_and_deviation():
    means, deviations = torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0.1, 0.25, 0.5])
    images = random_images(2, 6, 7, 3)
    dataset = SimpleNamespace(num_channels=3, mean=tuple(means.tolist()), std=tuple(deviations.tolist()))
    raw = images.permute(0, 3, 1, 2).float()
    for size in (None, 4):
        prepare = Preprocessing({"image_size": size, "pretrained": False, "augment": "none"}, dataset, CPU)
        pixels = functional.interpolate(raw, (size, size), mode="bilinear", antialias=True) if size else raw
        expected = (pixels / 255 - means[:, None, None]) / deviations[:, None, None]
        torch.testing.assert_close(prepare(images), expected, rtol=0, atol=1e-5)


def test_pretrained_weights_see_imagenets_colours_and_grey_ones_the_datasets():
    white = torch.full((1, 1, 1, 3), 255, dtype=torch.uint8)
    assert make(white, pretrained=True)[0, 0].item() == pytest.approx((1 - IMAGENET_MEAN[0]) / 0.229, abs=1e-5)
    assert make(white[..., :1], pretrained=True).item() == pytest.approx(2, abs=1e-5)


def test_images_are_resized():
    image = torch.zeros(1, 8, 8, 1, dtype=torch.uint8)
    image[:, :, 4:] = 255
    batch = make(image, image_size=2, mean=0.0, std=1.0)
    assert batch.shape == (1, 1, 2, 2)
    left, right = batch[0, 0, 0].tolist()
    assert left < 0.15 and right > 0.85
    assert make(image, image_size=8).shape == (1, 1, 8, 8)
    assert make(random_images(1, 6, 9, 3), image_size=12).shape == (1, 3, 12, 12)


def test_augmentation_is_for_training_alone():
    images = random_images(32, 8, 8, 1)
    plain = make(images)
    for augment in ("flip", "crop", "flip_crop"):
        assert torch.equal(make(images, augment=augment), plain)
        assert not torch.equal(make(images, augment=augment, training=True), plain)
    assert torch.equal(make(images, training=True), plain)


def test_each_image_is_mirrored_or_not_by_a_draw_of_its_own():
    torch.manual_seed(0)
    batch = torch.rand(400, 2, 3, 5)
    flipped = random_flip(batch)
    mirrored = [torch.equal(after, before.flip(2)) for after, before in zip(flipped, batch, strict=True)]
    kept = [torch.equal(after, before) for after, before in zip(flipped, batch, strict=True)]
    assert [not m for m in mirrored] == kept
    assert 150 < sum(mirrored) < 250


def test_each_image_is_shifted_by_a_draw_of_its_own_pixel_for_pixel():
    torch.manual_seed(0)
    batch = torch.rand(600, 2, 16, 9) + 1  # no pixel is 0
    shifted = random_shift(batch)
    seen = set()
    for after, before in zip(shifted, batch, strict=True):
        padded = torch.nn.functional.pad(before, (2, 2, 2, 2))
        fits = [
            (top, left) for top in range(5) for left in range(5)
            if torch.equal(after, padded[:, top : top + 16, left : left + 9])
        ]  # fmt: skip
        assert len(fits) == 1
        seen.update(fits)
    assert len(seen) == 25  # up to 2 px, an eighth of 16, each way
