"""W&B sweeps: what each distribution draws, against scipy and numpy; what is understood, and what is refused."""

import math
import textwrap

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from scipy import stats

from tunekit.distributions import TransformedDistribution, choice, contains, in_words
from tunekit.errors import ConfigError, SpaceError, TunekitError, UnknownNameError
from tunekit.grids import grid_configs
from tunekit.proposer import Proposer
from tunekit.quantiles import quantile, share_below
from tunekit.space import all_values, check_space, default_config, draw_config, params_of
from tunekit.space_json import as_json, space_from_json
from tunekit.sweep_parameters import DISTRIBUTIONS, read_parameter
from tunekit.sweeps import is_sweep, read_sweep

TUTORIAL = """
program: train.py
method: bayes
metric:
  name: val_loss
  goal: minimize
parameters:
  learning_rate:
    distribution: log_uniform_values
    min: 1e-4
    max: 1e-1
  batch_size:
    values: [32, 64, 128, 256]
"""
LN = math.log
CONTINUOUS = {  # as W&B says them, and what scipy calls them
    "uniform": ({"min": -1.5, "max": 2}, stats.uniform(-1.5, 3.5)),
    "log_uniform": ({"min": -9, "max": -2.5}, stats.loguniform(math.exp(-9), math.exp(-2.5))),
    "log_uniform_values": ({"min": 1e-4, "max": 0.1}, stats.loguniform(1e-4, 0.1)),
    "inv_log_uniform": ({"min": 1.0, "max": 6.0}, stats.loguniform(math.exp(-6), math.exp(-1))),
    "inv_log_uniform_values": ({"min": 1e-3, "max": 10.0}, stats.loguniform(1e-3, 10.0)),
    "normal": ({"mu": 3.0, "sigma": 0.5}, stats.norm(3.0, 0.5)),
    "log_normal": ({"mu": -4.0, "sigma": 1.5}, stats.lognorm(1.5, scale=math.exp(-4.0))),
    "beta": ({"a": 2.0, "b": 5.0}, stats.beta(2.0, 5.0)),
}
QUANTISED = {
    "int_uniform": ({"min": 3, "max": 9}, stats.uniform(2.5, 7.0), 1),
    "q_uniform": ({"min": 1, "max": 10, "q": 2}, stats.uniform(1, 9), 2),
    "q_log_uniform": ({"min": LN(32), "max": LN(256), "q": 8}, stats.loguniform(32, 256), 8),
    "q_log_uniform_values": ({"min": 0.5, "max": 3.0, "q": 0.1}, stats.loguniform(0.5, 3.0), 0.1),
    "q_normal": ({"mu": 10.0, "sigma": 4.0}, stats.norm(10, 4), 1),
    "q_log_normal": ({"mu": 1.0, "sigma": 0.5, "q": 0.5}, stats.lognorm(0.5, scale=math.e), 0.5),
    "q_beta": ({"a": 1, "b": 3, "q": 0.05}, stats.beta(1, 3), 0.05),
}


def parameters(only=None):
    described = {name: {"distribution": name, **words} for name, (words, *_) in (CONTINUOUS | QUANTISED).items()}
    described["weighed"] = {"values": ["a", 2, None, True], "probabilities": [0.5, 0.3, 0.2, 0]}
    return {name: described[name] for name in only or described}


def sweep(method="random", **parts):
    parts.setdefault("parameters", parameters())
    return {"method": method, "metric": {"name": "val_loss"}, **parts}


