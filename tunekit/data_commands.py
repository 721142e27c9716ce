"""The commands about data: what is wrong with it, which there is, where it comes from, what is kept of it."""

from pathlib import Path
from typing import Annotated

import typer

from tunekit.commands import say
from tunekit.errors import ConfigError, DataError
from tunekit.options import DatasetOptions, Download, ListOrClear, values_of


def check(
    path: Annotated[Path, typer.Argument(help="A folder of class folders, or a table (csv, tsv).")],
    option: DatasetOptions = None,
) -> None:
    """Read every image once and list all that is wrong with it.

    \b
    tunekit check photos
    tunekit check houses.csv --option target_column=price
    """
    from tunekit.datasets import check as find_problems
    from tunekit.live import counted

    problems = find_problems(path, **values_of(option or []))
    for problem in problems:
        say(f"{problem.file}: {problem.reason}")
    if problems:
        found = counted(len(problems), "problem")
        raise DataError(f"{found} in {path}: mend or remove what is bad, or train with --on-bad-image skip")
    say(f"{path}: no problems")


def datasets() -> None:
    """List the datasets that have a name.

    \b
    tunekit datasets
    """
    from tunekit.datasets import DATASETS
    from tunekit.summary import print_docs

    print_docs({name: DATASETS[name] for name in DATASETS})


def download(
    dataset: Download,
    data_dir: Annotated[Path, typer.Option(help="Where to put it.")] = Path("data"),
) -> None:
    """Fetch a named dataset's files.

    \b
    tunekit download mnist --data-dir data
    """
    from tunekit.datasets import load_dataset
    from tunekit.datasets.placepulse import fetch_placepulse

    if dataset == "placepulse":  # 3 GB: fetched and unpacked, but not read yet
        say(f"placepulse: in {fetch_placepulse(data_dir)}; `tunekit check` reads it")
        return
    loaded = load_dataset(dataset, data_dir=data_dir, download=True)
    say(f"{loaded.name}: {loaded.num_images} images in {data_dir}")


def cache(
    what: ListOrClear = "list",
) -> None:
    """Show what is kept of data on this machine, or delete it: it comes back when it is needed.

    \b
    tunekit cache
    tunekit cache clear
    """
    from tunekit.datasets.cache import clear, entries
    from tunekit.datasets.store import cache_folder

    if what == "clear":
        say(f"{clear():.3f} GB freed in {cache_folder()}")
    elif what == "list":
        found = entries()
        for entry in found:
            size = f"{entry['kind']:<10}{entry['size_gb']:>9.3f} GB {entry['num_images']:>9} images"
            say(f"{size}  {entry['name']}")
        say(f"{sum(entry['size_gb'] for entry in found):.3f} GB in {cache_folder()}")
    else:
        raise ConfigError(f"cache takes list or clear, but got {what!r}")


COMMANDS = (check, datasets, download, cache)
