"""Place Pulse 2.0: street views, each with a score for how safe (lively, boring, ...) people find the place.

    place-pulse-2.0/
      images/<lat>_<lon>_<location_id>_<City>.JPG      400 x 300 px
      qscores.tsv     location_id, study_id, trueskill.score, ...: a row per place and study
      votes.tsv       left, right, choice, study_id: what people answered; may be absent

Source: Dubey et al. 2016, "Deep Learning the City", arXiv:1608.01769.
"""

import dataclasses
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np

from tunekit.datasets import files
from tunekit.datasets.archive import unpack
from tunekit.datasets.base import Dataset
from tunekit.datasets.decoding import DEFAULT_SIZE_PX, Preparation
from tunekit.datasets.download import fetch
from tunekit.datasets.listing import Listing, Problem, finish, read, shown, some
from tunekit.datasets.loading import register_dataset
from tunekit.datasets.placepulse_tables import STUDIES, comparisons_between, scores_of, study_id_of
from tunekit.errors import ConfigError, DataError
from tunekit.preprocessing import IMAGENET_MEAN, IMAGENET_STD

FOLDER = "place-pulse-2.0"
URL = "https://www.dropbox.com/s/grzoiwsaeqrmc1l/place-pulse-2.0.zip?dl=1"  # what projects that read this data fetch
NAME = re.compile(r"[^_]+_[^_]+_(?P<location>[^_]+)_(?P<city>.+)\.jpe?g", re.IGNORECASE | re.DOTALL)
LOGO_PX = 25  # Google's footer
RESNET_PX, RESNET_SHORTER_PX = 224, 256
CHOICES = {"split_by": (None, "city"), "preprocessing": (None, "resnet"), "crop_logo": (True, False)}


@register_dataset("placepulse")
def placepulse(
    data_dir: str | None = None,
    study: str = "safer",
    split_by: str | None = None,
    crop_logo: bool = False,
    preprocessing: str | None = None,
    image_size: int | None = None,
    max_size: int | None = None,
    val_fraction: float = 0.05,
    test_fraction: float = 0.30,
    split_seed: int = 0,
    on_bad_image: str = "error",
    download: bool = False,
) -> Dataset:
    """Return one study of Place Pulse 2.0: 110,988 street views of 56 cities, scored 1 to 10. Splits are 65 / 5 / 30.

    Scores are scaled so that those of the train split run from 1 to 10; val and test scores may lie a little outside,
    and are not clipped: that would make errors there look smaller than they are.

    Args:
        data_dir: the folder with images/ and qscores.tsv, or the one it lies in; "data" when None.
        study: safer, livelier, more boring, wealthier, more depressing or more beautiful, with or without "more", or
            its 24-digit id.
        split_by: "city" keeps a city's images in one split; None parts them.
        crop_logo: cut the 25 px footer off below.
        preprocessing: "resnet" scales the shorter side to 256 px, crops the central 224 and takes ImageNet's mean and
            deviation, as torchvision's weights want it; None scales and crops to a square of `image_size`.
        image_size: px, the side of the square; max_size when None, and 224 with "resnet" (another keeps the part
            cropped).
        max_size: px; 64 when None.
        val_fraction, test_fraction, split_seed: as in `load_dataset`, but 0.05 and 0.30.
        on_bad_image: as in `load_dataset`; a scored place without an image counts as one.
        download: fetch it into data_dir (3 GB) if it is not there.

    Returns:
        A Dataset, with `comparisons` where votes.tsv is there: the votes between two test images, "equal" left out.

    Raises:
        ConfigError: an option is none of its choices.
        UnknownNameError: there is no such study.
        DataError: a file is missing or not as published, or images are bad, missing, or too few.

    Example:
        >>> placepulse(study="safe")
        Traceback (most recent call last):
        tunekit.errors.UnknownNameError: unknown study 'safe': did you mean 'safer'? Known: ...
    """
    given = {"split_by": split_by, "preprocessing": preprocessing, "crop_logo": crop_logo}
    for option, value in given.items():
        if value not in CHOICES[option]:
            choices = ", ".join(map(repr, CHOICES[option]))
            raise ConfigError(f"{option} must be one of {choices}, but is {value!r}")
    study_id = study_id_of(study)
    folder = Path(data_dir or "data").expanduser().absolute()
    if download:
        fetch_placepulse(folder)
    listing = list_placepulse(folder, study)
    if len(listing.names) < 4:  # two scores to learn from, and one image each for val and test
        reason = f"has {len(listing.names)} images with a score for {STUDIES[study_id]!r}: train, val and test need 4"
        listing.faults.append(Problem(shown(str(listing.root)), reason))
    how = Preparation(image_size or max_size or DEFAULT_SIZE_PX, cut_bottom_px=LOGO_PX if crop_logo else 0)
    if preprocessing == "resnet":
        how = dataclasses.replace(how, image_size=image_size or RESNET_PX, crop=RESNET_PX / RESNET_SHORTER_PX)
    decoded = read(listing, how)
    dataset = finish(
        "placepulse", listing, decoded, on_bad_image, groups=[_part(name, "city") for name in listing.names]
        if split_by else None, val_fraction=val_fraction, test_fraction=test_fraction, split_seed=split_seed,
    )  # fmt: skip
    rows = {_part(listing.names[row], "location"): int(row) for row in dataset.test.rows}
    votes, note = comparisons_between(listing.root / "votes.tsv", study_id, rows)
    notes = (*dataset.notes, *note)
    return _scaled(dataclasses.replace(dataset, comparisons=votes, notes=notes), imagenet=preprocessing == "resnet")


