"""The figures hold what was given: metrics, counts, every trial; and no name becomes HTML."""

import base64
import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tunekit.figures import (
    images_grid,
    learning_curves,
    parallel_coordinates,
    predicted_against_true,
    score_histograms,
)

EVIL = '<img src=x onerror=alert(1)><a href="javascript:alert(1)">x</a></script>'
random = np.random.default_rng(0)


def page(figure):
    return figure.to_html(include_plotlyjs=False)


def test_predicted_against_true_has_both_histograms_and_the_metrics():
    true = random.uniform(1, 10, 20_000)
    predicted = 0.5 * true + random.normal(0, 1, 20_000)
    figure = predicted_against_true(predicted[:, None], true, title="safer")
    mse, pearson = np.mean((predicted - true) ** 2), np.corrcoef(predicted, true)[0, 1]
    assert figure.layout.annotations[0].text == f"MSE {mse:.2f}<br>Pearson {pearson:.2f}<br>N = 20,000"
    points, _, top, right = figure.data
    assert len(points.x) == len(points.y) == 5000  # few enough for a browser
    assert sum(top.y) == sum(right.x) == 20_000 and right.orientation == "h"
    assert "safer" in page(figure)


@pytest.mark.parametrize("predicted", [np.full(5, 3.0), np.arange(5.0)])
def test_predictions_that_do_not_vary_have_no_pearson(predicted):
    text = predicted_against_true(predicted, np.arange(5.0)).layout.annotations[0].text
    assert ("Pearson -" in text) == (predicted.std() == 0)


def test_score_histograms_are_shares_of_each_split():
    scores = {"train": random.normal(5, 1, 650), "val": random.normal(5, 1, 50), "test": random.normal(5, 1, 300)}
    figure = score_histograms(scores)
    assert [trace.name for trace in figure.data] == ["train (650)", "val (50)", "test (300)"]
    assert all(sum(trace.y) == pytest.approx(1) for trace in figure.data)
    assert len(score_histograms(scores | {"val": np.zeros(0)}).data) == 2


def test_parallel_coordinates_draws_every_trial_with_a_score():
    frame = pd.DataFrame({
        "trial": range(5),
        "config/lr": [1e-4, 1e-3, 1e-2, 1e-1, 1.0],
        "config/backbone": ["cnn", "mlp", EVIL, "cnn", "cnn"],
        "config/momentum": [0.9, np.nan, 0.5, 0.1, 0.2],
        "config/pretrained": [True, False, True, True, True],
        "config/batch_size": [32, 64, 32, 64, 128],
        "config/constant": [1, 1, 1, 1, 1],
        "val_loss": [0.5, 0.4, 0.3, np.nan, 0.2],
    })  # fmt: skip
    lines = parallel_coordinates(frame, "val_loss").data[0]
    by_name = {each.label: each for each in lines.dimensions}
    assert list(by_name) == ["lr", "backbone", "momentum", "pretrained", "batch_size", "val_loss"]
    assert list(by_name["val_loss"]["values"]) == [0.5, 0.4, 0.3, 0.2]
    assert list(by_name["lr"]["values"]) == pytest.approx([-4, -3, -2, 0])
    assert by_name["lr"].ticktext == ("0.0001", "0.001", "0.01", "0.1", "1")
    assert by_name["momentum"].ticktext[0] == "none" and min(by_name["momentum"]["values"]) < 0.2
    assert list(by_name["batch_size"]["values"]) == [32, 64, 32, 128]
    drawn = [by_name["backbone"].ticktext[int(number)] for number in by_name["backbone"]["values"]]
    assert drawn[:2] == ["cnn", "mlp"] and "<" not in drawn[2]
    parallel_coordinates(frame.head(0), "val_loss")


def test_learning_curves():
    history = pd.DataFrame({"trial": [0, 0, 1], "epoch": [2, 1, 1], "train_loss": [1, 2, 3], "val_loss": [4, 5, 6]})
    figure = learning_curves(history, ["train_loss", "val_loss"])
    assert figure.data[0].name == "train_loss, trial 0" and len(figure.data) == 4
    assert list(figure.data[0].x) == [1, 2] and list(figure.data[0].y) == [2, 1]
    one = learning_curves(history[history["trial"] == 0], ["train_loss"])
    assert [trace.name for trace in one.data] == ["train_loss"] and one.layout.yaxis.title.text == "train_loss"


@pytest.mark.parametrize("shape", [(10, 8, 6), (10, 8, 6, 1), (10, 8, 6, 3)])
def test_images_grid_shows_the_very_pixels(shape):
    images = random.integers(0, 256, shape, np.uint8)
    figure = images_grid(images, [f"title {number}" for number in range(10)], num_columns=4)
    assert len(figure.data) == 10 and len(figure.layout.annotations) == 10
    shown = Image.open(io.BytesIO(base64.b64decode(figure.data[7].source.split(",")[1])))
    expected = images[7] if shape[-1] == 3 else images[7].reshape(8, 6, 1).repeat(3, 2)
    assert np.array_equal(np.asarray(shown), expected)
    assert len(images_grid(images[:1]).data) == 1


def test_no_name_becomes_html():
    history = pd.DataFrame({"trial": [0], "epoch": [1], EVIL: [1.0]})
    trials = pd.DataFrame({f"config/{EVIL}": [EVIL, "b"], EVIL: [1.0, 2.0]})
    figures = [
        predicted_against_true(np.arange(3), np.arange(3), title=EVIL),
        score_histograms({EVIL: np.arange(3)}, title=EVIL),
        learning_curves(history, [EVIL]),
        parallel_coordinates(trials, EVIL),
        images_grid(np.zeros((1, 4, 4), np.uint8), [EVIL]),
    ]
    for figure in figures:
        texts = json.dumps(json.loads(figure.to_json())["data"]) + json.dumps(json.loads(figure.to_json())["layout"])
        assert "&lt;img" in texts and "<img" not in texts and "<a " not in texts
        assert "<img src=x" not in page(figure) and "</script>x" not in page(figure)
