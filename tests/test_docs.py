"""What README and docs/ say: every block of code runs, every link leads somewhere, and nothing is missing.

A block with a title is somebody else's code, a file, or needs what is not here: Python is compiled, commands are
parsed, and a block whose title is a file's name is written to that file. All others, and those titled "tunekit", run,
page by page in order, in a folder of their own with small data.
"""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import typer
import yaml
from PIL import Image

import tunekit
from tunekit.cli import app, main

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^( *)```(\w+)(?: title=\"([^\"]*)\")?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
# How a block is made small: fewer trials, fewer epochs, a smaller network than the default.
SMALL = (
    (r"(num[_-]trials[= ])\d+", r"\g<1>2"), (r"(max[_-]epochs[= ])\d+", r"\g<1>1"), (r"confirm=\d+", "confirm=2"),
    (r'"cnn"', '"cnn_small"'),
)  # fmt: skip


class Block(NamedTuple):
    """A piece of code in a page."""

    page: Path
    line: int
    language: str
    title: str
    text: str

    @property
    def runs(self) -> bool:
        return self.title in ("", "tunekit")

    @property
    def commands(self) -> list[list[str]]:
        lines = (shlex.split(line, comments=True) for line in self.text.splitlines())
        return [words[1:] for words in lines if words[:1] == ["tunekit"]] if self.language == "shell" else []


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in BLOCK.finditer(text):
        indent, language, title, code = match.groups()
        code = re.sub(rf"^{indent}", "", code, flags=re.MULTILINE)
        found.append(Block(page, text[: match.start()].count("\n") + 1, language, title or "", code))
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
# Pages that train much.
LONG = (
    "coming-from/",
    "docs/index.md",
    "docs/own-code.md",
    "docs/planning.md",
    "docs/search.md",
    "docs/spaces.md",
    "docs/trackers.md",
)
RUN = sorted({block.page for block in BLOCKS if block.runs and (block.language == "python" or block.commands)})


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_of(block: Block, small: bool = False) -> Any:
    """Compile a block, so that an error names its place in the page."""
    text = block.text
    for pattern, replacement in SMALL if small else ():
        text = re.sub(pattern, replacement, text)
    return compile("\n" * block.line + text, str(block.page), "exec")


@pytest.fixture(scope="module")
def first(tmp_path_factory, ray) -> Path:
    """What pages call experiments/first."""
    folder = tmp_path_factory.mktemp("first")
    space = {"backbone": "mlp", "lr": tunekit.loguniform(1e-3, 1e-1)}
    return tunekit.run(space, "digits", num_trials=2, max_epochs=2, verbose=0, name="first", folder=folder).folder


@pytest.fixture
def place(tmp_path, first, monkeypatch) -> Path:
    """A folder with small data of the names that pages use: photos, new, houses.csv, experiments/first."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for number in range(120):
        pixels = random.integers(0, 256, (16, 16, 3), np.uint8)
        path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    names = sorted(path.relative_to(tmp_path) for path in tmp_path.glob("photos/*/*.png"))
    rows = [f"{name},{number / 7:.2f}" for number, name in enumerate(names)]
    (tmp_path / "houses.csv").write_text("\n".join(["path,target", *rows]))
    (tmp_path / "new").mkdir()
    for number in range(3):
        Image.fromarray(random.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "new" / f"{number}.png")
    shutil.copytree(first, tmp_path / "experiments" / "first")
    return tmp_path


def marked(page: Path) -> Any:
    return pytest.param(page, marks=[pytest.mark.long] if any(part in str(page) for part in LONG) else [])


@pytest.mark.parametrize("page", [marked(page) for page in RUN], ids=name_of)
def test_what_a_page_shows_runs(page, place, ray, capsys, monkeypatch):
    space: dict[str, Any] = {"__name__": f"page_{page.stem}"}
    for block in blocks_of(page):
        if "." in block.title and " " not in block.title:
            (place / block.title).write_text(block.text)
        elif block.language == "python" and block.runs:
            exec(code_of(block, small=True), space)
        for command in block.commands if block.runs else ():
            small = [re.sub(r"^\d+$", "2", word) if re.match("--(num|max)-", before) else word
                     for before, word in zip(["", *command], command, strict=False)]  # fmt: skip
            main(small)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{name_of(block.page)}:{block.line}")
def test_a_block_that_does_not_run_can_be_read(block):
    if block.language == "python":
        code_of(block)
    elif block.language == "yaml":
        assert yaml.safe_load(block.text)
    elif block.language == "json":
        assert json.loads(block.text)
    else:
        assert block.language in ("shell", "text")
    for command in block.commands:
        parsed(command)


def parsed(arguments: list[str]) -> None:
    """Read a command's words as the program would, and do nothing."""
    command, name = typer.main.get_command(app), "tunekit"
    while hasattr(command, "commands") and arguments != ["--help"]:
        context = command.make_context(name, [], resilient_parsing=True)
        name, command, arguments = command.resolve_command(context, arguments)
    if "--help" not in arguments:
        command.make_context(name, arguments)


def test_the_readme_is_short_and_names_every_example():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) < 200
    for path in (ROOT / "examples").glob("*.py"):
        assert f"python examples/{path.name}" in readme


def test_the_tree_names_every_file():
    named = set(re.findall(r"\b\w+\.py\b", (ROOT / "docs" / "tree.md").read_text().split("## Every file")[1]))
    assert named == {path.name for path in (ROOT / "tunekit").rglob("*.py")}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page):
    for link in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", page.read_text()):
        assert (page.parent / link).is_file(), link


def test_the_api_page_has_every_public_name():
    page = (ROOT / "docs" / "api.md").read_text()
    assert sorted(re.findall(r"^::: tunekit\.(\w+)$", page, re.MULTILINE)) == sorted(tunekit.__all__)


def test_every_page_is_in_the_navigation():
    class Loader(yaml.SafeLoader):
        pass

    navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    named = re.findall(r"(\S+\.md)$", navigation, re.MULTILINE)
    pages = {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.name != "README.md"}
    assert pages == {name for name in named if not name.startswith("source/")}
