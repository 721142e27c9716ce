"""The command line: the same names as in Python, with dashes. Every mistake is one line and exit status 2."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tunekit import cluster_commands, report_commands
from tunekit.commands import COMMANDS, Experiment
from tunekit.errors import ConfigError, TunekitError
from tunekit.safe_text import printable, redacted

app = typer.Typer(
    help="Find the best way to train an image model.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

Dataset = Annotated[str, typer.Option(help="A name, a folder of class folders, or a table (csv, tsv).")]
DataDir = Annotated[str | None, typer.Option(help="Where a named dataset's files lie, or a URL  [default: data]")]
MaxEpochs = Annotated[int, typer.Option(help="The most epochs a trial gets.")]
Seed = Annotated[int, typer.Option(help="Fixes proposals and training.")]
SplitSeed = Annotated[int, typer.Option(help="Fixes train, val and test.")]
OnBadImage = Annotated[str, typer.Option(help="error, or skip.")]
TrackerNames = Annotated[list[str] | None, typer.Option("--tracker", help="wandb; may be repeated  [default: none]")]
DatasetOptions = Annotated[
    list[str] | None,
    typer.Option("--option", help="Of the dataset, e.g. study=safer; repeatable  [default: none]"),
]
Constants = Annotated[
    list[str] | None, typer.Option("--set", help="A constant, e.g. batch_size=64; may be repeated  [default: none]")
]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster, or auto  [default: this machine]")]
Verbose = Annotated[int, typer.Option(help="0 is silent.")]
Name = Annotated[str | None, typer.Option(help="Of the experiment  [default: made from what was asked]")]
Folder = Annotated[str, typer.Option(help="Where experiments lie, or a URL: s3://bucket/experiments")]


@app.command()
def run(
    dataset: Dataset = "digits",
    option: DatasetOptions = None,
    data_dir: DataDir = None,
    space: Annotated[str | None, typer.Option(help="A name, .py file or W&B sweep  [default: the dataset's]")] = None,
    constant: Constants = None,
    metric: Annotated[str | None, typer.Option(help="What is optimised  [default: val_accuracy or val_mse]")] = None,
    mode: Annotated[str | None, typer.Option(help="max or min  [default: by the metric]")] = None,
    num_trials: Annotated[int, typer.Option(help="How many configs are tried.")] = 20,
    max_epochs: MaxEpochs = 10,
    time_budget_s: Annotated[float | None, typer.Option(help="Seconds for all of it  [default: no limit]")] = None,
    searcher: Annotated[str, typer.Option(help="forecast, tpe, gp, cmaes, qmc, random or grid.")] = "forecast",
    scheduler: Annotated[str, typer.Option(help="auto, asha, hyperband, median or none.")] = "auto",
    confirm: Annotated[int, typer.Option(help="Re-train winner and default config on so many seeds.")] = 0,
    cpus_per_trial: Annotated[int, typer.Option(help="Cores of each trial.")] = 1,
    gpus_per_trial: Annotated[str, typer.Option(help="auto, or a number.")] = "auto",
    seed: Seed = 0,
    split_seed: SplitSeed = 0,
    trial_timeout_s: Annotated[float | None, typer.Option(help="Retry one that hangs so long  [default: off]")] = None,
    on_bad_image: OnBadImage = "error",
    keep_best: Annotated[int, typer.Option(help="How many trials keep a checkpoint.")] = 5,
    tracker: TrackerNames = None,
    verbose: Verbose = 1,
    name: Name = None,
    folder: Folder = "experiments",
    address: Address = None,
) -> None:
    """Search for the best config. The same command goes on where it stopped; more trials extend it."""
    import tunekit

    results = tunekit.run(
        _space(space or _space_of(dataset), constant), _dataset(dataset, option, data_dir, split_seed, on_bad_image),
        data_dir=data_dir, metric=metric, mode=mode, num_trials=num_trials,
        max_epochs=max_epochs, time_budget_s=time_budget_s, searcher=searcher, scheduler=scheduler, confirm=confirm,
        cpus_per_trial=cpus_per_trial, gpus_per_trial=_gpus(gpus_per_trial), seed=seed, split_seed=split_seed,
        trial_timeout_s=trial_timeout_s, on_bad_image=on_bad_image, keep_best=keep_best, tracker=tracker,
        verbose=verbose, name=name, folder=folder, address=address,
    )  # fmt: skip
    _print_results(results)


@app.command()
def train(
    config: Annotated[list[str] | None, typer.Argument(help="key=value ..., e.g. backbone=lenet lr=0.9")] = None,
    dataset: Dataset = "digits",
    option: DatasetOptions = None,
    data_dir: DataDir = None,
    max_epochs: MaxEpochs = 10,
    seed: Seed = 0,
    split_seed: SplitSeed = 0,
    on_bad_image: OnBadImage = "error",
    tracker: TrackerNames = None,
    verbose: Verbose = 1,
    name: Name = None,
    folder: Folder = "experiments",
) -> None:
    """Train one config, in this process: tunekit train backbone=lenet optimizer=sgd lr=0.9 --dataset mnist"""
    import tunekit

    results = tunekit.train(
        _values(config or []), _dataset(dataset, option, data_dir, split_seed, on_bad_image), data_dir=data_dir,
        max_epochs=max_epochs, seed=seed, split_seed=split_seed, on_bad_image=on_bad_image, tracker=tracker,
        verbose=verbose, name=name, folder=folder,
    )  # fmt: skip
    _print_results(results)


@app.command()
def resume(experiment: Experiment, verbose: Verbose = 1, address: Address = None) -> None:
    """Go on with an experiment where it stopped."""
    import tunekit

    _print_results(tunekit.resume(experiment, verbose=verbose, address=address))


for command in (*COMMANDS, *report_commands.COMMANDS):
    app.command()(command)
app.add_typer(cluster_commands.app, name="cluster")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: the program's own arguments when None. Ends in SystemExit where something is wrong."""
    try:
        status = app(arguments, standalone_mode=False)
    except TunekitError as error:
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except Exception as error:  # click's own: a wrong option, a missing argument
        if not hasattr(error, "format_message"):
            raise
        _fail(error.format_message())
    if status:
        sys.exit(status)


