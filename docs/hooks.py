"""What MkDocs runs while it builds the site: pages that are made of the code, and files from beside docs/.

A page links to a file outside docs/ as it would on disk (../examples/mnist.py): the file becomes a page of its own.
`<!-- made: NAME -->` in a page is replaced by what the function NAME of MADE returns.
"""

import inspect
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BESIDE = ("SECURITY.md", "CHANGELOG.md", "benchmarks/RESULTS.md")  # which the navigation names
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".ipynb": "json"}


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each file outside docs/ that a page links to."""
    waiting = [ROOT / name for name in BESIDE]
    waiting += [path for page in DOCS.rglob("*.md") for path in linked(page, page.read_text())]
    for path in waiting:
        if DOCS not in path.parents and files.get_file_from_path(place_of(path)) is None:
            files.append(File.generated(config, place_of(path), content=page_of(path)))
            waiting += linked(path, path.read_text()) if path.suffix == ".md" else []
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill in what is made, and let links to files outside docs/ lead to their pages."""
    here = page.file.src_uri
    origin = ROOT / here.removeprefix("source/") if here.startswith("source/") else DOCS / here

    def place(match: re.Match[str]) -> str:
        path = Path(os.path.normpath(origin.parent / match[1]))
        return os.path.relpath(place_of(path), os.path.dirname(here)) if path.is_file() else match[1]

    made = re.sub(r"<!-- made: ([\w ]+) -->", lambda match: MADE[match[1]](), markdown)
    return LINK.sub(place, made)


def linked(origin: Path, text: str) -> Iterator[Path]:
    """Yield the files that a text links to."""
    for link in LINK.findall(text):
        path = Path(os.path.normpath(origin.parent / link))
        if path.is_file():
            yield path


def place_of(path: Path) -> str:
    """Return where a file lies in the site: as in docs/, or under source/."""
    if DOCS in path.parents:
        return path.relative_to(DOCS).as_posix()
    return f"source/{path.relative_to(ROOT).as_posix()}" + ("" if path.suffix == ".md" else ".md")


def page_of(path: Path) -> str:
    """Return a file as a page."""
    if path.suffix == ".md":
        return path.read_text()
    return f"# {path.relative_to(ROOT)}\n\n```{LANGUAGES.get(path.suffix, 'text')}\n{path.read_text()}```\n"


def commands() -> str:
    """Return every command with its arguments and options, as the program has them."""
    import typer

    from tunekit.cli import app

    return "\n".join(_command(typer.main.get_command(app), "tunekit"))


def _command(command: Any, name: str) -> Iterator[str]:
    nested = getattr(command, "commands", {})
    if name != "tunekit":
        yield f"## {name}\n\n{_help(command.help or '')}\n"
    rows = [] if nested else [row for parameter in command.params if (row := _row(parameter))]
    if rows:
        yield "\n".join(["| | | default |", "|---|---|---|", *rows, ""])
    for word, each in nested.items():
        yield from _command(each, f"{name} {word}")


def _help(text: str) -> str:
    """Return what a command says of itself; a paragraph that begins with a backspace holds examples, line by line."""
    shown = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        _, examples, lines = paragraph.partition("\b\n")
        shown.append(f"```shell\n{lines}\n```" if examples else _text(paragraph))
    return "\n\n".join(shown)


def _row(parameter: Any) -> str:
    """Return an option's row, or "" for those that every command has."""
    if "--help" in parameter.opts:
        return ""
    option = parameter.param_type_name == "option"
    name = ", ".join(parameter.opts) if option else (parameter.metavar or parameter.name).upper()
    what, _, said = (getattr(parameter, "help", "") or "").partition("[default: ")
    default = said.rstrip("] ") or ("needed" if parameter.required else _plain(parameter.default))
    return f"| `{name}`{{ .whole }} | {_text(what.strip())} | {_text(default)} |"


def _plain(default: Any) -> str:
    return "" if default in (None, False, "", ()) or callable(default) else str(default)


def config_keys() -> str:
    """Return the config keys that tunekit's own training loop reads."""
    from tunekit.config import KEYS

    rows = [
        f"| `{name}`{{ .whole }} | `{k.default!r}` | {_text(k.rule)} | {_text(k.meaning)} |" for name, k in KEYS.items()
    ]
    return "\n".join(["| key | default | may be | what it is |", "|---|---|---|---|", *rows])


def _text(text: str) -> str:
    """Return words that Markdown shows as they stand, in one line; what stands between backticks stays code."""
    return re.sub(r"([|<>*_])", r"\\\1", " ".join(text.split())) if "`" not in text else " ".join(text.split())


MADE: dict[str, Callable[[], str]] = {"commands": commands, "config keys": config_keys}
