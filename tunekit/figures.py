"""Figures, from plain arrays and frames to plotly: the one file that draws.

Names (of classes, columns, files) are data: plotly takes its texts for HTML, so they are escaped on their way in. A
figure becomes one page with `figure.write_html(path)`.
"""

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.subplots import make_subplots

if TYPE_CHECKING:
    import pandas as pd  # at run time the caller has it already

COLOURS = {"train": "#636efa", "val": "#ef9a3c", "test": "#00a37a"}
MAX_POINTS = 5000  # a browser draws these at once; metrics and histograms are of all
TEMPLATE = "plotly_white"


def predicted_against_true(predicted: np.ndarray, true: np.ndarray, *, title: str = "") -> go.Figure:
    """Draw predictions against true values, with both histograms at the margins, and MSE and Pearson written in.

    Args:
        predicted, true: (N,) or (N, 1), finite.
        title: above the figure.

    Example:
        >>> figure = predicted_against_true(np.array([1.0, 2.0, 2.5]), np.array([1.0, 2.0, 3.0]))
        >>> figure.layout.annotations[0].text
        'MSE 0.08<br>Pearson 0.98<br>N = 3'
    """
    predicted, true = np.asarray(predicted, float).reshape(-1), np.asarray(true, float).reshape(-1)
    mse = float(np.mean((predicted - true) ** 2))
    varies = len(true) > 1 and predicted.std() > 0 and true.std() > 0
    pearson = f"{np.corrcoef(predicted, true)[0, 1]:.2f}" if varies else "-"
    shown = np.linspace(0, len(true) - 1, min(MAX_POINTS, len(true))).round().astype(int)
    ends = [float(min(predicted.min(), true.min())), float(max(predicted.max(), true.max()))]
    figure = make_subplots(
        2, 2, column_widths=[0.82, 0.18], row_heights=[0.18, 0.82], horizontal_spacing=0.02, vertical_spacing=0.02,
        shared_xaxes=True, shared_yaxes=True,
    )  # fmt: skip
    marker = {"color": COLOURS["test"], "opacity": 0.35, "size": 5}
    figure.add_scatter(x=true[shown], y=predicted[shown], mode="markers", marker=marker, row=2, col=1)
    figure.add_scatter(x=ends, y=ends, mode="lines", line={"color": "grey", "dash": "dot"}, row=2, col=1)
    counts, edges = np.histogram(true, 40)
    figure.add_bar(x=_middles(edges), y=counts, width=np.diff(edges), marker_color=COLOURS["test"], row=1, col=1)
    counts, edges = np.histogram(predicted, 40)
    figure.add_bar(
        x=counts, y=_middles(edges), width=np.diff(edges), orientation="h", marker_color=COLOURS["test"], row=2, col=2
    )
    figure.add_annotation(
        text=f"MSE {mse:.2f}<br>Pearson {pearson}<br>N = {len(true):,}", xref="x3 domain", yref="y3 domain", x=0.02,
        y=0.98, showarrow=False, align="left", bgcolor="rgba(255,255,255,0.7)",
    )  # fmt: skip
    figure.update_xaxes(title_text="true score", row=2, col=1)
    figure.update_yaxes(title_text="predicted score", row=2, col=1)
    figure.update_layout(template=TEMPLATE, title=_text(title), width=640, height=640)
    return figure.update_layout(showlegend=False, bargap=0)


def score_histograms(scores: Mapping[str, np.ndarray], *, title: str = "") -> go.Figure:
    """Draw the histogram of the scores of each split, over one another, as shares of the split.

    Args:
        scores: split -> values (N,); the splits may differ in size.
        title: above the figure.
    """
    values = {split: np.asarray(each, float).reshape(-1) for split, each in scores.items() if len(each)}
    everything = np.concatenate(list(values.values())) if values else np.zeros(1)
    edges = np.histogram_bin_edges(everything, 30)
    figure = go.Figure()
    for split, each in values.items():
        share = np.histogram(each, edges)[0] / len(each)
        figure.add_bar(
            x=_middles(edges), y=share, width=np.diff(edges), opacity=0.55, marker_color=COLOURS.get(split),
            name=_text(f"{split} ({len(each):,})"),
        )  # fmt: skip
    figure.update_layout(template=TEMPLATE, title=_text(title), barmode="overlay", showlegend=True)
    return figure.update_xaxes(title_text="score").update_yaxes(title_text="share of the split", tickformat=".0%")


