"""A decoding process: reads requests, one JSON list a line, and answers each request in them with one line.

Run as a program, not imported: it starts in a fifth of a second because it needs neither torch nor tunekit, a script
without `if __name__ == "__main__"` can use it (multiprocessing would run such a script again), and a decoder that
crashes, hangs or asks for all memory takes one image with it and not the search.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import resource
import signal
import stat
import sys
from pathlib import Path
from typing import Any

MAX_MEMORY = 4 << 30  # bytes of address space; 50 million pixels need under 1 GiB
MAX_SECONDS = 60  # for one image


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends us
    images = _load_images()
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    print("ready", flush=True)
    for line in sys.stdin:
        for request in json.loads(line):
            signal.alarm(MAX_SECONDS)  # unhandled on purpose: it ends the process even inside a C decoder
            print(json.dumps(_answer(images, request)), flush=True)
            signal.alarm(0)


def _answer(images: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Return what a file's header says, and {"problem": ...} when it is bad; decode it into its place, if it has one.

    An image of another shape than was guessed is not written: all of them get another place then.
    """
    about: dict[str, Any] = {}
    try:
        data, changed = _read(request["path"], request["stamp"])
        if changed:
            return {"problem": "changed while it was read"}
        about = images.probe(data) | {"digest": hashlib.blake2b(data, digest_size=16).hexdigest()}
        if "out" not in request or (request["shape"][2] == 1 and not about["is_grey"]):
            return about
        pixels = images.decode(data, **request["options"])
        _check_size(images, pixels, about, request["options"])
        if list(pixels.shape) == request["shape"]:
            descriptor = os.open(request["out"], os.O_WRONLY)
            os.pwrite(descriptor, pixels.tobytes(), request["offset"])
            os.close(descriptor)
        return about
    except images.BadImage as error:
        return about | {"problem": str(error)}
    except MemoryError:
        return about | {"problem": "needs more memory than one image may take"}
    except OSError as error:
        return about | {"problem": f"cannot be read: {error.strerror or error}"}


def _check_size(images: Any, pixels: Any, about: dict[str, Any], options: dict[str, Any]) -> None:
    """Raise BadImage where an image that keeps its size is not of the one in its header."""
    width, height = about["size_px"]
    announced = (height - options["cut_bottom_px"], width)
    if options["image_size"] is None and pixels.shape[:2] != announced:
        raise images.BadImage(f"is of {pixels.shape[:2]} px where its header announced {announced}")


def _read(path: str, stamp: list[int]) -> tuple[bytes, bool]:
    """Return a regular file's bytes, and whether it is another than when it was listed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe that took a file's place must not make us wait
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        changed = not stat.S_ISREG(found.st_mode) or [found.st_size, found.st_mtime_ns, found.st_ctime_ns] != stamp
        return (b"", True) if changed else (file.read(), False)


def _load_images() -> Any:
    """Import images.py from its file: `import tunekit.datasets.images` would import all of tunekit."""
    spec = importlib.util.spec_from_file_location("images", Path(__file__).with_name("images.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
