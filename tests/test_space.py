"""Spaces: what may be searched, how a config is drawn from one and found in one again, and spaces in JSON."""

import functools
import json
import random

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from ray import tune

from tunekit.config import DEFAULTS
from tunekit.distributions import choice, contains, grid, in_words, loguniform, middle, randint, uniform
from tunekit.errors import SpaceError
from tunekit.grids import grid_configs
from tunekit.space import (
    all_keys,
    all_values,
    check_space,
    default_config,
    draw_config,
    has_grid,
    labels,
    max_size_of,
    params_of,
)
from tunekit.space_json import as_json, space_from_json


def my_net(config, dataset):
    """A backbone of the user's own."""


NESTED = {
    "backbone": choice(["cnn", my_net]),
    "lr": loguniform(1e-4, 1e-1),
    "epochs": 3,
    "optimizer": choice([
        {"name": "sgd", "momentum": uniform(0.0, 0.99), "nesterov": choice([True, False])},
        {"name": "adam", "schedule": choice([{"name": "warm", "steps": randint(1, 9)}, {"name": "cold"}])},
    ]),
    "freeze": choice([None, "backbone"]),
}  # fmt: skip


def random_draw(generator):
    """Return a draw function for `draw_config`."""

    def draw(name, distribution):
        if isinstance(distribution, CategoricalDistribution):
            return generator.choice(distribution.choices)
        if isinstance(distribution, IntDistribution):
            return generator.randint(distribution.low, distribution.high)
        return generator.uniform(distribution.low, distribution.high)

    return draw


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: uniform(1, 0), "uniform needs low below high, but got low=1 and high=0"),
        (lambda: uniform(1, 1), "low below high"),
        (lambda: uniform(0, float("inf")), "two finite numbers"),
        (lambda: uniform("0", 1), "two finite numbers, but got '0' and 1"),
        (lambda: loguniform(0, 1), "a low above 0.*use uniform"),
        (lambda: loguniform(-1, 1), "a low above 0"),
        (lambda: loguniform(0.1, 0.01), "low below high"),
        (lambda: randint(4, 2), "randint needs low below high"),
        (lambda: randint(1.5, 3), "whole numbers, but got 1.5 and 3: use uniform"),
        (lambda: randint(True, 3), "two finite numbers"),
        (lambda: choice([]), "choice needs at least one option"),
        (lambda: grid([]), "grid needs at least one option"),
        (lambda: choice("abc"), "choice takes a list of options, but got 'abc'"),
        (lambda: choice(["a", "a"]), "choice holds 'a' twice"),
        (lambda: choice([0, False]), "choice holds 0 twice"),
        (lambda: choice([{"momentum": 0.9}]), "needs a 'name'"),
        (lambda: choice([{"name": 3}]), "needs a 'name'"),
        (lambda: check_space({}), "not empty"),
        (lambda: check_space([("lr", 0.1)]), "a space is a dict"),
        (lambda: check_space({"lr": 0.1}), r"only constants \(lr\): nothing to search; use tunekit.train"),
        (lambda: check_space({"lr": [0.1, 0.2]}), "lr is .* of type list.*for one of several write choice"),
        (lambda: check_space({"a/b": uniform(0, 1)}), "a string without '/', but one is 'a/b'"),
        (lambda: check_space({3: uniform(0, 1)}), "but one is 3"),
        (lambda: check_space({"o": choice([{"name": "a", "b/c": 1}])}), "but one is 'b/c'"),
        (lambda: check_space({"o": choice([{"name": "a", "b": [1]}])}), "o.b is .* of type list"),
        (lambda: check_space({"o": choice([uniform(0, 1)])}), "needs a dict with a 'name' around it"),
        (lambda: check_space({"o": choice([tune.uniform(0, 1)])}), "needs a dict with a 'name' around it"),
        (
            lambda: check_space({"lr": uniform(0, 1), "o": choice([{"name": "a", "lr": 1}])}),
            "lr is there twice, in o=a",
        ),
        (lambda: check_space({"o": choice([{"name": "a", "o": 1}])}), "o is there twice"),
    ],
)
def test_a_space_that_cannot_be_searched_is_an_error(make, text):
    with pytest.raises(SpaceError, match=text):
        make()


