"""The options and arguments that several commands share: what each takes, and what a shell offers for it."""

from typing import Annotated, Any

import typer

from tunekit.completion import (
    BACKBONES,
    DATASETS,
    DOWNLOADED,
    METRICS,
    SCHEDULERS,
    SEARCHERS,
    TRACKERS,
    among,
    experiments,
    spaces,
)
from tunekit.errors import ConfigError

Dataset = Annotated[
    str, typer.Option(help="A name, a folder of class folders, or a table (csv, tsv).", autocompletion=among(*DATASETS))
]
DataDir = Annotated[str | None, typer.Option(help="Where a named dataset's files lie, or a URL  [default: data]")]
MaxEpochs = Annotated[int, typer.Option(help="The most epochs a trial gets.")]
Seed = Annotated[int, typer.Option(help="Fixes proposals and training.")]
SplitSeed = Annotated[int, typer.Option(help="Fixes train, val and test.")]
OnBadImage = Annotated[str, typer.Option(help="error, or skip.", autocompletion=among("error", "skip"))]
TrackerNames = Annotated[
    list[str] | None,
    typer.Option("--tracker", help="tensorboard or wandb  [default: none]", autocompletion=among(*TRACKERS)),
]
DatasetOptions = Annotated[
    list[str] | None,
    typer.Option("--option", help="Of the dataset, e.g. study=safer; repeatable  [default: none]"),
]
Constants = Annotated[
    list[str] | None, typer.Option("--set", help="A constant, e.g. batch_size=64; may be repeated  [default: none]")
]
Address = Annotated[
    str | None, typer.Option(help="Of a Ray cluster, or auto  [default: this machine]", autocompletion=among("auto"))
]
Verbose = Annotated[int, typer.Option(help="0 is silent.")]
Name = Annotated[str | None, typer.Option(help="Of the experiment  [default: made from what was asked]")]
Folder = Annotated[str, typer.Option(help="Where experiments lie, or a URL: s3://bucket/experiments")]
Space = Annotated[
    str | None, typer.Option(help="A name, .py file or W&B sweep  [default: the dataset's]", autocompletion=spaces)
]
Metric = Annotated[
    str | None,
    typer.Option(help="What is optimised  [default: val_accuracy or val_mse]", autocompletion=among(*METRICS)),
]
Mode = Annotated[
    str | None, typer.Option(help="max or min  [default: by the metric]", autocompletion=among("max", "min"))
]
Searcher = Annotated[
    str, typer.Option(help="forecast, tpe, gp, cmaes, qmc, random or grid.", autocompletion=among(*SEARCHERS))
]
Scheduler = Annotated[
    str, typer.Option(help="auto, asha, hyperband, median or none.", autocompletion=among(*SCHEDULERS))
]
Experiment = Annotated[str, typer.Argument(help="An experiment's folder, or its URL.", autocompletion=experiments)]
Backbone = Annotated[
    str, typer.Argument(help="A backbone's name; leave it out for a list.", autocompletion=among(*BACKBONES))
]
Download = Annotated[
    str, typer.Argument(help="mnist, fashion_mnist, cifar10 or placepulse.", autocompletion=among(*DOWNLOADED))
]
ListOrClear = Annotated[str, typer.Argument(help="list, or clear.", autocompletion=among("list", "clear"))]
WhereTrialsRun = Annotated[
    str,
    typer.Argument(help="An experiment's folder or URL, to see where its trials run.", autocompletion=experiments),
]
Tracker = Annotated[str, typer.Option(help="tensorboard or wandb.", autocompletion=among(*TRACKERS))]


def values_of(pairs: list[str]) -> dict[str, Any]:
    """Return what key=value pairs say, each value read as YAML.

    Raises:
        ConfigError: one has no "=", or a value that is no YAML.

    Example:
        >>> values_of(["lr=1e-3", "backbone=cnn"])
        {'lr': 0.001, 'backbone': 'cnn'}
    """
    from tunekit.yaml_files import number_of, parse_yaml

    config = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"a value is given as key=value, such as lr=0.01, but got {pair!r}")
        config[key] = number_of(parse_yaml(value.encode(errors="surrogateescape"), f"the value of {key}"))
    return config
