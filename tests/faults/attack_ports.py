"""Knocks at the ports of a running Ray as somebody without its token would: raw HTTP and gRPC, no library of Ray's."""

import contextlib
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

UNAUTHENTICATED = 16
HTTP_PATHS = ("/", "/api/jobs/", "/api/actors", "/api/serve/applications/", "/logs", "/nodes?view=summary", "/metrics")
GRPC_METHODS = (
    "ray.rpc.InternalKVGcsService/InternalKVGet",
    "ray.rpc.InternalKVGcsService/InternalKVKeys",
    "ray.rpc.JobInfoGcsService/GetAllJobInfo",
    "ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "ray.rpc.ActorInfoGcsService/GetAllActorInfo",
    "ray.rpc.autoscaler.AutoscalerStateService/GetClusterStatus",
    "ray.rpc.NodeManagerService/GetNodeStats",
    "ray.rpc.NodeManagerService/RequestWorkerLease",
    "ray.rpc.NodeManagerService/ShutdownRaylet",
    "ray.rpc.CoreWorkerService/PushTask",
    "ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "ray.rpc.CoreWorkerService/KillActor",
    "ray.rpc.CoreWorkerService/Exit",
    "ray.rpc.ObjectManagerService/Pull",
    "ray.rpc.RayletDriver/Init",
)
BROWSER = {
    "Host": "evil.example",
    "Origin": "http://evil.example",
    "Sec-Fetch-Site": "cross-site",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
}


class Listener(NamedTuple):
    """A TCP socket that a process listens on."""

    host: str
    port: int
    pid: int

    @property
    def reached_at(self) -> str:
        """The address to connect to."""
        return "127.0.0.1" if self.host in ("*", "0.0.0.0", "::") else self.host


def descendants(pid: int) -> list[int]:
    """Return the pids of a process and of all that it started."""
    found, new = [pid], [pid]
    while new:
        children = []
        for parent in new:
            for path in Path(f"/proc/{parent}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    children += [int(word) for word in path.read_text().split()]
        found += children
        new = children
    return found


def listeners(pids: list[int]) -> list[Listener]:
    """Return the TCP sockets that any of these processes listens on, each once."""
    lines = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines()
    found = []
    for line in lines:
        host, _, port = line.split()[3].rpartition(":")
        owners = {int(pid) for pid in re.findall(r"pid=(\d+)", line)} & set(pids)
        if owners:
            found.append(Listener(host.strip("[]").removeprefix("::ffff:"), int(port), min(owners)))
    return found


def strangers(token: str, known: str) -> Iterator[dict[str, str]]:
    """Yield the headers that somebody without the token may send, who knows another one."""
    yield {}
    for name in ("authorization", "x-ray-authorization"):
        for value in ("", "wrong", "0" * len(token), token[:-1], known):
            yield {name: f"Bearer {value}"}
        yield {name: ""}
        yield {name: "Bearer"}
    yield {"cookie": "ray-authentication-token=wrong"}


def http_status(listener: Listener, request: str, headers: dict[str, str]) -> int:
    """Return the status that an HTTP/1.1 request ("GET /path") is answered with; 0 for no HTTP answer."""
    fields = {"Host": "localhost", "Content-Length": "0", "Connection": "close", **headers}
    head = "\r\n".join([f"{request} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())])
    found = _exchange(listener, f"{head}\r\n\r\n".encode(), rb"HTTP/1\.[01] (\d{3}) ")
    return int(found) if found else 0


def grpc_status(listener: Listener, method: str, headers: dict[str, str]) -> int | None:
    """Return the status that an empty gRPC message is answered with; None for no gRPC answer."""
    fixed = {":method": "POST", ":scheme": "http", ":path": f"/{method}", ":authority": "localhost"}
    fixed |= {"content-type": "application/grpc", "te": "trailers"}
    block = b"".join(_literal(name, value) for name, value in {**fixed, **headers}.items())
    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0)
    sent += _frame(1, 4, 1, block) + _frame(0, 1, 1, bytes(5))
    found = _exchange(listener, sent, rb"grpc-status(?:\x01(?=\d)|\x02(?=\d\d))(\d{1,2})")
    return int(found) if found else None


def _literal(name: str, value: str) -> bytes:
    """Return a header as HPACK writes it without its tables."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _exchange(listener: Listener, sent: bytes, pattern: bytes) -> bytes:
    """Send bytes and return the group of a pattern in what comes back; nothing if it does not come."""
    answer = b""
    with contextlib.suppress(OSError), socket.create_connection((listener.reached_at, listener.port), 2) as connection:
        connection.settimeout(1)
        connection.sendall(sent)
        while len(answer) < 2**20 and (part := connection.recv(65536)):
            answer += part
            if found := re.search(pattern, answer):
                return found[1]
    return b""