@pytest.fixture(scope="module")
def drawn():
    """What Optuna draws at random of every distribution, by name."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = read_sweep(sweep()).space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    columns = {name: [] for name in space}

    def draw(trial):
        def one(name, of):
            if isinstance(of, IntDistribution):
                return trial.suggest_int(name, of.low, of.high)
            return trial.suggest_float(name, of.low, of.high, log=of.log)

        return draw_config(space, one)

    for _ in range(1000):
        for name, value in draw(study.ask()).items():
            columns[name].append(value)
    return columns


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_continuous_distribution_is_scipys(name, drawn):
    assert stats.kstest(drawn[name], CONTINUOUS[name][1].cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", QUANTISED)
def test_a_quantised_distribution_is_the_rounded_one(name, drawn):
    _, exact, q = QUANTISED[name]
    steps = np.array(drawn[name]) / q
    assert np.abs(steps - np.round(steps)).max() < 1e-6
    expected = {k: exact.cdf((k + 0.5) * q) - exact.cdf((k - 0.5) * q) for k in range(-100, 1000)}
    usual = [k for k, share in expected.items() if share > 0.01]
    counts = [np.sum(np.round(steps) == k) for k in usual]
    rest = 1 - sum(expected[k] for k in usual)
    observed = [*counts, len(steps) - sum(counts)] if rest > 1e-9 else counts
    shares = np.array([*(expected[k] for k in usual), rest] if rest > 1e-9 else [expected[k] for k in usual])
    assert stats.chisquare(observed, shares / shares.sum() * len(steps)).pvalue > 1e-3
    whole = isinstance(QUANTISED[name][0].get("q", 1), int)
    assert all(isinstance(value, int) == whole for value in drawn[name])


def test_values_come_with_their_probabilities(drawn):
    counts = [sum(value is known for value in drawn["weighed"]) for known in ("a", 2, None)]
    assert sum(counts) == len(drawn["weighed"])  # True has probability 0
    assert stats.chisquare(counts, np.array([0.5, 0.3, 0.2]) * len(drawn["weighed"])).pvalue > 1e-3


def test_every_documented_distribution_is_among_these():
    assert set(DISTRIBUTIONS) - {"constant", "categorical", "categorical_w_probabilities"} == {*CONTINUOUS, *QUANTISED}


@pytest.mark.parametrize("name", parameters())
def test_a_distribution_outlives_json_and_gives_its_values_back(name):
    space = read_sweep(sweep(parameters=parameters([name]))).space
    again = check_space(space_from_json(as_json(space)))
    assert again == space
    for share in (0.001, 0.1, 0.5, 0.77, 0.999):
        config = draw_config(space, lambda _, of: at(of, share))  # noqa: B023
        params = params_of(again, config)
        assert draw_config(again, lambda key, _: params[key]) == config  # noqa: B023
        assert default_config(again, config) == config
    assert contains(again[name], default_config(again, {})[name])
    assert name.split("_w_")[0] in in_words(again[name]) or not isinstance(again[name], TransformedDistribution) or (
        name == "weighed"
    )  # fmt: skip


def at(distribution, share):
    """A draw of Optuna's that lies a share of the way between its bounds."""
    value = distribution.low + share * (distribution.high - distribution.low)
    return round(value) if isinstance(distribution, IntDistribution) else value


def test_what_lies_outside_is_refused():
    space = read_sweep(sweep(parameters=parameters(["normal", "q_uniform", "weighed"]))).space
    inside = {"normal": 3.25, "q_uniform": 4, "weighed": "a"}
    assert set(params_of(space, inside)) == set(inside)
    for key, value in {"normal": 30.0, "q_uniform": 5, "weighed": True}.items():
        with pytest.raises(SpaceError, match=f"{key}={value} lies outside the space's"):
            params_of(space, {**inside, key: value})
    assert all_values(space, "q_uniform") == [2, 10]
    assert all_values(space, "weighed") == ["a", 2, None]


def test_a_share_is_found_from_its_quantile():
    for name, (words, *_) in (CONTINUOUS | QUANTISED).items():
        if "uniform" not in name or "q_" in name:
            described = {"distribution": name, "q": 1, **words} if "q_" in name else {"distribution": name, **words}
            for share in (1e-6, 0.2, 0.9, 1 - 1e-6):
                value = quantile(described, share)
                assert quantile(described, min(max(share_below(described, value), 1e-6), 1 - 1e-6)) == value


