"""Decoded once per machine: images, targets and splits on disk, memory-mapped by every trial.

    ~/.cache/tunekit/            or $XDG_CACHE_HOME/tunekit; mode 0700
      pools/<hash of the pixels>/       images.npy, pool.json          the images of a dataset, stored once
      datasets/<fingerprint>-<hash>/    targets.npy, rows-*.npy, dataset.json    what open_dataset() reads; small
      features/<hash of what they depend on>/   train.npy, val.npy, features.json    of a frozen backbone; frozen.py
      files/<hash of the manifest>/     decoded.json                   which files on disk gave which pool
      fetched/<hash of a URL and its files>/    the files, fetched.json              data that came over the network
      experiments/<name>-<hash of the URL>/     ledger.db, ...         of experiments in a storage; remote.py
      locks/

Nothing here is a pickle, and nothing is trusted because it is there: sizes and headers are checked at each opening. An
entry is written aside, synced and renamed, so it is whole or absent; deleting any of it costs time only, and what was
not used for longest is deleted where the cache would grow beyond its limit.
"""

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from tunekit.datasets.arrays import array_hash
from tunekit.errors import DataError

KINDS = {"pools": "pool.json", "datasets": "dataset.json", "files": "decoded.json", "features": "features.json",
         "fetched": "fetched.json"}  # fmt: skip
MOST_GB = 50.0  # that the cache holds, unless TUNEKIT_CACHE_GB says otherwise: what was not used for longest goes
IN_USE_S = 24 * 3600  # an entry that was used so lately stays, whatever the limit
HASHED_BYTES = 2**31  # a pool up to this size is checked by its hash where it stands in for files; that takes seconds


def cache_folder() -> Path:
    """Return the folder of all entries, made if absent.

    Raises:
        DataError: it cannot be made, or others may write to it.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "tunekit"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise DataError(f"the cache {folder} is somebody else's: set XDG_CACHE_HOME to a folder of your own")
        if folder.stat().st_mode & 0o022:
            raise DataError(f"others may write to the cache {folder}: run `chmod 700 {folder}`")
        for kind in (*KINDS, "locks"):
            (folder / kind).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise DataError(f"the cache {folder} cannot be used ({error}): set XDG_CACHE_HOME to another folder") from error
    return folder


def store_images(images: np.ndarray) -> Path:
    """Store a pool of images under the hash of its pixels, if it is not there yet, and return its folder."""
    mapped = Path(getattr(images, "filename", None) or "")
    if mapped.parent.parent == cache_folder() / "pools" and pool_is_whole(mapped.parent):
        return mapped.parent  # it is a map of the very pool; its name is its hash
    with new_pool(images.shape) as (path, keep):
        stored = np.lib.format.open_memmap(path, mode="r+")
        for start in range(0, len(images), 4096):
            stored[start : start + 4096] = images[start : start + 4096]
        stored.flush()
        return keep()


@contextmanager
def new_pool(shape: tuple[int, ...]) -> Iterator[tuple[Path, Callable[[], Path]]]:
    """Give an empty images.npy of a shape, and a function that stores it under its hash and returns the folder."""
    pools = cache_folder() / "pools"
    needed = int(np.prod(shape))
    make_room(needed)
    free = shutil.disk_usage(pools).free
    if needed > free:
        raise DataError(f"the cache {pools} needs {needed / 1e9:.1f} GB for images, and has {free / 1e9:.1f} GB free")
    with tempfile.TemporaryDirectory(dir=pools, prefix=".new-", ignore_cleanup_errors=True) as made:
        new = Path(made) / "pool"
        new.mkdir(mode=0o700)
        np.lib.format.open_memmap(new / "images.npy", mode="w+", dtype=np.uint8, shape=shape)

        def keep() -> Path:
            name = array_hash(np.load(new / "images.npy", mmap_mode="r", allow_pickle=False))
            size = (new / "images.npy").stat().st_size
            write_json(new / "pool.json", {"hash": name, "shape": list(shape), "bytes": {"images.npy": size}})
            with locked(name):
                if not pool_is_sound(pools / name):
                    rename(new, pools / name)
            return pools / name

        yield new / "images.npy", keep


def open_images(pool: Path) -> np.ndarray:
    """Return a pool's images, uint8 (M, H, W, C), memory-mapped copy-on-write (a read-only array alarms torch)."""
    return np.load(pool / "images.npy", mmap_mode="c", allow_pickle=False)


