"""Data behind a URL: fetched once per machine, into its cache."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from tunekit.datasets.store import aside, cache_folder, locked, make_room, read_json, sizes_match, write_json
from tunekit.errors import DataError
from tunekit.storage import Storage, as_place, parted

AT_ONCE = 16  # files: most of the time of a small one is waiting


def on_this_machine(place: str | Path) -> Path:
    """Return the absolute path of a folder or file, or of this machine's copy of a folder that a URL names.

    The first process that asks fetches the folder; the others wait for it. What has changed there since, by the names
    and sizes of its files, is fetched anew.

    Raises:
        DataError: there is nothing at the URL, or a file there has a name that leads out of the folder.
        StorageError: it cannot be reached.
    """
    place = as_place(place)
    if isinstance(place, Path):
        return place.expanduser().absolute()
    storage = Storage(place)
    sizes = storage.sizes()
    if not sizes:
        raise DataError(f"there are no files at {place}: give the URL of a folder that has some")
    for name in sizes:
        if ".." in PurePosixPath(name).parts or "\0" in name or PurePosixPath(name).is_absolute():
            raise DataError(f"{place} holds a file named {name!r}, which leads out of its folder: rename it")
    key = hashlib.blake2b(json.dumps([place, sorted(sizes.items())]).encode(), digest_size=16).hexdigest()
    folder = cache_folder() / "fetched" / key
    with locked(f"fetched-{key}"):
        described = read_json(folder / "fetched.json")
        if described is None or not sizes_match(folder, described):
            _fetch(storage, sizes, folder)
    return folder / parted(place)[1]


def _fetch(storage: Storage, sizes: dict[str, int], folder: Path) -> None:
    make_room(sum(sizes.values()))
    called = parted(storage.url)[1]
    with aside(folder) as new, ThreadPoolExecutor(AT_ONCE) as pool:
        for name in sizes:
            (new / called / name).parent.mkdir(parents=True, exist_ok=True)
        for _ in pool.map(lambda name: storage.get(name, new / called / name), sizes):
            pass
        described = {f"{called}/{name}": size for name, size in sizes.items()}
        write_json(new / "fetched.json", {"name": storage.url, "bytes": described})
