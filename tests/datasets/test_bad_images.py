"""No bad or odd file changes silently, crashes or hangs: it is read right, or refused with name and reason."""

import os
import re
import socket
import subprocess
import sys
import time

import bad_images
import numpy as np
import pytest

from tunekit.datasets import check, load_dataset
from tunekit.datasets.images import BadImage, decode
from tunekit.datasets.listing import shown
from tunekit.errors import DataError

CASES = bad_images.cases()
FAMILIES = sorted({case.family for case in CASES})


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """All cases in one folder, read once: their problems by name, and the dataset without the bad ones."""
    folder = tmp_path_factory.mktemp("gallery")
    bad_images.write(folder, CASES)
    problems = {problem.file: problem.reason for problem in check(folder)}
    return folder, problems, load_dataset(folder, on_bad_image="skip")


def named(number, case):
    return shown(f"{'ab'[number % 2]}/{case.name}")


def test_there_are_enough():
    assert len(FAMILIES) >= 18 and len(CASES) + 100 >= 500  # and 100 flipped JPEGs below


@pytest.mark.parametrize("family", FAMILIES)
def test_each_is_read_right_or_refused(gallery, family):
    _, problems, dataset = gallery
    row_of = {name: row for row, name in enumerate(dataset.names)}
    for number, case in enumerate(CASES):
        name = named(number, case)
        if case.family != family:
            continue
        if case.pixels is None:
            assert re.search(case.reason, problems[name]), name
            assert any(note.startswith(f"left out {name}: ") for note in dataset.notes)
        else:
            assert name not in problems
            assert np.array_equal(dataset.train.all_images[row_of[name]], case.pixels), name
        if case.note:
            assert any(case.note in note for note in dataset.notes), name


def test_all_are_listed_before_any_training(gallery):
    folder, problems, _ = gallery
    with pytest.raises(DataError) as caught:
        load_dataset(folder)
    text = str(caught.value)
    assert f"{len(problems)} problems" in text and f"and {len(problems) - 20} more" in text
    assert all(f"{name}: {reason}" in text for name, reason in list(problems.items())[:20])
    text.encode()  # names that are not UTF-8 can be printed


def test_bombs_are_refused_from_their_headers(gallery):
    """The 1.6 thousand million pixels would take 4.8 GB; the decoding process has an address space of 4 GiB."""
    folder, problems, _ = gallery
    started = time.monotonic()
    check(folder)
    assert time.monotonic() - started < 20
    assert "40000 x 40000" in problems["b/bomb-3.png"] or "1600000000" in "".join(problems.values())


def test_flipped_jpegs_are_read_as_they_are_or_refused(tmp_path):
    """JPEG has no checksums: a flip that can be decoded gives another fingerprint."""
    random = np.random.default_rng(1)
    flipped = list(bad_images.jpeg_bit_flips(random))
    for number, data in enumerate(flipped):
        path = tmp_path / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    refused = {problem.file for problem in check(tmp_path)}
    dataset = load_dataset(tmp_path, on_bad_image="skip", image_size=24)
    row_of = {name: row for row, name in enumerate(dataset.names)}
    for number, data in enumerate(flipped):
        name = f"{'ab'[number % 2]}/{number}.jpg"
        try:
            pixels = decode(data, 3, 24)
        except BadImage:
            assert name in refused
        else:
            assert np.array_equal(dataset.train.all_images[row_of[name]], pixels)


def test_one_flipped_bit_changes_the_fingerprint(pets):
    for number in range(10):
        image = bad_images.photo(np.random.default_rng(number))
        (pets / f"cat/{number}.jpg").write_bytes(bad_images.saved(image.resize((12, 12)), "jpeg"))
    before, path = load_dataset(pets), pets / "cat/3.jpg"
    data, found = bytearray(path.read_bytes()), path.stat()
    data[-20] ^= 4
    path.write_bytes(data)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))  # same size, same time: ctime tells
    assert load_dataset(pets, on_bad_image="skip").fingerprint != before.fingerprint


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (3, 5)])
def test_extreme_shapes(pets, size):
    image = bad_images.photo(np.random.default_rng(0)).resize(size)
    (pets / "cat/odd.png").write_bytes(bad_images.saved(image, "png"))
    assert load_dataset(pets).image_shape == (3, 64, 64)