def test_the_tutorials_sweep_is_understood(tmp_path):
    (tmp_path / "sweep.yaml").write_text(TUTORIAL)
    found = read_sweep(tmp_path / "sweep.yaml")
    assert found[:6] == (found.space, "tpe", "val_loss", "min", "none", None)
    assert found.space == {"lr": FloatDistribution(1e-4, 0.1, log=True), "batch_size": choice([32, 64, 128, 256])}
    assert found.notes == ("program has no effect: tunekit trains by itself; for a loop of your own, run(train=...)",)
    as_dict = {
        "method": "bayes",
        "metric": {"name": "val_loss", "goal": "minimize"},
        "parameters": {
            "learning_rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
            "batch_size": {"values": [32, 64, 128, 256]},
        },
    }
    assert read_sweep(as_dict)[:-1] == found[:-1]
    assert is_sweep(as_dict) and is_sweep(tmp_path / "sweep.yaml") and not is_sweep(found.space)


def test_the_bayesian_searcher_draws_from_every_distribution():
    found = read_sweep(sweep("bayes"))
    proposer = Proposer(found.space, "tpe", "val_loss", "min", 0, [("default", default_config(found.space, {}))])
    for number in range(3):
        _, params = proposer.propose(number)
        config = draw_config(found.space, lambda name, _: params[name])  # noqa: B023
        assert all(contains(found.space[key], value) for key, value in config.items())


def test_everything_else_a_sweep_may_say():
    found = read_sweep({
        "method": "random", "name": "nets: lr/width", "description": "d", "project": "p", "entity": "e", "run_cap": 30,
        "command": ["${env}"], "metric": {"name": "Validation Accuracy", "goal": "maximize"},
        "early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 2},
        "parameters": {
            "epochs": {"value": 27},
            "dropout": {"min": 0.0, "max": 0.5},
            "warmup_epochs": {"min": 0, "max": 3},
            "optimizer": {"parameters": {"optimizer": {"values": ["sgd", "adam"]}, "momentum": {"value": 0.9}}},
        },
    })  # fmt: skip
    assert found.space == {
        "dropout": FloatDistribution(0.0, 0.5), "warmup_epochs": IntDistribution(0, 3),
        "optimizer": choice(["sgd", "adam"]), "momentum": 0.9,
    }  # fmt: skip
    assert (found.searcher, found.metric, found.mode) == ("random", "val_accuracy", "max")
    assert (found.num_trials, found.max_epochs, found.name) == (30, 27, "nets- lr-width")
    assert (found.scheduler, found.project, found.entity) == ("asha(3, 2)", "p", "e")
    assert [note.split()[0] for note in found.notes] == ["command", "description"]


@pytest.mark.parametrize(
    ("described", "scheduler"),
    [
        ({"min_iter": 1}, "asha"),
        ({"min_iter": 1, "eta": 3.0}, "asha"),
        ({"max_iter": 27, "s": 3}, "asha"),
        ({"max_iter": 27, "s": 2}, "asha(3, 3)"),
        ({"max_iter": 16, "s": 9, "eta": 2}, "asha(1, 2)"),
    ],
)
def test_hyperband_has_the_bands_that_wandb_counts(described, scheduler):
    assert read_sweep(sweep(early_terminate={"type": "hyperband", **described})).scheduler == scheduler


def test_a_grid_is_every_combination():
    described = {
        "width": {"distribution": "q_uniform", "min": 8, "max": 20, "q": 4},
        "depth": {"min": 1, "max": 2},
        "act": {"values": ["relu", "gelu"]},
        "seed": {"value": 1},
    }
    found = read_sweep({"method": "grid", "parameters": described, "run_cap": 12})
    configs = list(grid_configs(found.space))
    assert (found.searcher, found.metric, found.mode, len(configs)) == ("grid", None, None, 12)
    assert [config["width"] for config in configs[::4]] == [8, 12, 16]  # as W&B counts them, without the max
    with pytest.raises(ConfigError, match="run_cap is 11, but the grid has more configs"):
        read_sweep({"method": "grid", "parameters": described, "run_cap": 11})


def test_a_loop_of_ones_own_gets_the_names_as_they_stand():
    described = {"learning_rate": {"min": 0.1, "max": 0.5}, "epochs": {"values": [5, 20]}}
    found = read_sweep(sweep(metric={"name": "val_acc", "goal": "maximize"}, parameters=described), builtin=False)
    assert (list(found.space), found.metric, found.max_epochs) == (["learning_rate", "epochs"], "val_acc", 20)


