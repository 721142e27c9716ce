"""An experiment's answer, printed for people: the best config, how good it is, beside what, and where it all lies."""

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunekit import paths
from tunekit.arithmetic import speeds
from tunekit.backbones import backbone_names, backbones
from tunekit.config import KEYS, complete
from tunekit.confirm import NO_VERDICT, default_of
from tunekit.datasets.base import Dataset
from tunekit.distributions import in_words
from tunekit.errors import StorageError
from tunekit.layers import describe
from tunekit.live import clock, in_short
from tunekit.machine import Finding
from tunekit.plan import Plan
from tunekit.remote import place_of
from tunekit.results import Results
from tunekit.safe_text import csv_cell, printable
from tunekit.spaces import space_names
from tunekit.training import pick_device


def print_trials(results: Results, num_trials: int = 20) -> None:
    """Print the trial table, the best first, at most `num_trials` rows; then the best config."""
    console = _console()
    console.print(_trial_table(results, num_trials))
    console.print(Text.assemble(("best config   ", "bold"), in_short(results.best_config)))


def print_results(results: Results) -> None:
    """Print the trials, the best config with its figures on val and test, the default config's, and where all lies.

    The report is written anew, with the figures on test and what the best model does on val.
    """
    console = _console()
    print_trials(results)
    tested = results.test()
    console.print(_figures(results, tested))
    if results.verdict is not None:
        console.print(Text.assemble(("verdict       ", "bold"), str(results.verdict)))
    elif results.best_trial.source == "default":
        console.print(Text.assemble(("verdict       ", "bold"), "the default config is the best that was found"))
    elif default_of(results.trials) is not None:
        console.print(Text.assemble(("verdict       ", "bold"), NO_VERDICT))
    try:
        console.print(Text.assemble(("report        ", "bold"), printable(results.report())))
    except StorageError as error:  # the disk is full, say: what was found is on the screen
        console.print(Text(printable(error)))
    console.print(Text.assemble(("all of it     ", "bold"), printable(place_of(results.folder))))


def print_nodes(nodes: list[dict[str, Any]], queue: dict[str, int]) -> None:
    """Print a cluster's machines, as `status.nodes_of` tells of them, and how many trials are in each state."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("machine", "address", "", "CPUs", "load", "memory", "GPUs", "trials"):
        table.add_column(column)
    for node in nodes:
        memory = "" if node["memory_gb"] is None else "{:.1f} of {:.1f} GB".format(*node["memory_gb"])
        load = "" if node["load"] is None else f"{node['load']:.1f}"
        gpus = f"{node['gpus']} {node['gpu_use']}".strip()
        cells = (node["name"], node["address"], node["state"], node["cpus"], load, memory, gpus)
        table.add_row(*(Text(printable(cell)) for cell in cells), ", ".join(map(str, node["trials"])))
    console = _console()
    console.print(table)
    if queue:
        console.print(Text.assemble(("trials   ", "bold"), ", ".join(f"{n} {state}" for state, n in queue.items())))


def print_plan(plan: Plan) -> None:
    """Print what a search would take."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for what, how_much in plan.rows():
        table.add_row(what, Text(how_much))
    _console().print(table)


def print_findings(findings: list[Finding]) -> None:
    """Print what was found of this machine, and then what is wrong with it, worst first, a line each."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        if finding.text:
            table.add_row(finding.topic, Text(printable(finding.text)))
    console = _console()
    console.print(table)
    problems = sorted((finding for finding in findings if finding.problem), key=lambda finding: not finding.stops)
    for finding in problems:
        how = "stops any search" if finding.stops else "mind"
        console.print(Text(f"{how}: {finding.topic}: {printable(finding.problem)}".replace("\n", " ")), soft_wrap=True)
    if not problems:
        console.print("nothing is wrong")


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table that opens in a spreadsheet as what it is: no cell of it is taken for a formula.

    Raises:
        StorageError: the file cannot be written.
    """
    safe = frame.rename(columns=csv_cell).map(csv_cell)
    paths.write_text(path, safe.to_csv(index=False))


