"""What is measured of predictions."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from tunekit.metrics import chance, classification_metrics, classification_report, regression_metrics, wilson_interval
from tunekit.scores import DEFAULT_METRIC, HIGHER_IS_BETTER, is_better, metric_names

NAN, INF = math.nan, math.inf


def test_accuracy():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, -1.0]])
    assert classification_metrics(logits, torch.tensor([0, 1, 1])) == {"accuracy": 2 / 3}


@pytest.mark.parametrize("broken", [NAN, INF, -INF])
def test_a_model_that_diverged_has_no_accuracy(broken):
    logits = torch.tensor([[2.0, 1.0], [0.0, broken]])
    assert math.isnan(classification_metrics(logits, torch.tensor([0, 1]))["accuracy"])


def test_regression_metrics_of_a_column_are_those_of_a_row():
    torch.manual_seed(0)
    targets = torch.rand(50)
    outputs = targets + 0.1 * torch.rand(50)
    measured = regression_metrics(outputs[:, None], targets)
    assert measured == regression_metrics(outputs, targets)
    assert measured["mse"] == pytest.approx(((outputs - targets) ** 2).mean().item())
    assert measured["mae"] == pytest.approx((outputs - targets).abs().mean().item())
    assert measured["pearson"] == pytest.approx(stats.pearsonr(outputs.numpy(), targets.numpy()).statistic)
    assert measured["r2"] == pytest.approx(1 - measured["mse"] / targets.var(correction=0).item(), rel=1e-4)


def test_what_cannot_be_measured_is_nan():
    constant = regression_metrics(torch.ones(3), torch.tensor([1.0, 2.0, 3.0]))
    assert math.isnan(constant["pearson"]) and constant["r2"] == pytest.approx(-1.5)
    one = regression_metrics(torch.ones(1), torch.ones(1))
    assert math.isnan(one["pearson"]) and math.isnan(one["r2"]) and one["mse"] == 0


@pytest.mark.parametrize(("successes", "total"), [(0, 10), (95, 100), (10, 10), (500, 1000)])
def test_wilson_is_scipys(successes, total):
    theirs = stats.binomtest(successes, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, total) == pytest.approx((theirs.low, theirs.high), abs=1e-6)
    assert wilson_interval(0, 0) == (0, 1)


@pytest.mark.parametrize(
    ("value", "than", "better"),
    [
        (2, 1, (True, False)), (1, 2, (False, True)), (1, 1, (False, False)), (1, None, (True, True)),
        (1, NAN, (True, True)), (NAN, None, (False, False)), (NAN, 1, (False, False)), (INF, 1, (False, False)),
        (-INF, 1, (False, False)), (NAN, NAN, (False, False)),
    ],
)  # fmt: skip
def test_is_better(value, than, better):
    assert (is_better(value, than, "max"), is_better(value, than, "min")) == better


def test_the_report_counts_every_image_once():
    outputs = torch.eye(3)[[0, 0, 1, 2, 0]]
    report = classification_report(outputs, torch.tensor([0, 0, 1, 1, 1]), ("a", "b", "c"))
    assert report["confusion"] == [[2, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert [report["per_class"][name]["accuracy"] for name in "abc"] == [1, 1 / 3, None]
    assert [report["per_class"][name]["num_images"] for name in "abc"] == [2, 3, 0]
    assert report["interval"] == wilson_interval(3, 5)


def test_every_task_knows_which_way_its_metrics_go():
    for task, (metric, mode) in DEFAULT_METRIC.items():
        assert metric in metric_names(task)
        assert HIGHER_IS_BETTER[metric.removeprefix("val_")] == (mode == "max")


def test_chance_is_what_one_prediction_for_all_images_gets_and_a_little():
    many = np.array([0, 1] * 5000)
    assert chance(many, "classification")["accuracy"] == pytest.approx(0.51)
    same_for_all = torch.nn.functional.cross_entropy(torch.zeros(len(many), 2), torch.from_numpy(many)).item()
    assert 0.95 * same_for_all < chance(many, "classification")["loss"] < same_for_all
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    of_mean = regression_metrics(values.mean().expand(1000, 1), values)
    found = chance(values.numpy(), "regression")
    for name in ("mse", "mae"):
        assert 0.95 * of_mean[name] < found[name] < of_mean[name]
    assert of_mean["r2"] < found["r2"] < 0.05 and 0 < found["pearson"] < 0.05


@pytest.mark.parametrize("classes", [[0, 1], [0, 0, 1], [0] * 95 + [1] * 5])
def test_a_small_or_uneven_split_leaves_room_above_chance(classes):
    found = chance(np.array(classes), "classification")
    most = max(classes.count(number) for number in set(classes)) / len(classes)
    assert most < found["accuracy"] < min(1.0, most + 0.02) and found["loss"] > 0
    assert chance(np.array([1.0, 2.0]), "regression")["pearson"] < 0.1
