"""An experiment's answer, printed for people: the best config, how good it is, beside what, and where it all lies."""

import importlib
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunekit.asked import space_names
from tunekit.backbones import backbone_names, backbones, describe
from tunekit.config import KEYS, complete
from tunekit.confirm import default_of
from tunekit.datasets.base import Dataset
from tunekit.distributions import in_words
from tunekit.live import clock, in_short
from tunekit.results import Results


def print_trials(results: Results, num_trials: int = 20) -> None:
    """Print the trial table, the best first, at most `num_trials` rows; then the best config."""
    console = Console()
    console.print(_trial_table(results, num_trials))
    console.print(Text.assemble(("best config   ", "bold"), in_short(results.best_config)))


def print_results(results: Results) -> None:
    """Print the trials, the best config with its figures on val and test, the default config's, and the folder."""
    console = Console()
    print_trials(results)
    tested = results.test()
    console.print(_figures(results, tested))
    if results.verdict is not None:
        console.print(Text.assemble(("verdict on val  ", "bold"), str(results.verdict)))
    console.print(Text.assemble(("all of it     ", "bold"), str(results.folder)))


def _figures(results: Results, tested: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("", "trial", "epoch", results.metric, *_test_columns(tested)):
        table.add_column(column)
    rows = [("best", results.best_trial, tested)]
    default = default_of(results.trials)
    if default is not None and "default" in tested:
        rows.append(("default config", default, tested["default"]))
    for name, trial, figures in rows:
        value = trial.best_value(results.metric, results.mode)
        epoch = trial.best_epoch(results.metric, results.mode)
        table.add_row(name, str(trial.number), str(epoch), f"{value:.4f}", *_test_cells(figures))
    return table


def _test_columns(tested: dict[str, Any]) -> list[str]:
    if "interval" in tested:
        return ["test_accuracy", "95 % interval"]
    return ["test_mse", "test_pearson"]


def _test_cells(figures: dict[str, Any]) -> list[str]:
    if "interval" in figures:
        low, high = figures["interval"]
        return [f"{figures['test_accuracy']:.4f}", f"{low:.4f} to {high:.4f}"]
    return [f"{figures['test_mse']:.4f}", f"{figures['test_pearson']:.4f}"]


def _trial_table(results: Results, num_trials: int) -> Table:
    frame = results.dataframe
    order = frame.sort_values([results.metric, "trial"], ascending=[results.mode == "min", True])
    table = Table(box=None, pad_edge=False, header_style="dim", title_justify="left")
    keys = [column for column in frame.columns if column.startswith("config/")]
    for column in ("trial", "state", "epochs", results.metric, *(key.removeprefix("config/") for key in keys), "time"):
        table.add_column(column)
    for row in order.head(num_trials).to_dict("records"):
        value = row[results.metric]
        table.add_row(
            str(row["trial"]), row["state"], str(row["num_epochs"]), "" if pd.isna(value) else f"{value:.4f}",
            *(Text(_cell(row[key])) for key in keys), clock(row["duration_s"]),
        )  # fmt: skip
    if len(frame) > num_trials:
        table.caption = f"and {len(frame) - num_trials} more"
    return table


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return "" if value is None else str(value)


def print_backbone(name: str, image_size: int, channels: int, classes: int) -> None:
    """Print a backbone's layers, their output shapes and numbers of parameters."""
    blank = np.zeros((classes * 10, image_size, image_size, channels), np.uint8)
    dataset = Dataset.from_arrays(train=(blank, np.arange(classes * 10) % classes))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("layer", "type", "output shape", "parameters"):
        table.add_column(column, justify="right" if column == "parameters" else "left")
    layers = describe(complete({"backbone": name}), dataset)
    for layer in layers:
        table.add_row(layer.name, layer.type, str(layer.output_shape), f"{layer.num_parameters:,}")
    Console().print(table)
    print(f"total: {sum(layer.num_parameters for layer in layers):,} parameters")


def print_backbones() -> None:
    """Print the names of all backbones."""
    print_docs({name: backbones[name] for name in backbones})
    print(f"and torchvision's: {', '.join(name for name in backbone_names() if name not in backbones)}")


def print_docs(things: dict[str, Any]) -> None:
    """Print names with the first line of what each says of itself."""
    for name, thing in things.items():
        print(f"{name:<16}{(thing.__doc__ or '').strip().splitlines()[0]}")


def print_spaces() -> None:
    """Print the ready-made spaces, with what each is for and its ranges."""
    for name in space_names():
        module = importlib.import_module(f"search_spaces.{name}")
        print_docs({name: module})
        for key, value in module.space.items():
            print(f"    {key:<16}{in_words(value)}")


def print_config_keys() -> None:
    """Print the config keys with their defaults."""
    print("config keys")
    for name, key in KEYS.items():
        print(f"    {name:<16}{key.meaning} ({key.rule}; default {key.default!r})")
