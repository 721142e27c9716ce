"""The lines of a CSV or TSV, each with its number, or what is wrong with the table as a text."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from tunekit.datasets.listing import Listing, Problem
from tunekit.datasets.splits import SPLITS
from tunekit.errors import DataError, unknown_name

SUFFIXES = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, eq=False)
class Row:
    """One line of a table; the split is "" where none is given."""

    line: int
    path: str
    target: str
    split: str


def read_rows(
    listing: Listing, path: Path, path_column: str, target_column: str, split_column: str | None
) -> list[Row]:
    """Return the lines of a table that can be used, and enter the others among the listing's faults.

    Args:
        path, path_column, target_column, split_column: as in `tables.load_table`.

    Raises:
        DataError: it is no table in UTF-8 with commas or tabs, or lacks a column.
    """
    lines = csv.reader(io.StringIO(_text(path), newline=""), delimiter=SUFFIXES[path.suffix.lower()], strict=True)
    rows = []
    try:
        header = next(lines, [])
        columns = _columns(path, header, path_column, target_column, split_column)
        for fields in lines:
            if not fields:
                continue
            if len(fields) != len(header):
                reason = f"has {len(fields)} fields where the header has {len(header)}"
                listing.faults.append(Problem(f"{path.name} line {lines.line_num}", reason))
                continue
            rows.append(Row(lines.line_num, *(fields[column] if column is not None else "" for column in columns)))
    except csv.Error as error:
        raise DataError(f"{path} line {lines.line_num} cannot be read as a table: {error}") from error
    if columns[2] is not None:
        for row in rows:
            if row.split not in SPLITS:
                fault(listing, path, row, f"has split {row.split!r}: it must be train, val or test")
        rows = [row for row in rows if row.split in SPLITS]
    return rows


def _text(path: Path) -> str:
    """Return a table's text, without a byte-order mark."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path} line {line} is not UTF-8: save the table as UTF-8") from error
    if "\0" in text:
        raise DataError(f"{path} line {text.count(chr(10), 0, text.index(chr(0))) + 1} holds a NUL: it is no text")
    return text


def _columns(
    path: Path, header: list[str], path_column: str, target_column: str, split_column: str | None
) -> tuple[int, int, int | None]:
    """Return where the columns of path, target and split stand."""
    for separator, word in ((";", "semicolons"), ("\t", "tabs"), (",", "commas")):
        if len(header) == 1 and separator in header[0]:
            wanted = "tabs" if path.suffix.lower() == ".tsv" else "commas"
            raise DataError(f"{path} is separated by {word}: save it with {wanted} (.csv has commas, .tsv has tabs)")
    wanted_columns = [path_column, target_column] + ([split_column] if split_column else [])
    for name in wanted_columns:
        if header.count(name) != 1:
            wrong = unknown_name("column", name, header) if name not in header else f"column {name!r} is there twice"
            raise DataError(f"{path}: {wrong} (path_column=, target_column= and split_column= name them)")
    split = split_column or ("split" if "split" in header else None)
    return header.index(path_column), header.index(target_column), header.index(split) if split else None


def fault(listing: Listing, path: Path, row: Row, reason: str) -> None:
    """Enter what is wrong with a line."""
    listing.faults.append(Problem(f"{path.name} line {row.line}", reason))
