"""`tunekit cluster`: check a cluster file, start and end what it describes, and run scripts there."""

from pathlib import Path
from typing import Annotated

import typer

from tunekit.commands import say
from tunekit.errors import ClusterError

app = typer.Typer(help="Start, use and end a cluster of machines: docs/cluster.md.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="A cluster file; cluster.yaml and cluster-local.yaml are examples.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Job = Annotated[str, typer.Argument(help="A job's name; `status` lists them.")]
Arguments = Annotated[list[str] | None, typer.Argument(help="The script's own, after --")]
OTHERS = {"ignore_unknown_options": True}


@app.command()
def check(file: File) -> None:
    """List all that is wrong with a cluster file, without contacting anything.

    \b
    tunekit cluster check cluster.yaml
    """
    from tunekit.cluster_file import check_cluster

    problems = check_cluster(file)
    for problem in problems:
        say(problem)
    if problems:
        raise ClusterError(f"{len(problems)} problems in {file}")
    say(f"{file}: no problems")


@app.command()
def up(file: File, yes: Yes = False) -> None:
    """Start a cluster, or bring it up to date; refused where `check` finds a problem.

    \b
    tunekit cluster up cluster.yaml
    """
    from tunekit.cluster_launch import up as start

    start(file, yes)
    say(f"{file} is up: tunekit cluster submit {file} SCRIPT.py; tunekit cluster down {file} ends it")


@app.command()
def down(file: File, yes: Yes = False) -> None:
    """End a cluster and all its machines.

    \b
    tunekit cluster down cluster.yaml --yes
    """
    from tunekit.cluster_launch import down as end

    if not yes:
        typer.confirm(f"End the cluster of {file}, and what runs there?", abort=True)
    end(file)


@app.command()
def status(file: File) -> None:
    """Show a cluster's machines, what waits for them, and the jobs on its head.

    \b
    tunekit cluster status cluster.yaml
    """
    from tunekit.cluster_launch import status as show

    show(file)


@app.command(context_settings=OTHERS)
def submit(
    file: File, script: Annotated[Path, typer.Argument(help="A Python file.")], arguments: Arguments = None
) -> None:
    """Start a script on a cluster's head, where it goes on by itself: this machine may sleep.

    \b
    tunekit cluster submit cluster.yaml search.py -- --num-trials 100
    """
    from tunekit.cluster_launch import submit as send

    job = send(file, script, arguments or [])
    say(f"job {job} is running: tunekit cluster log {file} {job} --follow")


@app.command()
def log(
    file: File, job: Job, follow: Annotated[bool, typer.Option("--follow", "-f", help="Until Ctrl-C.")] = False
) -> None:
    """Show the end of what a job printed.

    \b
    tunekit cluster log cluster.yaml search-0123 --follow
    """
    from tunekit.cluster_launch import log as show

    show(file, job, follow)


@app.command()
def attach(file: File) -> None:
    """Open a shell on a cluster's head.

    \b
    tunekit cluster attach cluster.yaml
    """
    from tunekit.cluster_launch import attach as enter

    enter(file)


@app.command("start-job", hidden=True)
def start_job(name: str, arguments: Arguments = None) -> None:
    """Start a job on this machine; `submit` calls it on the head."""
    from tunekit.cluster_jobs import start_job as start

    start(name, arguments or [])


@app.command("run-job", hidden=True)
def run_job(name: str, arguments: Arguments = None) -> None:
    """Run a job on this machine to its end; `start-job` calls it."""
    from tunekit.cluster_jobs import run_job as run

    raise typer.Exit(run(name, arguments or []))


@app.command("stop-jobs", hidden=True)
def stop_jobs() -> None:
    """End this machine's jobs; `down` calls it on the head."""
    from tunekit.cluster_jobs import stop_jobs as stop

    stop()


@app.command(hidden=True)
def jobs() -> None:
    """List this machine's jobs; `status` calls it on the head."""
    from tunekit.cluster_jobs import jobs as found

    say("Jobs")
    for job in found() or [{"name": "none", "state": "", "last_line": ""}]:
        say(f"  {job['name']:<40} {job['state']:<9} {job['last_line']}")
