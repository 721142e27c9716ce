"""What would go wrong with a search on this machine, found before it does: the machine, the libraries, the network."""

import importlib.metadata
import os
import platform
import re
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tunekit.errors import TunekitError
from tunekit.machine import Finding, look_at_machine
from tunekit.safe_text import redacted
from tunekit.status import nodes_of
from tunekit.wandb_tracker import Wandb, has_key

# Where `tunekit download` and pretrained weights come from. Source: torchvision.datasets, placepulse.URL, torch.hub.
HOSTS = {
    "mnist": ("ossci-datasets.s3.amazonaws.com", 443),
    "fashion_mnist": ("fashion-mnist.s3-website.eu-central-1.amazonaws.com", 80),
    "cifar10": ("www.cs.toronto.edu", 443),
    "placepulse": ("www.dropbox.com", 443),
    "pretrained weights": ("download.pytorch.org", 443),
}
PATIENCE_S = 3.0
PROXIES = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?\s*([^;]*)(?:;.*extra\s*==\s*['\"]([\w-]+)['\"])?")
FOR_PEOPLE = ("wandb", "aws", "onnx", "tensorboard")  # extras; the others are for work on tunekit itself


def examine(folder: str, address: str | None = None, environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yield what is found, one after the other; secrets are left out of it.

    Args:
        folder: where experiments are to lie, or its URL.
        address: of a Ray cluster to join, or "local" to start a Ray here; None does neither.
        environ: the environment's variables.
    """
    found = (
        *look_at_machine(folder, environ),
        *_libraries(),
        *_ray(address, environ),
        *_wandb(environ),
        *_network(environ),
    )
    for finding in found:
        yield finding._replace(text=redacted(finding.text), problem=redacted(finding.problem))


def _libraries() -> Iterator[Finding]:
    """Compare what is installed with what tunekit's own metadata asks for."""
    yield Finding("Python", f"{platform.python_version()} at {sys.executable}")
    versions: list[str] = []
    extras: dict[str, bool] = {}
    for line in importlib.metadata.requires("tunekit") or []:
        match = REQUIREMENT.match(line)
        if match is None or (match[3] and match[3] not in FOR_PEOPLE):
            continue
        name, wanted, extra = match[1], match[2].strip(), match[3]
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        if extra:
            extras[extra] = extras.get(extra, True) and bool(version)
        elif not version:
            yield Finding("libraries", "", f"{name} is not installed: pip install '{name}{wanted}'", stops=True)
        else:
            versions.append(f"{name} {version}")
        if version and not satisfies(version, wanted):
            mend = f"{name} is {version}, but {wanted} is needed: pip install '{name}{wanted}'"
            yield Finding("libraries", "", mend, stops=not extra)
    yield Finding("libraries", ", ".join(sorted(versions)))
    words = (f"{name} {'is' if there else 'is not'} installed" for name, there in sorted(extras.items()))
    missing = "" if all(extras.values()) else ": pip install 'tunekit[NAME]'"
    yield Finding("extras", f"{', '.join(words)}{missing}")


def satisfies(version: str, wanted: str) -> bool:
    """Return whether a version is within the bounds of a requirement; other bounds than these two are not looked at.

    Example:
        >>> satisfies("2.14.1", ">=2.11,<3"), satisfies("3.0", ">=2.11,<3"), satisfies("2.9", "<3,>=2.11")
        (True, False, False)
    """
    have = _numbers(version)
    for bound in re.findall(r"(>=|<)\s*([\d.]+)", wanted):
        limit = _numbers(bound[1])
        if (bound[0] == ">=" and have < limit) or (bound[0] == "<" and have >= limit):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part)  # type: ignore[index]  # matches ""


def _ray(address: str | None, environ: Mapping[str, str]) -> Iterator[Finding]:
    mode = environ.get("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        yield Finding("Ray", "", f"RAY_AUTH_MODE is {mode!r}, with which no search starts: unset it", stops=True)
    if environ.get("RAY_ADDRESS"):
        yield Finding("Ray", "", "RAY_ADDRESS is set, but tunekit goes by --address alone: give that, or unset it")
    if address is None:
        return
    where = "a Ray on this machine" if address == "local" else f"the cluster at {address}"
    try:
        nodes = nodes_of(None if address == "local" else address)
    except TunekitError as error:
        yield Finding("Ray", "", str(error), stops=True)
    except Exception as error:  # whatever Ray raises where it cannot start
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        yield Finding("Ray", "", f"{where} does not start ({why}): see the lines above for what it lacks", stops=True)
    else:
        up = [node for node in nodes if node["state"] == "up"]
        cpus, gpus = (sum(node[kind] for node in up) for kind in ("cpus", "gpus"))
        yield Finding("Ray", f"{where} answers: {len(up)} machines with {cpus} CPUs and {gpus} GPUs")
        for node in nodes:
            if node["state"] != "up":
                yield Finding(
                    "Ray", "", f"machine {node['name']} is {node['state']}: tunekit status --address {address}"
                )


def _wandb(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Say whether W&B would log, and never with what key."""
    try:
        made = Wandb.environment(environ, Path())
    except TunekitError as error:
        yield Finding("W&B", "would not log", f"with --tracker wandb: {error}")
        return
    if made is None:
        yield Finding("W&B", "switched off by WANDB_MODE")
    elif made.get("WANDB_MODE") in ("offline", "dryrun"):
        yield Finding("W&B", "logs into the experiment's folder, as WANDB_MODE says")
    else:
        yield Finding("W&B", "logged in: a key was found" if has_key(made) else "logs without a key")


def _network(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Say which hosts a connection can be made to, or whether the proxy can be reached that leads there."""
    proxy = next((environ[name] for name in PROXIES if environ.get(name)), "")
    without = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if proxy:
        yield Finding("proxy", redacted(proxy, []))
        if not {"127.0.0.1", "localhost", "*"} & set(re.split(r"[,\s]+", without)):
            yield Finding("proxy", "", "no_proxy lacks 127.0.0.1, so that Ray may look for itself behind the proxy: "
                          "export no_proxy=127.0.0.1,localhost")  # fmt: skip
    leads = _host_of(proxy) if proxy else None
    if proxy and not leads:
        yield Finding("proxy", "", f"{proxy} is no URL of a proxy: write http://HOST:PORT, or unset it")
        return
    hosts = {"proxy": leads} if leads else HOSTS
    found = _reached(hosts)
    yield Finding(
        "network", ", ".join(f"{name} {'answers' if there else 'does not answer'}" for name, there in found.items())
    )
    silent = [f"{hosts[name][0]} ({name})" for name, there in found.items() if not there]
    if silent:
        yield Finding("network", "", f"no answer within {PATIENCE_S:g} s from {', '.join(silent)}: downloads fail, "
                      "all else works; set https_proxy where there is one, or put the files there by hand")  # fmt: skip


def _host_of(proxy: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        return (parts.hostname, parts.port or 80) if parts.hostname else None
    except ValueError:
        return None


def _reached(hosts: Mapping[str, tuple[str, int]]) -> dict[str, bool]:
    """Connect to all hosts side by side, and send nothing; names that take longer to find are not waited for."""
    reached: set[str] = set()

    def reach(name: str, host: str, port: int) -> None:
        try:
            socket.create_connection((host, port), timeout=PATIENCE_S).close()
            reached.add(name)
        except (OSError, UnicodeError):  # no such host, no route, refused, silent, or no name of a host at all
            pass

    threads = [threading.Thread(target=reach, args=(name, *place), daemon=True) for name, place in hosts.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S + 0.5)
    return {name: name in reached for name in hosts}
