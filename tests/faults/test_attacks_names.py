"""Attacks by names and values: of classes, files, trials, experiments and configs. Each test is a family of attacks."""

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from attack_cli import command, snapshot, table, trained
from attack_files import FORMULAS, LEAD_OUT, MARKUP, SHELL, TERMINAL, control_characters

import tunekit
from tunekit import figures
from tunekit.errors import ConfigError, TunekitError

HOSTILE = (*FORMULAS, *MARKUP, *TERMINAL, *SHELL, "..", "../../evil")
CLASSES = tuple(name for name in HOSTILE if not set(name) & {"\n", "\r"})
STARTS = ("=", "+", "-", "@", "\t", "\r")
CANARY = "canary-6d1f0c9b7a"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment on classes with hostile names."""
    return trained(tmp_path_factory.mktemp("hostile"), CLASSES)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment whose config's values are hostile, and a number that is not."""
    folder = tmp_path_factory.mktemp("tried")

    def loop(config, dataset, state=None):
        yield {"val_accuracy": -0.5}, {}

    config = {f"x{number}": name for number, name in enumerate(HOSTILE)} | {"lr": -1.5}
    tunekit.train(config, "digits", train=loop, max_epochs=1, verbose=0, name="tried", folder=folder)
    return folder / "tried"


def images_named(folder: Path, names: tuple[str, ...], content: bytes | None = None) -> Path:
    """Fill a folder with images, or files of another content, of hostile names."""
    image = (table(folder.parent / "plain").parent / "images" / "0.png").read_bytes()
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name.replace('/', '_')}.png").write_bytes(image if content is None else content)
    return folder


def test_terminal_escapes(experiment, tried, tmp_path, record_property):
    """What a terminal would obey is written out: in lists of files, figures, configs, reasons and paths."""
    bad = images_named(tmp_path / "bad" / "\x1b[31mred", HOSTILE, b"no image")
    images_named(tmp_path / "bad" / "dog", HOSTILE, b"no image")
    answers = {"check": command("check", bad.parent), "test": command("test", experiment)}
    answers["results"] = command("results", tried)
    answers["predict"] = command("predict", experiment, bad, cwd=tmp_path)
    for name in TERMINAL:
        answers[f"dataset {name!r}"] = command("train", "--dataset", f"no/{name}", cwd=tmp_path)
        answers[f"experiment {name!r}"] = command("test", f"no/{name}", cwd=tmp_path)
        answers[f"space {name!r}"] = command("run", "--space", f"no/{name}.yaml", cwd=tmp_path)
        answers[f"key {name!r}"] = command("train", f"{name}=1", cwd=tmp_path)
        answers[f"out {name!r}"] = command("results", tried, "--csv", f"{name}.csv", cwd=tmp_path)
        answers[f"name {name!r}"] = command("train", "--name", name, cwd=tmp_path)
        answers[f"option {name!r}"] = command("train", f"--{name}", cwd=tmp_path)
    obeyed = {what: set(found) for what, answer in answers.items() if (found := control_characters(answer.printed))}
    assert not obeyed
    assert "red" in answers["check"].printed and answers["test"].status == answers["results"].status == 0
    record_property("probes", len(answers))


def test_terminal_escapes_in_reasons(tmp_path, capsys, record_property):
    """Text that a failing trial raises, in the view of a search and in its error."""

    def loop(config, dataset, state=None):
        yield {"val_accuracy": 0.5, f"val_{config['text']}": 0.5}, {}
        raise RuntimeError(f"{config['text']} came")

    for number, text in enumerate(TERMINAL):
        asked = {"train": loop, "max_epochs": 2, "name": str(number), "folder": tmp_path}
        with pytest.raises(TunekitError):
            tunekit.train({"text": text}, "digits", **asked)
        answer = command("results", tmp_path / str(number))
        assert not control_characters(answer.printed), text
    printed = capsys.readouterr()
    assert not control_characters(printed.out + printed.err)
    assert "came" in printed.out + printed.err
    record_property("probes", len(TERMINAL) * 2)


