"""How many trials share a GPU: what is measured, what follows from it, and, where there is one, that it works."""

import pytest
import torch

import tunekit
from tunekit import choice, loguniform
from tunekit.config import check_config
from tunekit.gpus import Need, largest_configs, share

GB = 10**9


def test_of_each_backbone_the_largest_images_and_batches_are_measured():
    space = {
        "backbone": choice(["cnn_small", "resnet18"]),
        "batch_size": choice([32, 256, 64]),
        "image_size": choice([None, 96, 64]),
        "optimizer": choice(["sgd", "adam"]),
        "lr": loguniform(1e-4, 1e-1),
    }
    configs = largest_configs(space)
    assert list(configs) == ["cnn_small", "resnet18"]
    for backbone, config in configs.items():
        check_config(config)
        assert config["backbone"] == backbone
        assert (config["batch_size"], config["image_size"], config["freeze"]) == (256, 96, None)
        assert config["optimizer"] == "adamw"  # which keeps twice as much as sgd


def test_as_many_trials_share_a_gpu_as_fit_and_each_is_held_to_its_part():
    need = Need(most=3 * GB, context=GB // 2, total=16 * GB, by_backbone={"resnet18": 3 * GB, "cnn": GB})
    fraction, memory, words = share(need, at_most=16)
    assert fraction == 0.25 and 4 * memory * need.total + 4 * need.context == pytest.approx(need.total)
    assert memory * need.total > need.most
    assert words.startswith("4 trials share a GPU: resnet18 needs up to 3.4 of 16.0 GB; cnn would do with less")
    assert share(need, at_most=3)[0] == pytest.approx(1 / 3, abs=1e-4) and 3 * share(need, at_most=3)[0] <= 1
    assert share(need._replace(most=20 * GB), at_most=16)[0] == 1.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_search_on_a_gpu(tmp_path):
    space = {"backbone": "cnn_small", "lr": loguniform(1e-4, 1e-2)}
    results = tunekit.run(space, "digits", num_trials=4, max_epochs=1, verbose=0, folder=tmp_path)
    assert set(results.dataframe["state"]) <= {"finished", "stopped"}
