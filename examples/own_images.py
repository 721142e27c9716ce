"""Tune on your own photographs: a folder with one folder of images per class. Val and test are cut for you.

python examples/own_images.py path/to/photos
With a GPU and the internet, use space="finetune" and image_size=224: it fine-tunes torchvision's pretrained models.
"""

import typer

import tunekit
from tunekit import choice, loguniform

space = {
    "backbone": choice(["cnn", "cnn_small"]),
    "lr": loguniform(1e-4, 1e-2),
    "augment": choice(["none", "flip", "flip_crop"]),
    "dropout": choice([0.0, 0.3]),
    "batch_size": 32,
}


def main(path: str, num_trials: int = 10, max_epochs: int = 10, folder: str = "experiments") -> None:
    dataset = tunekit.load_dataset(path, image_size=32)
    print(f"{dataset.num_images} images of {len(dataset.classes)} classes: {', '.join(dataset.classes)}")
    results = tunekit.run(space, dataset, num_trials=num_trials, max_epochs=max_epochs, confirm=2, folder=folder)
    print(results.dataframe.sort_values("val_accuracy", ascending=False).head())
    print(f"winner against the default config: {results.verdict or 'it is the default config'}")
    print(f"test accuracy {results.test()['test_accuracy']:.3f}")


if __name__ == "__main__":
    typer.run(main)
