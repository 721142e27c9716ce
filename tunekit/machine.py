"""What this machine has for a search, and what of it would not do: cores, memory, GPUs, disks."""

import fcntl
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from tunekit.arithmetic import machine
from tunekit.cluster import OBJECT_STORE_BYTES
from tunekit.datasets.store import cache_folder, make_room
from tunekit.errors import TunekitError
from tunekit.memory import CGROUPS, text_of, usable_memory
from tunekit.scratch import short_folder
from tunekit.session import LEAST_ROOM
from tunekit.storage import is_url

CPU_LIMITS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
LITTLE_BYTES = 2**30  # of a disk, or of memory: below it somebody should know
LEAST_FILES = 1024  # that a process may open: Ray opens some for every worker
SHARED = Path("/dev/shm")


class Finding(NamedTuple):
    """One thing that was looked at.

    Args:
        topic: what it is about.
        text: what was found; may be empty.
        problem: what is wrong with it, and what to do; empty where nothing is.
        stops: whether a search would not work.
    """

    topic: str
    text: str
    problem: str = ""
    stops: bool = False


def look_at_machine(folder: str, environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yield what is found of cores, memory, GPUs and disks.

    Args:
        folder: where experiments are to lie.
        environ: the environment's variables.
    """
    yield from _cores(environ)
    yield from _memory()
    yield from _gpus(environ)
    yield from _disks(folder)


def usable_cores() -> float:
    """Return how many cores this process may use: those that it may run on, or as many as its container's share is."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in CPU_LIMITS:
        words = " ".join(text_of(CGROUPS / name) for name in names).split()
        if len(words) == 2 and words[0].isdigit() and int(words[1]):
            return min(cores, int(words[0]) / int(words[1]))
    return cores


def _cores(environ: Mapping[str, str]) -> Iterator[Finding]:
    cores, whole = usable_cores(), os.cpu_count() or 1
    yield Finding("cores", f"{cores:g} of {whole}: {machine(torch.device('cpu'))}")
    if cores < 1:
        yield Finding("cores", "", "less than a core may be used: give the container one, as with docker's --cpus=1")
    threads = environ.get("OMP_NUM_THREADS", "")
    if threads and not threads.split(",")[0].strip().isdigit():
        yield Finding("threads", "", f"OMP_NUM_THREADS is {threads!r}, no number: unset it")
    elif threads and int(threads.split(",")[0]) > cores:
        yield Finding("threads", "", f"OMP_NUM_THREADS is {threads}, more than there are cores: unset it")
    if environ.get("OMP_WAIT_POLICY", "").lower() == "active":
        yield Finding("threads", "", "OMP_WAIT_POLICY is active: threads that wait take the cores of others: unset it")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= most < LEAST_FILES:
        yield Finding("open files", str(most), f"a process may open {most} files, and Ray opens many: `ulimit -n 4096`")


def _memory() -> Iterator[Finding]:
    whole = usable_memory()
    lines = [line.split() for line in text_of(Path("/proc/meminfo")).splitlines()]
    free = next((int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"), whole)
    little = min(free, whole) < LITTLE_BYTES
    problem = "less than 1 GiB of memory is free: Ray alone takes most of that; end what takes it" if little else ""
    yield Finding("memory", f"{whole / 1e9:.1f} GB, {min(free, whole) / 1e9:.1f} free", problem)


def _gpus(environ: Mapping[str, str]) -> Iterator[Finding]:
    driver = _driver()
    build = f"PyTorch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "PyTorch is built without CUDA"
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            known = torch.cuda.get_device_properties(number)
            yield Finding("GPU", f"{known.name}, {known.total_memory / 1e9:.0f} GB; driver {driver}; {build}")
        return
    hidden = environ.get("CUDA_VISIBLE_DEVICES")
    if not driver:
        yield Finding("GPU", "none")
    elif hidden is not None and hidden in ("", "-1"):
        yield Finding("GPU", "hidden", f"CUDA_VISIBLE_DEVICES is {hidden!r}, so that no GPU is used: unset it")
    elif torch.version.cuda is None:
        yield Finding("GPU", f"driver {driver}", f"{build}, so that no GPU is used: install its CUDA build")
    else:
        why = f"{build}, but finds no GPU with driver {driver}: update the driver, or install the build that it knows"
        yield Finding("GPU", f"driver {driver}", why)


def _driver() -> str:
    """Return the version of NVIDIA's driver; nothing where there is none, or it does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    asked = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "that does not answer"
    return (answer.stdout.splitlines() or [""])[0].strip() if answer.returncode == 0 else "that does not answer"


def _disks(folder: str) -> Iterator[Finding]:
    if is_url(folder):
        yield Finding("experiments", f"{folder}: a storage, which is not looked at")
    else:
        yield _disk("experiments", Path(folder), "choose another with --folder", LEAST_ROOM)
    try:
        cache = cache_folder()
        make_room(0)
        yield _disk("cache", cache, "set XDG_CACHE_HOME to a folder on another", LEAST_ROOM)
    except TunekitError as error:
        yield Finding("cache", "", str(error), stops=True)
    except OSError as error:
        yield Finding("cache", "", f"the cache cannot be used ({error}): set XDG_CACHE_HOME to another", stops=True)
    try:
        yield _disk("temporary", short_folder(), "set TMPDIR to a folder on another", LEAST_ROOM)
    except TunekitError as error:
        yield Finding("temporary", "", str(error), stops=True)
    if SHARED.is_dir():
        free = shutil.disk_usage(SHARED).free
        little = free < OBJECT_STORE_BYTES
        problem = "it is too small for Ray, which goes by the disk then: docker's --shm-size=1g" if little else ""
        yield Finding("shared memory", f"{SHARED}: {free / 1e9:.1f} GB free", problem)


def _disk(topic: str, folder: Path, instead: str, least: int) -> Finding:
    """Look at the disk of a folder, which need not be there yet, by writing to it what is gone afterwards."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        free = shutil.disk_usage(there).free
        with tempfile.TemporaryFile(dir=there, prefix=".tunekit-") as file:
            file.write(bytes(4096))
            file.flush()
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        why = f"{folder} cannot be written ({error.strerror}): make room, mend its permissions, or {instead}"
        return Finding(topic, str(folder), why, stops=True)
    text = f"{folder}: {free / 1e9:.1f} GB free"
    if free >= LITTLE_BYTES:
        return Finding(topic, text)
    return Finding(topic, text, f"the disk of {folder} is nearly full: make room, or {instead}", stops=free < least)
