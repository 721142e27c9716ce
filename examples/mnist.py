"""Find the best small CNN for MNIST, then see how good it is on the test split.

python examples/mnist.py --data-dir data        (fetch the data first: tunekit download mnist --data-dir data)
"""

import typer

import tunekit


def main(
    data_dir: str = "data", num_trials: int = 12, max_epochs: int = 4, folder: str = "experiments",
    address: str | None = None,
) -> None:  # fmt: skip
    results = tunekit.run(
        "mnist",  # search_spaces/mnist.py: backbone, learning rate, batch size, optimizer, schedule
        dataset="mnist",
        data_dir=data_dir,
        num_trials=num_trials,
        max_epochs=max_epochs,
        folder=folder,  # or a URL: s3://bucket/experiments
        address=address,  # of a Ray cluster, or "auto"
    )
    print(results.top(3))
    test = results.test()
    low, high = test["interval"]
    print(f"best config: {results.best_config}")
    print(f"test accuracy {test['test_accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f})")
    print(f"default config {test['default']['test_accuracy']:.4f}")


if __name__ == "__main__":
    typer.run(main)