def list_placepulse(path: Path, study: str = "safer") -> Listing:
    """List a study's images and scores, and what is wrong with them; opens no image.

    Args:
        path: the folder, or the one it lies in.
        study: as in `placepulse`.

    Raises:
        UnknownNameError: there is no such study.
        DataError: the folder or a file is missing, or qscores.tsv is no table of scores.
    """
    study_id = study_id_of(study)
    listing = Listing(Path(os.path.realpath(find_folder(path))))
    images = _images(listing)
    scores = scores_of(listing, study_id)
    missing = [location for location in scores if location not in images]
    if missing:
        places = f"{len(missing)} scored {'place' if len(missing) == 1 else 'places'} ({some(missing)})"
        listing.problems.append(Problem(places, "without an image in images/"))
    unscored = [name for location, name in images.items() if name and location not in scores]
    if unscored:
        listing.notes.append(f"{len(unscored)} images were left out, as no one scored them here: {some(unscored)}")
    listing.names = [name for location, name in images.items() if name and location in scores]
    listing.targets = [scores[_part(name, "location")] for name in listing.names]
    listing.split_of = ["train"] * len(listing.names)
    return listing


def find_folder(path: Path) -> Path:
    """Return the folder with images/ or qscores.tsv: `path`, or place-pulse-2.0 in it.

    Raises:
        DataError: neither is there.
    """
    for folder in (path, path / FOLDER):
        if (folder / "qscores.tsv").exists() or (folder / "images").is_dir():
            return folder
    what = "is not there" if not path.exists() else f"holds neither images/ and qscores.tsv nor a folder {FOLDER}"
    raise DataError(
        f"placepulse: {path} {what}: put Place Pulse 2.0 there (images/, qscores.tsv and, if you have it, votes.tsv), "
        f"or fetch it with `tunekit download placepulse --data-dir {path}`, or say where it is with data_dir"
    )


def fetch_placepulse(data_dir: str | Path, url: str = URL) -> Path:
    """Fetch Place Pulse 2.0 (3 GB) into a folder, unless it is there, and return the folder with images/.

    Args:
        data_dir: where to put the folder place-pulse-2.0. A download that broke off goes on.
        url: of the zip.

    Raises:
        DataError: no network, no room on the disk, or what came is not Place Pulse; the text says what to do.
    """
    root = Path(data_dir).expanduser().absolute()
    root = root.parent if root.name == FOLDER else root
    try:
        return find_folder(root)
    except DataError:
        pass
    try:
        root.mkdir(parents=True, exist_ok=True)
        archive = fetch(url, root / f"{FOLDER}.zip")
    except (DataError, OSError) as error:
        raise DataError(
            f"placepulse could not be downloaded: {error}\n  Get {url} on a machine with network and unpack it into "
            f"{root / FOLDER}, so that {root / FOLDER / 'qscores.tsv'} is there"
        ) from error
    with tempfile.TemporaryDirectory(dir=root, prefix=".unpacking-") as made:
        try:
            unpacked = unpack(archive, Path(made) / "all")
            shutil.rmtree(unpacked / "__MACOSX", ignore_errors=True)  # a Mac's notes on each file
            os.rename(find_folder(unpacked), root / FOLDER)
        except (DataError, OSError) as error:
            raise DataError(f"{error}\n  What came is {archive}: remove it to have it fetched again") from error
    archive.unlink()
    return root / FOLDER


def _images(listing: Listing) -> dict[str, str]:
    """Return location id -> path of its image, "" for one that cannot be used, in order of the names."""
    if not (listing.root / "images").is_dir():
        raise DataError(f"placepulse: {listing.root} has no folder images/: unpack Place Pulse 2.0 there again")
    images: dict[str, str] = {}
    other = []
    for entry in files.entries(listing, "images"):
        name, match = f"images/{entry.name}", NAME.fullmatch(entry.name)
        reason = files.why_not(listing.root, entry)
        if match is None or entry.is_dir():
            other.append(name)
        elif reason:
            listing.problems.append(Problem(shown(name), reason))
            images.setdefault(match["location"], "")
        elif images.get(match["location"]):
            reason = f"is a second image of the place {match['location']}, beside {shown(images[match['location']])}"
            listing.problems.append(Problem(shown(name), reason))
        else:
            images[match["location"]] = name
    if other:
        pattern = "<lat>_<lon>_<location_id>_<City>.JPG"
        listing.notes.append(f"{len(other)} files were left out, as they are not named {pattern}: {some(other)}")
    return images


def _part(name: str, part: str) -> str:
    """Return the location or the city out of an image's name."""
    match = NAME.fullmatch(os.path.basename(name))
    return match[part] if match else ""


def _scaled(dataset: Dataset, imagenet: bool) -> Dataset:
    """Scale the scores so that the train split's run from 1 to 10; with `imagenet`, set its mean and deviation."""
    scores, low, high = dataset.train.all_targets, dataset.train.targets.min(), dataset.train.targets.max()
    targets = (1 + 9 * (scores.astype(np.float64) - low) / (float(high) - low)).astype(np.float32)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if imagenet else (dataset.mean, dataset.std)
    train, val, test = (
        dataclasses.replace(split, all_targets=targets, mean=mean, std=std)
        for split in (dataset.train, dataset.val, dataset.test)
    )
    return dataclasses.replace(
        dataset, train=train, val=val, test=test, mean=mean, std=std,
        target_mean=float(train.targets.mean()), target_std=float(train.targets.std()),
        notes=(*dataset.notes, f"scores {low:.4f} to {high:.4f}, the train split's range, were scaled to 1 to 10"),
    )  # fmt: skip
