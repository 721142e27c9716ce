"""The datasets everyone knows: scikit-learn's digits; MNIST, Fashion-MNIST and CIFAR-10 as torchvision keeps them."""

from pathlib import Path
from typing import Any

import numpy as np

from tunekit.datasets.base import Dataset, build
from tunekit.datasets.images import resize_all
from tunekit.datasets.loading import register_dataset
from tunekit.errors import DataError

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


@register_dataset("digits")
def digits(
    data_dir: str | None = None,
    image_size: int | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    split_seed: int = 0,
) -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits, 8 x 8 px grey, which come with it: nothing is downloaded.

    Args:
        data_dir: not needed.
        image_size, val_fraction, test_fraction, split_seed: as in `load_dataset`.

    Example:
        >>> from tunekit.datasets import load_dataset
        >>> load_dataset("digits").image_shape
        (1, 8, 8)
    """
    from sklearn.datasets import load_digits  # takes a second to import, and only this dataset needs it

    images, targets = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 8, 8, 1) * 255 / 16).round().astype(np.uint8)  # 0..16 to 0..255
    return build(
        "digits", resize_all(pixels, image_size), targets, np.full(len(targets), "train"),
        val_fraction=val_fraction, test_fraction=test_fraction, split_seed=split_seed,
    )  # fmt: skip


@register_dataset("mnist")
def mnist(
    data_dir: str | None = None,
    image_size: int | None = None,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    download: bool = False,
) -> Dataset:
    """Return MNIST: 60,000 + 10,000 handwritten digits, 28 x 28 px grey; the official test set is the test split.

    Args:
        data_dir: holds MNIST/raw with the idx files; "data" when None.
        image_size, val_fraction, split_seed, download: as in `load_dataset`.

    Raises:
        DataError: the files are not there, or are damaged.

    Source: LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist/.
    """
    options = {"image_size": image_size, "val_fraction": val_fraction, "split_seed": split_seed}
    return _load_idx("mnist", "MNIST", data_dir, download, (), options)


@register_dataset("fashion_mnist")
def fashion_mnist(
    data_dir: str | None = None,
    image_size: int | None = None,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    download: bool = False,
) -> Dataset:
    """Return Fashion-MNIST: 60,000 + 10,000 articles of clothing, 28 x 28 px grey, in 10 classes.

    Args:
        data_dir: holds FashionMNIST/raw with the idx files; "data" when None.
        image_size, val_fraction, split_seed, download: as in `load_dataset`.

    Raises:
        DataError: the files are not there, or are damaged.

    Source: Xiao, Rasul and Vollgraf 2017, https://arxiv.org/abs/1708.07747.
    """
    options = {"image_size": image_size, "val_fraction": val_fraction, "split_seed": split_seed}
    return _load_idx("fashion_mnist", "FashionMNIST", data_dir, download, FASHION_CLASSES, options)


@register_dataset("cifar10")
def cifar10(
    data_dir: str | None = None,
    image_size: int | None = None,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    download: bool = False,
) -> Dataset:
    """Return CIFAR-10: 50,000 + 10,000 colour photographs, 32 x 32 px, in 10 classes.

    The official files are Python pickles. torchvision opens them, and only after each one's MD5 has been found to be
    that of the official file, so that an altered file is refused before anything in it can run.

    Args:
        data_dir: holds cifar-10-batches-py; "data" when None. For CIFAR-10 as a folder of images give the folder.
        image_size, val_fraction, split_seed, download: as in `load_dataset`.

    Raises:
        DataError: the files are not there, or are not the official ones.

    Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html.
    """
    root = Path(data_dir or "data").expanduser().absolute()
    from torchvision import datasets  # takes two seconds to import: only who needs it waits

    if download:
        _download("cifar10", "CIFAR10", root)
    try:
        parts = {split: datasets.CIFAR10(root, train=split == "train") for split in ("train", "test")}
    except RuntimeError:  # torchvision's word for both missing and altered
        raise _missing("cifar10", root / "cifar-10-batches-py", root) from None
    arrays = {split: (part.data, np.array(part.targets)) for split, part in parts.items()}
    options = {"image_size": image_size, "val_fraction": val_fraction, "split_seed": split_seed}
    return _official("cifar10", arrays, parts["train"].classes, options)


def _load_idx(
    name: str, kind: str, data_dir: str | None, download: bool, classes: tuple[str, ...], options: dict[str, Any]
) -> Dataset:
    """Read the four idx files with torchvision's readers.

    Not through torchvision's class: that one prefers an old `processed/training.pt`, a pickle, where one lies about.
    """
    from torchvision.datasets.mnist import read_image_file, read_label_file

    root = Path(data_dir or "data").expanduser().absolute()
    raw = root / kind / "raw"
    if download:
        _download(name, kind, root)
    arrays = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        paths = raw / f"{prefix}-images-idx3-ubyte", raw / f"{prefix}-labels-idx1-ubyte"
        if not all(path.is_file() for path in paths):
            raise _missing(name, raw, root)
        try:
            images, targets = read_image_file(str(paths[0])).numpy(), read_label_file(str(paths[1])).numpy()
        except (AssertionError, ValueError, TypeError, RuntimeError, OSError, KeyError, IndexError) as error:
            raise DataError(f"{name}: {paths[0]} or {paths[1]} is damaged ({error!r}); fetch them again") from error
        if len(images) != len(targets) or not len(targets) or targets.max() > 9:
            raise DataError(f"{name}: {paths[0]} and {paths[1]} do not belong together; fetch them again")
        arrays[split] = images[..., None], targets
    return _official(name, arrays, classes, options)


def _official(
    name: str, arrays: dict[str, tuple[np.ndarray, np.ndarray]], classes: tuple[str, ...], options: dict[str, Any]
) -> Dataset:
    """Keep the official test set as test; val is cut from train."""
    images = np.concatenate([arrays["train"][0], arrays["test"][0]])
    targets = np.concatenate([arrays["train"][1], arrays["test"][1]])
    split_of = np.repeat(["train", "test"], [len(arrays["train"][1]), len(arrays["test"][1])])
    return build(
        name, resize_all(images, options["image_size"]), targets, split_of, classes=classes,
        val_fraction=options["val_fraction"], split_seed=options["split_seed"],
    )  # fmt: skip


def _download(name: str, kind: str, root: Path) -> None:
    """Let torchvision fetch and verify the official files."""
    from torchvision import datasets

    try:
        root.mkdir(parents=True, exist_ok=True)
        getattr(datasets, kind)(root, download=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        raise DataError(f"{name} could not be downloaded into {root}: {error}; put the files there by hand") from error


def _missing(name: str, folder: Path, root: Path) -> DataError:
    return DataError(
        f"{name}: the official files are not (or not unaltered) in {folder}: "
        f"fetch them with `tunekit download {name} --data-dir {root}`, or say where they are with data_dir"
    )
