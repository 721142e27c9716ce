"""Folders of class folders."""

import pytest
from PIL import Image

from tunekit.datasets import check, load_dataset
from tunekit.errors import ConfigError, DataError


def test_real_photographs(photos):
    dataset = load_dataset(photos)
    assert dataset.num_images == {"train": 270, "val": 30, "test": 100}
    assert dataset.image_shape == (3, 32, 32) and len(dataset.classes) == 10
    assert dataset.names[dataset.test.rows[0]].startswith("test/airplane/")
    assert not dataset.notes and check(photos) == []


def test_pixels_and_targets_belong_together(photos):
    dataset = load_dataset(photos)
    for row in dataset.val.rows[:10]:
        name = dataset.names[row]
        assert dataset.classes[dataset.train.all_targets[row]] == name.split("/")[1]
        assert (dataset.train.all_images[row] == Image.open(photos / name)).all()


def test_without_splits(pets):
    dataset = load_dataset(pets)
    assert dataset.num_images == {"train": 14, "val": 2, "test": 4}
    assert dataset.classes == ("cat", "dog")


def test_with_val(draw):
    folder = draw(*(f"{s}/{pet}/{n}.png" for s in ("train", "val", "test") for pet in "ab" for n in range(4)))
    assert load_dataset(folder).num_images == {"train": 8, "val": 8, "test": 8}


def test_folders_within_a_class(draw):
    folder = draw(
        *(f"{pet}/{where}{n}.png" for pet in "ab" for where in ("", "summer/", "winter/x/") for n in range(5))
    )
    assert sum(load_dataset(folder).num_images.values()) == 30


def test_sizes(pets, draw):
    assert load_dataset(pets).image_shape == (3, 12, 12)
    assert load_dataset(pets, image_size=8).image_shape == (3, 8, 8)
    Image.new("RGB", (30, 20)).save(pets / "cat/large.png")
    assert load_dataset(pets).image_shape == (3, 64, 64)


def test_photographs_are_as_large_as_a_search_needs_them(pets, photos):
    assert load_dataset(photos, max_size=24).image_shape == (3, 24, 24)
    assert load_dataset(photos, max_size=32).image_shape == load_dataset(photos, max_size=48).image_shape == (3, 32, 32)
    Image.new("RGB", (30, 20)).save(pets / "cat/large.png")
    assert load_dataset(pets, max_size=16).image_shape == (3, 16, 16)
    assert load_dataset(pets, max_size=96).image_shape == (3, 96, 96)
    assert load_dataset(pets, max_size=96, image_size=8).image_shape == (3, 8, 8)
    assert load_dataset("digits", max_size=4).image_shape == (1, 8, 8)  # no photographs
    with pytest.raises(ConfigError, match="max_size must be a whole number"):
        load_dataset(pets, max_size=0)


def test_resizing_crops_the_middle(pets):
    image = Image.new("RGB", (48, 12), "red")
    image.paste("blue", (18, 0, 30, 12))
    image.save(pets / "cat/wide.png")
    dataset = load_dataset(pets, image_size=12)
    assert (dataset.train.all_images[dataset.names.index("cat/wide.png")] == (0, 0, 255)).all()


def test_all_grey_is_one_channel(tmp_path):
    for number in range(20):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8), number * 10).save(path)
    dataset = load_dataset(tmp_path)
    assert dataset.image_shape == (1, 8, 8)
    assert (dataset.train.all_images[dataset.names.index("b/9.png")] == 90).all()


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "no class folders"),
        (["1.png"], "1.png: lies in no class folder"),
        (["cat/1.png", "cat/2.png"], "one class only"),
        (["cat/1.png", "cat/2.png", "dog/"], "dog: holds no images"),
        (["train/a/1.png", "train/b/1.png", "test/a/2.png"], "test/b: is missing"),
        (["train/a/1.png", "train/b/1.png", "other/x.png"], "other: lies beside train/"),
        (["Train/a/1.png", "Test/a/1.png"], "Train: looks like a split"),
        ([f"{pet}/{number}.png" for pet in "ab" for number in range(2)], "too few to cut"),
        ([f"a/{number}.png" for number in range(7)] + ["b/0.png", "b/1.png"], "every class needs at least one"),
    ],
)
def test_unfit_folders(draw, tmp_path, names, reason):
    draw(*(name for name in names if not name.endswith("/")))
    for name in names:
        if name.endswith("/"):
            (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=reason):
        load_dataset(tmp_path, on_bad_image="skip")


def test_skipping_cannot_empty_a_class(draw):
    folder = draw(*(f"a/{number}.png" for number in range(20)))
    (folder / "b").mkdir()
    for number in range(20):
        (folder / f"b/{number}.png").write_bytes(b"no")
    with pytest.raises(DataError, match="class 'b'"):
        load_dataset(folder, on_bad_image="skip")


def test_wrong_arguments(pets):
    with pytest.raises(ConfigError, match="did you mean 'image_size'"):
        load_dataset(pets, imagesize=3)
    with pytest.raises(ConfigError, match="on_bad_image must be 'error' or 'skip'"):
        load_dataset(pets, on_bad_image="ignore")
    with pytest.raises(ConfigError, match="image_size must be"):
        load_dataset(pets, image_size=0)
    with pytest.raises(DataError, match="test_fraction must lie between 0 and 1"):
        load_dataset(pets, test_fraction=1.5)
