"""The command that makes an experiment's report."""

from pathlib import Path
from typing import Annotated

import typer

from tunekit.commands import say
from tunekit.options import Experiment


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


COMMANDS = (report,)
