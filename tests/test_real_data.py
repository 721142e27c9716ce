"""Real data, at a size that shows whether the training really learns."""

import tarfile

import pytest

import tunekit

pytestmark = pytest.mark.long


def test_lenet_with_sigmoids_learns_mnist(data, tmp_path):
    """LeNet with sigmoids sits at 10 % for its first epochs after a bad start: Xavier's weights get it going."""
    config = {"backbone": "lenet", "optimizer": "sgd", "lr": 0.9, "batch_size": 256}
    results = tunekit.train(config, "mnist", data_dir=data, max_epochs=3, folder=tmp_path, verbose=0)
    assert results.best_value > 0.8
    assert results.test()["test_accuracy"] > 0.8


def test_a_folder_of_all_of_cifar10(data, ray, tmp_path):
    """60,000 JPEGs in class folders: decoded once, searched, tested."""
    with tarfile.open(data / "cifar10-jpeg.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    folder = next(path.parent for path in tmp_path.glob("**/train"))
    space = {"backbone": "cnn_small", "lr": tunekit.loguniform(1e-4, 1e-2), "batch_size": 128}
    results = tunekit.run(space, folder, num_trials=2, max_epochs=1, verbose=0, folder=tmp_path / "experiments")
    assert results.described_dataset.num_images == {"train": 45_000, "val": 5_000, "test": 10_000}
    assert set(results.dataframe["state"]) <= {"finished", "stopped"}
    assert results.test()["test_accuracy"] > 0.3
