"""Starting, commanding and ending a cluster: Ray's own commands, in an environment in which they are safe.

Ray's commands keep what they know of a cluster, and what they would do, in the folder for temporary files, under names
that can be guessed: here they get a folder that nobody else may enter. The folder of SSH's sockets has a fixed place,
so it is made before somebody else makes it.
"""

import getpass
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ray.autoscaler._private.command_runner import HASH_MAX_LENGTH

from tunekit.cluster_file import check_cluster, read_cluster
from tunekit.cluster_jobs import FOLDER
from tunekit.cluster_rules import NAME, TOKEN
from tunekit.cluster_token import ready_token
from tunekit.errors import ClusterError, MissingExtraError
from tunekit.paths import make_private

OURS = Path("~/.tunekit")
TUNEKIT = "python -m tunekit cluster"  # on the head, whose shells find this Python: see setup_commands
SSH = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=20")  # as Ray's
SHOWN_LINES = 200


def up(file: Path, yes: bool = False) -> None:
    """Start a cluster, or bring it up to date: only when its file has no problems, and never without a token.

    Args:
        file: the cluster file.
        yes: do not ask.

    Raises:
        ClusterError: the file has problems, the token is not private, or Ray could not start the cluster.
        MissingExtraError: what starts machines on AWS is not installed.
    """
    problems = check_cluster(file)
    if problems:
        raise ClusterError(f"{file} has {len(problems)} problems, and nothing was started; see tunekit cluster check")
    written = read_cluster(file)
    if written["provider"]["type"] == "aws" and find_spec("boto3") is None:
        raise MissingExtraError("clusters on AWS need boto3: pip install 'tunekit[aws]'")
    ready_token(Path(written["file_mounts"][TOKEN]))
    _ray("up", file, "--no-config-cache", *(["--yes"] if yes else []))


def down(file: Path) -> None:
    """End a cluster: machines on AWS are terminated, and paid for no more; on one's own, Ray is stopped.

    The file need not be free of problems for this; it has to be the one that the cluster was started with.

    Raises:
        ClusterError: the file cannot be read, Ray failed, or a machine was not reached.
    """
    written = read_cluster(file)
    if written["provider"].get("type") == "local":
        _stop_all(file, written)
    _ray("down", file, "--yes")


def status(file: Path) -> None:
    """Print a cluster's machines, what is used of them, what waits, and the jobs on its head."""
    _on_head(file, f"RAY_AUTH_MODE=token ray status && {TUNEKIT} jobs")


def submit(file: Path, script: Path, arguments: list[str]) -> str:
    """Copy a script to a cluster's head and start it there, where it goes on by itself; return the job's name.

    Args:
        file: the cluster file.
        script: one file; what it imports must be on the head already.
        arguments: the script's.
    """
    if not script.is_file():
        raise ClusterError(f"{script} is no file")
    stem = "".join(char if char.isascii() and char.isalnum() else "-" for char in script.stem).strip("-") or "job"
    name = f"{stem[:40]}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    _on_head(file, f"mkdir -p -m 700 ~/{FOLDER}")
    _ray("rsync-up", file, str(script.resolve()), f"~/{FOLDER}/{name}.py")
    _on_head(file, f"{TUNEKIT} start-job {shlex.join([name, '--', *arguments])}")
    return name


def log(file: Path, job: str, follow: bool = False) -> None:
    """Print the end of a job's log, and go on printing what comes where `follow`."""
    if not NAME.fullmatch(job):
        raise ClusterError(f"{job!r} is no job's name: `tunekit cluster status` lists them")
    _on_head(file, f"tail -n {SHOWN_LINES} {'-f ' if follow else ''}~/{FOLDER}/{job}.log")


def attach(file: Path) -> None:
    """Open a shell on a cluster's head."""
    _ray("attach", file, may_fail=True)  # with what the last command in the shell ended with


def _stop_all(file: Path, written: dict[str, Any]) -> None:
    """Stop jobs and Ray on machines of one's own: `ray down` stops the head's Ray alone, and calls the others ended.

    The head comes first, which would start the others again. While a machine is not reached, the cluster counts as up,
    so that the same command can be given once more.
    """
    auth = written.get("auth", {})
    key = ["-i", "~/ray_bootstrap_key.pem"] if "ssh_private_key" in auth else []  # as Ray names it on the head
    line = f"{TUNEKIT} stop-jobs; ray stop; pids=; "
    for worker in written["provider"].get("worker_ips", []):
        target = shlex.join(
            ["--", f"{auth.get('ssh_user')}@{worker}", "bash --login -i -c 'source ~/.bashrc; ray stop'"]
        )
        line += f'ssh -n {" ".join((*key, *SSH))} {target} & pids="$pids $!"; '
    line += "failed=0; for pid in $pids; do wait $pid || failed=1; done; exit $failed"
    if _ray("exec", file, line, may_fail=True):
        raise ClusterError("Ray may run on, on a machine that was not reached (see above): try again, or stop it there")


def _on_head(file: Path, line: str) -> None:
    """Run a shell line on the head."""
    _ray("exec", file, line)


def _ray(command: str, file: Path, *arguments: str, may_fail: bool = False) -> int:
    """Run one of Ray's commands on a cluster file, seen from the file's folder, in this terminal; return its status.

    Raises:
        ClusterError: the file cannot be read, SSH is not installed, or Ray's command failed.
    """
    is_local = read_cluster(file)["provider"].get("type") == "local"
    for tool in ("ssh", "rsync"):
        if shutil.which(tool) is None:
            raise ClusterError(f"{tool} is not installed: clusters are commanded through it")
    make_private(_sockets())
    folder, path = str(make_private(OURS.expanduser() / "ray")), file.resolve()
    environment = {
        **os.environ, "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "TMPDIR": folder, "RAY_TMPDIR": folder,
        "RAY_UP_enable_autoscaler_v2": "0" if is_local else "1",
    }  # fmt: skip
    words = [sys.executable, "-m", "ray.scripts.scripts", command, str(path), *arguments]
    ended = subprocess.run(words, env=environment, cwd=path.parent, check=False).returncode
    if ended and not may_fail:
        raise ClusterError(f"`ray {command}` ended with status {ended}: its own words are above")
    return ended


def _sockets() -> Path:
    """Return the folder in which Ray has SSH put its sockets: if another user made it, they would hear all of it."""
    user = hashlib.sha256(getpass.getuser().encode()).hexdigest()[:HASH_MAX_LENGTH]
    return Path("/tmp", f"ray_ssh_{user}")
