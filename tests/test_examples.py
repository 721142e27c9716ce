"""Every example runs, as a program of its own, on a small part of real data."""

import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def example(name: str, *arguments: object, cwd: Path) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.fixture(scope="session")
def small_mnist(data, tmp_path_factory) -> Path:
    """The first 600 + 200 images of MNIST, in its own file format."""
    folder = tmp_path_factory.mktemp("small")
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, count in (("train", 600), ("t10k", 200)):
        for kind, size, header in (("images-idx3", 28 * 28, 16), ("labels-idx1", 1, 8)):
            content = (data / "MNIST" / "raw" / f"{split}-{kind}-ubyte").read_bytes()
            part = bytearray(content[: header + count * size])
            part[4:8] = struct.pack(">i", count)
            (raw / f"{split}-{kind}-ubyte").write_bytes(part)
    return folder


@pytest.fixture(scope="session")
def small_cifar(data, tmp_path_factory) -> Path:
    """Some of CIFAR-10's JPEGs, in their class folders."""
    folder = tmp_path_factory.mktemp("cifar")
    counts: dict[str, int] = {}
    with tarfile.open(data / "cifar10-jpeg.tar.xz") as archive:
        for member in archive:
            if not member.isfile():
                continue
            split, name, _ = Path(member.name).parts[-3:]
            counts[f"{split}/{name}"] = counts.get(f"{split}/{name}", 0) + 1
            if counts[f"{split}/{name}"] <= 20:
                path = folder / split / name / Path(member.name).name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.extractfile(member).read())
    return folder


@pytest.fixture(scope="session")
def small_placepulse(data, tmp_path_factory) -> Path:
    """250 photographs in the layout of Place Pulse: enough for a train split of more than one batch of 128."""
    folder = tmp_path_factory.mktemp("placepulse")
    subprocess.run([sys.executable, data / "make_placepulse.py", folder, "--images", "250"], check=True)
    return folder


@pytest.mark.long
def test_mnist(small_mnist, tmp_path):
    printed = example("mnist.py", "--data-dir", small_mnist, "--num-trials", 2, "--max-epochs", 1, cwd=tmp_path)
    assert "test accuracy 0." in printed and "default config 0." in printed


@pytest.mark.long
def test_cifar10(small_cifar, tmp_path):
    printed = example("cifar10.py", small_cifar, "--num-trials", 2, "--max-epochs", 1, cwd=tmp_path)
    assert "airplane" in printed


@pytest.mark.long
def test_own_images(small_cifar, tmp_path):
    printed = example("own_images.py", small_cifar / "train", "--num-trials", 2, "--max-epochs", 1, cwd=tmp_path)
    assert "winner against the default config: " in printed


@pytest.mark.long
def test_own_training(tmp_path):
    assert "'width'" in example("own_training.py", "--max-epochs", 1, cwd=tmp_path)


@pytest.mark.long
def test_placepulse(small_placepulse, tmp_path):
    options = ["--data-dir", small_placepulse, "--study", "wealthier", "--num-trials", 2, "--max-epochs", 1]
    printed = example("placepulse.py", *options, cwd=tmp_path)
    assert "test_mse" in printed and "test_pearson" in printed
    (page,) = tmp_path.glob("experiments/*/predicted_against_true.html")
    assert "wealthier" in page.read_text() and "Pearson" in page.read_text()


@pytest.mark.long
def test_mnist_sweep(small_mnist, tmp_path):
    options = ["--data-dir", small_mnist, "--num-trials", 2, "--max-epochs", 1]
    printed = example("mnist_sweep.py", *options, cwd=tmp_path)
    assert "'lr': " in printed and "test accuracy 0." in printed
    (page,) = tmp_path.glob("experiments/*/parallel_coordinates.html")
    assert "parcoords" in page.read_text()


@pytest.mark.long
def test_fashion_mnist(data, tmp_path):
    printed = example("fashion_mnist.py", "--data-dir", data, "--max-epochs", 1, cwd=tmp_path)
    assert "61,706 parameters" in printed and "(16, 5, 5)" in printed
    assert printed.count("accuracy after one batch: 0.") == printed.count("accuracy after training: 0.") == 2


@pytest.mark.long
def test_cnn_lab(small_mnist, tmp_path):
    printed = example("cnn_lab.py", "mnist", "--data-dir", small_mnist, "--max-epochs", 1, cwd=tmp_path)
    assert "momentum=0.9" in printed and "lr=0.1" in printed and "test accuracy of the best: 0." in printed
    pages = {page.name for page in tmp_path.glob("experiments/*.html")}
    assert pages == {"loss.html", "images.html", "momentum.html", "lr.html"}


@pytest.mark.long
def test_cifar_classifier(small_cifar, tmp_path):
    printed = example("cifar_classifier.py", small_cifar, "--max-epochs", 1, cwd=tmp_path)
    assert "epoch 1 of 1: train_loss" in printed and "accuracy on 200 test images: 0." in printed
    assert "airplane" in printed
    (saved,) = tmp_path.glob("experiments/*/cifar_net.safetensors")
    assert saved.with_suffix(".json").is_file()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_and_is_run(path):
    assert len(path.read_text().splitlines()) < 40
    assert f'example("{path.name}"' in Path(__file__).read_text()
