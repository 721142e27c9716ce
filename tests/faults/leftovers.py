"""What a case may leave behind: processes, the ports they listen on, and temporary folders."""

import os
import time
from collections import Counter
from pathlib import Path

MARK = "TUNEKIT_FAULT_CASE"  # the environment variable that every process of a case inherits
LEAVE_S = 20.0  # how long what a killed command has started may take to notice
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")  # of Ray: they ask a dead server for a minute before they go
AGENTS_LEAVE_S = 90.0
LISTENS = "0A"  # the state of a socket in /proc/net/tcp


def processes(marker: str) -> dict[int, str]:
    """Return the processes of a case that live, by pid, each with its command line."""
    found = {}
    mark = f"{MARK}={marker}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            if (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                words = (folder / "cmdline").read_bytes().rstrip(b"\0 ").split(b"\0")
                found[int(folder.name)] = b" ".join(words).decode(errors="replace")
        except OSError:
            continue  # it has just ended
    return found


def listening(pid: int) -> list[int]:
    """Return the TCP ports that a process listens on."""
    sockets = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            sockets.add(os.readlink(link))
        except OSError:
            continue
    ports = set()
    for table in ("tcp", "tcp6"):
        try:
            rows = [line.split() for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]]
        except OSError:
            continue
        ports |= {
            int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTENS and f"socket:[{row[9]}]" in sockets
        }
    return sorted(ports)


def check_nothing_left(marker: str, temp: Path | None) -> None:
    """Check that no process of the case lives, no port is held and no temporary folder is left."""
    began = time.monotonic()
    while marker and (there := processes(marker)):
        only_agents = all(name.startswith(AGENTS) for name in there.values())
        if time.monotonic() - began > (AGENTS_LEAVE_S if only_agents else LEAVE_S):
            break
        time.sleep(0.2)
    left = (
        [f"{pid} {name[:60]!r} (ports {listening(pid)})" for pid, name in processes(marker).items()] if marker else []
    )
    assert not left, f"left behind: processes {', '.join(left)}"
    folders = sorted(temp.glob("tunekit-*")) if temp is not None else []
    inside = [str(path)[len(str(temp)) + 1 :] for folder in folders for path in (folder, *sorted(folder.rglob("*")))]
    assert not folders, f"left behind: temporary folders {', '.join(inside[:20])}"


def trained_again(log: Path) -> int:
    """Return how many epochs the log of fault_loops.py has more than once."""
    lines = log.read_text().splitlines() if log.exists() else []
    epochs = Counter(line for line in lines if line.startswith("epoch "))
    return sum(epochs.values()) - len(epochs)
