"""LeNet with Xavier weights on Fashion-MNIST: its layers, and its accuracy after one batch and after training.

python examples/fashion_mnist.py --data-dir data      (the data: tunekit download fashion_mnist --data-dir data)
"""

import typer

import tunekit
from tunekit.summary import print_backbone

config = {"backbone": "lenet", "optimizer": "sgd", "lr": 0.9, "batch_size": 256}


def print_accuracy(when: str, results: tunekit.Results, dataset: tunekit.Dataset) -> None:
    for split in (dataset.train, dataset.test):
        right = results.predict(split.images)["class"] == [dataset.classes[target] for target in split.targets]
        print(f"accuracy {when}: {right.mean():.3f} on {'train' if split is dataset.train else 'test'}")


def main(data_dir: str = "data", max_epochs: int = 10, folder: str = "experiments") -> None:
    print_backbone("lenet", image_size=28, channels=1, classes=10)
    dataset = tunekit.load_dataset("fashion_mnist", data_dir=data_dir)
    one_batch = tunekit.Dataset.from_arrays(
        train=(dataset.train.images[:256], dataset.train.targets[:256]),
        val=(dataset.val.images, dataset.val.targets),
        test=(dataset.test.images, dataset.test.targets),
        classes=dataset.classes,
    )
    results = tunekit.train(config, one_batch, max_epochs=1, verbose=0, folder=folder)
    print_accuracy("after one batch", results, dataset)
    results = tunekit.train(config, dataset, max_epochs=max_epochs, folder=folder)
    print_accuracy("after training", results, dataset)


if __name__ == "__main__":
    typer.run(main)
