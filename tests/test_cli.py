"""The command line, as a person types it: exit codes, one-line errors, what is printed."""

import json
import os
import re
import socket
import subprocess
import sys
from typing import NamedTuple

import pytest

import tunekit
from tunekit.backbones import backbones
from tunekit.cli import _space, app, main


class Answer(NamedTuple):
    status: int
    stdout: str
    stderr: str


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Run the command line in this process and an empty folder (a process of its own takes seconds to import torch)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        return Answer(status, *capsys.readouterr())

    return run


def test_as_a_process_of_its_own(tmp_path):
    arguments = [sys.executable, "-m", "tunekit", "run", "--dataset", "digit"]
    answer = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("tunekit: unknown dataset 'digit': did you mean 'digits'?")
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", sorted(registered.callback.__name__ for registered in app.registered_commands))
def test_help_of_every_command(name, command):
    answer = command(name, "--help")
    assert answer.status == 0
    assert len(answer.stdout.splitlines()) <= 55  # a terminal's height or so


def test_run_help_says_every_default(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = " ".join(command("run", "--help").stdout.split())
    options = text.partition("Options:")[2].split(" --")[1:]  # before it are examples
    for option in options:
        if not option.startswith("help"):
            assert "[default:" in option, option


MISTAKES = [
    (["run", "--dataset", "digit"], "unknown dataset 'digit': did you mean 'digits'?"),
    (["run", "--searcher", "tp"], "unknown searcher 'tp': did you mean 'tpe'?"),
    (["run", "--scheduler", "ahsa"], "unknown scheduler 'ahsa': did you mean 'asha'?"),
    (["run", "--metric", "val_acuracy"], "unknown metric 'val_acuracy': did you mean 'val_accuracy'?"),
    (["run", "--space", "digts"], "unknown space 'digts': did you mean 'digits'?"),
    (["run", "--num-trials", "0"], "num_trials must be a whole number of at least 1, but is 0"),
    (["run", "--name", "a/b"], "no slash"),
    (["run", "--dataset", "mnist", "--data-dir", "nowhere"], "tunekit download mnist"),
    (["run", "--dataset", "no/such/folder", "--space", "digits"], "no/such/folder"),
    (["run", "--nope"], "No such option: --nope"),
    (["train", "backbon=mlp"], "unknown config key 'backbon': did you mean 'backbone'?"),
    (["train", "backbone=lenett"], "unknown backbone 'lenett': did you mean 'lenet'? Known: lenet, "),
    (["train", "batch_size=100000"], "batch_size 100000 is larger than the train split"),
    (["train", "lr"], "key=value"),
    (["train", "nonsense"], "key=value, such as lr=0.01, but got 'nonsense'"),
    (["run", "--option", "split_seed=1"], "split_seed has a flag of its own: --split-seed 1"),
    (["train", "--option", "on_bad_image=skip"], "on_bad_image has a flag of its own: --on-bad-image skip"),
    (["list"], "No such command 'list'. See: "),
    (["test", "nowhere"], "nowhere is no experiment: there is no such folder"),
    (["describe", "lenet", "--image-size", "8"], "8"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_is_one_line_and_status_2(arguments, message, command, tmp_path):
    answer = command(*arguments)
    assert answer.status == 2
    assert message in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert not answer.stdout
    assert not list(tmp_path.glob("experiments/*"))


def test_describe_prints_the_layers_with_their_output_shapes(command):
    answer = command("describe", "lenet", "--image-size", "28", "--channels", "1")
    assert "(6, 28, 28)" in answer.stdout
    assert "61,706" in answer.stdout
    assert re.search(
        r"^float32 channels_last: [1-9][\d,]* images/s trained by one (core|GPU) here$", answer.stdout, re.M
    )


def test_the_cache_is_listed_and_cleared(command, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tunekit.datasets.publish(tunekit.load_dataset("digits"))
    listed = command("cache", "list").stdout
    assert re.search(r"^datasets .* 1797 images +digits$", listed, re.M) and f"GB in {tmp_path}" in listed.replace(
        "\n", ""
    )
    assert "GB freed" in command("cache", "clear").stdout
    assert "digits" not in command("cache").stdout
    assert "got 'empty'" in command("cache", "empty").stderr


def test_lists(command):
    assert "digits" in command("datasets").stdout
    assert "warmup_epochs" in command("spaces").stdout
    assert "resnet18" in command("describe").stdout


def test_a_backbone_of_ones_own_that_says_nothing_is_listed(command, monkeypatch):
    monkeypatch.setitem(backbones._things, "mine", lambda config, dataset: None)
    assert "\nmine\n" in command("describe").stdout


def test_train_test_and_results(command, tmp_path):
    arguments = ["backbone=mlp", "lr=3e-3", "--max-epochs", "2", "--name", "first", "--folder", tmp_path]
    trained = command("train", *arguments)
    assert trained.status == 0, trained.stderr
    assert "test_accuracy" in trained.stdout and str(tmp_path / "first") in trained.stdout.replace("\n", "")
    figures = json.loads(command("test", tmp_path / "first").stdout)
    assert figures["times_opened"] == 1
    results = tunekit.load_results(tmp_path / "first")
    assert results.best_config == {"backbone": "mlp", "lr": 3e-3}
    assert figures == results.test()
    assert "0.003" in command("results", tmp_path / "first").stdout
    command("results", tmp_path / "first", "--csv", tmp_path / "trials.csv")
    assert (tmp_path / "trials.csv").read_text().startswith("trial,state,num_epochs")


def test_a_constant_replaces_a_key_of_a_space_or_of_a_sweep(tmp_path):
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("{method: random, metric: {name: val_loss}, parameters: {lr: {min: 0.001, max: 0.1}}}")
    made = _space(str(sweep), ["batch_size=16"])
    assert made["metric"] == {"name": "val_loss"}
    assert made["parameters"]["batch_size"] == {"value": 16}
    sweep.write_text(
        "{method: random, parameters: {sgd: {parameters: {learning_rate: {value: 0.1}, momentum: {min: 0, max: 0.9}}}}}"
    )
    made = _space(str(sweep), ["lr=0.01"])
    assert made["parameters"] == {"momentum": {"min": 0, "max": 0.9}, "lr": {"value": 0.01}}
    sweep.write_text("[lr, momentum]")
    with pytest.raises(tunekit.SpaceError, match="a sweep is a dict with method, metric and parameters"):
        _space(str(sweep), ["lr=0.01"])
    made = _space("digits", ["batch_size=16", "weight_decay=0"])
    assert (made["batch_size"], made["weight_decay"]) == (16, 0)
    space = tmp_path / "mine.py"
    space.write_text("import tunekit\ndef net(**_): ...\nspace = {'backbone': tunekit.choice(['cnn', net])}")
    assert _space(str(space), ["backbone=net"])["backbone"].__name__ == "net"
    assert _space(str(space), ["backbone=mlp"])["backbone"] == "mlp"


@pytest.mark.long
def test_a_constant_is_set_in_the_choices_that_have_its_key(command, tmp_path, ray):
    small = ["--dataset", "digits", "--space", "digits", "--num-trials", "4", "--max-epochs", "1", "--folder", tmp_path]
    fixed = ["--set", "backbone=mlp", "--set", "lr=0.01", "--set", "optimizer=sgd", "--set", "weight_decay=0.001"]
    command("run", *small, *fixed, "--name", "first", "--searcher", "random")
    configs = [trial.config for trial in tunekit.load_results(tmp_path / "first").trials.values()]
    assert {(config["lr"], config["optimizer"], config["weight_decay"]) for config in configs} == {(0.01, "sgd", 0.001)}
    assert len({config["momentum"] for config in configs}) == 4  # which sgd brings is searched still
    assert "lr must be a number above 0 to 1000, but is 'abc'" in command("run", *small, "--set", "lr=abc").stderr
    assert (
        "unknown optimizer 'adamw': did you mean 'adam'?" in command("run", *small, "--set", "optimizer=adamw").stderr
    )


def test_a_cluster_that_is_not_there_is_one_line():
    """Ray itself would try for a minute and a half, with lines of its own all the while."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{server.getsockname()[1]}"
        status = [sys.executable, "-m", "tunekit", "status", "--address", address]
        environment = {**os.environ, "RAY_AUTH_TOKEN": "0" * 64}  # without one no cluster is asked
        told = subprocess.run(status, capture_output=True, text=True, check=False, env=environment)
    assert told.returncode == 2 and told.stderr.count("\n") == 1 and not told.stdout
    assert told.stderr.startswith(f"tunekit: no cluster at {address!r} can be joined (")
