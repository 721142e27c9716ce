"""What a cluster file must hold, beyond Ray's own schema, so that no head is open and no two machines differ."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tunekit.cluster_shell import Command, ray_starts

TOKEN = "~/.ray/auth_token"  # where Ray looks for it, on every machine
MOST_SHOWN = 60  # characters of a shell line, in an error
LOOPBACK = ("127.0.0.1", "localhost", "::1")
START_LISTS = ("head_start_ray_commands", "worker_start_ray_commands")
SETUP_LISTS = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
PLACEHOLDER = re.compile(r"<[A-Z][A-Z0-9_]*>")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")  # of clusters, types of machines, regions and users
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,252}[A-Za-z0-9])?")  # a name, or an address of either kind
PATH = re.compile(r"[\w~./@+][\w~./@+ -]*")  # no option, no other host's (HOST:PATH), nothing that a shell obeys
REMOTE_PATH = re.compile(r"[\w~./@+][\w~./@+-]*")  # no space either: Ray puts it unquoted into a shell line


class Problem(NamedTuple):
    """What is wrong in a cluster file: which rule it breaks, by which value, and what to do."""

    rule: str
    value: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.rule}: {' '.join(self.value.split())}: {self.remedy}"


class Cluster(NamedTuple):
    """A cluster file.

    Args:
        written: what it says.
        config: the same with Ray's defaults, which count where it says nothing.
        folder: where it lies: local paths in it start there.
    """

    written: dict[str, Any]
    config: dict[str, Any]
    folder: Path

    def part(self, *keys: str) -> dict[str, Any]:
        """Return a dict within the config; an empty one where there is none."""
        found: Any = self.config
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    def lines(self, name: str) -> list[str]:
        """Return one of the lists of shell lines."""
        lines = self.config.get(name)
        return [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []

    def starts(self, name: str) -> list[Command]:
        """Return what starts Ray in one of the lists of shell lines; `shell` tells of those that cannot be read."""
        found = []
        for line in self.lines(name):
            try:
                found += ray_starts(line)
            except ValueError:
                continue
        return found

    @property
    def is_local(self) -> bool:
        """Whether the machines are one's own."""
        return self.part("provider").get("type") == "local"

    @property
    def types(self) -> dict[str, dict[str, Any]]:
        """What a cloud is asked for, for each type of machine."""
        return {str(name): self.part("available_node_types", name) for name in self.part("available_node_types")}


def placeholders(cluster: Cluster) -> Iterator[Problem]:
    """What is to be filled in is filled in."""
    for where, text in _texts(cluster.written):
        for found in dict.fromkeys(PLACEHOLDER.findall(text)):
            yield Problem("placeholder", f"{where} is {found}", "fill it in; the comment beside it says with what")


def provider(cluster: Cluster) -> Iterator[Problem]:
    """The machines are of a kind that these rules know."""
    kind = cluster.part("provider").get("type")
    if kind not in ("aws", "local"):
        yield Problem("provider", f"type {kind!r}", "the rules know aws and local; start others with `ray up` yourself")
    if cluster.config.get("docker"):
        yield Problem("provider", "docker", "leave it out: nothing here looks into containers")


def names(cluster: Cluster) -> Iterator[Problem]:
    """Names hold nothing that a shell or ssh would obey."""
    machines, auth = cluster.part("provider"), cluster.part("auth")
    plain = {"cluster_name": cluster.config.get("cluster_name"), "head_node_type": cluster.config.get("head_node_type")}
    plain |= {f"available_node_types.{name}": name for name in cluster.types}
    plain |= {"auth.ssh_user": auth.get("ssh_user"), "provider.region": machines.get("region", "none")}
    for where, name in plain.items():
        if not _matches(NAME, name):
            yield Problem("name", f"{where} is {name!r}", "use letters, digits, dots, dashes and underscores")
    workers = machines.get("worker_ips", [])
    hosts = {f"worker_ips[{number}]": host for number, host in enumerate(workers if isinstance(workers, list) else [])}
    hosts |= {key: machines[key] for key in ("head_ip", "external_head_ip") if key in machines}
    for where, host in hosts.items():
        if not _matches(HOST, host):
            yield Problem("name", f"provider.{where} is {host!r}", "give an address, or a host's name")
    keys = {f"auth.{name}": auth[name] for name in ("ssh_private_key", "ssh_public_key") if name in auth}
    mounts = cluster.part("file_mounts")
    keys |= {f"file_mounts[{remote!r}]": local for remote, local in mounts.items()}
    for where, path in keys.items():
        if not _matches(PATH, path):
            yield Problem("name", f"{where} is {path!r}", "rename the file: letters, digits, ~ . / @ + - _ and spaces")
    for remote in mounts:
        if not _matches(REMOTE_PATH, remote):
            yield Problem("name", f"file_mounts has {remote!r}", "use letters, digits and ~ . / @ + - _ alone")