def test_hidden_and_system_files_are_passed_over(pets):
    before = load_dataset(pets)
    for name in (".DS_Store", "._0.png", "Thumbs.db", "desktop.ini", ".hidden/x.png"):
        for folder in (pets, pets / "cat"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"rubbish")
    (pets / "__MACOSX").mkdir()
    assert check(pets) == []
    after = load_dataset(pets)
    assert (after.fingerprint, after.notes) == (before.fingerprint, ())


def test_other_files_are_noted(pets):
    (pets / "cat/README.txt").write_text("cats")
    (pets / "labels.csv").write_text("x")
    notes = " ".join(load_dataset(pets).notes)
    assert "cat/README.txt" in notes and "labels.csv" in notes


def test_links(pets, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    outside.write_bytes((pets / "cat/0.png").read_bytes())
    (pets / "cat/loop").symlink_to("loop")
    (pets / "cat/up").symlink_to("..")
    (pets / "cat/nowhere.png").symlink_to("gone.png")
    (pets / "cat/out.png").symlink_to(outside)
    (pets / "cat/again.png").symlink_to("0.png")
    os.link(pets / "cat/1.png", pets / "cat/hard.png")
    (pets / "dog/other.png").symlink_to("../cat/2.png")
    (pets / "link").symlink_to("cat")
    started = time.monotonic()
    reasons = {problem.file: problem.reason for problem in check(pets)}
    assert time.monotonic() - started < 5
    assert set(reasons) == {"cat/loop", "cat/up", "cat/nowhere.png", "cat/out.png", "dog/other.png", "link"}
    assert "outside" in reasons["cat/out.png"] and "nowhere" in reasons["cat/nowhere.png"]
    dataset = load_dataset(pets, on_bad_image="skip")
    assert sum(dataset.num_images.values()) == 20
    assert any("taken once" in note and "cat/again.png" in note for note in dataset.notes)


def test_pipes_sockets_and_devices_are_never_opened(pets):
    os.mkfifo(pets / "cat/pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(pets / "cat/socket.png"))
    expected = {"cat/pipe.png": "is a pipe, not a file", "cat/socket.png": "is a socket, not a file"}
    try:
        os.mknod(pets / "dog/device.png", 0o20600, os.makedev(1, 5))  # /dev/zero has no end
        expected["dog/device.png"] = "is a device, not a file"
    except PermissionError:
        pass  # only root may make one
    assert dict(check(pets)) == expected


def test_unreadable_files_and_folders_are_listed(pets):
    (pets / "cat/0.png").chmod(0)
    (pets / "dog/closed").mkdir(mode=0)
    command = [sys.executable, "-c", "import sys; from tunekit.datasets import check; print(check(sys.argv[1]))", pets]
    if os.geteuid() == 0:  # root reads everything, but not without this right
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", *command]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("root reads everything here, and there is no setpriv to take that right away")
    assert "cat/0.png', reason='cannot be read: Permission denied" in found
    assert "dog/closed', reason='cannot be read: Permission denied" in found


def test_a_class_in_two_spellings(draw):
    names = ["Cat", "cat", "dog", "do g", "caf\u00e9", "cafe\u0301"]
    folder = draw(*(f"{name}/{number}.png" for name in names for number in range(10)))
    with pytest.raises(DataError, match="differ in case, spaces or Unicode form") as caught:
        load_dataset(folder, on_bad_image="skip")
    assert all(repr(name) in str(caught.value) for name in names[:4])


def test_the_same_image_in_train_and_test(draw):
    folder = draw(*(f"{s}/{pet}/{number}.png" for s in ("train", "test") for pet in "ab" for number in range(10)))
    (folder / "train/a/copy.png").write_bytes((folder / "test/a/3.png").read_bytes())
    with pytest.raises(DataError, match=r"train/a/copy\.png: is the same image as test/a/3\.png, in the test split"):
        load_dataset(folder)
    dataset = load_dataset(folder, on_bad_image="skip")
    assert dataset.num_images["test"] == 20
    assert any("train/a/copy.png" in note for note in dataset.notes)


def test_copies_in_one_split_and_in_two_classes(pets):
    (pets / "cat/copy.png").write_bytes((pets / "cat/0.png").read_bytes())
    dataset = load_dataset(pets)
    assert sum(dataset.num_images.values()) == 20
    assert any("cat/copy.png" in note for note in dataset.notes)
    (pets / "dog/torn.png").write_bytes((pets / "cat/1.png").read_bytes())
    assert {problem.file for problem in check(pets)} == {"dog/torn.png", "cat/1.png"}
