"""Names, paths, options; the well-known datasets; the decoding processes."""

import hashlib
import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from tunekit.datasets import DATASETS, Dataset, load_dataset, register_dataset
from tunekit.datasets.decoding import Preparation, decode_files
from tunekit.datasets.images import BadImage, decode
from tunekit.datasets.workers import Workers
from tunekit.errors import ConfigError, DataError, UnknownNameError


def test_names_and_paths(tmp_path):
    with pytest.raises(UnknownNameError, match="unknown dataset 'mnits': did you mean 'mnist'"):
        load_dataset("mnits")
    with pytest.raises(DataError, match="there is no dataset at"):
        load_dataset(str(tmp_path / "gone"))
    with pytest.raises(DataError, match="there is no dataset at"):
        load_dataset("gone.csv")
    with pytest.raises(DataError, match="there is no dataset at"):
        load_dataset(tmp_path / "gone")
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(DataError, match="neither a folder"):
        load_dataset(tmp_path / "file.txt")
    with pytest.raises(DataError, match="a name, a path or a Dataset, but int"):
        load_dataset(3)
    dataset = load_dataset("digits")
    assert load_dataset(dataset) is dataset


def test_options():
    with pytest.raises(ConfigError, match="has no option 'split_sed': did you mean 'split_seed'"):
        load_dataset("digits", split_sed=1)
    with pytest.raises(ConfigError, match="'mnist' does not take test_fraction"):
        load_dataset("mnist", test_fraction=0.5)


def test_a_persons_own_dataset():
    @register_dataset("dots")
    def dots(data_dir=None, **options):
        targets = np.arange(200) % 2
        return Dataset.from_arrays(train=((targets[:, None, None] * np.full((4, 4), 9)).astype(np.uint8), targets))

    try:
        dataset = load_dataset("dots", colour="red", data_dir="x")
        assert dataset.source["colour"] == "red" and os.path.isabs(dataset.source["data_dir"])
        assert load_dataset("dots", table=object()).source == {}
    finally:
        del DATASETS._things["dots"]


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_missing_files_say_where_they_belong(name, tmp_path):
    with pytest.raises(DataError, match=f"tunekit download {name} --data-dir {tmp_path}"):
        load_dataset(name, data_dir=tmp_path)


def test_digits_fill_the_range():
    dataset = load_dataset("digits")
    assert dataset.train.all_images.min() == 0 and dataset.train.all_images.max() == 255


def test_mnist_is_mnist_and_quick(data):
    started = time.monotonic()
    dataset = load_dataset("mnist", data_dir=data)
    assert time.monotonic() - started < 5
    official = torchvision.datasets.MNIST(data, train=False)
    assert np.array_equal(dataset.test.images[..., 0], official.data.numpy())
    assert np.array_equal(dataset.test.targets, official.targets.numpy())


@pytest.mark.parametrize("damage", [b"", b"x" * 100, b"\0\0\x08\x03" + b"\0" * 12])
def test_damaged_mnist_is_refused(data, tmp_path, damage):
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for path in (data / "MNIST/raw").iterdir():
        (raw / path.name).symlink_to(path)
    (raw / "t10k-images-idx3-ubyte").unlink()
    (raw / "t10k-images-idx3-ubyte").write_bytes(damage)
    with pytest.raises(DataError, match="fetch them again"):
        load_dataset("mnist", data_dir=tmp_path)


def cifar_files(folder, monkeypatch):
    """Write a small CIFAR-10 in its real format, and give torchvision its checksums for the official ones."""
    random, sums = np.random.default_rng(0), {}
    folder = folder / "cifar-10-batches-py"
    folder.mkdir()
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for name in names:
        pixels = random.integers(0, 256, (40, 3072), dtype=np.uint8)
        content = pickle.dumps({"data": pixels, "labels": [number % 10 for number in range(40)]})
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    meta = pickle.dumps({"label_names": [f"class {number}" for number in range(10)]})
    (folder / "batches.meta").write_bytes(meta)
    loader = torchvision.datasets.CIFAR10
    monkeypatch.setattr(loader, "train_list", [[name, sums[name]] for name in names[:5]])
    monkeypatch.setattr(loader, "test_list", [[names[5], sums[names[5]]]])
    monkeypatch.setattr(loader, "meta", loader.meta | {"md5": hashlib.md5(meta).hexdigest()})
    return folder


def test_cifar10_files(tmp_path, monkeypatch):
    cifar_files(tmp_path, monkeypatch)
    dataset = load_dataset("cifar10", data_dir=tmp_path)
    assert dataset.num_images == {"train": 180, "val": 20, "test": 40}
    assert dataset.image_shape == (3, 32, 32) and dataset.classes[3] == "class 3"


def test_altered_cifar10_is_refused_before_it_can_run(tmp_path, monkeypatch):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    folder = cifar_files(tmp_path, monkeypatch)
    (folder / "data_batch_2").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match="not unaltered"):
        load_dataset("cifar10", data_dir=tmp_path)
    assert not (tmp_path / "ran").exists()


def test_from_torch(data):
    dataset = Dataset.from_torch(torchvision.datasets.FashionMNIST(data), name="clothes")
    assert dataset.image_shape == (1, 28, 28) and sum(dataset.num_images.values()) == 800
    floats = TensorDataset(torch.rand(40, 3, 8, 8), torch.arange(40) % 4)
    dataset = Dataset.from_torch(floats)
    expected = floats.tensors[0].permute(0, 2, 3, 1).numpy()[dataset.train.rows]
    assert abs(dataset.train.images / 255 - expected).max() < 0.002
    images, targets = next(iter(DataLoader(dataset.train, batch_size=8)))
    assert images.shape == (8, 3, 8, 8) and targets.shape == (8,)


