"""Attacks by what is too much, too deep or more than data: YAML, JSON, tensors. Each test is a family of attacks."""

import hashlib
import itertools
import json
import shutil
from pathlib import Path

import attack_files
from attack_cli import LITTLE_MEMORY, command, look_at, memory_of

import tunekit
from tunekit.errors import ConfigError, SpaceError, TunekitError

SWEEP = "method: random\nmetric: {{name: val_loss, goal: minimize}}\nparameters:\n  lr: {}\n"
MOST_WORDS = 10_000  # characters of a message


def test_yaml_tags(tmp_path, record_property):
    """Tags that make objects or call functions, in sweeps, constants and configs."""
    touch = f"touch {tmp_path / 'sprung'}"
    tags = [
        f"!!python/object/apply:os.system ['{touch}']",
        f"!!python/object/apply:subprocess.check_output [[touch, '{tmp_path / 'sprung'}']]",
        f"!!python/object/new:os.system ['{touch}']",
        f"!!python/object/apply:builtins.open ['{tmp_path / 'sprung'}', 'w']",
        f"!!python/object/apply:builtins.eval [\"open('{tmp_path / 'sprung'}', 'w')\"]",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/tuple [1, 2]",
        "!evil 1",
        "!<tag:yaml.org,2002:python/name:os.system> ''",
    ]
    unclear = {}
    for tag in tags:
        sweep = tmp_path / "sweep.yaml"
        sweep.write_text(SWEEP.format(tag))
        run = ("run", "--num-trials", 1, "--folder", tmp_path / "experiments")
        answers = [command(*run, "--space", sweep), command(*run, "--set", f"lr={tag}")]
        answers += [command("train", f"lr={tag}"), command("train", "--option", f"study={tag}")]
        assert not (tmp_path / "sprung").exists(), tag
        unclear |= {(tag, at): answer.in_short for at, answer in enumerate(answers) if not answer.is_refused}
    assert not unclear and not (tmp_path / "experiments").exists()
    record_property("probes", len(tags) * 4)


def laughs(names: str) -> list[str]:
    """Return YAML pairs of which each holds the one before it nine times over."""
    pairs = itertools.pairwise(names)
    first = f"{names[0]}: &{names[0]} [{', '.join('x' * 9)}]"
    return [first, *(f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in pairs)]


def test_yaml_bombs(tmp_path, record_property):
    texts = {
        "billion laughs": "\n".join([*laughs("abcdefghi"), "parameters: *i"]),
        "itself": "parameters: &a\n  lr: *a\n",
        "deep": "parameters: " + "[" * 5_000,
        "deep in blocks": "parameters:\n" + "".join(f"{' ' * depth}a:\n" for depth in range(1, 1000)),
        "long": SWEEP.format("{values: [" + "1, " * 500_000 + "2]}"),
        "merged": "a: &a {b: 1}\nparameters: {<<: [" + "*a, " * 60_000 + "*a]}\n",
        "a number": SWEEP.format("{value: " + "9" * 100_000 + "}"),
    }
    sweep = tmp_path / "sweep.yaml"
    unclear = {}
    for what, text in texts.items():
        sweep.write_text(text)
        answers = []
        memory = memory_of(lambda found=answers: found.append(command("run", "--space", sweep, cwd=tmp_path)))
        if not answers[0].is_refused or memory > LITTLE_MEMORY:
            unclear[what] = answers[0].in_short, memory
    for pair in (f"lr={{{', '.join(laughs('abcde'))}}}", "lr=" + "[" * 5_000, "lr=" + "9" * 100_000):
        answer = command("train", pair, cwd=tmp_path)
        if not answer.is_refused or len(answer.stderr) > MOST_WORDS:
            unclear[pair[:40]] = answer.in_short
    assert not unclear
    record_property("probes", len(texts) + 3)