BOMB = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20))
X = {"x": {"min": 0.0, "max": 1.0}}
WRONG = [  # what is put into a sweep, and what is said of it
    ({"method": "baies"}, "unknown method 'baies': did you mean 'bayes'"),
    ({"method": None}, "unknown method None"),
    ({"metrik": {}}, "unknown sweep key 'metrik': did you mean 'metric'"),
    ({"job": "x"}, "unknown sweep key 'job'"),
    ({"method": "bayes", "metric": None}, "need a metric"),
    ({"metric": "val_loss"}, "metric is a dict with a name"),
    ({"metric": {"name": "val_loss", "goal": "minimise"}}, "unknown metric.goal 'minimise': did you mean 'minimize'"),
    ({"metric": {"name": "val_acc"}}, "metric.goal is missing, and W&B would then minimise val_accuracy"),
    ({"metric": {"name": "val_loss", "target": 0.1}}, "metric.target cannot be honoured"),
    ({"metric": {"name": "val_loss", "aim": 0.1}}, "unknown sweep key in metric 'aim'"),
    ({"run_cap": 0}, "run_cap must be a whole number of at least 1, but is 0"),
    ({"name": 3}, "name must be text, but is 3"),
    ({"early_terminate": {"type": "envelope"}}, "early_terminate is a dict with type: hyperband"),
    ({"early_terminate": {"type": "hyperband"}}, "needs min_iter, or both max_iter and s"),
    ({"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 2.5}}, "eta must be a whole number of at least 2"),
    ({"early_terminate": {"type": "hyperband", "max_iter": 20, "s": 2}}, "must be divisible by eta=3 s=2 times"),
    ({"early_terminate": {"type": "hyperband", "miniter": 1}}, "'miniter': did you mean 'min_iter'"),
    ({"early_terminate": {"type": "hyperband", "min_iter": 1}, "metric": None}, "need a metric"),
    ({"parameters": []}, "a sweep is a dict with method, metric and parameters"),
    ({"parameters": {}}, "parameters is a dict of at least one parameter"),
    ({"parameters": {"x": 3}}, "parameters.x is 3: write x: {value: ...}"),
    ({"parameters": {"x": {}}}, "parameters.x needs a value, values, min and max, or a distribution"),
    ({"parameters": {"x": {"value": 3}}}, "parameters: the space holds only constants"),
    ({"parameters": {"x": {"distribution": "lognormal"}}}, "'lognormal': did you mean 'log_normal'"),
    ({"parameters": {"x": {"distribution": "normal", "sgima": 1}}}, "word in parameters.x 'sgima': did you mean 's"),
    ({"parameters": {"x": {"distribution": "normal", "sigma": 0}}}, "parameters.x.sigma must be above 0, but is 0"),
    ({"parameters": {"x": {"distribution": "log_normal", "mu": 800}}}, "beyond the numbers"),
    ({"parameters": {"x": {"distribution": "uniform", "min": 0}}}, "parameters.x has no max, which"),
    ({"parameters": {"x": {"min": 1, "max": 1}}}, "parameters.x.min must be below max"),
    ({"parameters": {"x": {"min": "low", "max": 1}}}, "parameters.x.min must be a finite number, but is 'low'"),
    ({"parameters": {"x": {"min": True, "max": 2}}}, "parameters.x.min must be a finite number, but is True"),
    ({"parameters": {"x": {"min": 0.0, "max": math.inf}}}, "parameters.x.max must be a finite number, but is inf"),
    ({"parameters": {"x": {"distribution": "int_uniform", "min": 0.5, "max": 2}}}, "parameters.x: randint needs whole"),
    ({"parameters": {"x": {"distribution": "log_uniform", "min": 1, "max": 800}}}, "beyond the numbers"),
    ({"parameters": {"x": {"distribution": "log_uniform_values", "min": 0, "max": 1}}}, "x.min must be above 0"),
    ({"parameters": {"x": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0}}}, "x.q must be above 0"),
    ({"parameters": {"x": {"values": []}}}, "parameters.x.values: choice needs at least one option"),
    ({"parameters": {"x": {"values": "sgd"}}}, "parameters.x.values must be a list, but is 'sgd'"),
    ({"parameters": {"x": {"values": [1, 1]}}}, "parameters.x.values: choice holds 1 twice"),
    ({"parameters": {"x": {"values": [[1]]}}}, "parameters.x.values[0] must be a number, text, true, false or null"),
    ({"parameters": {"x": {"values": [1, 2], "probabilities": [1]}}}, "parameters.x.probabilities must be a list of 2"),
    ({"parameters": {"x": {"values": [1, 2], "probabilities": [0.5, 0.6]}}}, "must be at least 0 and sum to 1"),
    ({"parameters": {"x": {"value": {}}}}, "parameters.x.value must be a number, text, true, false or null"),
    ({"parameters": {"lr": {"value": 1}, "learning_rate": {"min": 0.0, "max": 1.0}}}, "would both be lr"),
    ({"parameters": {"a": {"parameters": X}, "b": {"parameters": X}}}, "b.parameters.x and parameters.a.parameters.x"),
    ({"parameters": {"a": {"parameters": X, "value": 1}}}, "parameters.a holds parameters, and besides them"),
    ({"parameters": {**X, "epochs": {"values": [5, 10]}}}, "parameters.epochs must be a constant, a whole number"),
    ({"parameters": {**X, "epochs": {"value": "five"}}}, "parameters.epochs must be a constant, a whole number"),
    ({"method": "grid", "parameters": {"x": {"values": [1], "probabilities": [1]}}}, "mean nothing to method grid"),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "said"), WRONG, ids=[said[:40] for _, said in WRONG])