@pytest.mark.parametrize(("images", "targets", "reason"), [
    (np.zeros((20, 8, 8)), np.arange(20) % 2, "must be uint8"),
    (np.zeros((20, 8, 8, 4), np.uint8), np.arange(20) % 2, "1 or 3 channels"),
    (np.zeros((20, 8, 8), np.uint8), np.arange(19) % 2, "one per image"),
    (np.zeros((20, 8, 8), np.uint8), np.full(20, np.nan), "must be finite"),
    (np.zeros((20, 8, 8), np.uint8), np.full(20, 0.5), "nothing to learn"),
    (np.zeros((20, 8, 8), np.uint8), np.zeros(20, int), "at least two classes"),
    (np.zeros((20, 8, 8), np.uint8), np.arange(20) - 1, "smallest is -1"),
    (np.zeros((20, 8, 8), np.uint8), np.array(list("ab") * 10), "whole numbers"),
])  # fmt: skip
def test_unfit_arrays(images, targets, reason):
    with pytest.raises(DataError, match=reason):
        Dataset.from_arrays(train=(images, targets))


def test_unfit_torch_datasets():
    with pytest.raises(DataError, match="mode L or RGB"):
        Dataset.from_torch([(Image.new("P", (8, 8)), 0)] * 20)
    with pytest.raises(DataError, match="must lie in 0"):
        Dataset.from_torch(TensorDataset(torch.randn(20, 1, 8, 8), torch.arange(20) % 2))
    with pytest.raises(DataError, match="no images"):
        Dataset.from_torch(TensorDataset(torch.rand(20, 1, 8, 8), torch.arange(20) % 2), test=[])


def test_a_killed_decoder_takes_one_file_with_it(pets):
    requests = []
    for number in range(3):
        found = (path := pets / f"cat/{number}.png").stat()
        requests.append({"path": str(path), "stamp": [found.st_size, found.st_mtime_ns, found.st_ctime_ns]})
    with Workers(1) as workers:
        good = workers.ask(requests, "reading")
        pid = workers.workers[0].process.pid
        os.kill(pid, signal.SIGSTOP)  # so that it has the first file in hand when it dies
        threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
        assert workers.ask(requests, "reading") == [{"problem": "had its decoder killed (no memory?)"}, *good[1:]]
        os.kill(workers.workers[0].process.pid, signal.SIGKILL)
        time.sleep(0.1)
        assert workers.ask(requests, "reading") == good  # it died idle: no file is to blame


def test_a_file_that_changes_while_it_is_read(pets):
    with Workers(1) as workers:
        answers = workers.ask([{"path": str(pets / "cat/0.png"), "stamp": [1, 2, 3]}], "reading")
    assert answers == [{"problem": "changed while it was read"}]


def test_imagenet_preparation(tmp_path):
    """Shorter side to 256, centre crop 224, after 25 px of footer are cut: what Place Pulse needs."""
    pixels = np.zeros((325, 400, 3), np.uint8)
    pixels[:, 50:350] = 100
    pixels[300:] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    decoded = decode_files(tmp_path, ["a.png"], Preparation(224, crop=224 / 256, cut_bottom_px=25))
    assert decoded.images.shape == (1, 224, 224, 3) and (decoded.images == 100).all()
    with pytest.raises(BadImage, match="325 px high, and 400 px were to be cut"):
        decode((tmp_path / "a.png").read_bytes(), 3, 8, cut_bottom_px=400)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("height", [1304, 1303])  # by 8, and by nothing
def test_a_large_jpeg_is_decoded_small_as_it_would_be_whole(tmp_path, orientation, height):
    """Its footer, cut off in pixels of the whole image, leaves no trace, and no detail is off, upright or turned."""
    y, x = np.mgrid[:height, :1600]
    pixels = np.stack([x / 1600, y / 1304, np.sin(x / 60) * np.sin(y / 60) / 2 + 0.5], axis=-1)
    pixels[1200:] = 1
    upright = Image.fromarray((pixels * 255).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "a.jpg", quality=95, exif=exif)
    decoded = decode_files(tmp_path, ["a.jpg"], Preparation(64, cut_bottom_px=height - 1200)).images[0]
    above = upright.crop((0, 0, 1600, 1200))
    whole = above.resize((64, 64), Image.Resampling.BILINEAR, box=(200, 0, 1400, 1200))
    assert np.abs(decoded.astype(int) - np.asarray(whole)).max() <= 3


@pytest.mark.parametrize("odd", ["colour", "size"])
def test_one_image_that_is_unlike_all_others_whose_headers_were_looked_at(tmp_path, odd):
    """The shape is guessed from some headers; the one that proves it wrong is not among them."""
    grey = np.arange(100, dtype=np.uint8).reshape(10, 10)
    names = [f"{number:03}.png" for number in range(200)]
    for name in names:
        Image.fromarray(grey).save(tmp_path / name)
    unlike = np.full((10, 10, 3), (9, 99, 199), np.uint8) if odd == "colour" else np.full((20, 30), 77, np.uint8)
    Image.fromarray(unlike).save(tmp_path / names[1])
    decoded = decode_files(tmp_path, names, Preparation())
    assert not decoded.problems and len(set(decoded.digests)) == 2
    if odd == "colour":
        assert decoded.images.shape == (200, 10, 10, 3)
        assert (decoded.images[1] == (9, 99, 199)).all() and (decoded.images[2] == grey[..., None]).all()
    else:
        assert decoded.images.shape == (200, 64, 64, 1)
        assert (decoded.images[1] == 77).all() and (decoded.images[2] == decoded.images[0]).all()
