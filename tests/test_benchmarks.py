"""What the benchmarks stand on: recorded learning curves, and their replays with tunekit and with others."""

from pathlib import Path

import numpy as np
import pytest
from curves import RECIPES, load, read_curves, synthetic
from record_curves import curve
from search_quality import DEFAULT, METHODS, RANDOM
from simulator import Job, simulate
from tuners import Random

from tunekit.metrics import chance

TABLES = Path(__file__).parents[1] / "benchmarks" / "curves"


def searches(name, seeds):
    curves = read_curves(TABLES / "digits.parquet")
    tuners = (Random(curves, seed) if name == RANDOM else METHODS[name](curves, seed) for seed in range(seeds))
    return [simulate(curves, tuner, workers=4) for tuner in tuners]


@pytest.mark.parametrize("name", ["optuna tpe, median", "ray optuna, asha 4 (default)", "tunekit tpe asha"])
def test_a_tuner_finds_a_good_config(name):
    assert all(outcome.reached for outcome in searches(name, 3))


def test_the_default_finds_one_with_half_of_the_training_that_random_search_takes():
    ours, at_random = ([outcome.epochs for outcome in searches(name, 7)] for name in (DEFAULT, RANDOM))
    assert np.median(ours) < np.median(at_random) / 2


def test_workers_that_wait_for_nothing_take_the_time_of_the_busiest():
    curves, order = synthetic(0), iter(range(4))
    curves.target = 2.0  # never reached

    class Four:
        def ask(self):
            return next((Job(number, number) for number in order), None)

        def tell(self, trial, epoch, value):
            return epoch == 3

    outcome = simulate(curves, Four(), workers=4)
    assert (outcome.reached, outcome.epochs, outcome.trials) == (False, 12, 4)
    assert outcome.seconds == pytest.approx(3 * curves.seconds[:4].max())


@pytest.mark.parametrize("table", RECIPES)
def test_a_recorded_table_is_a_whole_grid_of_real_curves(table):
    curves, recipe = read_curves(TABLES / f"{table}.parquet"), RECIPES[table]
    assert curves.grid == recipe.grid and curves.accuracy.shape == (189, 27)
    assert 0.5 < curves.best <= 1 and 1 <= curves.num_good < 20
    finite = curves.accuracy[np.isfinite(curves.accuracy)]
    if recipe.num_val:
        assert finite * recipe.num_val == pytest.approx(np.round(finite * recipe.num_val), abs=0.02)


def test_a_curve_recorded_again_is_the_same():
    dataset = load("digits", None, None)
    assert chance(dataset.val.targets, "classification")["accuracy"] == pytest.approx(
        RECIPES["digits"].chance, abs=1e-4
    )
    number = 100
    config = {
        **RECIPES["digits"].configs[number],
        "precision": "float32",
        "memory_format": "contiguous",
        "max_epochs": 2,
    }
    again = [curve(config, number, dataset)["val_accuracy"] for _ in range(2)]
    recorded = read_curves(TABLES / "digits.parquet").accuracy[number, :2]
    assert again[0] == again[1] == pytest.approx(recorded.tolist(), abs=0.03)
