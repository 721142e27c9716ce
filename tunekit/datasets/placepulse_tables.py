"""Place Pulse's tables: which study is meant, each place's score, and the votes between two images."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tunekit.datasets.listing import NUM_SHOWN, Listing, Problem, shown, some
from tunekit.errors import DataError, UnknownNameError, unknown_name

if TYPE_CHECKING:
    import pandas as pd  # at run time only where a table is read: it takes half a second

STUDIES = {
    "50a68a51fdc9f05596000002": "safer",
    "50f62c41a84ea7c5fdd2e454": "livelier",
    "50f62c68a84ea7c5fdd2e456": "more boring",
    "50f62cb7a84ea7c5fdd2e458": "wealthier",
    "50f62ccfa84ea7c5fdd2e459": "more depressing",
    "5217c351ad93a7d3e7b07a64": "more beautiful",
}
SCORE_COLUMNS = ("location_id", "study_id", "trueskill.score")
VOTE_COLUMNS = ("left", "right", "choice", "study_id")


def study_id_of(study: str) -> str:
    """Return the id of a study.

    Args:
        study: its name, with or without "more", or its id.

    Raises:
        UnknownNameError: there is no such study.

    Example:
        >>> study_id_of("boring") == study_id_of("more boring") == "50f62c68a84ea7c5fdd2e456"
        True
    """
    wanted = " ".join(str(study).lower().replace("-", " ").replace("_", " ").split()).removeprefix("more ")
    for study_id, name in STUDIES.items():
        if wanted in (study_id, name.removeprefix("more ")):
            return study_id
    names = {short for name in STUDIES.values() for short in (name, name.removeprefix("more "))}
    raise UnknownNameError(f"{unknown_name('study', study, names)}; or by id: {', '.join(STUDIES)}")


def scores_of(listing: Listing, study_id: str) -> dict[str, float]:
    """Return location id -> score of one study, as qscores.tsv has it; bad lines are faults of the listing.

    Raises:
        DataError: there is no qscores.tsv, it is no such table, or it has no score of this study.
    """
    import pandas as pd

    path = listing.root / "qscores.tsv"
    frame = read_tsv(path, SCORE_COLUMNS)
    for line in frame[frame["study_id"] == ""]["line"]:
        listing.faults.append(Problem(f"{path.name} line {line}", "has no study_id: is the file whole?"))
    found = frame[frame["study_id"] == study_id]
    if found.empty and not listing.faults:
        there = some(sorted({STUDIES.get(each, repr(each)) for each in frame["study_id"]})) or "none"
        raise DataError(f"placepulse: {path} has no score of study {STUDIES[study_id]!r} ({study_id}); it has {there}")
    numbers = pd.to_numeric(found["trueskill.score"], errors="coerce").to_numpy(float)
    bad = found[~np.isfinite(numbers) | (found["location_id"] == "").to_numpy()]
    for line, location, score in zip(bad["line"], bad["location_id"], bad["trueskill.score"], strict=True):
        reason = f"has score {score!r} for location {location!r}: it must be a finite number for a location id"
        listing.faults.append(Problem(f"{path.name} line {line}", reason))
    scores: dict[str, float] = {}
    repeated: dict[str, list[float]] = {}
    for location, score in zip(found["location_id"], numbers, strict=True):
        if location in scores:
            repeated.setdefault(location, [scores[location]]).append(score)
        scores[location] = float(score)
    _check_repeated(listing, scores, repeated)
    return scores


def comparisons_between(path: Path, study_id: str, rows: Mapping[str, int]) -> tuple[np.ndarray, list[str]]:
    """Return the votes of one study between two of some images, and what was noticed.

    Args:
        path: votes.tsv; there are no votes if it is not there.
        study_id: the study.
        rows: location id -> row, of the images.

    Returns:
        int64 (P, 2), the row that was chosen and the other's, in the file's order; "equal" is left out. And notes.

    Raises:
        DataError: it is no table of votes.
    """
    if not path.exists():
        return np.zeros((0, 2), np.int64), []
    votes = read_tsv(path, VOTE_COLUMNS)
    votes = votes[votes["study_id"] == study_id]
    odd = votes[~votes["choice"].isin(["left", "right", "equal"])]
    lines = some(f"line {line} {choice!r}" for line, choice in zip(odd["line"], odd["choice"], strict=True))
    notes = [f"{len(odd)} votes were left out, as they are not left, right or equal: {lines}"] if len(odd) else []
    left, right = (votes[side].map(rows).to_numpy(float) for side in ("left", "right"))
    both = votes["choice"].isin(["left", "right"]).to_numpy() & np.isfinite(left) & np.isfinite(right) & (left != right)
    left_won = (votes["choice"] == "left").to_numpy()
    pairs = np.stack([np.where(left_won, left, right), np.where(left_won, right, left)], axis=1)
    return pairs[both].astype(np.int64), notes


def read_tsv(path: Path, columns: tuple[str, ...]) -> "pd.DataFrame":
    """Return some columns of a tab-separated table as text, and "line", each row's line number.

    Raises:
        DataError: it is missing, no table in UTF-8 with tabs, or lacks a column.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(
            path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig", quoting=csv.QUOTE_NONE,
            skip_blank_lines=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise DataError(f"placepulse: there is no {path.name} in {path.parent}: unpack Place Pulse 2.0 again") from None
    except OSError as error:
        raise DataError(f"placepulse: {path} cannot be read: {error.strerror}") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"placepulse: {path} is no table with tabs, in UTF-8: {error}") from error
    if len(frame.columns) == 1 and any(separator in frame.columns[0] for separator in ",;"):
        raise DataError(f"placepulse: {path} is not separated by tabs: its header is {shown(frame.columns[0][:100])!r}")
    for column in columns:
        if column not in frame.columns:
            raise DataError(f"placepulse: {path}: {unknown_name('column', column, map(str, frame.columns))}")
    frame = frame[list(columns)].fillna("")  # where a line ends early
    return frame.assign(line=np.arange(len(frame)) + 2)[(frame != "").any(axis=1)]


def _check_repeated(listing: Listing, scores: dict[str, float], repeated: dict[str, list[float]]) -> None:
    """Places with several rows: the same score is noted, unlike scores are a problem, and the place is left out."""
    unlike = {location: values for location, values in repeated.items() if len(set(values)) > 1}
    for location, values in unlike.items():
        del scores[location]
        listing.problems.append(Problem(f"place {shown(location)}", f"has {len(values)} scores: {values[:NUM_SHOWN]}"))
    same = [location for location in repeated if location not in unlike]
    if same:
        listing.notes.append(f"{len(same)} places are in qscores.tsv twice with one score: {some(same)}")
    for location in [location for location, score in scores.items() if not math.isfinite(score)]:
        del scores[location]  # it is among the faults
