"""The epoch loop: what it measures, that it learns, and that a stop in the middle changes nothing."""

import ctypes
import dataclasses
import itertools
import math
import mmap
import os
import time

import numpy as np
import pytest
import torch
from torch import nn

from tunekit import checkpoint, feeds
from tunekit.backbones import build_model
from tunekit.config import complete
from tunekit.datasets import Dataset, load_dataset, open_dataset, publish
from tunekit.feeds import Feed, balancing_weights
from tunekit.training import derive_seed, loss_of, measure, predict, train

CPU = torch.device("cpu")


def digits(num_train=200, num_val=70, targets=None):
    """Real handwritten digits, few of them; `targets` makes values of the class numbers."""
    whole = load_dataset("digits")
    parts = {}
    for split, count in (("train", num_train), ("val", num_val), ("test", 50)):
        of_split = getattr(whole, split)
        numbers = of_split.targets[:count]
        parts[split] = (of_split.images[:count], numbers if targets is None else targets(numbers))
    return Dataset.from_arrays(**parts)


def make_config(**changed):
    return {**complete({"backbone": "cnn_small", "lr": 0.01, **changed}), "seed": 3, "max_epochs": 3}


def without_times(metrics):
    return {key: value for key, value in metrics.items() if not key.endswith("_s")}


def epochs_of(config, dataset):
    """Return the metrics of every epoch, without times, and the last state."""
    history, states = zip(*train(config, dataset), strict=True)
    return [without_times(metrics) for metrics in history], states[-1]


def tensors_of(value):
    """Yield all tensors of a nested state."""
    if isinstance(value, torch.Tensor):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from tensors_of(item)


@pytest.mark.parametrize(
    "changed",
    [
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "adam", "augment": "flip_crop"},
        {"optimizer": "adamw", "weight_decay": 0.1, "dropout": 0.5, "lr_schedule": "one_cycle"},
        {"optimizer": "sgd", "oversample": True, "warmup_epochs": 1.5, "lr_schedule": "cosine"},
        {"backbone": "cnn", "label_smoothing": 0.1, "batch_size": 48},  # batch norm
    ],
    ids=lambda changed: "-".join(map(str, changed.values())),
)
def test_a_training_that_stopped_goes_on_as_if_it_had_not(changed, tmp_path):
    dataset, config = digits(), make_config(**changed)
    history, whole = epochs_of(config, dataset)

    path, stopped, state = tmp_path / "1.safetensors", [], None
    while len(stopped) < 3:  # each epoch in a training of its own, from the checkpoint of the one before
        metrics, state_after = next(train(config, dataset, state))
        stopped.append(without_times(metrics))
        checkpoint.save(path, state_after, {})
        state, _ = checkpoint.load(path)

    assert stopped == history
    assert state["epoch"] == whole["epoch"] == 3
    pairs = list(zip(tensors_of(state), tensors_of(whole), strict=True))
    assert len(pairs) >= 8 and all(torch.equal(a, b) for a, b in pairs)


def test_the_seed_alone_decides():
    dataset = digits(num_train=100)
    config = make_config(augment="flip_crop", dropout=0.5)
    torch.rand(7)  # whatever was drawn before
    first, _ = epochs_of(config, dataset)
    torch.manual_seed(99)
    assert epochs_of(config, dataset)[0] == first
    assert epochs_of({**config, "seed": 4}, dataset)[0] != first


def test_it_learns_and_measures_what_it_says():
    dataset = digits(num_train=600)
    config = make_config(augment="none")
    losses = [metrics["train_loss"] for metrics, _ in train(config, dataset)]
    assert losses == sorted(losses, reverse=True)
    *_, (metrics, _) = train({**config, "max_epochs": 2}, dataset)
    assert set(metrics) == {
        "epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "epoch_s", "images_per_s",
    }  # fmt: skip
    assert metrics["val_accuracy"] > 0.8 and metrics["epoch"] == 2 and metrics["images_per_s"] > 0


