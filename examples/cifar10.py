"""Tune a CNN on CIFAR-10 as a folder of JPEGs: train/<class>/*.jpg and test/<class>/*.jpg.

python examples/cifar10.py path/to/cifar10
"""

import typer

import tunekit
from tunekit import choice, loguniform, uniform

space = {
    "backbone": "cnn",
    "lr": loguniform(1e-3, 1e-1),
    "momentum": uniform(0.5, 0.95),
    "optimizer": "sgd",
    "batch_size": choice([64, 128]),
    "lr_schedule": "one_cycle",
    "augment": choice(["flip", "flip_crop"]),
}


def main(path: str, num_trials: int = 6, max_epochs: int = 2, folder: str = "experiments") -> None:
    results = tunekit.run(space, path, num_trials=num_trials, max_epochs=max_epochs, folder=folder)
    test = results.test()
    print(f"best config: {results.best_config}")
    print(f"test accuracy {test['test_accuracy']:.3f}")
    for name, figures in test["per_class"].items():
        print(f"  {name:<12}{figures['accuracy']:.3f} of {figures['num_images']} images")


if __name__ == "__main__":
    typer.run(main)
