"""Experiments as Optuna studies: real searches, and ledgers made longer by hand, opened with Optuna's own tools."""

import math
from datetime import datetime
from pathlib import Path

import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

import tunekit
from tunekit.cli import main
from tunekit.errors import ConfigError, ExperimentError, StorageError
from tunekit.ledger import Ledger
from tunekit.samplers import quietly
from tunekit.storage import joined

OPTIMIZERS = [{"name": "sgd", "momentum": tunekit.uniform(0.0, 0.99)}, {"name": "adam"}]
SPACE = {"backbone": "mlp", "lr": tunekit.loguniform(1e-3, 1e-1), "batch_size": tunekit.choice([64, 128]),
         "optimizer": tunekit.choice(OPTIMIZERS), "augment": "none"}  # fmt: skip


def study_in(path: Path) -> optuna.Study:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{path}")
    optuna.logging.set_verbosity(before)
    return study


def add_trial(ledger: Ledger, state: str, values: list[float], lr: float) -> int:
    """Add a trial by hand, as a search would; return its number."""
    number = ledger.next_number
    params = {"lr": lr, "batch_size": 64, "optimizer": "sgd", "optimizer=sgd/momentum": lr / 2}
    config = {"backbone": "mlp", "lr": lr, "batch_size": 64, "optimizer": "sgd", "momentum": lr / 2, "augment": "none"}
    proposed = {"config": config, "params": params, "role": "search", "source": "tpe", "seed": number}
    ledger.append("proposed", proposed, number)
    ledger.append("started", {"node": "here"}, number)
    for epoch, value in enumerate(values, start=1):
        ledger.append("epoch", {"val_accuracy": value}, number, epoch)
    if state:
        ledger.append("ended", {"state": state, "reason": "so it was"}, number)
    return number


@pytest.fixture(scope="module")
def searched(ray, tmp_path_factory):
    """An experiment of four trials, and two that confirm."""
    folder = tmp_path_factory.mktemp("optuna")
    return tunekit.run(SPACE, "digits", num_trials=4, max_epochs=2, searcher="random", scheduler="none", confirm=1,
                       name="first", folder=folder, verbose=0)  # fmt: skip


def test_a_search_as_a_study(searched, tmp_path, capfd):
    path = tunekit.export_optuna(searched.folder, tmp_path / "study.db")
    assert capfd.readouterr() == ("", "")
    study = study_in(path)
    assert (study.study_name, study.direction.name) == ("first", "MAXIMIZE")
    assert study.user_attrs == {"metric": "val_accuracy"}
    assert study.best_params == searched.best_trial.params
    assert study.best_value == searched.best_value
    assert len(study.trials) == len(searched.dataframe) == 4
    for told, trial in zip(study.trials, searched.trials.values(), strict=False):
        assert (told.state, told.value) == (TrialState.COMPLETE, trial.best_value("val_accuracy", "max"))
        assert told.params == trial.params
        assert told.distributions["lr"] == SPACE["lr"]
        assert told.distributions["optimizer"] == CategoricalDistribution(["sgd", "adam"])
        assert ("optimizer=sgd/momentum" in told.params) == (trial.config["optimizer"] == "sgd")
        assert told.intermediate_values == {e: m["val_accuracy"] for e, m in enumerate(trial.history, start=1)}
        about = {"trial": trial.number, "state": "finished", "reason": "", "node": trial.node, "seed": trial.seed}
        assert about.items() <= told.user_attrs.items()
        assert told.user_attrs["best_epoch"] == trial.best_epoch("val_accuracy", "max")
    frame = study.trials_dataframe()
    assert list(frame["value"]) == list(searched.dataframe["val_accuracy"])
    importances = quietly(optuna.importance.get_param_importances, study)  # it warns, as the trials are but four
    assert set(importances) == {"lr", "batch_size", "optimizer", "optimizer=sgd/momentum"}
    ledger = Ledger(searched.folder)
    times = {(event.trial, event.kind): datetime.fromtimestamp(event.time) for event in ledger.events()}
    assert [(t.datetime_start, t.datetime_complete) for t in study.trials] == [
        (times[number, "started"], times[number, "ended"]) for number in range(4)
    ]