def average_model(config, dataset):
    """A model that cannot learn: its outputs are the average pixel, ten times."""

    class Average(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            ramp = torch.arange(float(dataset.num_outputs))
            return images.mean((1, 2, 3))[:, None] * ramp + 0 * self.unused

    return Average()


@pytest.mark.parametrize("batch_size", [32, 33, 99, 100])
def test_losses_are_averaged_over_images_not_over_batches(batch_size):
    """On 100 images; batches of 33 leave one over, which joins the last, and of 32 a last batch of 4."""
    dataset = digits(num_train=100)
    config = make_config(backbone=average_model, batch_size=batch_size)
    metrics, state = next(train(config, dataset))
    model = average_model(config, dataset)
    model.load_state_dict(state["model"])
    for split in ("train", "val"):
        outputs, targets = predict(model, config, dataset, getattr(dataset, split))
        assert metrics[f"{split}_loss"] == pytest.approx(nn.functional.cross_entropy(outputs, targets).item(), rel=1e-5)
        assert metrics[f"{split}_accuracy"] == (outputs.argmax(1) == targets).double().mean().item()


@pytest.mark.parametrize(("count", "batch_size", "sizes"), [
    (100, 32, [32, 32, 32, 4]), (100, 33, [33, 33, 34]), (100, 100, [100]), (100, 99, [100]), (4, 1, [1, 1, 2]),
])  # fmt: skip
def test_an_epoch_shows_each_image_once(count, batch_size, sizes):
    targets = np.arange(count, dtype=np.float32)
    images = np.zeros((count, 8, 8), np.uint8)
    dataset = Dataset.from_arrays(train=(images, targets), val=(images, targets), test=(images, targets))
    feed = Feed(make_config(batch_size=batch_size), dataset, dataset.train, CPU)
    torch.manual_seed(0)
    batches = [targets.tolist() for _, targets in feed.shuffled()]
    assert [len(batch) for batch in batches] == sizes and feed.num_steps == len(sizes)
    shown = [target for batch in batches for target in batch]
    assert sorted(shown) == targets.tolist() and shown != targets.tolist()
    assert torch.cat([targets for _, targets in feed.in_order(most_pixels=64 * 33)]).tolist() == targets.tolist()


def test_two_splits_share_the_images_that_are_on_the_device():
    dataset = digits(num_train=100)
    feed = Feed(make_config(), dataset, dataset.train, CPU)
    beside = Feed(make_config(), dataset, dataset.val, CPU, beside=feed)
    assert beside.inputs is feed.inputs and beside.targets is feed.targets
    assert torch.cat([targets for _, targets in beside.in_order()]).tolist() == dataset.val.targets.tolist()
    other = digits(num_train=50)
    assert Feed(make_config(), other, other.val, CPU, beside=feed).inputs is not feed.inputs


def test_the_learning_rate_follows_its_schedule_step_by_step():
    dataset = digits(num_train=100)
    config = make_config(lr=0.1, lr_schedule="cosine", batch_size=25)
    rates = [metrics["lr"] for metrics, _ in train(config, dataset)]
    last_steps = [epoch + 3 / 4 for epoch in range(3)]  # of four steps each
    assert rates == pytest.approx([0.1 * (1 + math.cos(math.pi * done / 3)) / 2 for done in last_steps])


def test_regression_learns_better_than_the_mean():
    """A prediction (N, 1) against targets (N,) would broadcast to (N, N), and only the mean could be learnt."""
    dataset = digits(num_train=600, targets=lambda numbers: numbers.astype(np.float32) * 100 + 1000)
    config = make_config(lr=0.003, batch_size=32)
    *_, (metrics, _) = train({**config, "max_epochs": 6}, dataset)
    assert metrics["val_mse"] == pytest.approx(metrics["val_loss"], rel=1e-4)
    assert metrics["val_r2"] > 0.5 and metrics["val_pearson"] > 0.7


def test_the_loss_of_a_column_is_that_of_a_row():
    targets = torch.tensor([1.0, 2.0, 4.0])
    assert loss_of(torch.tensor([[1.0], [2.0], [2.0]]), targets).item() == pytest.approx(4 / 3)
    assert loss_of(torch.zeros(2, 4), torch.tensor([0, 3])).item() == pytest.approx(math.log(4))
    sure = torch.tensor([[100.0, 0.0]])
    assert loss_of(sure, torch.tensor([0]), label_smoothing=0.1).item() == pytest.approx(5.0)


def test_oversampling_evens_out_the_classes_and_the_tenths():
    targets = np.array([0] * 90 + [1] * 10)
    weights = balancing_weights(targets, "classification")
    assert weights[:90].sum() == pytest.approx(1) and weights[90:].sum() == pytest.approx(1)
    values = np.array([0.0] * 80 + [0.55] * 15 + [1.0] * 5, np.float32)
    weights = balancing_weights(values, "regression")
    assert [weights[values == value].sum().item() for value in (0.0, np.float32(0.55), 1.0)] == pytest.approx([1, 1, 1])
    torch.manual_seed(0)
    images = np.zeros((100, 8, 8), np.uint8)
    dataset = Dataset.from_arrays(train=(images, targets), val=(images, targets), test=(images, targets))
    drawn = torch.cat([t for _, t in Feed(make_config(oversample=True), dataset, dataset.train, CPU).shuffled()])
    assert len(drawn) == 100 and 30 < drawn.sum() < 70


def test_a_training_that_diverges_says_so():
    *_, (metrics, _) = train(make_config(optimizer="sgd", lr=1000, momentum=0.9), digits())
    assert math.isnan(metrics["val_accuracy"]) and not math.isfinite(metrics["val_loss"])


def test_a_frozen_backbone_stays_as_it_was():
    dataset = digits(num_train=100)
    config = make_config(freeze="backbone")
    states = [{key: value.clone() for key, value in state["model"].items()} for _, state in train(config, dataset)]
    changed = {key for key in states[0] if not torch.equal(states[0][key], states[-1][key])}
    assert changed and all(key.startswith("head") for key in changed)


def test_validation_does_not_depend_on_the_batch_size():
    dataset = digits(num_train=100)
    config = make_config(backbone="cnn", dropout=0.5)
    _, state = next(train(config, dataset))
    model = build_model(config, dataset)
    model.load_state_dict(state["model"])
    outputs, targets = predict(model, config, dataset, dataset.val)
    again, _ = predict(model, {**config, "batch_size": 7}, dataset, dataset.val)
    assert torch.equal(outputs, again) and targets.tolist() == dataset.val.targets.tolist()
    with torch.no_grad():
        one_by_one = torch.cat([model(dataset.val[i][0][None]) for i in range(70)])
    torch.testing.assert_close(outputs, one_by_one, rtol=1e-4, atol=1e-4)
    assert measure(outputs, targets, "classification")["loss"] == loss_of(outputs, targets).item()


def test_seeds_differ():
    seeds = {derive_seed(*parts) for parts in [(0, 1), (1, 0), (0, "1/0"), (0,), (10, 0), (1, 1), (11,)]}
    assert len(seeds) == 7 and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("backbone", ["mlp", "lenet"])
@pytest.mark.parametrize("parts", [2, 3, 4, 64])
def test_micro_batches_train_as_whole_batches_do(backbone, parts):
    """Equal but for rounding: the gradients of the parts add up. Batch normalisation, which these lack, differs."""
    changed = {"backbone": backbone, "optimizer": "sgd", "lr": 0.1, "batch_size": 33, "label_smoothing": 0.1}
    data = digits(num_train=100)
    data = data if backbone == "mlp" else Dataset.from_arrays(
        **{split: (np.pad(getattr(data, split).images, ((0, 0), (4, 4), (4, 4), (0, 0))), getattr(data, split).targets)
           for split in ("train", "val", "test")})  # fmt: skip
    whole, state = epochs_of(make_config(**changed), data)
    split, split_state = epochs_of(make_config(**changed, micro_batches=parts), data)
    for metrics, of_parts in zip(whole, split, strict=True):
        for name in ("train_loss", "val_loss", "train_accuracy"):
            assert of_parts[name] == pytest.approx(metrics[name], rel=1e-4), name
    for tensor, of_parts in zip(tensors_of(state["model"]), tensors_of(split_state["model"]), strict=True):
        assert torch.allclose(tensor, of_parts, atol=1e-5)


def test_micro_batches_take_less_memory_at_once():
    largest = []

    def watched(config, dataset):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        model.register_forward_pre_hook(lambda _, images: largest.append(len(images[0])))
        return model

    next(train(make_config(backbone=watched, batch_size=64, micro_batches=4), digits()))
    assert max(largest[:13]) == 16  # 200 images in 13 parts; then those of val


def pages_in_memory(path):
    """Return, for each page of a file, whether Linux has it in memory: see mincore(2)."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        bytes_of = np.frombuffer(mapped, np.uint8)
        found = np.zeros(-(-len(bytes_of) // mmap.PAGESIZE), np.uint8)
        where = ctypes.c_void_p(bytes_of.ctypes.data), ctypes.c_size_t(len(bytes_of))
        assert ctypes.CDLL(None).mincore(*where, found.ctypes.data_as(ctypes.c_void_p)) == 0
        del bytes_of
    return found & 1 == 1


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="nothing is read ahead here")
def test_of_a_dataset_larger_than_memory_what_comes_next_is_read_meanwhile(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(feeds, "MEMORY_SHARE", 0.0)
    monkeypatch.setattr(feeds, "BLOCK_BYTES", 64 * 4096)
    monkeypatch.setattr(feeds, "WINDOW_BYTES", 500 * 4096)  # no whole number of blocks
    images = np.random.default_rng(0).integers(0, 256, (6000, 64, 64), np.uint8)  # a page of memory each
    dataset = open_dataset(publish(Dataset.from_arrays(train=(images, np.arange(6000) % 10))))
    feed = feeds.Feed(complete({"backbone": "mlp", "batch_size": 16}), dataset, dataset.train, torch.device("cpu"))
    pool = dataset.train.all_images
    with open(pool.filename, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if pages_in_memory(pool.filename).mean() > 0.1:
        pytest.skip("this file system keeps its files in memory")
    torch.manual_seed(0)
    order = feed.rows[feed._order()].numpy()
    torch.manual_seed(0)
    batches = feed.shuffled()
    for _ in range(33):  # to the second window
        next(batches)
    following = (pool.offset + order[1000:1500] * 4096) // mmap.PAGESIZE
    until = time.monotonic() + 30
    while not pages_in_memory(pool.filename)[following].all() and time.monotonic() < until:
        time.sleep(0.01)
    found = pages_in_memory(pool.filename)
    assert found[following].all() and found.mean() < 0.5  # a third is asked for; and what lies around what was used
    os.unlink(pool.filename)  # as `tunekit cache clear` does: what is mapped stays
    assert sum(len(targets) for _, targets in feed.shuffled()) == len(dataset.train)


def test_a_dataset_larger_than_memory_is_read_in_blocks(monkeypatch):
    """Blocks of 8 images in random order, shuffled within windows of 64; each image once."""
    monkeypatch.setattr(feeds, "MEMORY_SHARE", 0.0)
    monkeypatch.setattr(feeds, "BLOCK_BYTES", 8 * 64)
    monkeypatch.setattr(feeds, "WINDOW_BYTES", 64 * 64)
    dataset = digits(num_train=200)
    split = dataset.train
    numbered = dataclasses.replace(split, all_targets=np.arange(len(split.all_targets)))
    config = complete({"backbone": "mlp", "batch_size": 16})
    feed = feeds.Feed(config, dataset, numbered, torch.device("cpu"))
    epochs = [torch.cat([rows for _, rows in feed.shuffled()]).tolist() for _ in range(2)]
    assert epochs[0] != epochs[1]
    for rows in epochs:
        assert sorted(rows) == sorted(split.rows.tolist())
        for start in range(0, 192, 64):
            window = sorted(rows[start : start + 64])
            blocks = sum(after - before > 1 for before, after in itertools.pairwise(window)) + 1
            assert blocks <= 8 + 1
            neighbours = sum(abs(after - before) == 1 for before, after in itertools.pairwise(rows[start : start + 64]))
            assert neighbours < 16  # of 63: the blocks are shuffled, too
