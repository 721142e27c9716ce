"""The CIFAR-10 classifier: train with batches of 4, save, load again, and test over all and per class.

python examples/cifar_classifier.py path/to/cifar10      (a folder of class folders; or cifar10 --data-dir data)
"""

import typer

import tunekit

config = {"backbone": "cifar_net", "optimizer": "sgd", "lr": 0.001, "momentum": 0.9, "batch_size": 4}


def main(path: str, data_dir: str = "data", max_epochs: int = 2, folder: str = "experiments") -> None:
    dataset = tunekit.load_dataset(path, data_dir=data_dir)
    results = tunekit.train(config, dataset, max_epochs=max_epochs, folder=folder)  # shows the loss of every epoch
    print(results.history[["epoch", "train_loss", "val_loss", "val_accuracy"]])

    saved = results.folder / "cifar_net"
    results.export(saved)
    model = tunekit.load_model(saved)
    tested = model.test(dataset)
    print(f"accuracy on {tested['num_images']} test images: {tested['test_accuracy']:.3f}")
    for name, figures in tested["per_class"].items():
        print(f"  {name:<12}{figures['accuracy']:.3f}")


if __name__ == "__main__":
    typer.run(main)