def test_oversized_tensors(original, tmp_path, record_property):
    """Headers of checkpoints and of exported models that claim what is not there."""
    experiment = Path(shutil.copytree(original, tmp_path / "first"))
    assert command("export", original, tmp_path / "model").status == 0
    about = json.loads((tmp_path / "model.json").read_text())
    probes, wrong = list(attack_files.safetensors_that_lie()), []

    def attack(what: str, data: bytes) -> None:
        (experiment / "trials" / "0000" / "best.safetensors").write_bytes(data)
        if not command("export", experiment, tmp_path / "again").is_refused:
            wrong.append(f"checkpoint with {what}")
        (tmp_path / "model.safetensors").write_bytes(data)
        (tmp_path / "model.json").write_text(json.dumps({**about, "sha256": hashlib.sha256(data).hexdigest()}))
        try:
            tunekit.load_model(tmp_path / "model")
            wrong.append(f"model with {what} is accepted")
        except TunekitError:
            pass
        except Exception as error:
            wrong.append(f"model with {what}: {type(error).__name__}")

    memory = memory_of(lambda: [attack(*probe) for probe in probes])
    assert not wrong and memory < LITTLE_MEMORY
    record_property("probes", len(probes) * 2)


def test_oversized_json(experiment, tmp_path, record_property):
    """JSON that is too deep, too long, of other types, or that asks for a model of a million gigabytes."""
    path = experiment / "experiment.json"
    described = json.loads(path.read_text())
    dataset = described["dataset"]
    texts = {
        "deep": "[" * 100_000 + "]" * 100_000,
        "deep and long": '{"a":' * 100_000 + "1" + "}" * 100_000,
        "long": "[" + "[]," * (6 * 2**20) + "[]]",
        "large number": "9" * 100_000,
        "list": "[]",
        "nothing": "",
        "null": "null",
        "no parts": "{}",
        "not finite": json.dumps({**described, "asked": float("nan")}),
        "empty parts": json.dumps({key: {} for key in described}),
        "large images": json.dumps({**described, "dataset": {**dataset, "image_shape": [3, 10**7, 10**7]}}),
        "negative images": json.dumps({**described, "dataset": {**dataset, "image_shape": [3, -8, 8]}}),
        "many classes": json.dumps({**described, "dataset": {**dataset, "classes": ["x"] * 10**6}}),
        "another field": json.dumps({**described, "dataset": {**dataset, "__class__": 1}}),
    }
    commands = {what: ("export",) for what in ("large images", "negative images", "many classes")}
    unclear = {}

    def attack(what: str) -> None:
        path.write_text(texts[what])
        (experiment / "test.json").unlink(missing_ok=True)
        answers = dict(look_at(experiment, cwd=tmp_path, commands=commands.get(what, ("results",))))
        unclear.update({(what, name): answer.in_short for name, answer in answers.items() if not answer.is_refused})

    memory = memory_of(lambda: [attack(what) for what in texts])
    assert not unclear and memory < LITTLE_MEMORY
    record_property("probes", len(texts))


def test_oversized_requests(tmp_path, record_property):
    """What is asked of a search itself: a thousand million trials, combinations or values."""
    deep = "leaf"
    for _ in range(5000):
        deep = {"name": "x", "y": tunekit.choice([deep])} if isinstance(deep, dict) else {"name": "x"}
    refused = {
        "combinations": ({f"x{key}": tunekit.grid(list(range(10))) for key in range(9)}, {"searcher": "grid"}),
        "deep": ({"x": tunekit.choice([deep])}, {}),
        "no end of trials": ({"x": tunekit.uniform(0, 1)}, {"num_trials": float("inf")}),
        "no end of epochs": ({"x": tunekit.uniform(0, 1)}, {"max_epochs": float("inf")}),
    }
    wrong = []

    def ask(what: str, space: dict, arguments: dict) -> None:
        asked = {"num_trials": 10**9, "time_budget_s": 1e-9, "verbose": 0, "folder": tmp_path / "asked", **arguments}
        try:
            tunekit.run(space, "digits", train=one_epoch, **asked)
            wrong.append(f"{what} is accepted") if what in refused else None
        except (SpaceError, ConfigError) as error:
            wrong.append(f"{what}: {len(str(error))} characters") if len(str(error)) > MOST_WORDS else None
        except Exception as error:
            wrong.append(f"{what}: {type(error).__name__}")

    def ask_all() -> None:
        for what, (space, arguments) in refused.items():
            ask(what, space, arguments)
        for searcher in ("tpe", "qmc", "random", "cmaes"):
            ask(f"a thousand million trials of {searcher}", {"x": tunekit.uniform(0, 1)}, {"searcher": searcher})

    assert memory_of(ask_all) < LITTLE_MEMORY and not wrong
    record_property("probes", len(refused) + 4)


def one_epoch(config, dataset, state=None):
    """A training loop."""
    yield {"val_accuracy": 0.5}, {}
