"""Place Pulse: the published layout read right, and everything that can be wrong with it named."""

import dataclasses
import inspect
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tunekit.datasets import check, load_dataset, open_dataset, publish
from tunekit.datasets.decoding import Preparation
from tunekit.datasets.listing import read
from tunekit.datasets.placepulse import find_folder, list_placepulse, placepulse
from tunekit.datasets.placepulse_tables import STUDIES
from tunekit.errors import ConfigError, DataError, UnknownNameError
from tunekit.metrics import pairwise_accuracy
from tunekit.preprocessing import IMAGENET_MEAN, IMAGENET_STD

SAFER, BORING = "50a68a51fdc9f05596000002", "50f62c68a84ea7c5fdd2e456"
CITIES = [f"City{letter}" for letter in "ABCDEFGHIJ"]


def location(number):
    return f"{number:08x}fdc9f03587000000"


def write(folder, count=100, size=(40, 30)):
    """Write a folder in Place Pulse's layout: two studies, ten cities, votes; returns the safer scores in order."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    scores, votes = [], []
    for number in range(count):
        suffix = ("JPG", "jpg", "JPEG")[number % 3]
        name = f"{random.uniform(-60, 60):.6f}_{-number}.5_{location(number)}_{CITIES[number % 10]}.{suffix}"
        Image.fromarray(random.integers(0, 256, (*size[::-1], 3), np.uint8)).save(folder / "images" / name)
        for study in (SAFER, BORING):
            scores.append((f"id{number}", location(number), 5, study, random.normal(25, 8), 3.5))
    for _ in range(count * 20):
        left, right = random.integers(0, count, 2)
        votes.append((random.choice(["left", "right", "equal"]), location(left), location(right), SAFER))
        votes.append((random.choice(["left", "right"]), location(left), location(right), BORING))
    columns = ["_id", "location_id", "num_votes", "study_id", "trueskill.score", "trueskill.stds.-1"]
    frame = pd.DataFrame(scores, columns=columns)
    frame.to_csv(folder / "qscores.tsv", sep="\t")
    pd.DataFrame(votes, columns=["choice", "left", "right", "study_id"]).to_csv(folder / "votes.tsv", sep="\t")
    return frame[frame["study_id"] == SAFER]["trueskill.score"].to_numpy()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder that nothing is wrong with; not to be changed."""
    folder = tmp_path_factory.mktemp("placepulse") / "place-pulse-2.0"
    write(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """A copy to break."""
    return shutil.copytree(whole, tmp_path / "place-pulse-2.0")


def edit(path, change):
    """Rewrite a table with what `change` makes of it."""
    frame = pd.read_csv(path, sep="\t", index_col=0)
    change(frame).to_csv(path, sep="\t")


def rows_of(dataset):
    return {split: set(getattr(dataset, split).rows.tolist()) for split in ("train", "val", "test")}


def test_splits_are_65_5_30_and_disjoint(whole):
    dataset = placepulse(whole)
    assert dataset.num_images == {"train": 65, "val": 5, "test": 30}
    assert len(set.union(*rows_of(dataset).values())) == 100
    assert dataset.task == "regression" and dataset.num_outputs == 1 and dataset.image_shape == (3, 64, 64)
    other = placepulse(whole, split_seed=1, val_fraction=0.2, test_fraction=0.2)
    assert other.num_images == {"train": 60, "val": 20, "test": 20}
    assert rows_of(placepulse(whole)) == rows_of(dataset) != rows_of(placepulse(whole, split_seed=1))


def test_scores_are_scaled_with_the_train_splits_range_and_not_clipped(whole):
    scores = {location(number): score for number, score in enumerate(write_scores(whole))}
    outside = 0
    for seed in range(8):
        dataset = placepulse(whole, split_seed=seed)
        raw = np.array([scores[name.split("_")[2]] for name in dataset.names])
        low, high = raw[dataset.train.rows].min(), raw[dataset.train.rows].max()
        assert np.allclose(dataset.train.all_targets, 1 + 9 * (raw - low) / (high - low), atol=1e-4)
        assert (dataset.train.targets.min(), dataset.train.targets.max()) == (1, 10)
        assert dataset.target_mean == pytest.approx(dataset.train.targets.mean(), abs=1e-5)
        outside += ((dataset.test.targets < 1) | (dataset.test.targets > 10)).sum()
    assert outside > 0


def write_scores(folder):
    frame = pd.read_csv(folder / "qscores.tsv", sep="\t")
    return frame[frame["study_id"] == SAFER]["trueskill.score"].to_numpy()


@pytest.mark.parametrize("given", ["more boring", "boring", "More_Boring", "more-boring", BORING])
def test_a_study_by_any_of_its_names(whole, given):
    assert placepulse(whole, study=given).fingerprint == placepulse(whole, study="more boring").fingerprint
    assert placepulse(whole, study=given).fingerprint != placepulse(whole).fingerprint


def test_an_unknown_study_and_other_choices(whole):
    with pytest.raises(UnknownNameError, match=r"unknown study 'saver': did you mean 'safer'\?") as caught:
        placepulse(whole, study="saver")
    assert all(word in str(caught.value) for pair in STUDIES.items() for word in pair)
    for option in ({"split_by": "country"}, {"preprocessing": "vgg"}, {"crop_logo": "yes"}):
        with pytest.raises(ConfigError, match="must be one of"):
            placepulse(whole, **option)
    with pytest.raises(ConfigError, match="has no option 'studdy': did you mean 'study'"):
        load_dataset("placepulse", data_dir=whole, studdy="safer")


def test_split_by_city_keeps_cities_together(whole):
    for seed in range(5):
        dataset = placepulse(whole, split_by="city", val_fraction=0.1, split_seed=seed)
        cities = [
            {dataset.names[row].split("_")[3].split(".")[0] for row in getattr(dataset, split).rows}
            for split in ("train", "val", "test")
        ]
        assert sum(map(len, cities)) == len(set.union(*cities)) == 10
        assert dataset.num_images == {"train": 60, "val": 10, "test": 30}


@pytest.mark.parametrize(("size", "most"), [((300, 300), 0.6), ((400, 300), 2.5)])
def test_resnet_preprocessing_is_torchvisions(tmp_path, size, most):
    """Resize to 256, crop the central 224, in one step. Where torchvision's crop is half a pixel off the centre
    (341 px wide, 224 of them), ours is not: that much they may differ."""
    from torchvision import transforms

    write(tmp_path / "p", 8)
    for path in (tmp_path / "p/images").iterdir():  # smooth, as photographs are
        Image.open(path).resize((20, 15)).resize(size, Image.Resampling.BICUBIC).save(path, quality=95)
    dataset = placepulse(tmp_path / "p", preprocessing="resnet")
    theirs = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    for row, name in enumerate(dataset.names):
        expected = np.asarray(theirs(Image.open(tmp_path / "p" / name).convert("RGB")), float)
        assert np.abs(dataset.train.all_images[row] - expected).mean() < most
    assert (dataset.mean, dataset.std) == (IMAGENET_MEAN, IMAGENET_STD) == (dataset.test.mean, dataset.test.std)
    normalize = transforms.Compose([transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    row = dataset.train.rows[0]
    assert torch.allclose(dataset.train[0][0], normalize(Image.fromarray(dataset.train.all_images[row])), atol=1e-5)
    assert placepulse(tmp_path / "p", preprocessing="resnet", image_size=112).image_shape == (3, 112, 112)


def test_crop_logo_cuts_the_footer(tmp_path):
    write(tmp_path / "p", 8, size=(400, 300))
    for path in (tmp_path / "p/images").iterdir():
        image = Image.open(path)
        image.paste((255, 0, 0), (0, 275, 400, 300))
        image.save(path, quality=95)
    with_logo, without = (placepulse(tmp_path / "p", crop_logo=crop, image_size=100) for crop in (False, True))
    assert with_logo.train.images[:, -1, :, 1].max() < 40 < 100 < without.train.images[:, -1, :, 1].mean()


def test_comparisons_are_the_votes_between_test_images(whole):
    dataset = placepulse(whole)
    votes = pd.read_csv(whole / "votes.tsv", sep="\t")
    row_of = {name.split("_")[2]: row for row, name in enumerate(dataset.names)}
    test, expected = rows_of(dataset)["test"], []
    for vote in votes.itertuples():
        left, right = row_of[vote.left], row_of[vote.right]
        if vote.study_id == SAFER and vote.choice != "equal" and {left, right} <= test and left != right:
            expected.append((left, right) if vote.choice == "left" else (right, left))
    assert dataset.comparisons.tolist() == [list(pair) for pair in expected] and len(expected) > 50
    assert dataset.comparisons.dtype == np.int64 and "comparisons" not in dataset.summary()


def test_without_votes_there_are_no_comparisons(folder):
    (folder / "votes.tsv").unlink()
    assert placepulse(folder).comparisons.shape == (0, 2)
    assert load_dataset("digits").comparisons.shape == (0, 2)


def test_pairwise_accuracy_counts_votes(whole):
    dataset = placepulse(whole)
    predicted = torch.from_numpy(np.random.default_rng(1).normal(size=len(dataset.test)).astype(np.float32))
    value_of = dict(zip(dataset.test.rows.tolist(), predicted.tolist(), strict=True))
    right = [value_of[chosen] > value_of[other] for chosen, other in dataset.comparisons.tolist()]
    measured = pairwise_accuracy(predicted[:, None], dataset.test.rows, dataset.comparisons)
    assert measured == pytest.approx(np.mean(right))
    assert pairwise_accuracy(-predicted, dataset.test.rows, dataset.comparisons) == pytest.approx(1 - np.mean(right))
    assert pairwise_accuracy(0 * predicted, dataset.test.rows, dataset.comparisons) == 0  # a tie is not right
    assert np.isnan(pairwise_accuracy(predicted, dataset.test.rows, dataset.comparisons[:0]))
    assert np.isnan(pairwise_accuracy(predicted / 0, dataset.test.rows, dataset.comparisons))


def test_it_is_a_dataset_like_any_other(whole):
    dataset = load_dataset("placepulse", data_dir=whole, study="boring", crop_logo=True, image_size=16)
    again = load_dataset(**dataset.source)
    assert again.fingerprint == dataset.fingerprint and np.array_equal(again.comparisons, dataset.comparisons)
    opened = open_dataset(publish(dataset))
    assert opened.summary() == dataset.summary() and np.array_equal(opened.test.targets, dataset.test.targets)


def test_load_dataset_leaves_the_fractions_to_it(whole):
    assert load_dataset("placepulse", data_dir=whole).num_images == {"train": 65, "val": 5, "test": 30}
    given = load_dataset("placepulse", data_dir=whole, val_fraction=0.1, test_fraction=0.2)
    assert given.num_images == {"train": 70, "val": 10, "test": 20}
    assert load_dataset(**given.source).fingerprint == given.fingerprint


def test_check_reads_it_too(folder, data):
    assert check(folder) == check(folder, study="boring") == check(data / "placepulse-sample") == []
    next((folder / "images").iterdir()).write_bytes(b"")
    assert [problem.reason for problem in check(folder)] == ["is empty (0 bytes)"]


def test_where_the_folder_is_looked_for(whole, tmp_path, monkeypatch):
    assert placepulse(whole.parent).fingerprint == placepulse(whole).fingerprint
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"{tmp_path}/data is not there.*tunekit download placepulse --data-dir"):
        placepulse()
    shutil.copytree(whole, tmp_path / "data/place-pulse-2.0")
    assert placepulse().num_images["train"] == 65
    assert placepulse(download=True).num_images["train"] == 65  # it is there: nothing is fetched
    with pytest.raises(DataError, match=r"holds neither images/ and qscores.tsv nor a folder place-pulse-2.0"):
        find_folder(whole / "images")


def test_tables_that_are_not_the_published_ones(folder):
    scores = folder / "qscores.tsv"
    text = scores.read_text()
    broken = {
        "unknown column 'trueskill.score': did you mean 'trueskill_score'": text.replace("trueskill.", "trueskill_"),
        "is not separated by tabs": text.replace("\t", ","),
        "has no score of study 'safer'.*it has more boring": text.replace(SAFER, BORING),
        "is no table with tabs, in UTF-8": "",
        "line 2: has no study_id: is the file whole": "\n".join([text.split("\n")[0], "1\t2\t3"]),
        "no table with tabs": text + "\t" * 20 + "\n",
        r"qscores.tsv line 4: has score 'good'": text.replace(text.split("\n")[3].split("\t")[5], "good"),
        r"line 2: has score 'inf'": text.replace(text.split("\n")[1].split("\t")[5], "inf"),
        r"line 2: has score ''": text.replace(text.split("\n")[1].split("\t")[5], ""),
    }
    for match, content in broken.items():
        scores.write_text(content)
        with pytest.raises(DataError, match=match):
            placepulse(folder, on_bad_image="skip")
    scores.write_bytes(b"\xff\xfe" + text.encode("utf-16-le"))
    with pytest.raises(DataError, match="UTF-8"):
        placepulse(folder)
    scores.unlink()
    with pytest.raises(DataError, match=r"there is no qscores.tsv in .*place-pulse-2.0"):
        placepulse(folder)
    scores.write_text(text)
    shutil.rmtree(folder / "images")
    with pytest.raises(DataError, match="has no folder images/"):
        placepulse(folder)


def test_tables_written_a_little_differently_are_read_the_same(folder, whole):
    text = (folder / "qscores.tsv").read_text()
    lines = text.split("\n")
    no_index_name = "\n".join([lines[0].lstrip("\t"), *lines[1:]])  # as R writes it
    for content in (text.replace("\n", "\r\n").encode(), b"\xef\xbb\xbf" + text.encode(), no_index_name.encode()):
        (folder / "qscores.tsv").write_bytes(content)
        assert placepulse(folder).fingerprint == placepulse(whole).fingerprint
    (folder / "qscores.tsv").write_text(text + "\n\n")
    assert placepulse(folder).fingerprint == placepulse(whole).fingerprint


def test_odd_votes(folder):
    edit(folder / "votes.tsv", lambda frame: frame.assign(choice=["both", *frame["choice"][1:]]))
    assert "1 votes were left out, as they are not left, right or equal: line 2 'both'" in placepulse(folder).notes
    edit(folder / "votes.tsv", lambda frame: frame.rename(columns={"left": "a"}))
    with pytest.raises(DataError, match=r"votes.tsv: unknown column 'left'"):
        placepulse(folder)


def test_scored_places_without_an_image(folder):
    paths = sorted((folder / "images").iterdir())[:7]
    for path in paths:
        path.unlink()
    with pytest.raises(DataError, match=r"7 scored places \(.* and 2 more\): without an image(?s:.*)bad_image='skip'"):
        placepulse(folder)
    dataset = placepulse(folder, on_bad_image="skip")
    assert sum(dataset.num_images.values()) == 93
    assert any("7 scored places" in note for note in dataset.notes)


def test_bad_images(folder):
    paths = sorted((folder / "images").iterdir())
    paths[0].write_bytes(paths[0].read_bytes()[:500])
    paths[1].write_bytes(b"")
    paths[2].unlink()
    paths[2].symlink_to("/etc/passwd")
    with pytest.raises(DataError, match=r"(?s)3 problems.*outside the folder.*truncated.*is empty"):
        placepulse(folder)
    assert sum(placepulse(folder, on_bad_image="skip").num_images.values()) == 97
    assert len(list_placepulse(folder).problems) == 1  # the link; the others are found when they are read


def test_files_that_do_not_belong(folder):
    for name in (".DS_Store", "Thumbs.db", "readme.txt", "1.0_2.0.JPG", "x.png"):
        (folder / "images" / name).write_bytes(b"x")
    extra = f"1.0_2.0_{location(500)}_CityA.JPG"
    shutil.copy(next((folder / "images").glob("*_CityA.*")), folder / "images" / extra)
    notes = "\n".join(placepulse(folder).notes)
    assert "3 files were left out, as they are not named <lat>_<lon>" in notes
    assert f"1 images were left out, as no one scored them here: images/{extra}" in notes


def test_a_place_with_two_images_or_scores(folder):
    first = sorted((folder / "images").iterdir())[0]
    shutil.copy(first, first.with_name(f"9{first.name.lstrip('-')}"))
    with pytest.raises(DataError, match="is a second image of the place"):
        placepulse(folder)
    assert sum(placepulse(folder, on_bad_image="skip").num_images.values()) == 100
    first.with_name(f"9{first.name.lstrip('-')}").unlink()

    edit(folder / "qscores.tsv", lambda frame: pd.concat([frame, frame.head(2)]))
    assert any("twice with one score" in note for note in placepulse(folder).notes)
    edit(folder / "qscores.tsv", lambda frame: pd.concat([frame, frame.head(2).assign(**{"trueskill.score": 99})]))
    with pytest.raises(DataError, match=rf"place {location(0)}: has 3 scores"):
        placepulse(folder)
    assert sum(placepulse(folder, on_bad_image="skip").num_images.values()) == 99


def test_too_few_and_nothing_to_learn(tmp_path):
    write(tmp_path / "p", 3)
    with pytest.raises(DataError, match="has 3 images with a score for 'safer': train, val and test need 4"):
        placepulse(tmp_path / "p")
    write(tmp_path / "q", 10)
    edit(tmp_path / "q/qscores.tsv", lambda frame: frame.assign(**{"trueskill.score": 25.0}))
    with pytest.raises(DataError, match="nothing to learn"):
        placepulse(tmp_path / "q")


def test_the_real_images_and_their_scores_are_read(data):
    listing = list_placepulse(data / "placepulse-sample")
    assert listing.targets == [25.9862708308, 16.8931801005] and len(listing.names) == 2
    decoded = read(listing, Preparation())
    assert decoded.images.shape == (2, 300, 400, 3) and not listing.problems and not listing.faults
    for row, name in enumerate(listing.names):
        assert np.array_equal(decoded.images[row], np.asarray(Image.open(listing.root / name).convert("RGB")))


def test_its_options_are_keywords_with_defaults():
    parameters = inspect.signature(placepulse).parameters
    assert [p.default for p in parameters.values()][:5] == [None, "safer", None, False, None]
    assert {field.name for field in dataclasses.fields(Preparation)} == {
        "image_size", "max_size", "crop", "cut_bottom_px",
    }  # fmt: skip
