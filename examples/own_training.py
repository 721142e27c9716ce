"""Bring your own model, or your own training loop: both are plain functions. python examples/own_training.py"""

import torch
import typer
from torch import nn
from torch.utils.data import DataLoader

import tunekit

space = {"width": tunekit.randint(16, 64), "lr": tunekit.loguniform(1e-3, 1)}


def two_layers(config, dataset):  # a model: used as "backbone", trained by tunekit's loop
    return nn.Sequential(nn.Flatten(), nn.Linear(64, config["width"]), nn.ReLU(), nn.Linear(config["width"], 10))


def my_train(config, dataset, state=None):  # a training loop: any generator of this form
    model = two_layers(config, dataset)
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"])
    if state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    for epoch in range(state["epoch"] if state else 0, config["max_epochs"]):
        for images, targets in DataLoader(dataset.train, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), targets).backward()
            optimizer.step()
        hits = [model(images).argmax(1) == targets for images, targets in DataLoader(dataset.val, batch_size=256)]
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
        yield {"val_accuracy": torch.cat(hits).float().mean().item()}, state


def main(max_epochs: int = 3) -> None:
    print(tunekit.run({**space, "backbone": two_layers}, "digits", num_trials=4, max_epochs=max_epochs).best_config)
    print(tunekit.run(space, "digits", train=my_train, num_trials=4, max_epochs=max_epochs).best_config)


if __name__ == "__main__":
    typer.run(main)