def shell(cluster: Cluster) -> Iterator[Problem]:
    """Every shell line can be read, and Ray is started plainly."""
    for name in (*START_LISTS, *SETUP_LISTS):
        for line in cluster.lines(name):
            try:
                ray_starts(line)
            except ValueError as error:
                yield Problem(
                    "shell", f"{name} has {_short(line)} ({error})", "write it plainly: `VARIABLE=... ray start`"
                )
    for name, flag in zip(START_LISTS, ("--head", "--address"), strict=True):
        starts = cluster.starts(name)
        if len(starts) != 1 or (flag not in starts[0].words and starts[0].option(flag) is None):
            yield Problem("shell", f"{name} starts Ray {len(starts)} times", f"have one `ray start {flag}` in it")


def token(cluster: Cluster) -> Iterator[Problem]:
    """The token is on every machine before Ray starts there, and Ray asks for it."""
    local = cluster.part("file_mounts").get(TOKEN)
    if not isinstance(local, str):
        yield Problem("token", f"no {TOKEN} in file_mounts", f"add `{TOKEN}: ~/.tunekit/auth_token`; `up` makes it")
    elif not Path(local).expanduser().is_absolute():
        yield Problem(
            "token", f"{TOKEN} comes from {local}", "keep it in your home, ~/.tunekit/auth_token, not beside the code"
        )
    for name in START_LISTS:
        for start in cluster.starts(name):
            if (mode := start.environment.get("RAY_AUTH_MODE")) != "token":
                found = "without RAY_AUTH_MODE" if mode is None else f"with RAY_AUTH_MODE={mode}"
                yield Problem("token", f"{name} starts Ray {found}", "write `RAY_AUTH_MODE=token` before `ray start`")
    for where, text in _texts(cluster.written):
        if "RAY_AUTH_TOKEN" in text:
            yield Problem("token", f"{where} has RAY_AUTH_TOKEN", f"leave it out: the token is the file {TOKEN}")


def closed(cluster: Cluster) -> Iterator[Problem]:
    """Nothing but SSH is reached from outside."""
    for name in (*START_LISTS, *SETUP_LISTS):
        for line in cluster.lines(name):
            if "0.0.0.0" in line:
                yield Problem("open", f"{name} has 0.0.0.0", "leave it out: it opens a port to everybody")
    for name in START_LISTS:
        for start in cluster.starts(name):
            host = start.option("--dashboard-host")
            if host is not None and host not in LOOPBACK:
                yield Problem("open", f"{name} has --dashboard-host={host}", "write --dashboard-host=127.0.0.1")
            if start.option("--system-config") is not None:
                yield Problem("open", f"{name} has --system-config", "leave it out: it can switch the token off")
    rules = cluster.part("provider", "security_group").get("IpPermissions", [])
    for rule in rules if isinstance(rules, list) else []:
        ports = [rule.get(key) for key in ("IpProtocol", "FromPort", "ToPort")] if isinstance(rule, dict) else []
        if ports != ["tcp", 22, 22]:
            yield Problem("open", f"security_group.IpPermissions has {_short(str(rule))}", "let in tcp port 22 alone")
    for name in cluster.types if not cluster.is_local else ():
        if not cluster.part("available_node_types", name, "node_config").get("SecurityGroupIds"):
            remedy = "name a group of yours: the one that Ray makes lets all the world knock at SSH"
            yield Problem("open", f"{name} has no SecurityGroupIds", remedy)


def _texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in plain data, keys too, with where it stands."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, inside in value.items():
            yield from _texts(str(key), f"a key of {where}" if where else "a key")
            yield from _texts(inside, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for number, inside in enumerate(value):
            yield from _texts(inside, f"{where}[{number}]")


def _matches(pattern: re.Pattern[str], text: Any) -> bool:
    """Return whether a text is as it should be, or still to be filled in, which another rule tells of."""
    return isinstance(text, str) and (pattern.fullmatch(text) or PLACEHOLDER.fullmatch(text)) is not None


def _short(text: str) -> str:
    return repr(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}...")


OPENNESS = (placeholders, provider, names, shell, token, closed)
