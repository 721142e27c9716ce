"""The command line: the same names as in Python, with dashes. Every mistake is one line and exit status 2."""

import inspect
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tunekit import cluster_commands, data_commands, doctor_commands, options, watch_commands
from tunekit.commands import COMMANDS
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


@app.command()
def run(
    dataset: options.Dataset = "digits",
    option: options.DatasetOptions = None,
    data_dir: options.DataDir = None,
    space: options.Space = None,
    constant: options.Constants = None,
    metric: options.Metric = None,
    mode: options.Mode = None,
    num_trials: Annotated[int, typer.Option(help="How many configs are tried.")] = 20,
    max_epochs: options.MaxEpochs = 10,
    time_budget_s: Annotated[float | None, typer.Option(help="Seconds for all of it  [default: no limit]")] = None,
    searcher: options.Searcher = "forecast",
    scheduler: options.Scheduler = "auto",
    confirm: Annotated[int, typer.Option(help="Re-train winner and default config on so many seeds.")] = 0,
    cpus_per_trial: Annotated[int, typer.Option(help="Cores of each trial.")] = 1,
    gpus_per_trial: Annotated[str, typer.Option(help="auto, or a number.")] = "auto",
    seed: options.Seed = 0,
    split_seed: options.SplitSeed = 0,
    trial_timeout_s: Annotated[float | None, typer.Option(help="Retry one that hangs so long  [default: off]")] = None,
    on_bad_image: options.OnBadImage = "error",
    keep_best: Annotated[int, typer.Option(help="How many trials keep a checkpoint.")] = 5,
    tracker: options.TrackerNames = None,
    verbose: options.Verbose = 1,
    name: options.Name = None,
    folder: options.Folder = "experiments",
    address: options.Address = None,
) -> None:
    """Search for the best config. The same command goes on where it stopped; more trials extend it.

    \b
    tunekit run --dataset digits
    tunekit run --dataset mnist --data-dir data --num-trials 12 --max-epochs 4 --confirm 3
    tunekit run --dataset photos --space finetune --set batch_size=32 --scheduler asha --searcher tpe
    """
    _print_results(_search(**locals()))


def plan(
    workers: Annotated[int, typer.Option(help="Machines like this one.")] = 1,
    price_per_hour: Annotated[float | None, typer.Option(help="Of one machine  [default: no cost]")] = None,
    **asked: Any,
) -> None:
    """Say how long a search would take, on this machine and on several, what it needs and what it costs.

    Takes what `tunekit run` takes, trains a few steps of each backbone, and begins nothing.

    \b
    tunekit plan --dataset digits --num-trials 50
    tunekit plan --dataset photos --space finetune --workers 8 --price-per-hour 1.2
    """
    from tunekit.summary import print_plan

    print_plan(_search(**asked, dry_run=True).on(workers, price_per_hour))


def _with_options_of_run() -> inspect.Signature:
    own, others = (list(inspect.signature(command).parameters.values()) for command in (plan, run))
    return inspect.Signature(others + own[:-1])


plan.__signature__ = _with_options_of_run()  # type: ignore[attr-defined]
plan.__annotations__ = {**run.__annotations__, **plan.__annotations__}
app.command()(plan)


@app.command()
def train(
    config: Annotated[list[str] | None, typer.Argument(help="key=value ..., e.g. backbone=lenet lr=0.9")] = None,
    dataset: options.Dataset = "digits",
    option: options.DatasetOptions = None,
    data_dir: options.DataDir = None,
    max_epochs: options.MaxEpochs = 10,
    seed: options.Seed = 0,
    split_seed: options.SplitSeed = 0,
    on_bad_image: options.OnBadImage = "error",
    tracker: options.TrackerNames = None,
    verbose: options.Verbose = 1,
    name: options.Name = None,
    folder: options.Folder = "experiments",
) -> None:
    """Train one config, in this process.

    \b
    tunekit train backbone=lenet optimizer=sgd lr=0.9 --dataset mnist --data-dir data
    tunekit train lr=1e-4 batch_size=32 --dataset placepulse --option study=safer --max-epochs 10
    """
    import tunekit
    from tunekit.space import max_size_of

    given = options.values_of(config or [])
    results = tunekit.train(
        given, _dataset(dataset, max_size_of(given), option, data_dir, split_seed, on_bad_image), data_dir=data_dir,
        max_epochs=max_epochs, seed=seed, split_seed=split_seed, on_bad_image=on_bad_image, tracker=tracker,
        verbose=verbose, name=name, folder=folder,
    )  # fmt: skip
    _print_results(results)


@app.command()
def resume(experiment: options.Experiment, verbose: options.Verbose = 1, address: options.Address = None) -> None:
    """Go on with an experiment where it stopped.

    \b
    tunekit resume experiments/first
    """
    import tunekit

    _print_results(tunekit.resume(experiment, verbose=verbose, address=address))


for command in (*COMMANDS, *data_commands.COMMANDS, *watch_commands.COMMANDS, *doctor_commands.COMMANDS):
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
        context = getattr(error, "ctx", None)
        _fail(error.format_message() + (f" See: {context.command_path} --help" if context else ""))
    if status:
        sys.exit(status)


def _fail(message: str) -> None:
    print(f"tunekit: {printable(redacted(message))}", file=sys.stderr)
    sys.exit(2)


def _search(
    dataset: str, option: list[str] | None, data_dir: str | None, space: str | None, constant: list[str] | None,
    split_seed: int, on_bad_image: str, gpus_per_trial: str, **others: Any,
) -> Any:  # fmt: skip
    """Call `tunekit.run` with what the command line gave."""
    import tunekit
    from tunekit.space import max_size_of
    from tunekit.spaces import find_space

    searched = _space(space or _space_of(dataset), constant)
    size = max_size_of(find_space(searched)) if option else None
    return tunekit.run(
        searched, _dataset(dataset, size, option, data_dir, split_seed, on_bad_image), data_dir=data_dir,
        split_seed=split_seed, on_bad_image=on_bad_image, gpus_per_trial=_gpus(gpus_per_trial), **others,
    )  # fmt: skip


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
    from tunekit.spaces import find_space, with_constants
    from tunekit.sweep_parameters import with_values
    from tunekit.sweeps import is_sweep, read_sweep
    from tunekit.yaml_files import read_yaml

    values = options.values_of(constants)
    if not is_sweep(space):
        return with_constants(find_space(space), values)
    read_sweep(space)  # which says what is wrong with it, while each parameter has its place
    sweep = read_yaml(Path(space))
    return {**sweep, "parameters": with_values(sweep["parameters"], values)}


def _dataset(
    dataset: str, max_size: int | None, option: list[str] | None, data_dir: str | None, split_seed: int,
    on_bad_image: str,
) -> Any:  # fmt: skip
    """Return the dataset read with its options; its name where there are none."""
    if not option:
        return dataset
    from tunekit.datasets import load_dataset

    values = options.values_of(option)
    flags: dict[str, Any] = {"data_dir": data_dir, "split_seed": split_seed, "on_bad_image": on_bad_image}
    for key in values.keys() & flags.keys():
        raise ConfigError(f"{key} has a flag of its own: --{key.replace('_', '-')} {values[key]}")
    return load_dataset(dataset, **{"max_size": max_size, **flags, **values})


def _print_results(results: Any) -> None:
    from tunekit.summary import print_results

    print_results(results)