def parallel_coordinates(dataframe: "pd.DataFrame", metric: str) -> go.Figure:
    """Draw a line per trial through its config's values to its metric, coloured by the metric.

    Columns whose value is the same in every trial are left out; numbers that span two decades or more are drawn on a
    logarithm; a key that a trial does not have (a conditional one) is drawn at "none".

    Args:
        dataframe: `results.dataframe`: the metric and config/<key>... by trial.
        metric: its column. Trials without a finite value of it are left out.
    """
    frame = dataframe[np.array([_is_finite(value) for value in dataframe[metric]], bool)]
    dimensions = []
    for column in (name for name in frame.columns if str(name).startswith("config/")):
        if len({str(value) for value in frame[column]}) > 1:
            dimensions.append(_dimension(str(column).removeprefix("config/"), list(frame[column])))
    values = frame[metric].to_numpy(float)
    dimensions.append({"label": _text(metric), "values": values})
    line = {"color": values, "colorscale": "Viridis", "showscale": True, "colorbar": {"title": _text(metric)}}
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line))
    return figure.update_layout(template=TEMPLATE, margin={"l": 90, "r": 60, "t": 70, "b": 40})


def learning_curves(history: "pd.DataFrame", metrics: Sequence[str]) -> go.Figure:
    """Draw metrics over the epochs, a line per trial and metric.

    Args:
        history: `results.history`: trial, epoch and the metrics.
        metrics: columns of it, e.g. ["train_loss", "val_loss"].
    """
    figure, trials = go.Figure(), list(dict.fromkeys(history["trial"]))
    for metric in metrics:
        for trial in trials:
            of_trial = history[history["trial"] == trial].sort_values("epoch")
            name = f"{metric}, trial {trial}" if len(trials) > 1 else metric
            colour = COLOURS.get(metric.split("_")[0]) if len(trials) == 1 else None
            line = {"dash": "dot" if metric.startswith("train_") else "solid", "color": colour}
            x, y = of_trial["epoch"].tolist(), of_trial[metric].tolist()
            figure.add_scatter(x=x, y=y, mode="lines+markers", line=line, name=_text(name))
    label = metrics[0] if len(metrics) == 1 else ""
    figure.update_xaxes(title_text="epoch", rangemode="tozero").update_yaxes(title_text=_text(label))
    return figure.update_layout(template=TEMPLATE, showlegend=True)


def images_grid(images: np.ndarray, titles: Sequence[object] = (), *, num_columns: int = 8) -> go.Figure:
    """Draw images side by side.

    Args:
        images: uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3), N from 1.
        titles: one above each; none when empty.
        num_columns: how many beside each other.
    """
    num_columns = min(num_columns, len(images))
    num_rows = math.ceil(len(images) / num_columns)
    texts = [_text(title) or " " for title in titles]
    figure = make_subplots(
        num_rows, num_columns, subplot_titles=texts or None, horizontal_spacing=0.01,
        vertical_spacing=(0.3 if texts else 0.05) / num_rows,
    )  # fmt: skip
    for number, image in enumerate(images):
        row, column = divmod(number, num_columns)
        figure.add_trace(go.Image(source=_png(image), hoverinfo="skip"), row + 1, column + 1)
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    figure.update_layout(template=TEMPLATE, margin={"l": 10, "r": 10, "t": 30, "b": 10})
    return figure.update_layout(width=110 * num_columns + 20, height=125 * num_rows + 40)


def _dimension(name: str, values: list[Any]) -> dict[str, Any]:
    """Return one axis of a parallel-coordinates plot; what is no number stands at 0, 1, 2, ... with its name."""
    there = [value for value in values if not _is_missing(value)]
    if all(_is_number(value) for value in there) and there:
        logarithmic = min(there) > 0 and max(there) / min(there) >= 100
        numbers = [math.log10(value) if logarithmic else float(value) for value in there]
        low, high = min(numbers), max(numbers)
        ticks = np.arange(math.ceil(low), math.floor(high) + 1) if logarithmic else np.linspace(low, high, 5)
        texts = [f"{10.0**tick:g}" if logarithmic else f"{tick:.4g}" for tick in ticks]
        if len(there) < len(values):
            missing = low - 0.15 * ((high - low) or 1)
            ticks, texts = np.array([missing, *ticks]), ["none", *texts]
        all_numbers = iter(numbers)
        drawn = [missing if _is_missing(value) else next(all_numbers) for value in values]
        return {"label": _text(name), "values": drawn, "tickvals": ticks.tolist(), "ticktext": texts}
    words = ["none" if _is_missing(value) else str(value) for value in values]
    known = sorted(set(words))
    tickvals = list(range(len(known)))
    drawn = [known.index(word) for word in words]
    return {"label": _text(name), "values": drawn, "tickvals": tickvals, "ticktext": [_text(word) for word in known]}


def _middles(edges: np.ndarray) -> np.ndarray:
    return (edges[1:] + edges[:-1]) / 2


def _png(image: np.ndarray) -> str:
    """Return an image as a data URI."""
    file = io.BytesIO()
    pixels = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    Image.fromarray(pixels).convert("RGB").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _text(value: object) -> str:
    """Return a text that plotly shows as it stands."""
    return html.escape("".join(c if c.isprintable() else " " for c in str(value)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return _is_number(value) and math.isfinite(float(value))  # type: ignore[arg-type]


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
