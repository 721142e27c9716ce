"""The config keys: their defaults, and what each may be."""

import numpy as np
import pytest

from tunekit.config import DEFAULTS, KEYS, check_config, complete
from tunekit.errors import ConfigError, UnknownNameError

BAD = [
    ("backbone", 3), ("pretrained", "yes"), ("freeze", "head"), ("image_size", 7), ("image_size", 28.0),
    ("augment", "rotate"), ("batch_size", 0), ("batch_size", 16.5), ("batch_size", True), ("optimizer", "adagrad"),
    ("lr", 0), ("lr", -0.1), ("lr", float("nan")), ("lr", "0.1"), ("lr", None), ("momentum", 1.0), ("momentum", -0.1),
    ("weight_decay", -1e-9), ("lr_schedule", "step"), ("warmup_epochs", -1), ("label_smoothing", 1.0),
    ("dropout", 1.0), ("dropout", "half"), ("oversample", None), ("precision", "float64"),
]  # fmt: skip
GOOD = [
    ("backbone", lambda config, dataset: None), ("image_size", None), ("image_size", 8), ("batch_size", 1),
    ("lr", 1), ("lr", np.float64(0.1)), ("momentum", 0), ("warmup_epochs", 0.5), ("dropout", None), ("freeze", None),
]  # fmt: skip


def test_the_defaults_are_allowed_and_complete():
    check_config(DEFAULTS)
    assert complete({"lr": 0.5}) == {**DEFAULTS, "lr": 0.5}
    assert all(key.meaning and key.rule for key in KEYS.values())


@pytest.mark.parametrize(("key", "value"), BAD)
def test_a_value_that_cannot_be_honoured_is_told_with_its_rule(key, value):
    with pytest.raises(ConfigError) as told:
        check_config({key: value})
    assert str(told.value) == f"{key} must be {KEYS[key].rule}, but is {value!r}"


@pytest.mark.parametrize(("key", "value"), GOOD)
def test_the_ends_of_what_is_allowed(key, value):
    check_config({key: value})


def test_an_unknown_key_is_told_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown config key 'learning_rate'.*Known: augment, backbone"):
        check_config({"learning_rate": 0.1})
    with pytest.raises(UnknownNameError, match="did you mean 'batch_size'"):
        check_config({"batchsize": 32})
    check_config({"width": 3}, extra_keys=True)
