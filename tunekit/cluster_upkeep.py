"""What a cluster file must hold so that all machines run the same, the cluster grows, and its costs end."""

import re
from collections.abc import Iterator
from importlib import metadata

from tunekit.cluster_rules import SETUP_LISTS, TOKEN, Cluster, Problem
from tunekit.cluster_shell import Command, commands_in, pip_installs

LOCK = "requirements.lock"
SAME = ("ray", "torch")  # what must have one version here and there
AUTOSCALING = "~/ray_bootstrap_config.yaml"  # which `ray up` writes on the head
MOST_IDLE_MINUTES = 120
ANY_PYTHON = re.compile(r"python3?")


def versions(cluster: Cluster) -> Iterator[Problem]:
    """Every machine gets the versions of the lock file, by one common command, and no others."""
    common, others = [], []
    for name in SETUP_LISTS:
        for line in _own_lines(cluster, name):
            try:
                commands, installs = commands_in(line), list(pip_installs(line))
            except ValueError:
                continue  # which another rule tells of
            good = [install for install in installs if _is_from_lock(install)]
            common += good if name == "setup_commands" else []
            others += [(name, install) for install in installs if install not in good]
            for command in commands:
                if "venv" in command.words and ANY_PYTHON.fullmatch(command.words[0].rpartition("/")[2]):
                    remedy = "name the version, such as python3.12: python3 is another on each machine"
                    yield Problem("versions", f"{name} has {' '.join(command.words[:3])}", remedy)
    if not common:
        remedy = f"`pip install --require-hashes --requirement .../{LOCK}` gives all machines the same"
        yield Problem("versions", "setup_commands do not install from the lock file", remedy)
    for name, install in others:
        remedy = f"install from {LOCK} in setup_commands, with --require-hashes"
        yield Problem("versions", f"{name} has {' '.join(install.words)!r}", remedy)
    yield from _lock(cluster, common)
    images = {cluster.part("available_node_types", name, "node_config").get("ImageId") for name in cluster.types}
    if not cluster.is_local and (len(images) != 1 or None in images):
        remedy = "give all types of machines one image: Ray's own is years old"
        yield Problem("versions", f"ImageId is {', '.join(sorted(map(str, images)))}", remedy)
    for name, machine in cluster.types.items():
        for key in ("worker_setup_commands", "initialization_commands", "docker"):
            if machine.get(key):
                yield Problem("versions", f"{name} has {key} of its own", "set all machines up with setup_commands")


def _own_lines(cluster: Cluster, name: str) -> list[str]:
    """Return what the file itself says, as Ray adds the common commands to those of head and workers."""
    lines = cluster.lines(name)
    common = cluster.lines("setup_commands")
    return lines[len(common) :] if name.endswith("r_setup_commands") or name == "head_setup_commands" else lines


def _is_from_lock(install: Command) -> bool:
    return "--require-hashes" in install.words and bool(_requirements(install))


def _requirements(install: Command) -> str | None:
    return install.option("--requirement") or install.option("-r")


def _lock(cluster: Cluster, installs: list[Command]) -> Iterator[Problem]:
    """The lock file is mounted, and has the versions of this machine, from which the cluster is commanded."""
    mounts = cluster.part("file_mounts")
    for remote in {_requirements(install) or "" for install in installs}:
        local = mounts.get(remote)
        if not isinstance(local, str):
            yield Problem("versions", f"{remote} is not in file_mounts", f"add `{remote}: {LOCK}`")
            continue
        path = cluster.folder / local
        text = path.read_text(errors="replace") if path.is_file() else ""
        for package in SAME:
            locked = re.search(rf"^{package}==([^\s;\\]+)", text, re.MULTILINE)
            here = metadata.version(package).partition("+")[0]
            if path.is_file() and (locked is None or locked[1] != here):
                value = f"{package} is {here} here, but {locked[1] if locked else 'missing'} in {local}"
                yield Problem("versions", value, "install the lock file here too (make demo does)")


def mounts(cluster: Cluster) -> Iterator[Problem]:
    """What is to be copied is there; the token alone is made later."""
    for remote, local in cluster.part("file_mounts").items():
        if remote != TOKEN and isinstance(local, str) and not (cluster.folder / local).expanduser().exists():
            yield Problem("mounts", f"file_mounts[{remote!r}] is {local}", f"is not there, seen from {cluster.folder}")


def scaling(cluster: Cluster) -> Iterator[Problem]:
    """The head starts workers, by the autoscaler that can."""
    for start in cluster.starts("head_start_ray_commands"):
        if start.option("--autoscaling-config") != AUTOSCALING:
            remedy = f"add --autoscaling-config={AUTOSCALING}: without it there are no workers"
            yield Problem("scaling", "head_start_ray_commands have no autoscaler", remedy)
        if cluster.is_local and start.environment.get("RAY_enable_autoscaler_v2") != "0":
            remedy = (
                "write RAY_enable_autoscaler_v2=0 before `ray start`: the new one never logs in to machines of yours"
            )
            yield Problem("scaling", "provider local has the new autoscaler", remedy)
        if start.environment.get("RAY_USAGE_STATS_ENABLED") != "0":
            remedy = "write RAY_USAGE_STATS_ENABLED=0 before `ray start`"
            yield Problem("usage", "head_start_ray_commands let Ray report its use", remedy)


def costs(cluster: Cluster) -> Iterator[Problem]:
    """Machines that do nothing end, and the file says how many there may be."""
    idle = cluster.written.get("idle_timeout_minutes")
    if not isinstance(idle, int | float) or isinstance(idle, bool) or not 0 < idle <= MOST_IDLE_MINUTES:
        remedy = f"write minutes, from 1 to {MOST_IDLE_MINUTES}, after which a machine ends"
        yield Problem("costs", f"idle_timeout_minutes is {idle!r}", remedy)
    if cluster.is_local:
        return
    if "max_workers" not in cluster.written:
        yield Problem("costs", "max_workers is not set", "say how many machines you would pay for at once")
    if cluster.part("provider").get("cache_stopped_nodes") is not False:
        remedy = "write `cache_stopped_nodes: false`: disks of machines that are only stopped go on costing"
        yield Problem("costs", "provider.cache_stopped_nodes is on", remedy)


UPKEEP = (versions, mounts, scaling, costs)
