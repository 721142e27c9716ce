"""CSV and TSV tables of path and target."""

import os
import time

import numpy as np
import pytest

from tunekit.cli import main
from tunekit.datasets import check, load_dataset
from tunekit.errors import ConfigError, DataError, TunekitError


@pytest.fixture
def table(draw):
    """A function that writes a table beside 30 images 0.png to 29.png and returns its path."""
    folder = draw(*(f"{number}.png" for number in range(30)))

    def write(text, name="labels.csv"):
        path = folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def lines(target, header="path,target", count=30, separator=","):
    return "\n".join([header] + [f"{n}.png{separator}{target(n)}" for n in range(count)]) + "\n"


def pet(number):
    return "cat" if number % 2 else "dog"


def test_words_are_classes(table):
    dataset = load_dataset(table(lines(pet)))
    assert (dataset.task, dataset.classes) == ("classification", ("cat", "dog"))
    assert dataset.num_images == {"train": 20, "val": 4, "test": 6}
    for row in dataset.train.rows:
        assert dataset.classes[dataset.train.all_targets[row]] == pet(int(dataset.names[row].split(".")[0]))


def test_fractions_are_values(table):
    dataset = load_dataset(table(lines(lambda n: n / 4)))
    assert (dataset.task, dataset.classes, dataset.num_outputs) == ("regression", (), 1)
    assert dataset.train.targets.dtype == np.float32
    for row in dataset.train.rows:
        assert dataset.train.all_targets[row] == int(dataset.names[row].split(".")[0]) / 4


def test_whole_numbers_are_classes_unless_told(table):
    path = table(lines(lambda n: n % 3 * 5))
    assert load_dataset(path).classes == ("0", "5", "10")
    assert load_dataset(path, task="regression").task == "regression"
    with pytest.raises(ConfigError, match="did you mean 'regression'"):
        load_dataset(path, task="regresion")


@pytest.mark.parametrize("text", [
    b"\xef\xbb\xbf" + lines(pet).encode(),
    lines(pet).replace("\n", "\r\n").encode(),
    lines(pet).rstrip("\n").encode(),
    lines(lambda n: f'"{pet(n)}"').encode(),
    lines(lambda n: pet(n) + ",x", "path,target,comment").encode(),
], ids=["byte-order mark", "CRLF", "no last line feed", "quotes", "more columns"])  # fmt: skip
def test_forms_that_are_read(table, text):
    assert load_dataset(table(text)).fingerprint == load_dataset(table(lines(pet), "plain.csv")).fingerprint


def test_tabs_and_other_column_names(table):
    path = table(lines(pet, "file\tlabel", separator="\t"), "labels.TSV")
    dataset = load_dataset(path, path_column="file", target_column="label")
    assert dataset.classes == ("cat", "dog")
    assert load_dataset(**dataset.source).fingerprint == dataset.fingerprint


def test_given_splits(table):
    def target(number):
        return pet(number) + "," + ("test" if number >= 20 else "val" if number >= 16 else "train")

    dataset = load_dataset(table(lines(target, "path,target,split")))
    assert dataset.num_images == {"train": 16, "val": 4, "test": 10}
    assert dataset.test.rows.tolist() == list(range(20, 30))
    other = table(lines(target, "path,target,part"), "other.csv")
    assert load_dataset(other, split_column="part").fingerprint == dataset.fingerprint