def _console() -> Console:
    """Return the terminal, or for a pipe or a file a page wide enough for most tables."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def _figures(results: Results, tested: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    known = "val_accuracy" if "interval" in tested else "val_pearson"
    shown = [results.metric] if known == results.metric else [results.metric, known]
    for column in ("", "trial", "epoch", *shown, *_test_columns(tested)):
        table.add_column(column)
    rows = [("best", results.best_trial, tested)]
    default = default_of(results.trials)
    if default is not None and "default" in tested:
        rows.append(("default config", default, tested["default"]))
    for name, trial, figures in rows:
        epoch = trial.best_epoch(results.metric, results.mode) or 1
        values = (trial.history[epoch - 1].get(metric, math.nan) for metric in shown)
        table.add_row(name, str(trial.number), str(epoch), *(f"{v:.4f}" for v in values), *_test_cells(figures))
    return table


def _test_columns(tested: dict[str, Any]) -> list[str]:
    if "interval" in tested:
        return ["test_accuracy", "95 % interval"]
    return ["test_mse", "test_pearson"]


def _test_cells(figures: dict[str, Any]) -> list[str]:
    if "interval" in figures:
        low, high = figures["interval"]
        return [f"{figures['test_accuracy']:.4f}", f"{low:.4f} to {high:.4f}"]
    return ["" if figures[name] is None else f"{figures[name]:.4f}" for name in ("test_mse", "test_pearson")]


def _trial_table(results: Results, num_trials: int) -> Table:
    frame = results.dataframe.sort_values([results.metric, "trial"], ascending=[results.mode == "min", True])
    table = Table(box=None, pad_edge=False, header_style="dim", title_justify="left")
    for column in ("trial", "state", "epochs", results.metric, "time"):
        table.add_column(column, no_wrap=True)
    table.add_column("config", overflow="fold")
    for row in frame.head(num_trials).to_dict("records"):
        value = row[results.metric]
        config = in_short(results.trials[row["trial"]].config)
        score = "" if pd.isna(value) else f"{value:.4f}"
        cells = (str(row["trial"]), row["state"], str(row["num_epochs"]), score, clock(row["duration_s"]))
        table.add_row(*cells, Text(config))
    if len(frame) > num_trials:
        table.caption = f"and {len(frame) - num_trials} more"
    return table


def print_backbone(name: str, image_size: int, channels: int, classes: int) -> None:
    """Print a backbone's layers, their output shapes and numbers of parameters."""
    blank = np.zeros((classes * 10, image_size, image_size, channels), np.uint8)
    dataset = Dataset.from_arrays(train=(blank, np.arange(classes * 10) % classes))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("layer", "type", "output shape", "parameters"):
        table.add_column(column, justify="right" if column == "parameters" else "left")
    config = complete({"backbone": name})
    *layers, total = describe(config, dataset)
    for layer in layers:
        table.add_row(layer.name, layer.type, str(layer.output_shape), f"{layer.num_parameters:,}")
    Console().print(table)
    print(f"total: {total.num_parameters:,} parameters")
    for name, speed in speeds(config, dataset, pick_device()).items():
        print(f"{name}: {speed:,.0f} images/s trained by one {'GPU' if torch.cuda.is_available() else 'core'} here")


def print_backbones() -> None:
    """Print the names of all backbones."""
    print_docs({name: backbones[name] for name in backbones})
    print(f"and torchvision's: {', '.join(name for name in backbone_names() if name not in backbones)}")


def print_docs(things: dict[str, Any]) -> None:
    """Print names with the first line of what each says of itself."""
    for name, thing in things.items():
        about = (thing.__doc__ or "").strip().partition("\n")[0]
        print(f"{name:<17}{about}".rstrip())


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
