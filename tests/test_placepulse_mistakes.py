"""Place Pulse from end to end, and the mistakes of the program that this replaces, each shown to be absent."""

import dataclasses
import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

import tunekit
from search_spaces import placepulse_small
from tunekit import choice, training
from tunekit.arithmetic import settled
from tunekit.backbones import build_model
from tunekit.config import complete
from tunekit.datasets.placepulse import list_placepulse, placepulse
from tunekit.metrics import pairwise_accuracy
from tunekit.optimization import learning_rate, lr_schedules

QUICK = {"backbone": "cifar_net", "lr": 2e-3, "batch_size": 32, "lr_schedule": "one_cycle", "augment": "flip"}


def loop_with_the_mistake() -> Callable[..., Iterator]:
    """Return the built-in loop with the old program's loss: (N, 1) against (N,) is (N, N), each against every target.

    Both functions are made in here, so that they travel to Ray's workers, which cannot import this file.
    """

    def broadcast_loss(outputs, targets, label_smoothing=0.0):
        return (outputs.float().reshape(-1, 1) - targets.reshape(1, -1)).square().mean()

    def train(config, dataset, state=None):
        with mock.patch.object(training, "loss_of", broadcast_loss):
            yield from training.train(complete(config), dataset, state)

    return train


def make(data: Path, folder: Path, images: int) -> tuple[Path, float]:
    """Make a Place Pulse folder out of real photographs; return it with the ceiling of Pearson for `safer`."""
    script = data / "make_placepulse.py"
    command = [sys.executable, str(script), str(folder), "--images", str(images)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return folder, float(re.search(r"safer: ceiling of Pearson r = ([\d.]+)", printed)[1])


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    return make(data, tmp_path_factory.mktemp("made") / "place-pulse-2.0", 1000)


def figures_of(results, dataset) -> dict[str, float]:
    """What `results.test()` gives, of a loop of one's own too."""
    config = settled(complete(results.best_config), results.arithmetic)
    model = build_model(config, dataset)
    model.load_state_dict(results.best_state()["model"])
    outputs, targets = training.predict(model, config, dataset, dataset.test)
    ordered = pairwise_accuracy(outputs, dataset.test.rows, dataset.comparisons)
    return {**training.measure(outputs, targets, "regression"), "pairwise_accuracy": ordered}


@pytest.mark.long
def test_it_learns_what_the_mistake_does_not(made, tmp_path):
    """One training on 650 images, and the same with the broadcast put back."""
    folder, ceiling = made
    dataset = placepulse(folder)
    options = {"max_epochs": 8, "verbose": 0, "folder": tmp_path}
    right = figures_of(tunekit.train(QUICK, dataset, name="right", **options), dataset)
    wrong = figures_of(tunekit.train(QUICK, dataset, train=loop_with_the_mistake(), name="wrong", **options), dataset)
    print(f"ceiling {ceiling}, right {right}, wrong {wrong}")
    assert right["pearson"] > 0.4 * ceiling
    assert right["pairwise_accuracy"] > 0.55
    assert wrong["pearson"] < 0.6 * right["pearson"]


@pytest.mark.long
def test_a_search_reaches_sixty_percent_of_the_ceiling_and_with_the_mistake_does_not(data, tmp_path, ray):
    folder, ceiling = make(data, tmp_path / "place-pulse-2.0", 4000)
    dataset = placepulse(folder)
    space = placepulse_small.space | {  # narrowed to what a few minutes are enough for
        "backbone": choice(["cifar_net", "cnn_small"]),
        "optimizer": "adam",
        "batch_size": choice([32, 64]),
        "oversample": False,
        "lr_schedule": "one_cycle",
    }
    search = functools.partial(tunekit.run, space, dataset, num_trials=8, max_epochs=8, verbose=0, folder=tmp_path)
    results = search(name="right")
    right = figures_of(results, dataset)
    wrong = figures_of(search(name="wrong", train=loop_with_the_mistake()), dataset)
    print(f"ceiling {ceiling}, right {right}, wrong {wrong}\n{results.dataframe.to_string()}")
    # The layout is another than in `test`, which matters in the last digits of bfloat16.
    assert right["pearson"] == pytest.approx(results.test()["test_pearson"], abs=0.005)
    assert right["pearson"] >= 0.6 * ceiling > wrong["pearson"]


def test_the_two_real_images_are_checked_trained_on_and_predicted(made, data, tmp_path):
    """Two images cannot be train, val and test at once; among forty made ones they can be."""
    sample = data / "placepulse-sample"
    listing = list_placepulse(sample)
    assert not listing.problems and not listing.faults
    folder = tmp_path / "place-pulse-2.0"
    shutil.copytree(sample, folder)
    for path in sorted((made[0] / "images").iterdir())[:38]:
        shutil.copy(path, folder / "images")
    tables = [pd.read_csv(path / "qscores.tsv", sep="\t", index_col=0) for path in (sample, made[0])]
    there = {path.name.split("_")[2] for path in (folder / "images").iterdir()}
    scores = pd.concat(tables)
    scores[scores["location_id"].isin(there)].to_csv(folder / "qscores.tsv", sep="\t")
    dataset = placepulse(folder, crop_logo=True)
    real = [row for row, name in enumerate(dataset.names) if name in listing.names]
    assert len(real) == 2 and set(real) & set(dataset.train.rows)
    config = {"backbone": "cifar_net", "batch_size": 8}
    results = tunekit.train(config, dataset, max_epochs=1, verbose=0, folder=tmp_path)
    predicted = results.predict(sample / "images")
    assert sorted(Path(path).name for path in predicted["path"]) == sorted(Path(name).name for name in listing.names)
    assert np.isfinite(predicted["value"]).all()
    both = dataclasses.replace(dataset.test, rows=np.array(real))  # as in training, crop and all
    config = settled(complete(results.best_config), results.arithmetic)
    expected, _ = training.predict(results.best_model(), config, dataset, both)
    assert sorted(predicted["value"]) == pytest.approx(sorted(expected[:, 0].tolist()), abs=1e-4)


def test_the_loss_does_not_broadcast():
    outputs, targets = torch.randn(7, 1, requires_grad=True), torch.randn(7)
    loss = training.loss_of(outputs, targets)
    assert loss.item() == pytest.approx((outputs[:, 0] - targets).square().mean().item())
    loss.backward()
    assert torch.allclose(outputs.grad[:, 0], 2 * (outputs[:, 0] - targets).detach() / 7)
    with pytest.warns(UserWarning, match="broadcasting"):  # what it would have been
        assert loss.item() != pytest.approx(functional.mse_loss(outputs, targets).item())


def test_no_val_image_is_in_test(made):
    """By row, by name, and by the pixels themselves."""
    dataset = placepulse(made[0], split_seed=3)
    seen = {}
    for split in ("train", "val", "test"):
        part = getattr(dataset, split)
        seen[split] = {image.tobytes() for image in part.images} | {dataset.names[row] for row in part.rows}
        assert len(seen[split]) == 2 * len(part)
    assert not (seen["train"] & seen["val"] or seen["train"] & seen["test"] or seen["val"] & seen["test"])


@pytest.mark.parametrize("schedule", list(lr_schedules))
def test_a_schedule_multiplies_the_first_rate_not_its_own_product(schedule):
    dataset = tunekit.load_dataset("digits", val_fraction=0.05, test_fraction=0.9)
    config = {**complete({"backbone": "mlp", "lr": 0.01, "lr_schedule": schedule}), "max_epochs": 5, "seed": 0}
    *_, (_, state) = epochs = list(training.train(config, dataset))
    rates = [metrics["lr"] for metrics, _ in epochs]
    steps = training.Feed(config, dataset, dataset.train, torch.device("cpu")).num_steps
    factor = lr_schedules[schedule]
    expected = [0.01 * factor((epoch + (steps - 1) / steps) / 5) for epoch in range(5)]
    assert rates == pytest.approx(expected)  # of each epoch's last step
    assert learning_rate(config, 2.5) == pytest.approx(0.01 * factor(0.5))
    resumed = [metrics["lr"] for metrics, _ in training.train({**config, "max_epochs": 7}, dataset, state)]
    assert resumed == pytest.approx([0.01 * factor((epoch + (steps - 1) / steps) / 7) for epoch in (5, 6)])


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_an_epochs_metric_is_of_all_its_images(task):
    """With a model that does not move, each epoch's train metrics are those of the whole split, not of a batch."""
    random = np.random.default_rng(0)
    targets = random.integers(0, 4, 103) if task == "classification" else random.normal(size=103).astype(np.float32)
    images = random.integers(0, 256, (103, 8, 8), np.uint8)
    dataset = tunekit.Dataset.from_arrays(train=(images, targets))
    config = {**complete({"backbone": "cnn_small", "lr": 1e-12, "batch_size": 16}), "max_epochs": 1, "seed": 0}
    (metrics, state) = next(training.train(config, dataset))
    model = build_model(config, dataset)
    model.load_state_dict(state["model"])
    for split in ("train", "val"):
        outputs, wanted = training.predict(model, config, dataset, getattr(dataset, split))
        for name, value in training.measure(outputs, wanted, task).items():
            assert metrics[f"{split}_{name}"] == pytest.approx(value, rel=1e-4), f"{split}_{name}"


ACTIVATIONS = (nn.ReLU, nn.Sigmoid, nn.Hardswish, nn.SiLU, nn.GELU, nn.Tanh)
MODELS = ["mlp", "cnn", "cnn_small", "lenet", "cifar_net", "resnet18", "vgg11", "alexnet", "mobilenet_v3_small"]


@pytest.mark.parametrize("name", MODELS)
def test_no_two_linear_layers_follow_one_another_without_a_non_linearity(name):
    """Two linear layers in a row are one. torchvision's regression heads end in the one new layer, after its own."""
    images = np.zeros((20, 64, 64, 3), np.uint8)
    dataset = tunekit.Dataset.from_arrays(train=(images, np.linspace(1, 10, 20)))
    model = build_model(complete({"backbone": name}), dataset)
    order = []
    for part in model.modules():
        if not list(part.children()):
            part.register_forward_hook(lambda part, *_: order.append(part))
    outputs = model.eval()(torch.zeros(2, 3, 64, 64))
    assert outputs.shape == (2, 1)
    linear_just_before = False
    for part in order:
        if isinstance(part, nn.Linear):
            assert not linear_just_before, f"{name}: two linear layers without a non-linearity"
            linear_just_before = True
        elif isinstance(part, ACTIVATIONS):
            linear_just_before = False
    last = order[-1]
    assert (
        isinstance(last, nn.Linear)
        and last.out_features == 1
        and last.bias.item() == pytest.approx(dataset.target_mean)
    )
