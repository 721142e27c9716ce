"""Decoded once, mapped by all, never trusted blindly."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tunekit.datasets import Dataset, load_dataset, open_dataset, publish
from tunekit.datasets.cache import clear, entries
from tunekit.errors import DataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("own")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "tunekit"


@pytest.fixture
def arrays():
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    return Dataset.from_arrays(train=(images, np.arange(60) % 3), classes=("a", "b", "c"))


def pools(own_cache):
    return sorted(path.name for path in (own_cache / "pools").iterdir())


def test_what_is_opened_is_what_was_published(arrays):
    opened = open_dataset(publish(arrays))
    assert opened.summary() == arrays.summary()
    assert isinstance(opened.train.all_images, np.memmap)
    for split in ("train", "val", "test"):
        assert np.array_equal(getattr(opened, split).images, getattr(arrays, split).images)
        assert np.array_equal(getattr(opened, split).targets, getattr(arrays, split).targets)


def test_torch_takes_the_map_without_a_warning_and_changes_stay_in_memory(arrays):
    path = publish(arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.from_numpy(open_dataset(path).train.all_images)[:] = 0
    assert open_dataset(path).train.all_images.any()


def test_images_are_stored_once_whatever_the_splits(arrays, own_cache, pets):
    publish(arrays)
    images, targets = arrays.train.all_images, arrays.train.all_targets
    publish(Dataset.from_arrays(train=(images, targets), split_seed=7))
    assert len(pools(own_cache)) == 1
    for seed in range(3):
        publish(load_dataset(pets, split_seed=seed))
    assert len(pools(own_cache)) == 2


def test_other_words_for_the_same_pixels_are_another_entry(arrays):
    renamed = Dataset.from_arrays(train=(arrays.train.all_images, arrays.train.all_targets), classes=("x", "y", "z"))
    assert renamed.fingerprint == arrays.fingerprint
    assert open_dataset(publish(arrays)).classes == ("a", "b", "c")
    assert open_dataset(publish(renamed)).classes == ("x", "y", "z")


def test_a_folder_is_decoded_once(photos):
    def timed():
        started = time.monotonic()
        dataset = load_dataset(photos)
        return dataset.fingerprint, time.monotonic() - started

    (first, slow), (second, fast) = timed(), timed()
    assert first == second and fast < slow / 2


def test_a_changed_file_is_decoded_again(pets, draw):
    before = load_dataset(pets)
    draw("cat/0.png")
    draw("cat/spare.png", "cat/0.png")
    assert load_dataset(pets).fingerprint != before.fingerprint


@pytest.mark.parametrize("damage", ["cut", "gone", "header", "json", "hash"])
def test_damaged_entries_are_made_again(pets, own_cache, damage):
    before = load_dataset(pets)
    pixels, path = before.train.images, publish(before)
    pool = own_cache / "pools" / pools(own_cache)[0]
    images, described = pool / "images.npy", pool / "pool.json"
    if damage == "cut":
        os.truncate(images, images.stat().st_size // 2)
    elif damage == "gone":
        images.unlink()
    elif damage == "header":
        images.write_bytes(b"x" * images.stat().st_size)
    elif damage == "json":
        described.write_text(described.read_text()[:10])
    else:
        described.write_text(json.dumps(json.loads(described.read_text()) | {"hash": "0"}))
    with pytest.raises(DataError, match="no whole dataset"):
        open_dataset(path)
    again = load_dataset(pets)
    assert again.fingerprint == before.fingerprint and np.array_equal(again.train.images, pixels)
    assert open_dataset(publish(again)).fingerprint == before.fingerprint


def test_a_pixel_that_changed_in_the_cache_is_decoded_again(pets, own_cache):
    before = load_dataset(pets)
    pixels = before.train.images
    pool = own_cache / "pools" / pools(own_cache)[0] / "images.npy"
    content = pool.read_bytes()
    pool.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    again = load_dataset(pets)
    assert again.fingerprint == before.fingerprint and np.array_equal(again.train.images, pixels)
    assert pool.read_bytes() == content


def test_above_its_limit_the_cache_loses_what_was_not_used_for_longest(arrays, own_cache, monkeypatch):
    images, targets = arrays.train.all_images, arrays.train.all_targets
    kept = [open_dataset(publish(Dataset.from_arrays(train=(255 - images // each, targets)))) for each in (1, 2, 3)]
    names = [Path(dataset.train.all_images.filename).parent.name for dataset in kept]
    for hours, name in ((72, names[0]), (48, names[1])):
        used = time.time() - hours * 3600
        os.utime(own_cache / "pools" / name / "pool.json", (used, used))
    room = sum(entry["size_gb"] for entry in entries()) - images.nbytes / 2e9
    monkeypatch.setenv("TUNEKIT_CACHE_GB", str(room + images.nbytes / 1e9))
    publish(arrays)  # half a pool too much: the oldest goes
    assert names[0] not in pools(own_cache) and set(names[1:]) < set(pools(own_cache))
    monkeypatch.setenv("TUNEKIT_CACHE_GB", "0")
    publish(Dataset.from_arrays(train=(images // 4, targets)))  # far too much, but what was used today stays
    assert names[1] not in pools(own_cache) and names[2] in pools(own_cache)


def test_a_process_killed_while_it_decodes_leaves_nothing_in_the_way(photos, own_cache):
    code = f"from tunekit.datasets import *; load_dataset({str(photos)!r})"
    process = subprocess.Popen(["nice", "-n", "19", sys.executable, "-c", code])  # so that it is seen in time
    while process.poll() is None and not list((own_cache / "pools").glob(".new-*/pool/images.npy")):
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not [entry for entry in entries() if entry["kind"] == "files"]
    assert load_dataset(photos).num_images == {"train": 270, "val": 30, "test": 100}


def test_a_pickle_in_the_cache_is_not_read(arrays, own_cache, tmp_path):
    """An array of objects holds a pickle; it would run on being read."""

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    path = publish(arrays)
    np.save(path / "targets.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    size = (path / "targets.npy").stat().st_size
    described = json.loads((path / "dataset.json").read_text())
    described["bytes"]["targets.npy"] = size
    (path / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match="allow_pickle"):
        open_dataset(path)
    assert not (tmp_path / "ran").exists()


def waiting_for_locks():
    """What Linux says of the processes that wait for a lock on a file."""
    return "\n".join(line for line in Path("/proc/locks").read_text().splitlines() if "->" in line)


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="nobody says here who waits for a lock")
def test_of_two_processes_at_once_one_decodes(photos, own_cache):
    code = f"from tunekit.datasets import *; print(publish(load_dataset({str(photos)!r})))"
    begin = partial(
        subprocess.Popen, ["nice", "-n", "19", sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )

    def decoding():
        return len(list((own_cache / "pools").glob(".new-*")))

    started = [begin()]
    until = time.monotonic() + 60
    while started[0].poll() is None and not decoding():
        time.sleep(0.001)
    started[0].send_signal(signal.SIGSTOP)  # in the middle of it
    started.append(begin())
    while f" {started[1].pid} " not in waiting_for_locks() and decoding() < 2 and time.monotonic() < until:
        time.sleep(0.01)
    num_decoding = decoding()
    started[0].send_signal(signal.SIGCONT)
    assert num_decoding == 1
    paths = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0] * 2
    assert len(paths) == 1 and len(pools(own_cache)) == 1
    assert open_dataset(paths.pop().strip()).num_images["train"] == 270


def test_only_the_owner_may_look(arrays, own_cache):
    publish(arrays)
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in own_cache.rglob("*") if path.is_dir())
    own_cache.chmod(0o777)
    with pytest.raises(DataError, match="others may write"):
        publish(arrays)
    own_cache.chmod(0o700)


def test_list_and_clear(arrays, pets, own_cache):
    publish(arrays)
    publish(load_dataset(pets))
    assert {entry["kind"] for entry in entries()} == {"pools", "datasets", "files"}
    assert {entry["name"] for entry in entries() if entry["kind"] == "datasets"} == {"arrays", pets.name}
    opened = open_dataset(publish(arrays))
    assert clear() > 0 and entries() == []
    assert opened.train.images.any()  # a map outlives its file


def test_a_cache_that_cannot_be_made(arrays, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match="set XDG_CACHE_HOME"):
        publish(arrays)


def test_a_description_cannot_be_published(arrays):
    with pytest.raises(DataError, match="without data"):
        publish(Dataset.from_summary(arrays.summary()))
