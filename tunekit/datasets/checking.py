"""`tunekit check PATH`: read everything once and list all that is wrong."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunekit.datasets import files, placepulse, tables
from tunekit.datasets.decoding import Preparation
from tunekit.datasets.listing import Listing, Problem, read
from tunekit.datasets.table_rows import SUFFIXES
from tunekit.errors import ConfigError, DataError, unknown_name


def check(path: str | Path, **options: Any) -> list[Problem]:
    """Return every problem of a folder or table, without stopping at any; an empty list means it can be trained on.

    Args:
        path: a folder of class folders, a .csv or .tsv table, or the folder of Place Pulse.
        options: a table's `path_column`, `target_column`, `split_column` and `task`; Place Pulse's `study`.

    Returns:
        Problems, (file, reason) each, in order of their finding.

    Raises:
        DataError: nothing is at this path, or something else.
        ConfigError: an option that there is not for it.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> [reason for file, reason in check(folder)]
        ['holds no class folders: one folder per class is needed, named as the class, with its images in it']
    """
    path = Path(path).expanduser().absolute()
    if (path / "qscores.tsv").is_file():
        list_all: Callable[..., Listing] = placepulse.list_placepulse
    elif path.is_dir():
        list_all = files.list_folder
    elif path.is_file() and path.suffix.lower() in SUFFIXES:
        list_all = tables.list_table
    else:
        raise DataError(f"there is no folder of class folders and no .csv or .tsv table at {path}")
    known = list(inspect.signature(list_all).parameters)[1:]
    for name in options:
        if name not in known:
            raise ConfigError(unknown_name("option", name, known))
    listing = list_all(path, **options)
    read(listing, Preparation())
    return listing.faults + listing.problems
