"""The CNN lab: fit, loss curves, sample images, momentum, learning rate, a 2 x 2 grid; the best model on test.

python examples/cnn_lab.py mnist --data-dir data       (or cifar10, or a folder of class folders)
"""

from pathlib import Path

import pandas as pd
import typer

import tunekit
from tunekit import figures, grid

base = {"backbone": "cnn_small", "optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "batch_size": 64}


def main(dataset: str, data_dir: str = "data", max_epochs: int = 4, out: Path = Path("experiments")) -> None:
    data = tunekit.load_dataset(dataset, data_dir=data_dir)
    results = tunekit.train(base, data, max_epochs=max_epochs, folder=out)
    figures.learning_curves(results.history, ["train_loss", "val_loss"]).write_html(out / "loss.html")
    names = [data.classes[target] for target in data.train.targets[:16]]
    figures.images_grid(data.train.images[:16], names).write_html(out / "images.html")

    for key, values in {"momentum": [0.0, 0.5, 0.9], "lr": [0.001, 0.01, 0.1]}.items():
        fits = {v: tunekit.train({**base, key: v}, data, max_epochs=max_epochs, verbose=0, folder=out) for v in values}
        history = pd.concat([fit.history.assign(trial=f"{key}={value}") for value, fit in fits.items()])
        figures.learning_curves(history, ["val_loss"]).write_html(out / f"{key}.html")
        print(history.pivot(index="epoch", columns="trial", values="val_accuracy"))

    space = {**base, "lr": grid([0.01, 0.1]), "batch_size": grid([32, 128])}
    results = tunekit.run(space, data, max_epochs=max_epochs, searcher="grid", scheduler="none", folder=out)
    print(results.dataframe[["config/lr", "config/batch_size", "val_accuracy"]])
    print(f"test accuracy of the best: {results.test()['test_accuracy']:.4f}")


if __name__ == "__main__":
    typer.run(main)
