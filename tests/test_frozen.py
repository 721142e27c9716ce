"""A frozen backbone sees each image once: its features are kept, shared, and give the metrics that the images give."""

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from tunekit import frozen, heads
from tunekit.backbones import build_model
from tunekit.config import complete
from tunekit.datasets import Dataset
from tunekit.datasets.cache import entries
from tunekit.feeds import Feed
from tunekit.training import measure, predict, train

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def dataset():
    random = np.random.default_rng(0)
    targets = np.arange(72) % 3
    images = random.integers(0, 160, (72, 32, 32, 3)) + 40 * targets[:, None, None, None] // 2
    return Dataset.from_arrays(train=(images.astype(np.uint8), targets))


def net(config, dataset):
    """A small net whose trunk is the same whatever the seed, as if it had been trained before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(7),
            nn.Flatten(),
            nn.Linear(196, 16),
        ]
        trunk = nn.Sequential(*layers, nn.ReLU())
    return nn.Sequential(OrderedDict(trunk=trunk, head=nn.Sequential(nn.Dropout(config["dropout"]), nn.Linear(16, 3))))


def make_config(**changed):
    config = {"backbone": net, "freeze": "backbone", "batch_size": 16, "lr": 0.01, "precision": "float32",
              "dropout": 0.2}  # fmt: skip
    return {**complete({**config, **changed}), "seed": 3, "max_epochs": 2}


def without_features(config, dataset, monkeypatch):
    """Train the way without a cache: every epoch sees the images."""
    with monkeypatch.context() as patched:
        patched.setattr("tunekit.training.frozen_features", lambda *_: None)
        return list(train(config, dataset))


def features():
    return [entry for entry in entries() if entry["kind"] == "features"]


@pytest.mark.parametrize(
    "changed", [{}, {"augment": "flip"}, {"oversample": True}, {"backbone": "resnet18", "dropout": 0.3}], ids=str
)
def test_the_metrics_are_those_without_a_cache(changed, dataset, monkeypatch):
    config = make_config(**changed)
    expected = without_features(config, dataset, monkeypatch)
    assert not features()
    for (metrics, _), (with_images, _) in zip(train(config, dataset), expected, strict=True):
        for name in ("train_loss", "val_loss", "train_accuracy", "val_accuracy"):
            assert metrics[name] == pytest.approx(with_images[name], rel=1e-3), name
    assert len(features()) == (config["backbone"] is net)  # random weights are no other trial's


def test_what_was_trained_on_features_is_a_whole_model(dataset):
    config = make_config()
    metrics, state = list(train(config, dataset))[-1]
    model = build_model(config, dataset)
    model.load_state_dict(state["model"])
    found = measure(*predict(model, config, dataset, dataset.val), "classification")
    assert found["loss"] == pytest.approx(metrics["val_loss"], rel=1e-4)


def test_trials_share_features_unless_they_would_differ(dataset, monkeypatch):
    computed = []
    compute = frozen._compute
    monkeypatch.setattr(frozen, "_compute", lambda *arguments: computed.append(1) or compute(*arguments))

    def kept(changed, seed=3):
        next(train({**make_config(**changed), "seed": seed}, dataset))
        return len(computed)

    assert kept({}) == 1
    assert kept({"lr": 0.1, "batch_size": 8, "optimizer": "sgd", "dropout": 0.5}) == 1
    assert kept({"augment": "flip"}) == 2  # sees them mirrored too
    assert kept({"image_size": 40}) == 3
    assert kept({}, seed=4) == 3
    assert kept({"backbone": "cnn"}) == 4 and kept({"backbone": "cnn"}, seed=4) == 5  # weights of the trial's own
    assert len(features()) == 3


def test_going_on_from_a_checkpoint_is_as_if_it_had_not_stopped(dataset):
    losses, states = [], []
    for metrics, state in train(make_config(), dataset):
        losses.append(metrics["val_loss"])
        states.append(copy.deepcopy(state))
    [(metrics, _)] = train(make_config(), dataset, states[0])
    assert metrics["val_loss"] == losses[1]


def test_features_that_are_damaged_are_made_anew(dataset):
    first, _ = next(train(make_config(), dataset))
    [entry] = features()
    with open(f"{entry['path']}/train.npy", "r+b") as file:
        file.truncate(1000)
    again, _ = next(train(make_config(), dataset))
    assert again["train_loss"] == first["train_loss"]


class Odd(nn.Module):
    """A model whose outputs are not what its head makes of one tensor."""

    def __init__(self, way):
        super().__init__()
        self.way, self.body, self.fc = way, nn.Linear(32 * 32 * 3, 8), nn.Linear(8, 3)

    def forward(self, images):
        features = self.body(images.flatten(1)).relu()
        if self.way == "scaled":
            return self.fc(features) * 2
        if self.way == "dropout":
            return self.fc(nn.functional.dropout(features, 0.5, self.training))
        if self.way == "keyword":
            return self.fc(input=features)
        if self.way == "weights":
            return nn.functional.linear(features, self.fc.weight, self.fc.bias)
        return self.fc(features) + self.fc(features)


def odd(way):
    return pytest.param({"backbone": lambda config, dataset: Odd(way)}, id=way)


NOT_KEPT = [odd("scaled"), odd("dropout"), odd("keyword"), odd("weights"), odd("twice"), {"augment": "crop"},
            {"freeze": None}, {"backbone": "googlenet"}]  # fmt: skip


@pytest.mark.parametrize("changed", NOT_KEPT, ids=str)
def test_where_features_would_not_do_the_images_are_used(changed, dataset):
    config = make_config(**changed)
    model = build_model(config, dataset)
    assert frozen.frozen_features(model, config, dataset, CPU) is None
    assert not features()


def test_a_feed_of_features_draws_as_one_of_images_does(dataset):
    config = make_config(augment="flip")
    count = len(dataset.train)
    views = torch.stack([torch.arange(count, dtype=torch.float32), -torch.arange(count, dtype=torch.float32)])
    torch.manual_seed(0)
    feed = Feed(config, dataset, dataset.train, CPU, views)
    seen = torch.cat([inputs for inputs, _ in feed.shuffled()])
    assert sorted(seen.abs().tolist()) == list(range(count)) and 10 < int((seen < 0).sum()) < count - 10
    assert torch.equal(torch.cat([inputs for inputs, _ in feed.in_order()]), views[0])


def test_the_head_is_found():
    assert heads.head_of(nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 2)))) == "1"
