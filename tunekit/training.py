"""The epoch loop: a generator that trains and validates, and knows nothing of Ray, folders or searches."""

import hashlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.nn import functional

from tunekit.backbones import build_model
from tunekit.datasets.base import Dataset, Split
from tunekit.feeds import Feed, autocast, memory_format_of
from tunekit.folding import folded
from tunekit.frozen import frozen_features
from tunekit.metrics import classification_metrics, regression_metrics
from tunekit.optimization import build_optimizer, learning_rate, plain_step

Config = dict[str, Any]
State = dict[str, Any]
Metrics = dict[str, float]


def train(config: Config, dataset: Dataset, state: State | None = None) -> Iterator[tuple[Metrics, State]]:
    """Train on dataset.train and validate on dataset.val; yield (metrics, state) after every epoch.

    Random numbers (weights, data order, augmentation, dropout) are drawn afresh for each epoch from config["seed"],
    so that a training that goes on from a state goes on exactly as if it had not stopped.

    Args:
        config: all keys of `tunekit.config.KEYS`, with max_epochs (at least 1) and seed.
        dataset: with its train and val splits.
        state: what an earlier call yielded, to go on from there; None to start.

    Yields:
        metrics: epoch, train_loss, val_loss, lr, epoch_s, images_per_s, and train_ and val_accuracy (0..1) or, for
            regression, train_ and val_ mse, mae, r2 and pearson. Losses are averaged over images.
        state: model, optimizer and epoch: what a checkpoint holds.
    """
    device = pick_device()
    seed_epoch(config["seed"], 0)
    model = build_model(config, dataset).to(device).to(memory_format=memory_format_of(config))
    optimizer = build_optimizer(model, config)
    if state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    frozen = frozen_features(model, config, dataset, device)
    network = frozen.head if frozen else model
    feed = Feed(config, dataset, dataset.train, device, frozen and frozen.train)
    val_feed = Feed(config, dataset, dataset.val, device, frozen and frozen.val, beside=feed)
    for epoch in range(state["epoch"] + 1 if state else 1, config["max_epochs"] + 1):
        began = time.perf_counter()
        seed_epoch(config["seed"], epoch)
        trained = train_epoch(network, optimizer, feed, config, epoch)
        trained_s = time.perf_counter() - began
        outputs, targets = outputs_of(network, config, val_feed)
        metrics = {
            "epoch": epoch,
            **{f"train_{name}": value for name, value in trained.items()},
            **{f"val_{name}": value for name, value in measure(outputs, targets, dataset.task).items()},
            "lr": optimizer.param_groups[0]["lr"],
            "epoch_s": time.perf_counter() - began,
            "images_per_s": feed.num_images / trained_s,
        }
        yield metrics, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}


def train_epoch(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, feed: Feed, config: Config, epoch: int
) -> Metrics:
    """Do one pass over train and return its metrics, averaged over its images as each was seen."""
    model.train()
    losses, outputs_seen, targets_seen = [], [], []
    steps, precision, update = feed.num_steps, autocast(config, feed.device), plain_step(optimizer)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for step, (inputs, targets) in enumerate(feed.shuffled()):
        rate = learning_rate(config, epoch - 1 + step / steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        for parameter in parameters:
            parameter.grad = None  # as zero_grad does, which also tells profilers
        for part, part_targets in micro_batches(inputs, targets, config["micro_batches"]):
            with precision:
                outputs = model(part)
            loss = loss_of(outputs, part_targets, config["label_smoothing"])
            if part is not inputs:
                loss = loss * (len(part) / len(inputs))
            loss.backward()
            losses.append(loss.detach() * len(inputs))  # not .item(): that would wait for the device at every step
            outputs_seen.append(outputs.detach().float())
        update()
        targets_seen.append(targets)
    measured = measure(torch.cat(outputs_seen), torch.cat(targets_seen), feed.task)
    return {**measured, "loss": (torch.stack(losses).sum() / feed.num_images).item()}


def micro_batches(images: torch.Tensor, targets: torch.Tensor, num: int) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """Split a batch into at most `num` parts of at least 2 images each, whose gradients add up to the batch's own.

    Batch normalisation alone sees the difference: it takes its mean and deviation over each part.
    """
    num = max(1, min(num, len(images) // 2))
    return zip(images.tensor_split(num), targets.tensor_split(num), strict=True) if num > 1 else [(images, targets)]


def predict(
    model: torch.nn.Module, config: Config, dataset: Dataset, split: Split
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a model's outputs, float32 (N, num_outputs), for all images of a split, and their targets (N,)."""
    device = next(model.parameters()).device
    return outputs_of(model, config, Feed(config, dataset, split, device))


def outputs_of(model: torch.nn.Module, config: Config, feed: Feed) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a model's outputs, float32 (N, num_outputs), for all that a feed gives, and the targets (N,)."""
    model.eval()
    outputs, targets = [], []
    with torch.inference_mode(), folded(model):
        for inputs, batch_targets in feed.in_order():
            with autocast(config, feed.device):
                outputs.append(model(inputs).float())
            targets.append(batch_targets)
    return torch.cat(outputs), torch.cat(targets)


def measure(outputs: torch.Tensor, targets: torch.Tensor, task: str) -> Metrics:
    """Return loss and the task's metrics of outputs (N, num_outputs) for targets (N,)."""
    metrics = classification_metrics if task == "classification" else regression_metrics
    return {"loss": loss_of(outputs, targets).item(), **metrics(outputs, targets)}


def loss_of(outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Return the mean loss over a batch: cross entropy for class numbers, squared error for values.

    Outputs are (N, num_outputs), targets (N,). Predictions (N, 1) are reshaped first: against (N,) they would
    broadcast to (N, N), and the model would learn the mean.
    """
    if targets.is_floating_point():
        return functional.mse_loss(outputs.float().reshape(targets.shape), targets)
    return functional.cross_entropy(outputs.float(), targets, label_smoothing=label_smoothing)


def pick_device() -> torch.device:
    """Return the GPU that Ray, or CUDA_VISIBLE_DEVICES, gave this process; else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seed_epoch(seed: int, epoch: int) -> None:
    """Set torch's random state from (seed, epoch); epoch 0 is for the first weights."""
    torch.manual_seed(derive_seed(seed, epoch))


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on all parts, and that no other parts share in practice.

    Example:
        >>> derive_seed(0, 1) != derive_seed(1, 0)
        True
    """
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
