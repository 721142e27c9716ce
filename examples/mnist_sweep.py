"""Run a W&B sweep on MNIST without a server; with --tracker wandb every trial is logged to W&B as well.

python examples/mnist_sweep.py --data-dir data --tracker wandb      (WANDB_MODE=offline logs to the experiment's folder)
"""

from pathlib import Path

import typer

import tunekit


def main(
    data_dir: str = "data",
    tracker: str | None = None,
    num_trials: int = 12,
    max_epochs: int = 4,
    folder: str = "experiments",
) -> None:
    results = tunekit.run(
        Path(__file__).with_suffix(".yaml"),
        dataset="mnist",
        data_dir=data_dir,
        tracker=tracker,
        num_trials=num_trials,
        max_epochs=max_epochs,
        folder=folder,
    )
    print(f"best config: {results.best_config}")
    print(f"val_loss {results.best_value:.4f}, test accuracy {results.test()['test_accuracy']:.4f}")
    page = results.folder / "parallel_coordinates.html"
    results.parallel_coordinates().write_html(page)
    print(f"figure: {page}")


if __name__ == "__main__":
    typer.run(main)