def test_a_key_may_be_in_several_options_of_one_choice():
    check_space({"o": choice([{"name": "a", "decay": uniform(0, 1)}, {"name": "b", "decay": 0.5}])})


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (tune.uniform(0, 1), uniform(0, 1)),
        (tune.loguniform(1e-4, 1e-1), loguniform(1e-4, 1e-1)),
        (tune.quniform(0, 1, 0.25), FloatDistribution(0, 1, step=0.25)),
        (tune.randint(1, 5), randint(1, 4)),  # Ray's upper bound is not drawn
        (tune.lograndint(1, 100), IntDistribution(1, 99, log=True)),
        (tune.qrandint(0, 8, 2), IntDistribution(0, 8, step=2)),
        (tune.choice(["a", "b"]), choice(["a", "b"])),
        (tune.grid_search([1, 2]), grid([1, 2])),
        (CategoricalDistribution(["a", "b"]), choice(["a", "b"])),
        (choice([{"name": "a", "m": tune.randint(1, 5)}]), choice([{"name": "a", "m": randint(1, 4)}])),
    ],
)
def test_other_libraries_distributions_are_converted(theirs, ours):
    assert check_space({"key": theirs}) == {"key": ours}


@pytest.mark.parametrize(
    "theirs", [tune.randn(0, 1), tune.qloguniform(1e-1, 1, 1e-1), tune.sample_from(lambda spec: 1), tune.randint(5, 5)]
)
def test_distributions_that_cannot_be_searched_are_refused(theirs):
    with pytest.raises(SpaceError, match="key"):
        check_space({"key": theirs})


def test_a_config_is_found_again_in_its_space():
    generator = random.Random(0)
    seen = set()
    for _ in range(50):
        config = draw_config(NESTED, random_draw(generator))
        params = params_of(NESTED, json.loads(json.dumps(labels(config))))  # as the ledger gives it back
        assert draw_config(NESTED, lambda name, _, params=params: params[name]) == config
        seen.add(tuple(sorted(params)))
    assert len(seen) == 3  # sgd, adam with warm, adam with cold
    assert config["epochs"] == 3 and config["backbone"] in ("cnn", my_net)
    assert {name for names in seen for name in names} >= {
        "optimizer=sgd/momentum",
        "optimizer=adam/schedule=warm/steps",
    }


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"lr": 1.0}, r"lr=1.0 lies outside the space's loguniform\(0.0001, 0.1\)"),
        ({"lr": "0.01"}, "lies outside"),
        ({"nesterov": 1}, r"nesterov=1 lies outside the space's choice\(\[True, False\]\)"),
        ({"optimizer": "rmsprop"}, "optimizer='rmsprop' lies outside"),
        ({"optimizer": "adam"}, "schedule is in the space but not in the config"),
        ({"epochs": 4}, "epochs=4 does not fit the space: the space's epochs is 3"),
        ({"width": 4}, "width=4 does not fit the space: the space has backbone, lr"),
    ],
)
def test_a_config_outside_the_space_is_an_error(change, text):
    inside = {"backbone": "cnn", "lr": 0.01, "epochs": 3, "optimizer": "sgd", "momentum": 0, "nesterov": True}
    assert len(params_of(NESTED, {**inside, "freeze": None})) == 6
    with pytest.raises(SpaceError, match=text):
        params_of(NESTED, {**inside, "freeze": None, **change})


@pytest.mark.parametrize(
    ("space", "size"),
    [
        ({"image_size": 224}, 224),
        ({"image_size": choice([64, 128])}, 128),
        ({"image_size": randint(16, 96)}, 96),
        ({"image_size": choice([None, 224])}, None),
        ({"backbone": choice([{"name": "resnet18", "image_size": 224}, "cnn"])}, None),
        ({"image_size": True}, None),
        ({"image_size": 0}, None),
        ({"lr": 0.1}, None),
    ],
    ids=str,
)
def test_the_largest_image_size_of_a_space(space, size):
    assert max_size_of(space) == size


def test_the_default_config_takes_the_defaults_that_the_space_allows():
    assert default_config(NESTED, {}) == {
        "backbone": "cnn", "lr": pytest.approx(10**-2.5), "epochs": 3, "optimizer": "sgd", "momentum": 0.495,
        "nesterov": True, "freeze": None,
    }  # fmt: skip
    assert default_config(NESTED, {**DEFAULTS, "steps": 7}) == {
        "backbone": "cnn", "lr": 1e-3, "epochs": 3, "optimizer": "adam", "schedule": "warm", "steps": 7, "freeze": None,
    }  # fmt: skip
    outside = {"lr": 5.0, "steps": True, "optimizer": "adam"}
    assert default_config(NESTED, outside)["lr"] == pytest.approx(10**-2.5)
    assert default_config(NESTED, outside)["steps"] == 5