def _fail(message: str) -> None:
    print(f"tunekit: {printable(redacted(message))}", file=sys.stderr)
    sys.exit(2)


def _space_of(dataset: str) -> str:
    from tunekit.datasets import load_dataset
    from tunekit.spaces import space_names

    if dataset in space_names():
        return dataset
    load_dataset(dataset)  # raises, where it is no dataset either
    raise ConfigError(f"--space is needed for dataset {dataset!r}; known spaces: {', '.join(space_names())}")


def _gpus(text: str) -> float | str:
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--gpus-per-trial must be 'auto' or a number, but is {text!r}") from None


def _space(space: str, constants: list[str] | None) -> Any:
    """Return the space with some of its keys made constant."""
    if not constants:
        return space
    from tunekit.spaces import find_space
    from tunekit.sweeps import is_sweep
    from tunekit.yaml_files import read_yaml

    if not is_sweep(space):
        return {**find_space(space), **_values(constants)}
    sweep = read_yaml(Path(space))
    parameters = sweep.get("parameters", {}) if isinstance(sweep, dict) else {}
    return {**sweep, "parameters": {**parameters, **{key: {"value": v} for key, v in _values(constants).items()}}}


def _dataset(dataset: str, options: list[str] | None, data_dir: str | None, split_seed: int, on_bad_image: str) -> Any:
    """Return the dataset read with its options; its name where there are none."""
    if not options:
        return dataset
    from tunekit.datasets import load_dataset

    values = _values(options)
    return load_dataset(dataset, data_dir=data_dir, split_seed=split_seed, on_bad_image=on_bad_image, **values)


def _values(pairs: list[str]) -> dict[str, Any]:
    from tunekit.yaml_files import number_of, parse_yaml

    config = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"a value is given as key=value, but got {pair!r}")
        config[key] = number_of(parse_yaml(value.encode(errors="surrogateescape"), f"the value of {key}"))
    return config


def _print_results(results: Any) -> None:
    from tunekit.summary import print_results

    print_results(results)
