"""Help and completion: every command shows how it is called, and a shell offers the names that there are."""

import os
import shlex
import subprocess
import sys

import pytest
import typer

from tunekit import completion
from tunekit.backbones import backbones
from tunekit.cli import app
from tunekit.datasets import DATASETS
from tunekit.samplers import searchers
from tunekit.schedulers import schedulers
from tunekit.scores import metric_names
from tunekit.spaces import space_names
from tunekit.trackers import trackers

ROOT = typer.main.get_command(app)


def leaves(command, path=("tunekit",)):
    for name, found in getattr(command, "commands", {}).items():
        if not found.hidden:
            yield from leaves(found, (*path, name))
    if not hasattr(command, "commands"):
        yield path, command


COMMANDS = dict(leaves(ROOT))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_examples_that_it_understands(path):
    command = COMMANDS[path]
    lines = [line.strip() for line in (command.help or "").splitlines()]
    examples = [shlex.split(line) for line in lines if line.startswith("tunekit ")]
    assert examples
    for words in examples:
        assert tuple(words[: len(path)]) == path
        command.make_context(words[0], words[len(path) :])  # raises for what it does not understand


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_examples_are_shown_a_line_each(path):
    command = COMMANDS[path]
    shown = command.get_help(command.make_context(path[-1], [], resilient_parsing=True)).splitlines()
    for line in (command.help or "").splitlines():
        if line.strip().startswith("tunekit "):
            assert line.strip() in [words.strip() for words in shown]


def offered(words, folder):
    """Return what bash offers for the last of the words, asked as its completion asks."""
    environ = {**os.environ, "_TUNEKIT_COMPLETE": "complete_bash", "COMP_WORDS": words,
               "COMP_CWORD": str(words.count(" "))}  # fmt: skip
    program = "import sys; from tunekit.cli import app; app(prog_name='tunekit'); "
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environ, cwd=folder, capture_output=True, text=True, check=True
    )
    return answer.stdout.split()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("tunekit pl", ["plan"]),
        ("tunekit run --dataset f", ["fashion_mnist"]),
        ("tunekit plan --searcher q", ["qmc"]),
        ("tunekit run --space fine", ["finetune"]),
        ("tunekit describe le", ["lenet"]),
        ("tunekit results exp", ["experiments/first"]),
    ],
)
def test_names_are_completed(words, names, tmp_path):
    (tmp_path / "experiments" / "first").mkdir(parents=True)
    (tmp_path / "experiments" / "first" / "experiment.json").write_text("{}")
    assert offered(words, tmp_path) == names


def test_completion_can_be_installed():
    options = {name for option in ROOT.params for name in option.opts}
    assert {"--install-completion", "--show-completion"} <= options


def test_the_names_are_those_of_the_registries():
    assert set(DATASETS) >= set(completion.DATASETS) >= set(completion.DOWNLOADED)
    assert set(backbones) >= set(completion.BACKBONES)
    assert sorted(searchers) <= sorted(completion.SEARCHERS)
    assert sorted([*schedulers, "auto"]) == sorted(completion.SCHEDULERS)
    assert sorted(trackers) == sorted(completion.TRACKERS)
    assert set(completion.METRICS) <= {*metric_names("classification"), *metric_names("regression")}
    assert completion.spaces("") == space_names()


def test_nothing_slow_is_imported_for_it():
    slow = "{'torch', 'ray', 'optuna', 'pandas', 'numpy'} & set(sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", f"import sys, tunekit.cli; print({slow})"], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "set()"
