"""Disks that are full, read-only or out of inodes, and a process that may not write or open more: for real.

Each case is a file system in memory, of a size of its own, which only the worker sees. Needs the right to mount.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from storage import Found, broken, unclear
from storage_worker import Ended, Worker

ROOMY, ROOMIER = "size=24m,nr_inodes=10000", "size=80m,nr_inodes=10000"


class Disk:
    """A file system of a search's own, among the worker's mounts."""

    def __init__(self, worker: Worker, options: str, begin: Path | None = None) -> None:
        self.worker = worker
        self.mounted = worker.new_folder()
        self.mounted.mkdir()
        worker.run("mount", "-t", "tmpfs", "-o", ROOMY, "none", str(self.mounted))
        self.folder = self.mounted / "experiment"
        if begin:
            worker.run("cp", "-a", str(begin), str(self.folder))
        self.become(options)

    def become(self, options: str) -> None:
        """Be of other options from now on."""
        self.worker.run("mount", "-o", f"remount,{options}", str(self.mounted))

    def copy(self) -> Path:
        """Return a copy of the search's folder that this process sees too."""
        return self.worker.new_folder(Path(f"/proc/{self.worker.process.pid}/root{self.folder}"))

    def close(self) -> None:
        """Unmount it."""
        self.worker.run("umount", str(self.mounted))


def unreadable(worker: Worker, folder: Path, hit: Ended) -> list[str]:
    """Return what of that which a run acknowledged cannot be read, as things are now."""
    epochs = [event for event in hit.acknowledged if event[3] == "epoch"]
    if not hit.acknowledged:
        return []
    reader = worker.work(folder, read=True)
    if reader.status != 0:
        return [f"what was there cannot be read: {reader.error.strip()[-600:]}"]
    trials = reader.said[0]["read"]
    lost = [event for event in epochs if str(trials.get(str(event[4]), [])).find(str(event[6])) < 0]
    return [f"acknowledged, and not read: {event}" for event in lost]


def fills_up(worker: Worker, leaves_kib: Iterable[int], begin: Path | None = None) -> Found:
    """Let a disk fill up in the middle of a search, read, make room, search again; return (cases, what failed).

    Args:
        worker: does the work.
        leaves_kib: what is left free, one a case.
        begin: what the work goes on with; None begins a new search.
    """
    cases, found = 0, []
    for leave in leaves_kib:
        disk = Disk(worker, ROOMY, begin)
        hit = worker.work(disk.folder, fill={"path": str(disk.mounted / "filler"), "leave": leave * 1024})
        wrong = mended(disk, hit)
        found += [f"a disk with {leave} KiB left: {text}" for text in wrong]
        cases += 1
    return cases, found


def on_disks(worker: Worker, all_options: Iterable[str], begin: Path | None = None) -> Found:
    """Search on a disk of each of these options, which must say something clear if it comes to no end; mend, search.

    Args:
        worker: does the work.
        all_options: of mount, such as "size=64k".
        begin: what the work goes on with; None begins a new search.
    """
    cases, found = 0, []
    for options in all_options:
        disk = Disk(worker, options, begin)
        found += [f"a disk of {options}: {text}" for text in mended(disk, worker.work(disk.folder))]
        cases += 1
    return cases, found


def mended(disk: Disk, hit: Ended) -> list[str]:
    """Read what a search left, mend its disk, search again, and return what was wrong."""
    wrong = unclear(hit) + unreadable(disk.worker, disk.folder, hit)
    disk.become("rw," + ROOMIER)
    again = disk.worker.work(disk.folder)
    folder = disk.copy()
    disk.close()
    wrong += broken(disk.worker, folder, [hit, again])
    shutil.rmtree(folder.parent)
    return wrong


def limited(worker: Worker, name: str, values: Iterable[int], begin: Path | None = None) -> Found:
    """Search in a process that may not write files beyond a size (fsize), or open more of them (nofile), then freely.

    Args:
        worker: does the work.
        name: of the limit, as in `setrlimit`.
        values: of the limit, one a case.
        begin: what the work goes on with; None begins a new search.
    """
    cases, found = 0, []
    for value in values:
        cases += 1
        folder = worker.new_folder(begin)
        hit = worker.work(folder, limits={name: value})
        wrong = unclear(hit) + broken(worker, folder, [hit, worker.work(folder)])
        found += [f"{name} {value}: {text}" for text in wrong]
        shutil.rmtree(folder.parent)
    return cases, found


def every(worker: Worker, half: Path, step_kib: int = 4) -> dict[str, Found]:
    """Return what every kind of disk and limit found, by name.

    Args:
        worker: does the work.
        half: the folder of a search that was killed in its middle.
        step_kib: from one size of disk, or of file, to the next.
    """
    limits = range(0, 260, step_kib)
    return {
        "a disk that fills up": fills_up(worker, range(0, 400, step_kib)),
        "a disk that fills up, a search that goes on": fills_up(worker, range(0, 200, step_kib), half),
        "a disk that is too small": on_disks(worker, (f"size={size}k" for size in range(4, 400, 10 * step_kib))),
        "a disk that runs out of inodes": on_disks(worker, (f"nr_inodes={number}" for number in range(2, 30))),
        "a read-only disk": on_disks(worker, ["ro"]),
        "a read-only disk, a search that goes on": on_disks(worker, ["ro"], half),
        "files of limited size": limited(worker, "fsize", (size * 1024 for size in limits)),
        "files of limited size, a search that goes on": limited(worker, "fsize", (s * 1024 for s in limits), half),
        "few open files": limited(worker, "nofile", range(5, 25)),
    }
