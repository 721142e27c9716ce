"""The commands that look at an experiment, use its model, or tell what there is: plain functions, entered by cli.py."""

from pathlib import Path
from typing import Annotated

import typer

from tunekit.errors import ConfigError
from tunekit.options import Backbone, Experiment, Tracker, WhereTrialsRun
from tunekit.safe_text import printable


def say(line: object) -> None:
    """Print a line; what a terminal would obey in names is written out."""
    print(printable(line))


def test(
    experiment: Experiment,
    again: Annotated[bool, typer.Option("--again", help="Look once more, after the winner changed.")] = False,
) -> None:
    """Open the test split, once: the best model's figures.

    \b
    tunekit test experiments/first
    tunekit test experiments/first --again
    """
    import json

    import tunekit

    print(json.dumps(tunekit.load_results(experiment).test(again=again), indent=2))


def results(
    experiment: Experiment,
    csv: Annotated[Path | None, typer.Option(help="Write the trial table here instead of printing.")] = None,
) -> None:
    """Print an experiment's trials and its best config.

    \b
    tunekit results experiments/first
    tunekit results s3://bucket/experiments/first --csv trials.csv
    """
    import tunekit
    from tunekit.summary import print_trials, write_csv

    found = tunekit.load_results(experiment)
    if csv is None:
        print_trials(found)
    else:
        write_csv(found.dataframe, csv)
        say(f"{len(found.dataframe)} trials written to {csv}")


def predict(
    experiment: Experiment,
    images: Annotated[Path, typer.Argument(help="A folder of images, or one image.")],
    out: Annotated[Path, typer.Option(help="The table to write.")] = Path("predictions.csv"),
) -> None:
    """Predict new images with an experiment's best model.

    \b
    tunekit predict experiments/first photos --out predictions.csv
    """
    import tunekit
    from tunekit.summary import write_csv

    frame = tunekit.load_results(experiment).predict(images)
    write_csv(frame, out)
    say(f"{len(frame)} predictions written to {out}")


def export(
    experiment: Experiment,
    path: Annotated[Path | None, typer.Argument(help="Where to write the best model, without suffix.")] = None,
    optuna: Annotated[Path | None, typer.Option(help="An SQLite file to write the trials to, as a study.")] = None,
) -> None:
    """Write an experiment's best model to files that tunekit.load_model opens, or its trials to one for Optuna.

    \b
    tunekit export experiments/first model
    tunekit export experiments/first --optuna study.db
    """
    import tunekit

    if path is None and optuna is None:
        raise ConfigError("export needs a path for the model, or --optuna with a file for the trials")
    if path is not None:
        for written in tunekit.load_results(experiment).export(path):
            say(written)
    if optuna is not None:
        say(tunekit.export_optuna(experiment, optuna))


def describe(
    backbone: Backbone = "",
    image_size: Annotated[int, typer.Option(help="Pixels a side.")] = 32,
    channels: Annotated[int, typer.Option(help="1 for grey, 3 for colour.")] = 3,
    classes: Annotated[int, typer.Option(help="How many classes.")] = 10,
) -> None:
    """Print a backbone's layers with their output shapes.

    \b
    tunekit describe
    tunekit describe lenet --image-size 28 --channels 1
    """
    from tunekit.summary import print_backbone, print_backbones

    if backbone:
        print_backbone(backbone, image_size, channels, classes)
    else:
        print_backbones()


def spaces() -> None:
    """List the ready-made search spaces, and the config keys.

    \b
    tunekit spaces
    """
    from tunekit.summary import print_config_keys, print_spaces

    print_spaces()
    print_config_keys()


def status(
    experiment: WhereTrialsRun = "",
    address: Annotated[str, typer.Option(help="Of the Ray cluster.")] = "auto",
) -> None:
    """Show a cluster's machines, how busy each is, and what they run.

    \b
    tunekit status
    tunekit status s3://bucket/experiments/first --address 10.0.0.5:6379
    """
    import tunekit
    from tunekit.status import nodes_of, queue_of
    from tunekit.summary import print_nodes

    trials = list(tunekit.load_results(experiment).trials.values()) if experiment else []
    print_nodes(nodes_of(address, trials), queue_of(trials))


def sync(
    experiment: Experiment,
    tracker: Tracker = "wandb",
) -> None:
    """Tell a tracker all of an experiment that it has not heard yet.

    \b
    tunekit sync experiments/first --tracker wandb
    """
    from tunekit import tracking
    from tunekit.remote import on_this_machine
    from tunekit.storage import as_place

    told = tracking.sync(on_this_machine(as_place(experiment)), tracker)
    say(f"{tracker} has all of {experiment}" if told else f"{tracker} is switched off: nothing was logged")


def repair(experiment: Experiment) -> None:
    """Mend a damaged ledger, from its backup and the trials' checkpoints, and say what is lost.

    \b
    tunekit repair experiments/first
    """
    from tunekit.remote import local_folder
    from tunekit.repair import repair as mend
    from tunekit.storage import as_place

    place = as_place(experiment)
    for line in mend(local_folder(place) if isinstance(place, str) else place):
        say(line)


def report(
    experiment: Experiment,
    out: Annotated[Path | None, typer.Option(help="The page to write  [default: report.html in the folder]")] = None,
) -> None:
    """Write an experiment's report, one page that needs no network.

    \b
    tunekit report experiments/first
    tunekit report s3://bucket/experiments/first --out first.html
    """
    import tunekit

    say(tunekit.load_results(experiment).report(out))


COMMANDS = (test, results, report, predict, export, status, sync, repair, describe, spaces)