def test_every_state_and_a_study_that_optuna_goes_on_with(searched, tmp_path):
    ledger = Ledger(searched.folder, write=True)
    nan = math.nan
    cases = [("stopped", [0.3, 0.2], TrialState.PRUNED, 0.2), ("diverged", [0.3, nan], TrialState.PRUNED, None),
             ("failed", [0.9], TrialState.FAIL, None), ("failed", [], TrialState.FAIL, None),
             ("finished", [math.inf, 0.5, 0.4], TrialState.COMPLETE, 0.5), ("stopped", [], TrialState.FAIL, None),
             ("", [0.1], TrialState.RUNNING, None)]  # fmt: skip
    numbers = [add_trial(ledger, state, values, 0.01) for state, values, *_ in cases]
    study = study_in(tunekit.export_optuna(searched.folder, tmp_path / "study.db"))  # while it is being searched
    ledger.close()
    for number, told, (state, values, *expected) in zip(numbers, study.trials[4:], cases, strict=True):
        assert [told.state, told.value] == expected
        assert told.user_attrs["trial"] == number > told.number  # trials that confirm are left out
        assert told.user_attrs["state"] == (state or "running")
        assert told.user_attrs["reason"] == ("so it was" if state else "")
        assert list(told.intermediate_values) == list(range(1, len(values) + 1))
        assert (told.datetime_complete is None) == (not state)
    study.sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=1)
    trial = study.ask({"lr": SPACE["lr"], "batch_size": CategoricalDistribution([64, 128])})
    study.tell(trial, 0.5)
    assert len(study_in(tmp_path / "study.db").trials) == 12


@pytest.mark.long
def test_distributions_that_optuna_lacks_and_functions(ray, tmp_path):
    def net(config, dataset):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, dataset.num_outputs))

    parameters = {
        "lr": {"distribution": "log_normal", "mu": -4.0, "sigma": 1.0},
        "batch_size": {"values": [32, 64], "probabilities": [0.9, 0.1]},
        "warmup_epochs": {"distribution": "q_normal", "mu": 4, "sigma": 0.3, "q": 1},
        "backbone": {"value": "mlp"},
    }
    sweep = {"method": "random", "metric": {"name": "val_loss"}, "parameters": parameters}
    results = tunekit.run(sweep, "digits", num_trials=2, max_epochs=1, name="sweep", folder=tmp_path, verbose=0)
    study = study_in(tunekit.export_optuna(results.folder, tmp_path / "study.db"))
    assert study.direction.name == "MINIMIZE"
    for told, trial in zip(study.trials, results.trials.values(), strict=True):
        assert told.params == {key: trial.config[key] for key in told.params}
        assert set(told.params) == set(parameters) - {"backbone"}
        assert isinstance(told.distributions["lr"], FloatDistribution)
        assert told.distributions["batch_size"] == CategoricalDistribution([32, 64])
    space = {"backbone": tunekit.choice([net, "mlp"]), "lr": tunekit.loguniform(1e-3, 1e-1)}
    results = tunekit.run(space, "digits", num_trials=2, max_epochs=1, name="own", folder=tmp_path, verbose=0)
    study = study_in(tunekit.export_optuna(results.folder, tmp_path / "own.db"))
    assert study.trials[0].distributions["backbone"] == CategoricalDistribution(["net", "mlp"])


def test_of_an_experiment_in_a_storage(url, tmp_path):
    tunekit.train({"backbone": "mlp"}, "digits", max_epochs=1, name="far", folder=url, verbose=0)
    study = study_in(tunekit.export_optuna(joined(url, "far"), tmp_path / "study.db"))
    assert (study.study_name, len(study.trials), study.trials[0].params) == ("far", 1, {})


def test_what_is_there_stays_and_nothing_is_left_half_written(searched, tmp_path):
    path = tmp_path / "study.db"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is there already: choose another file"):
        tunekit.export_optuna(searched.folder, path)
    assert path.read_text() == "mine"
    with pytest.raises(StorageError, match="cannot be written"):
        tunekit.export_optuna(searched.folder, tmp_path / "none" / "study.db")
    with pytest.raises(ExperimentError, match="is no experiment"):
        tunekit.export_optuna(tmp_path, tmp_path / "other.db")
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


def test_the_command(searched, tmp_path, capsys):
    main(["export", str(searched.folder), str(tmp_path / "model"), "--optuna", str(tmp_path / "a {b}?%20c.db")])
    *model, study = capsys.readouterr().out.splitlines()
    assert str(tmp_path / "model.safetensors") in model and study == str(tmp_path / "a {b}?%20c.db")
    Path(study).rename(tmp_path / "study.db")
    assert study_in(tmp_path / "study.db").study_name == "first"
    for arguments, message in [
        ([], "export needs a path for the model, or --optuna with a file for the trials"),
        (["--optuna", str(tmp_path / "study.db")], "is there already"),
    ]:
        with pytest.raises(SystemExit) as end:
            main(["export", str(searched.folder), *arguments])
        assert end.value.code == 2
        assert message in (said := capsys.readouterr().err) and len(said.splitlines()) == 1