def read_decoded(key: str) -> dict[str, Any] | None:
    """Return what is known of the files of a manifest, with "pool" a whole pool's folder; None if nothing is."""
    known = read_json(cache_folder() / "files" / key / "decoded.json")
    pool = cache_folder() / "pools" / str(known and known.get("pool"))
    return known | {"pool": pool} if known is not None and pool_is_sound(pool) else None


def write_decoded(key: str, pool: Path, known: dict[str, Any]) -> None:
    """Remember which pool the files of a manifest gave, and what was noticed while decoding."""
    with aside(cache_folder() / "files" / key) as new:
        write_json(new / "decoded.json", known | {"pool": pool.name, "bytes": {}})


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the machine-wide lock of a name; it is let go when the process ends, however it ends."""
    with open(cache_folder() / "locks" / name, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def aside(folder: Path) -> Iterator[Path]:
    """Give an empty folder that takes the place of `folder` once filled."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-", ignore_cleanup_errors=True) as made:
        new = Path(made) / "entry"
        new.mkdir(mode=0o700)
        yield new
        rename(new, folder)


def rename(new: Path, folder: Path) -> None:
    """Sync what is in `new` and give it its name; what had the name before was damaged."""
    for path in (*new.iterdir(), new):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(new, folder)


def pool_is_whole(pool: Path) -> bool:
    """Whether a pool's file has the length and the header that its description says; its pixels are not read."""
    described = read_json(pool / "pool.json")
    if described is None or not sizes_match(pool, described):
        return False
    try:
        images = open_images(pool)
    except (ValueError, OSError, EOFError):
        return False
    return images.dtype == np.uint8 and list(images.shape) == described["shape"] and described["hash"] == pool.name


def pool_is_sound(pool: Path) -> bool:
    """Whether a pool is whole and, up to HASHED_BYTES, its pixels are those that its name is the hash of."""
    if not pool_is_whole(pool):
        return False
    images = open_images(pool)
    return images.nbytes > HASHED_BYTES or array_hash(images) == pool.name


def make_room(num_bytes: int) -> None:
    """Delete the entries that were not used for longest, until so many bytes more are within the cache's limit.

    Raises:
        DataError: TUNEKIT_CACHE_GB is no number.
    """
    text = os.environ.get("TUNEKIT_CACHE_GB") or str(MOST_GB)
    try:
        limit = float(text) * 1e9
    except ValueError:
        raise DataError(f"TUNEKIT_CACHE_GB must be a number of gigabytes, but is {text!r}") from None
    sizes, used = {}, {}
    for kind, name in KINDS.items():
        for entry in (cache_folder() / kind).iterdir():
            with suppress(OSError):  # another process may delete it meanwhile
                described = entry / name
                used[entry] = (described if described.exists() else entry).stat().st_mtime
                sizes[entry] = size_of(entry)
    too_much = sum(sizes.values()) + num_bytes - limit
    for entry in sorted(sizes, key=used.__getitem__):
        half_made = entry.name.startswith(".new-")  # by a process that was killed
        if time.time() - used[entry] < IN_USE_S:
            return
        if too_much > 0 or half_made:
            shutil.rmtree(entry, ignore_errors=True)
            too_much -= sizes[entry]


def size_of(entry: Path) -> int:
    """Return how many bytes an entry's files have; those that another process deletes meanwhile have none."""
    size = 0
    for folder, _, names in os.walk(entry):
        for path in (Path(folder, name) for name in names):
            with suppress(OSError):
                size += path.stat().st_size
    return size


def sizes_match(folder: Path, described: dict[str, Any]) -> bool:
    """Return whether an entry's files have the lengths that its description says."""
    try:
        whole = all((folder / name).stat().st_size == size for name, size in described["bytes"].items())
    except (OSError, KeyError, AttributeError):
        return False
    for name in set(KINDS.values()) if whole else ():
        with suppress(OSError):  # so that `make_room` knows when it was used
            os.utime(folder / name)
    return whole


def read_json(path: Path) -> dict[str, Any] | None:
    """Return an entry's description; None if there is none that can be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an entry's description; names that are no UTF-8 survive, as JSON escapes them."""
    path.write_text(json.dumps(content))
