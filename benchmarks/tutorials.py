"""The training loops of Ray Tune's tutorial and of Optuna's example, as their pages have them."""

from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms
from work import Work, network_of, rows_of


def model_and_adam(work: Work, lr: float) -> tuple[Any, Any]:
    """Return the work's network and Adam over it."""
    torch.manual_seed(work.seed)
    model = network_of(work)
    return model, torch.optim.Adam(model.parameters(), lr=lr)


def loaders(work: Work, batch_size: int, num_workers: int, normalize: bool) -> list[Any]:
    """Return a data loader of train and one of val, over torchvision's MNIST: both shuffle, as the tutorials' do."""
    steps = [transforms.ToTensor(), *([transforms.Normalize((0.1307,), (0.3081,))] if normalize else [])]
    mnist = datasets.MNIST(work.data, train=True, transform=transforms.Compose(steps))
    rows = rows_of(work)
    options = {"batch_size": batch_size, "shuffle": True, "num_workers": num_workers}
    return [DataLoader(Subset(mnist, rows[split].tolist()), **options) for split in ("train", "val")]


def epoch_of_ray(model: Any, optimizer: Any, trainloader: Any, valloader: Any) -> float:
    """Train an epoch and return the accuracy on val.

    https://docs.ray.io/en/latest/tune/examples/tune-pytorch-cifar.html, the train function; its running loss, which
    is only printed there, is left out.
    """
    criterion = torch.nn.CrossEntropyLoss()
    model.train()
    for inputs, labels in trainloader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), labels)
        loss.backward()
        optimizer.step()
    model.eval()
    correct = 0
    for inputs, labels in valloader:
        with torch.no_grad():
            _, predicted = torch.max(model(inputs), 1)
            correct += (predicted == labels).sum().item()
    return correct / len(valloader.dataset)


def epoch_of_optuna(model: Any, optimizer: Any, train_loader: Any, valid_loader: Any) -> float:
    """Train an epoch and return the accuracy on val.

    https://github.com/optuna/optuna-examples/blob/main/pytorch/pytorch_simple.py, the objective.
    """
    model.train()
    for data, target in train_loader:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(data), target)
        loss.backward()
        optimizer.step()
    model.eval()
    correct = 0
    with torch.no_grad():
        for data, target in valid_loader:
            predicted = model(data).argmax(dim=1, keepdim=True)
            correct += predicted.eq(target.view_as(predicted)).sum().item()
    return correct / len(valid_loader.dataset)
