"""The command that watches a search which was started elsewhere."""

import os
import sys

import typer

from tunekit.options import Experiment


def watch(experiment: Experiment) -> None:
    """Show a search that runs elsewhere, until it is over; Ctrl-C ends the watching, never the search.

    \b
    tunekit watch experiments/first
    tunekit watch s3://bucket/experiments/first
    """
    from tunekit.storage import as_place
    from tunekit.watch import watch as show

    try:
        ended = show(as_place(experiment))
    except BrokenPipeError:  # whoever read the lines has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if not ended:
        raise typer.Exit(1)


COMMANDS = (watch,)