def test_csv_formulas(experiment, tried, tmp_path, record_property):
    """Cells that a spreadsheet would compute are quoted; numbers stay numbers."""
    images = images_named(tmp_path / "images", HOSTILE)
    assert command("predict", experiment, ".", "--out", tmp_path / "predictions.csv", cwd=images).status == 0
    assert command("results", tried, "--csv", tmp_path / "trials.csv").status == 0
    probes = 0
    for name in ("predictions.csv", "trials.csv"):
        header, *rows = csv.reader(io.StringIO((tmp_path / name).read_bytes().decode(), newline=""))
        assert {len(row) for row in rows} == {len(header)}, name
        texts = [cell for row in (header, *rows) for cell in row if not is_number(cell)]
        assert not [cell for cell in texts if cell.startswith(STARTS)], name
        probes += len(texts)
    (first,) = csv.DictReader(io.StringIO((tmp_path / "trials.csv").read_bytes().decode(), newline=""))
    assert float(first["config/lr"]) == -1.5 and float(first["val_accuracy"]) == -0.5
    assert first["config/x0"] == f"'{FORMULAS[0]}"
    record_property("probes", probes)


def is_number(text: str) -> bool:
    """Return whether a cell is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_html_escapes(experiment, tmp_path, record_property):
    """Figures drawn of hostile names have the elements of figures drawn of harmless ones."""
    names = [*HOSTILE, "javascript:alert(1)", '<a href="javascript:alert(1)">x</a>']

    def pages(words: list[str]) -> list[str]:
        frame = tunekit.load_results(experiment).dataframe.iloc[[0] * len(words)].assign(trial=range(len(words)))
        frame["val_accuracy"] = np.linspace(0, 1, len(words))
        frame["config/x"] = words
        frame[f"config/{words[0]}"] = words[::-1]
        history = tunekit.load_results(experiment).history.assign(**{word: 0.5 for word in words})
        values, images = np.arange(5.0), np.zeros((len(words), 4, 4, 3), np.uint8)
        made = [figures.parallel_coordinates(frame, "val_accuracy"), figures.images_grid(images, words)]
        made += [figures.learning_curves(history, words), figures.score_histograms(dict.fromkeys(words, values))]
        made += [figures.predicted_against_true(values, values, title=word) for word in words]
        return [figure.to_html(include_plotlyjs=False) for figure in made]

    harmless = [f"name{number}" for number in range(len(names))]
    for hostile, plain in zip(pages(names), pages(harmless), strict=True):
        assert elements(hostile) == elements(plain)
        assert not any(mark in hostile for mark in ("<img", "<svg", "<script>alert", 'href="javascript'))
    record_property("probes", len(names) * 5)


def elements(page: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return a page's elements with the names of their attributes."""
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append((tag, tuple(name for name, _ in attributes)))
    parser.feed(page)
    return found


def test_names_that_lead_out(tmp_path, record_property):
    """Names of experiments, trials, classes and metrics that would be paths elsewhere."""
    inside = tmp_path / "inside"
    (inside / "experiments").mkdir(parents=True)
    data = table(inside / "data", LEAD_OUT, 6)
    names = [*LEAD_OUT, "", ".", "...", "x/y", "/", "~", "a" * 300, "x\0y", "..\u2215..\u2215x", "CON ", " "]
    train = ("train", "backbone=mlp", "batch_size=8", "--max-epochs", 1, "--dataset", data)
    sweep = {"method": "random", "parameters": {"lr": {"values": [0.1]}}}
    unclear, before = {}, snapshot(tmp_path)
    for name in names:
        answers = [command(*train, "--name", name, "--folder", inside / "experiments", cwd=inside)]
        (inside / "sweep.yaml").write_text(json.dumps({**sweep, "name": name, "metric": {"name": f"val_{name}"}}))
        run = ("run", "--space", inside / "sweep.yaml", "--dataset", data, "--folder", inside / "experiments")
        answers += [command(*run, cwd=inside)]
        (inside / "sweep.yaml").unlink()
        if len(name) < 100 and "\0" not in name:  # the system itself has no such paths
            answers += [command("resume", inside / "experiments" / name, cwd=inside)]
        unclear |= {(name, at): answer.in_short for at, answer in enumerate(answers) if not answer.is_refused}
    assert not unclear and snapshot(tmp_path) == before
    assert command(*train, "--name", "fine", "--folder", inside / "experiments", cwd=inside).status == 0
    record_property("probes", 3 * len(names) + len(LEAD_OUT))


