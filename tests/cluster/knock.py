"""Knocks, from the network namespace in which it is run, at the ports of a cluster, as somebody without its token.

Reads {"ports": [[host, port], ...], "token": "...", "known": "..."} and writes what was let in, and which ports never
asked for the token. The token itself is used for wrong ones that resemble it, and once per port as it is.
"""

import importlib
import itertools
import json
import pkgutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "faults"))

from attack_ports import (
    HTTP_PATHS,
    UNAUTHENTICATED,
    Listener,
    _exchange,
    grpc_status,
    http_status,
    strangers,
)

RAW = (b"\0" * 64, b"\xff" * 64, b"*1\r\n$4\r\nPING\r\n", b"\x16\x03\x01\x00\x05hello", b"ray.init()\n", b"\x80\x04.")
OTHERS = [f"ray.rpc.ObjectManagerService/{name}" for name in ("Push", "Pull", "FreeObjects")]  # not known to Python
WITH_TOKEN = "ray.rpc.JobInfoGcsService/GetAllJobInfo"
UNAUTHORIZED = (401, 403)
THREADS = 16


def methods() -> list[str]:
    """Return every gRPC method that this version of Ray has."""
    from ray.core import generated

    names = [found.name for found in pkgutil.iter_modules(generated.__path__) if found.name.endswith("_pb2")]
    files = [importlib.import_module(f"{generated.__name__}.{name}").DESCRIPTOR for name in names]
    services = [service for file in files for service in file.services_by_name.values()]
    return [f"{service.full_name}/{method.name}" for service in services for method in service.methods] + OTHERS


def knocks(headers: list[dict[str, str]]) -> list[tuple[str, dict[str, str]]]:
    """Return every way to knock at a port."""
    found = [(f"grpc {method}", header) for method, header in itertools.product(methods(), headers)]
    found += [(f"{verb} {path}", {}) for verb, path in itertools.product(("GET", "POST", "PUT", "DELETE"), HTTP_PATHS)]
    found += [(f"{verb} /api/jobs/", header) for verb, header in itertools.product(("GET", "POST"), headers)]
    return found + [(f"raw {number}", {}) for number in range(len(RAW))]


def answer(listener: Listener, knock: str, headers: dict[str, str]) -> object:
    """Return what a knock is answered with: a status, or the first bytes."""
    if knock.startswith("grpc "):
        return grpc_status(listener, knock.removeprefix("grpc "), headers)
    if knock.startswith("raw "):
        return _exchange(listener, RAW[int(knock.removeprefix("raw "))], rb"(?s)(.{1,64})").decode("latin-1")
    return http_status(listener, knock, headers)


def is_accepted(knock: str, found: object) -> bool:
    """Return whether an answer is more than a refusal: HTTP/2 greets everybody, and asks for the token with a call."""
    if knock.startswith("grpc "):
        return found == 0
    if knock.startswith("raw "):
        return bool(found) and not str(found).startswith(("\0\0", "HTTP/1.1 4", "HTTP/1.0 4"))
    return isinstance(found, int) and 200 <= found < 400


def main() -> None:
    """Knock at all ports in all ways, and write what came of it as JSON."""
    asked = json.load(sys.stdin)
    listeners = [Listener(host, port, 0) for host, port in asked["ports"]]
    headers = list(strangers(asked["token"], asked["known"]))
    work = [(listener, *knock) for listener in listeners for knock in knocks(headers)]
    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(lambda one: answer(*one), work))
    known = {"authorization": f"Bearer {asked['token']}"}
    told = [(*one, found) for one, found in zip(work, answers, strict=True)]
    asking = {one for one, _, _, found in told if found in (UNAUTHENTICATED, *UNAUTHORIZED)}
    report = {
        "knocks": len(work),
        "refused": sum(found in (UNAUTHENTICATED, *UNAUTHORIZED) for *_, found in told),
        "accepted": [(one.host, one.port, *rest) for one, *rest in told if is_accepted(rest[0], rest[-1])],
        "never_asked": [(one.host, one.port) for one in listeners if one not in asking],
        "with_token": sum(grpc_status(one, WITH_TOKEN, known) == 0 for one in listeners),
    }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
