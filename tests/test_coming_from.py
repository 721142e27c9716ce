"""The table in docs/coming-from: each right-hand side is run here, or stands in an example that the tests run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from torchvision.datasets.mnist import read_image_file, read_label_file

import tunekit
from tunekit.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "coming-from" / "index.md").read_text()
EXAMPLES = {path.name: path.read_text() for path in (ROOT / "examples").glob("*.py")}
# What makes a command small. Of an option or key that is given twice, the last one holds.
SMALL = {
    "placepulse": ["--option", "image_size=32"],
    "pretrained=true": ["pretrained=false"],  # the weights would be downloaded
    "--space placepulse": ["--set", "pretrained=false", "--set", "backbone=resnet18"],
    "--max-epochs": ["--max-epochs", "1"],
    "--num-trials": ["--num-trials", "2"],
}


def table() -> list[tuple[str, str]]:
    """Return the rows of the table: what stands on the left, and the code on the right."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    assert rows[0] == ["there", "here"] and all(len(row) == 2 for row in rows)
    assert all(right.startswith("`") and right.endswith("`") and right.count("`") == 2 for _, right in rows[1:])
    return [(left, right.strip("`")) for left, right in rows[1:]]


ROWS = table()
COMMANDS = [right for _, right in ROWS if right.startswith("tunekit ")]
CODE = [right for _, right in ROWS if not right.startswith("tunekit ")]


@pytest.fixture(scope="module")
def places(data, tmp_path_factory) -> dict[str, Path]:
    """Small data for each word in capitals, and an experiment that W&B has heard of."""
    folder = tmp_path_factory.mktemp("coming")
    (folder / "FashionMNIST").symlink_to(data / "FashionMNIST")  # 900 images; of MNIST as many
    (folder / "MNIST" / "raw").mkdir(parents=True)
    for split, count in (("train", 700), ("t10k", 200)):
        for kind, size, header in (("images-idx3", 28 * 28, 16), ("labels-idx1", 1, 8)):
            name = f"MNIST/raw/{split}-{kind}-ubyte"
            with open(data / name, "rb") as file:
                start = file.read(header)
                (folder / name).write_bytes(start[:4] + count.to_bytes(4) + start[8:] + file.read(count * size))
    made = [sys.executable, data / "make_placepulse.py", folder / "place-pulse-2.0", "--images", "60"]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    raw = data / "FashionMNIST" / "raw"
    for split, prefix, count in (("train", "train", 200), ("test", "t10k", 50)):
        images = read_image_file(str(raw / f"{prefix}-images-idx3-ubyte")).numpy()
        targets = read_label_file(str(raw / f"{prefix}-labels-idx1-ubyte")).numpy()
        for number in range(count):
            path = folder / "classes" / split / str(targets[number]) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[number]).convert("RGB").save(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        config = {"backbone": "mlp"}
        results = tunekit.train(config, "digits", max_epochs=1, tracker="wandb", verbose=0, folder=folder)
    return {"DATA": folder, "CIFAR": folder / "classes", "EXPERIMENT": results.folder}


def made_small(command: str) -> list[str]:
    return [*shlex.split(command)[1:], *(word for key, words in SMALL.items() if key in command for word in words)]


@pytest.mark.long
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_table_runs(command, places, ray, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    main([str(places.get(word, word)) for word in made_small(command)])
    printed = capsys.readouterr()
    assert printed.out and not printed.err
    named = re.search(r"--name (\w+)", command)
    assert named is None or (tmp_path / "experiments" / named[1] / "test.json").is_file()


@pytest.mark.parametrize("code", CODE)
def test_code_of_the_table_stands_in_an_example(code):
    """test_examples.py runs every example."""
    assert any(code in text for text in EXAMPLES.values())


def test_the_table_covers_all_five():
    for word in ("Place Pulse", "W&B", "d2l", "Keras", "PyTorch"):
        assert any(left.startswith(word) for left, _ in ROWS), word


def test_every_flag_of_the_place_pulse_program_has_its_counterpart():
    train, search = COMMANDS[:2]
    for flag in ("--max-epochs", "batch_size=", "preprocessing=", "study=", "--data-dir", "--name", "--tracker"):
        assert flag in train and flag in search
    for flag in ("backbone=", "lr=", "oversample="):  # the space has these for the search
        assert flag in train
