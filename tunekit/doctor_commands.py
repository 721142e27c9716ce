"""`tunekit doctor`: what this machine has, and what would go wrong, a line each."""

from typing import Annotated

import typer


def doctor(
    folder: Annotated[str, typer.Option(help="Where experiments are to lie, or a URL.")] = "experiments",
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster to join; local starts a Ray here  [default: neither]")
    ] = None,
) -> None:
    """Look for what would go wrong with a search on this machine; status 1 where no search would work.

    \b
    tunekit doctor
    tunekit doctor --folder /scratch/experiments --address local
    """
    from tunekit.doctor import examine
    from tunekit.summary import print_findings

    found = list(examine(folder, address))
    print_findings(found)
    if any(finding.stops for finding in found):
        raise typer.Exit(1)


COMMANDS = (doctor,)