def test_what_cannot_be_honoured_is_named(parts, said):
    with pytest.raises((SpaceError, ConfigError, UnknownNameError)) as told:
        read_sweep({**sweep(), **parts})
    assert said in str(told.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("method: random\nmethod: grid\n", ":2 has the key 'method' again, after line 1"),
        ("a: !!python/object/apply:os.system ['true']\n", ":1 names tag:yaml.org,2002:python/object"),
        ("a: !mine 3\n", ":1 names !mine"),
        ("a: [b\n", "cannot be read as YAML"),
        ("a: &x [*x]\n", "holds an alias of itself"),
        (BOMB, "holds over 50,000 values, with its aliases"),
        ("[" * 30_000, "nested too deep"),
        ("? [1]\n: 2\n", "has a key that is no single word"),
        ("a: 1\n---\nb: 2\n", "cannot be read as YAML"),
        ("\x00", "cannot be read as YAML"),
        ("# " + "x" * 2**20, "larger than 1,048,576 bytes"),
        ("", "a sweep is a dict with method, metric and parameters, but got None"),
    ],
    ids=lambda value: value[:30] if value.isprintable() else "text",
)  # fmt: skip
def test_a_file_that_is_no_plain_yaml_is_refused(text, said, tmp_path):
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(TunekitError) as told:
        read_sweep(tmp_path / "sweep.yaml")
    assert said in str(told.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(SpaceError, match="is no file"):
        read_sweep(tmp_path / "sweep.yaml")
    (tmp_path / "sweep.yaml").write_bytes(b"a: \xff\xfe\n")
    with pytest.raises(SpaceError, match="cannot be read as YAML"):
        read_sweep(tmp_path / "sweep.yaml")


def test_anchors_merge_keys_and_short_numbers_are_fine(tmp_path):
    text = """\ufeff
        method: random
        parameters:
          lr: &range {distribution: log_uniform_values, min: 1e-5, max: 1E-1}
          weight_decay: *range
          momentum: {values: [0, 5e-1, .9]}
    """
    (tmp_path / "sweep.yml").write_text(textwrap.dedent(text), encoding="utf-8")
    space = read_sweep(tmp_path / "sweep.yml").space
    assert space["lr"] == space["weight_decay"] == FloatDistribution(1e-5, 0.1, log=True)
    assert space["momentum"].options == (0, 0.5, 0.9)


def test_the_distribution_is_inferred_as_wandb_does():
    assert read_parameter("x", {"min": 1, "max": 3}, "random") == IntDistribution(1, 3)
    assert read_parameter("x", {"min": 1, "max": 3.0}, "random") == FloatDistribution(1, 3)
    assert read_parameter("x", {"values": [1]}, "random") == choice([1])
    assert read_parameter("x", {"value": "a"}, "random") == "a"