def test_the_default_config_lies_in_the_space():
    for space in (NESTED, {"a": FloatDistribution(0.25, 1, step=0.25), "b": IntDistribution(1, 1000, log=True)}):
        params_of(space, default_config(space, DEFAULTS))


def test_middle_and_contains():
    assert middle(loguniform(1e-4, 1e-2)) == pytest.approx(1e-3)
    assert middle(FloatDistribution(0, 0.75, step=0.25)) in (0.25, 0.5)
    assert middle(randint(1, 4)) in (2, 3) and type(middle(randint(1, 4))) is int
    assert contains(randint(1, 4), 4) and not contains(randint(1, 4), 5) and not contains(randint(1, 4), 2.5)
    assert (
        contains(uniform(0, 1), 1) and not contains(uniform(0, 1), True) and not contains(uniform(0, 1), float("nan"))
    )
    assert contains(CategoricalDistribution([True, 2]), True) and not contains(CategoricalDistribution([True, 2]), 1)
    assert in_words(FloatDistribution(0, 1, step=0.5)) == "uniform(0, 1, step=0.5)"


def test_a_grid_has_every_combination_once():
    space = {
        "a": grid([1, 2]), "b": "constant", "e": randint(5, 6),
        "c": choice([{"name": "x", "d": grid([None, True])}, {"name": "y"}, my_net]),
    }  # fmt: skip
    configs = list(grid_configs(space))
    assert len(configs) == 2 * (2 + 1 + 1) * 2
    assert configs[:3] == [
        {"a": 1, "b": "constant", "e": 5, "c": "x", "d": None},
        {"a": 1, "b": "constant", "e": 5, "c": "x", "d": True},
        {"a": 1, "b": "constant", "e": 5, "c": "y"},
    ]
    assert len({json.dumps(params_of(space, config)) for config in configs}) == len(configs)
    assert has_grid(space) and has_grid({"c": choice([{"name": "x", "d": grid([1])}])}) and not has_grid(NESTED)


@pytest.mark.parametrize("range_", [uniform(0, 1), randint(1, 10**9)])
def test_a_grid_cannot_try_every_value_of_a_range(range_):
    with pytest.raises(SpaceError, match=r"o?lr is .*a range, of which searcher='grid' cannot try every value"):
        list(grid_configs({"o": choice([{"name": "x", "lr": range_}])}))


def test_keys_and_values_of_all_branches():
    assert all_keys(NESTED) == {
        "backbone",
        "lr",
        "epochs",
        "optimizer",
        "momentum",
        "nesterov",
        "schedule",
        "steps",
        "freeze",
    }
    assert all_values(NESTED, "optimizer") == ["sgd", "adam"]
    assert all_values(NESTED, "steps") == [1, 9]
    assert all_values(NESTED, "batch_size", 64) == [64]


@pytest.mark.parametrize(
    "space",
    [
        NESTED,
        {"a": choice([True, "1"]), "b": choice([1, "True", None, 0.5]), "c": grid([False])},
        {
            "a": IntDistribution(1, 9, step=2),
            "b": IntDistribution(1, 9, log=True),
            "c": FloatDistribution(0, 1, step=0.5),
        },
        {"choice": uniform(0, 1)},
        {"function": choice(["a", "b"])},
        {"name": uniform(0, 1), "attributes": choice([{"name": "x", "attributes": randint(1, 2)}])},
    ],
)
def test_a_space_survives_json(space):
    back = space_from_json(json.loads(json.dumps(as_json(space))))
    assert back == space
    assert repr(back) == repr(space)  # True and 1 are equal, but not the same


def test_functions_in_json():
    assert space_from_json(as_json(my_net)) is my_net
    with pytest.raises(SpaceError, match="is not known here: make the same call again"):
        space_from_json(as_json(lambda config, dataset: None))
    with pytest.raises(SpaceError, match="has no name to remember it by"):
        as_json({"backbone": functools.partial(my_net, None)})