def test_shell_characters(tmp_path, record_property):
    """Paths, names and values that a shell would run."""
    folder = tmp_path.joinpath(*SHELL)
    data = table(folder / "data", tuple(name.replace("\n", " ") for name in SHELL))
    train = ("train", "backbone=mlp", "batch_size=8", "--max-epochs", 1, "--dataset", data, "--folder", folder)
    made = [command(*train, "--name", "first", cwd=tmp_path), command("export", folder / "first", folder / SHELL[0])]
    made += [command("predict", folder / "first", folder / "data" / "images", "--out", folder / SHELL[1])]
    assert [answer.status for answer in made] == [0, 0, 0], made
    refused = []
    for name in SHELL:
        refused += [command(*train, "--name", name, cwd=tmp_path), command("train", f"backbone={name}", cwd=tmp_path)]
        refused += [command("describe", name), command("run", "--searcher", name), command("run", "--tracker", name)]
        refused += [command("run", "--address", name, "--dataset", f"no/{name}", cwd=tmp_path)]
    assert not [answer.in_short for answer in refused if not answer.is_refused]
    assert not list(tmp_path.rglob("sprung")) and not Path("sprung").exists()
    record_property("probes", len(SHELL) + len(made) + len(refused))


def test_secrets_in_configs(tmp_path, monkeypatch, record_property):
    """Secrets handed over as config values, under names that say so and under others, are refused and not repeated."""
    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.setenv("DATABASE_URL", f"postgres://me:{CANARY}2@db.example/x")

    def loop(config, dataset, state=None):
        yield {"val_accuracy": 0.5}, {}

    configs = [{name: "abcdefgh"} for name in ("api_key", "token", "hf_token", "secret", "password", "wandb_api_key")]
    configs += [{"note": CANARY}, {"note": f"{CANARY}2"}, {"optimizer": CANARY}]
    spaces = [
        *({"x": tunekit.uniform(0, 1), **config} for config in configs),
        {"x": tunekit.choice(["a", CANARY])},
        {"x": tunekit.choice([{"name": "a", "token": "abc"}, "b"])},
    ]
    spaces += [{"method": "random", "metric": {"name": "val_accuracy"}, "parameters": {"token": {"value": "abcdefgh"}}}]
    asked = {"train": loop, "max_epochs": 1, "verbose": 0, "folder": tmp_path}
    told = []
    for ask, values in ((tunekit.train, configs), (tunekit.run, spaces)):
        for value in values:
            with pytest.raises(ConfigError) as caught:
                ask({"lr": 0.1, **value} if "method" not in value else value, "digits", **asked)
            told.append(str(caught.value))
    answers = [command("train", f"{key}={CANARY}", cwd=tmp_path) for key in ("api_key", "optimizer", "lr", "backbone")]
    assert all(answer.is_refused for answer in answers)
    told += [answer.printed for answer in answers]
    assert not [text for text in told if CANARY in text] and not list(tmp_path.rglob("*"))
    monkeypatch.setenv("PWD", str(tmp_path))  # of the working folder: no secret, and needed in messages
    assert str(tmp_path) in command("test", tmp_path / "none").printed
    record_property("probes", len(told))
