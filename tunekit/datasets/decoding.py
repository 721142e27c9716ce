"""Many image files to one pool of pixels: in parallel, each file once, and never again while it stays as it is."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from tunekit.datasets import store
from tunekit.datasets.workers import Workers
from tunekit.errors import DataError

DEFAULT_SIZE_PX = 64  # where images are of unlike sizes and nobody said how large they are to be
NUM_HEADERS = 64  # are read before the first guess
VERSION = 2  # raise it when the same file would give other pixels


@dataclass(frozen=True)
class Decoded:
    """A pool of decoded images, one row per file that was given, whether it could be read or not.

    Args:
        images: uint8 (M, H, W, C), memory-mapped; rows of bad files are black and must not be used.
        images_hash: the hash of all of them.
        problems: row to reason, for files that cannot be used.
        notes: row to what decoding changed.
        digests: (M,) hash of each file's bytes; "" for bad ones.
        how: what was done to each image.
    """

    images: np.ndarray
    images_hash: str
    problems: dict[int, str]
    notes: dict[int, list[str]]
    digests: list[str]
    how: "Preparation"


@dataclass
class Preparation:
    """What is done to each image; `images.decode` says it in detail.

    Args:
        image_size: px, the side of the square that images become; None keeps their size, if all have the same.
        max_size: px, that side where sizes differ (64 when None), or where all have one that is larger.
        crop: 0..1, the part of the central square that is kept.
        cut_bottom_px: px, cut off below.
    """

    image_size: int | None = None
    max_size: int | None = None
    crop: float = 1.0
    cut_bottom_px: int = 0


def decode_files(root: Path, names: Sequence[str], how: Preparation) -> Decoded:
    """Decode the files `root/name` into one pool in the cache, or find them decoded there.

    Args:
        root: the folder that names are relative to.
        names: regular files.
        how: what is done to each.

    Raises:
        DataError: the disk is full, or the decoding processes do not start. Bad images are no error here.
    """
    stamps = [_stamp(root / name) for name in names]
    _settle(stamps)
    manifest = [VERSION, PIL.__version__, vars(how), list(names), stamps]
    key = hashlib.blake2b(json.dumps(manifest).encode(), digest_size=16).hexdigest()
    with store.locked(key):
        known = store.read_decoded(key)
        if known is None:
            _decode(root, names, stamps, how, key)
            known = store.read_decoded(key)
    if known is None:
        raise DataError(f"the cache {store.cache_folder()} lost an entry just written: is its disk failing?")
    pool = known["pool"]
    problems, notes = ({int(row): what for row, what in known[key].items()} for key in ("problems", "notes"))
    return Decoded(store.open_images(pool), pool.name, problems, notes, known["digests"], how)


def _decode(root: Path, names: Sequence[str], stamps: list[list[int]], how: Preparation, key: str) -> None:
    """Guess the shape that all get from some headers, decode, and store; decode again where the guess was wrong."""
    requests = [{"path": str(root / name), "stamp": stamp} for name, stamp in zip(names, stamps, strict=True)]
    with Workers(len(requests)) as workers:
        some = requests[:: max(1, len(requests) // NUM_HEADERS)]
        agreed = _agree(workers.ask(some, "reading headers"), how)
        pool = None
        while pool is None:
            shape, options = agreed
            with store.new_pool((len(names), *shape)) as (path, keep):
                answers = workers.ask(_placed(requests, path, shape, options), "decoding images")
                agreed = _agree(answers, how)
                pool = keep() if agreed == (shape, options) else None
    known = {
        "problems": {row: answer["problem"] for row, answer in enumerate(answers) if "problem" in answer},
        "notes": {row: answer["notes"] for row, answer in enumerate(answers) if answer.get("notes")},
        "digests": ["" if "problem" in answer else answer["digest"] for answer in answers],
    }
    store.write_decoded(key, pool, known)


def _agree(answers: list[dict[str, Any]], how: Preparation) -> tuple[list[int], dict[str, Any]]:
    """Return the shape (height, width, channels) that all good images get, and the options that give it."""
    good = [answer for answer in answers if "problem" not in answer]
    sizes = {tuple(answer["size_px"]) for answer in good}
    size = _side(sizes, how)
    width, height = (size, size) if size else min(sizes)
    height -= 0 if size else how.cut_bottom_px
    num_channels = 1 if good and all(answer["is_grey"] for answer in good) else 3
    options = {"image_size": size, "crop": how.crop, "cut_bottom_px": how.cut_bottom_px, "num_channels": num_channels}
    return [max(height, 1), width, num_channels], options


def _side(sizes: set[tuple[int, int]], how: Preparation) -> int | None:
    """Return the side of the square that images of these sizes become; None where they stay as they are."""
    if how.image_size is None and len(sizes) == 1 and how.crop == 1:
        return how.max_size if how.max_size and min(min(sizes)) > how.max_size else None
    return how.image_size or how.max_size or DEFAULT_SIZE_PX


def _placed(
    requests: list[dict[str, Any]], path: Path, shape: list[int], options: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the requests with how to decode each image, and its place in images.npy."""
    length = int(np.prod(shape))
    start = os.path.getsize(path) - len(requests) * length  # of the first image, behind the header
    what = {"options": options, "shape": shape, "out": str(path)}
    return [request | what | {"offset": start + row * length} for row, request in enumerate(requests)]


def _stamp(path: Path) -> list[int]:
    """What tells that a file is as it was: size and times; ctime too, which nobody can set back."""
    try:
        found = os.stat(path)
    except OSError:
        return [0, 0, 0]  # the worker says what is wrong with it
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _settle(stamps: list[list[int]]) -> None:
    """Wait until a file that is written again is sure to get another time: clocks of files tick every 10 ms or so."""
    newest = max((stamp[2] for stamp in stamps), default=0)
    if 0 < time.time_ns() - newest < 30_000_000:
        time.sleep(0.03)
