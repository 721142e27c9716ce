"""The arithmetic that trains fastest here: measured once, written down with the experiment, kept by it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import tunekit
from tunekit import arithmetic
from tunekit.arithmetic import GAIN, choose, choose_for, measure, settled, speeds
from tunekit.config import complete
from tunekit.datasets import Dataset
from tunekit.datasets.store import cache_folder
from tunekit.distributions import choice

CPU = torch.device("cpu")
HAS_BFLOAT16 = torch.backends.cpu.get_cpu_capability() != "AVX2"
TIMED = """
import numpy as np, torch
from tunekit import Dataset, arithmetic, config
dataset = Dataset.from_arrays(train=(np.zeros((100, 12, 12), np.uint8), np.arange(100) % 2))
print(*arithmetic.measure(config.complete({"backbone": "lenet"}), dataset, torch.device("cpu")), sep="\\n")
"""


@pytest.fixture
def dataset():
    return Dataset.from_arrays(train=(np.zeros((100, 12, 12), np.uint8), np.arange(100) % 2))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def remember(changed):
    """Change what the cache holds of every measurement."""
    path = cache_folder() / "speeds.json"
    path.write_text(json.dumps({key: changed for key in json.loads(path.read_text())}))


def test_both_precisions_are_timed_and_the_faster_in_both_layouts(dataset):
    state = torch.random.get_rng_state()
    found = measure(complete({"backbone": "lenet"}), dataset, CPU)
    *timed, other = found
    assert timed == ["float32 channels_last", "bfloat16 channels_last"][: 1 + HAS_BFLOAT16]
    faster = max(timed, key=lambda name: found[name] / (GAIN if "bfloat16" in name else 1)).split()[0]
    assert other == f"{faster} contiguous" and all(speed > 0 for speed in found.values())
    assert torch.equal(torch.random.get_rng_state(), state)  # nothing is drawn from the numbers of others


@pytest.mark.parametrize(("size", "least", "most"), [(12, 64, 64), (64, 32, 64), (224, 4, 8)])
def test_steps_of_as_many_images_are_timed_as_trials_take(size, least, most):
    """A step of ten photographs is as fast in float32 as in bfloat16, one of 64 takes twice as long."""
    seen = []

    class Net(torch.nn.Linear):
        def forward(self, images):
            seen.append(len(images))
            return super().forward(images.mean((2, 3)))

    dataset = Dataset.from_arrays(train=(np.zeros((8, size, size, 3), np.uint8), np.arange(8) % 2))
    measure(complete({"backbone": lambda config, dataset: Net(3, 2)}), dataset, CPU)
    assert least <= min(seen) <= max(seen) <= most


@pytest.mark.long
def test_where_bfloat16_is_emulated_no_time_is_lost_on_it():
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run([sys.executable, "-c", TIMED], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["float32 channels_last", "float32 contiguous"]


@pytest.mark.parametrize(
    ("timed", "fixed", "best"),
    [
        ((10, 30, 20), {}, "bfloat16 channels_last"),
        ((10, 10.5, 9), {}, "float32 channels_last"),  # no gain worth the rounding
        ((10, 9, 11), {}, "float32 contiguous"),
        ((10, 30, 20), {"precision": "float32"}, "float32 channels_last"),
        ((10, 30, 20), {"memory_format": "contiguous"}, "bfloat16 contiguous"),
    ],
)
def test_the_fastest_is_taken_among_what_the_config_leaves_open(timed, fixed, best, dataset, cache):
    config = complete({"backbone": "mlp", **fixed})
    speeds(config, dataset, CPU)
    faster = "bfloat16" if timed[1] > timed[0] else "float32"
    names = ("float32 channels_last", "bfloat16 channels_last", f"{faster} contiguous")
    remember(dict(zip(names, timed, strict=True)))
    assert " ".join(choose(config, dataset, CPU).values()) == best


def test_a_model_of_ones_own_is_measured_anew_when_its_code_changed(dataset, cache):
    def net(config, dataset):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 2))

    first = net
    speeds(complete({"backbone": first}), dataset, CPU)

    def net(config, dataset):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 5), torch.nn.Linear(5, 2))

    speeds(complete({"backbone": net}), dataset, CPU)
    speeds(complete({"backbone": net}), dataset, CPU)
    assert len(json.loads((cache_folder() / "speeds.json").read_text())) == 2


def test_what_was_measured_on_another_number_of_images_does_not_count(dataset, cache, monkeypatch):
    speeds(complete({"backbone": "mlp"}), dataset, CPU)
    monkeypatch.setattr(arithmetic, "MOST_VALUES", 10 * 12 * 12)
    speeds(complete({"backbone": "mlp"}), dataset, CPU)
    assert len(json.loads((cache_folder() / "speeds.json").read_text())) == 2


def test_a_choice_is_made_for_each_backbone_and_size_and_only_where_it_is_open(dataset, cache):
    space = {"backbone": choice(["mlp", "lenet"]), "image_size": choice([12, 16])}
    choices = choose_for(space, dataset, CPU)
    assert len(choices) == 4
    config = settled(complete({"backbone": "lenet", "image_size": 16}), choices)
    assert config["precision"] in ("float32", "bfloat16") and config["memory_format"] in ("channels_last", "contiguous")
    assert choose_for({"precision": "float32", "memory_format": "channels_last"}, dataset, CPU) == {}


def test_an_experiment_keeps_the_arithmetic_that_it_began_with(cache):
    slow = {"float32 channels_last": 30.0, "bfloat16 channels_last": 10.0, "float32 contiguous": 1.0}
    fast = {"float32 channels_last": 10.0, "bfloat16 channels_last": 30.0, "bfloat16 contiguous": 1.0}
    digits, config = tunekit.load_dataset("digits"), {"backbone": "cnn_small"}
    speeds(complete(config), digits, CPU)

    def losses(name, max_epochs):
        options = {"max_epochs": max_epochs, "verbose": 0, "name": name, "folder": cache / "experiments"}
        return list(tunekit.train(config, digits, **options).history["val_loss"])

    remember(fast)
    in_bfloat16 = losses("fast", 3)
    remember(slow)
    assert losses("fast", 3) == in_bfloat16  # not measured again
    in_float32 = losses("slow", 3)
    assert in_float32 != in_bfloat16 and in_float32 == pytest.approx(in_bfloat16, rel=0.1)


def test_a_model_that_cannot_do_bfloat16_trains_in_float32(dataset, cache):
    class Fussy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(144, 2)

        def forward(self, images):
            outputs = self.fc(images.flatten(1))
            return torch.zeros(len(images), 2).index_add(0, torch.arange(len(images)), outputs)

    config = complete({"backbone": lambda config, dataset: Fussy()})
    assert not measure(config, dataset, CPU).get("bfloat16 channels_last")
    assert choose(config, dataset, CPU)["precision"] == "float32"


def test_what_was_chosen_on_a_cpu_says_nothing_of_a_gpu(dataset, cache):
    choices = choose_for({"backbone": "mlp"}, dataset, CPU)
    config = complete({"backbone": "mlp"})
    assert settled(config, choices, torch.device("cuda")) == config != settled(config, choices, CPU)