@pytest.mark.parametrize(("text", "reason"), [
    (lines(pet, "file,target"), "unknown column 'path'"),
    (lines(pet, "path,traget"), "unknown column 'target': did you mean 'traget'"),
    (lines(pet, "path,target,target"), "column 'target' is there twice"),
    (lines(pet, "path;target", separator=";"), "separated by semicolons: save it with commas"),
    (lines(pet, "path\ttarget", separator="\t"), "separated by tabs: save it with commas"),
    (lines(pet).encode("utf-16"), "line 1 is not UTF-8"),
    (lines(lambda n: "café" if n == 7 else pet(n)).encode("latin-1"), "line 9 is not UTF-8"),
    (lines(pet) + "\0", "line 32 holds a NUL"),
    (lines(pet) + '"', "line 32 cannot be read as a table"),
    (lines(pet) + "x" * 200_000 + ",cat\n", "line 32 cannot be read as a table: field larger"),
    ("", "unknown column 'path'"),
    ("path,target\n", "has no lines"),
    (lines(pet) + "9.png\n", "line 32: has 1 fields where the header has 2"),
    (lines(lambda n: "cat"), "one|the same target in every line"),
    (lines(lambda n: 0.5), "the same target in every line"),
    (lines(lambda n: "nan" if n == 3 else n / 4), "line 5: has no target"),
    (lines(lambda n: "" if n == 3 else pet(n)), "line 5: has no target"),
    (lines(lambda n: "inf" if n == 3 else n / 4), "line 5: has target 'inf': it must be a finite"),
    (lines(lambda n: "1e400" if n == 3 else n / 4), "line 5: has target '1e400': it must be a finite"),
    (lines(lambda n: "ten" if n == 3 else n / 4), "line 5: has target 'ten': it must be a finite number"),
    (lines(lambda n: f"word {n}"), "30 classes in 30 lines: if its targets are numbers"),
    (lines(lambda n: "Cat" if n == 3 else pet(n)), "'Cat' and 'cat' whose names differ in case"),
    (lines(pet) + "3.png,cat\n", "line 32: repeats line 5"),
    (lines(pet) + "./3.png,cat\n", "line 32: repeats line 5"),
    (lines(pet) + "3.png,dog\n", "line 32: says 'dog' of 3.png, of which line 5 said 'cat'"),
    (lines(pet) + "../x.png,cat\n", "line 32: has path '../x.png': it must lie inside"),
    (lines(pet) + "/etc/passwd,cat\n", "line 32: has path '/etc/passwd': it must lie inside"),
    (lines(pet) + "gone.png,cat\n", "line 32: gone.png: cannot be read: No such file"),
    (lines(pet) + ".,cat\n", "line 32: .: is not a regular file"),
    (lines(lambda n: f"{pet(n)},dev", "path,target,split"), "has split 'dev': it must be train, val or test"),
    (lines(lambda n: f"{pet(n)},test", "path,target,split"), "has no line of the train split"),
])  # fmt: skip
def test_forms_that_are_refused(table, text, reason):
    path = table(text)
    with pytest.raises(TunekitError, match=reason):
        load_dataset(path)


def test_links_out_of_the_folder(table, tmp_path_factory):
    outside = tmp_path_factory.mktemp("elsewhere") / "x.png"
    path = table(lines(pet) + "out.png,cat\ndir/x.png,cat\n")
    outside.write_bytes((path.parent / "0.png").read_bytes())
    (path.parent / "out.png").symlink_to(outside)
    (path.parent / "dir").symlink_to(outside.parent)
    assert [problem.file for problem in check(path)] == ["labels.csv line 32", "labels.csv line 33"]


def test_pipes_are_never_opened(table):
    path = table(lines(pet) + "pipe.png,cat\n")
    os.mkfifo(path.parent / "pipe.png")
    assert check(path) == [("labels.csv line 32: pipe.png", "is not a regular file")]


def test_everything_is_listed_at_once_and_bad_images_can_be_skipped(table):
    path = table(lines(pet))
    (path.parent / "4.png").write_bytes(b"")
    (path.parent / "5.png").unlink()
    with pytest.raises(DataError) as caught:
        load_dataset(path)
    assert "labels.csv line 6: 4.png: is empty" in str(caught.value) and "line 7: 5.png: cannot be" in str(caught.value)
    dataset = load_dataset(path, on_bad_image="skip")
    assert sum(dataset.num_images.values()) == 28 and len(dataset.notes) == 2


def test_many_bad_lines_take_seconds(table):
    path = table("path,target\n" + "".join(f"gone{n}.png,{pet(n)}\n" for n in range(100_000)))
    started = time.monotonic()
    with pytest.raises(DataError, match="and 99980 more"):
        load_dataset(path)
    assert time.monotonic() - started < 10


def test_check_takes_the_names_of_columns(table, capsys):
    path = table(lines(pet, header="photo,kind"))
    with pytest.raises(DataError, match="unknown column 'path'"):
        check(path)
    assert check(path, path_column="photo", target_column="kind") == []
    with pytest.raises(ConfigError, match="did you mean 'path_column'"):
        check(path, path_colum="photo")
    with pytest.raises(ConfigError, match="unknown option 'target_column': Known: none"):
        check(path.parent, target_column="kind")
    main(["check", str(path), "--option", "path_column=photo", "--option", "target_column=kind"])
    assert "no problems" in capsys.readouterr().out
