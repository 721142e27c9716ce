"""An experiment as an Optuna study in an SQLite file, which optuna-dashboard and all of Optuna's tools open."""

import contextlib
import json
import math
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunekit import paths
from tunekit.distributions import TransformedDistribution, extremes, value_of
from tunekit.errors import ConfigError
from tunekit.events import Trial
from tunekit.ledger import Ledger
from tunekit.outcomes import outcome, reported
from tunekit.remote import place_of
from tunekit.results import Results, load_results
from tunekit.space import Space, draw_config
from tunekit.space_json import space_from_json
from tunekit.storage import parted


def export_optuna(folder: str | Path, path: str | Path) -> Path:
    """Write the trials of a search to an SQLite file, as an Optuna study named like the experiment.

    A trial has its params with their distributions, the metric of every epoch as intermediate values, and when it
    began and ended. As our searchers are told, a finished trial is COMPLETE with its best epoch's value, a stopped or
    diverged one PRUNED, a failed one FAIL; one that has not ended is RUNNING. Its user attributes are trial (its number
    here), state, reason, best_epoch, source, seed and node.

    Args:
        folder: the experiment's folder, or its URL.
        path: the file, which must not be there yet.

    Returns:
        The path. `optuna.load_study(study_name=None, storage=f"sqlite:///{path}")` opens it.

    Raises:
        ConfigError: the file is there already.
        ExperimentError: as `load_results`.
        StorageError: the file cannot be written.

    Example:
        >>> import tunekit
        >>> results = tunekit.train({"backbone": "mlp"}, "digits", max_epochs=1, verbose=0)
        >>> tunekit.export_optuna(results.folder, "study.db").stat().st_size > 0
        True
    """
    path = Path(path)
    if path.exists():
        raise ConfigError(f"{path} is there already: choose another file for the study, or delete this one")
    results = load_results(folder)
    with _quiet(), contextlib.closing(sqlite3.connect(":memory:", check_same_thread=False)) as database:
        storage = RDBStorage("sqlite://", engine_kwargs={"creator": lambda: database})
        name = parted(place_of(results.folder.resolve()))[1]
        direction = StudyDirection.MAXIMIZE if results.mode == "max" else StudyDirection.MINIMIZE
        study = optuna.create_study(storage=storage, study_name=name, direction=direction)
        study.set_user_attr("metric", results.metric)
        for number, trial in enumerate(_trials(results)):
            _insert(database, number, trial)
        database.commit()
        written = database.serialize()
    paths.write_atomic(path, lambda aside: aside.write_bytes(written))
    return path


def _trials(results: Results) -> Iterator[FrozenTrial]:
    """Yield the trials of the search as Optuna keeps them."""
    space = space_from_json(results.asked["space"], named=True)
    times: dict[tuple[int | None, str], float] = {}  # of the first event of each kind
    ledger = Ledger(results.folder)
    for event in ledger.events():
        times.setdefault((event.trial, event.kind), event.time)
    ledger.close()
    for number, trial in results.trials.items():
        if trial.role == "search":
            state, made = _as_told(trial, results.metric, results.mode)
            params, distributions = _params(space, trial.params)
            began = times.get((number, "started"), times[number, "proposed"])
            yield FrozenTrial(
                number=number, trial_id=number, state=state, params=params, distributions=distributions,
                datetime_start=datetime.fromtimestamp(began),
                datetime_complete=datetime.fromtimestamp(times[number, "ended"]) if state.is_finished() else None,
                system_attrs={}, **made,
            )  # fmt: skip


def _as_told(trial: Trial, metric: str, mode: str) -> tuple[TrialState, dict[str, Any]]:
    """Return a trial's state in Optuna, and what else it is told of how the trial went."""
    values = {epoch: reported(m[metric]) for epoch, m in enumerate(trial.history, start=1) if metric in m}
    state, value = outcome(trial.state, values, mode)
    if state == TrialState.PRUNED and math.isfinite(last := values[max(values)]):
        value = last  # as Optuna itself keeps it
    about = {"trial": trial.number, "best_epoch": trial.best_epoch(metric, mode)}
    about |= {name: getattr(trial, name) for name in ("state", "reason", "source", "seed", "node")}
    return state, {"value": value, "intermediate_values": values, "user_attrs": about}


def _params(space: Space, drawn: dict[str, Any]) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Return a config's values by the names of its draws, and their distributions.

    A distribution that Optuna lacks, which it draws a share of, becomes its values or the range that they come from.
    """
    params: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}

    def draw(name: str, distribution: BaseDistribution) -> Any:
        params[name] = value_of(distribution, drawn[name])
        if isinstance(distribution, TransformedDistribution):
            listed = "values" in distribution.parameters
            every = extremes(distribution)
            distribution = CategoricalDistribution(every) if listed else FloatDistribution(*every)
        distributions[name] = distribution
        return drawn[name]

    draw_config(space, draw)
    return params, distributions


def _insert(database: sqlite3.Connection, number: int, trial: FrozenTrial) -> None:
    """Add a trial to the only study of a database, as `study.add_trial` does in fifty times the time.

    Source: Optuna, optuna/storages/_rdb/models.py, schema version 12; an infinite value does not come here.
    """
    key = number + 1
    times = [time and time.isoformat(" ", "microseconds") for time in (trial.datetime_start, trial.datetime_complete)]
    rows: dict[str, list[tuple[Any, ...]]] = {
        "trials(trial_id, number, study_id, state, datetime_start, datetime_complete)": [
            (key, number, 1, trial.state.name, *times)
        ],
        "trial_values(trial_id, objective, value, value_type)": [
            (key, 0, value, "FINITE") for value in trial.values or ()
        ],
        "trial_intermediate_values(trial_id, step, intermediate_value, intermediate_value_type)": [
            (key, step, None, "NAN") if math.isnan(value) else (key, step, value, "FINITE")
            for step, value in trial.intermediate_values.items()
        ],
        "trial_params(trial_id, param_name, param_value, distribution_json)": [
            (key, name, distribution.to_internal_repr(trial.params[name]), distribution_to_json(distribution))
            for name, distribution in trial.distributions.items()
        ],
        "trial_user_attributes(trial_id, key, value_json)": [
            (key, name, json.dumps(value)) for name, value in trial.user_attrs.items()
        ],
    }
    for table, values in rows.items():
        for value in values:
            database.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(value))})", value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from telling what it does while the block runs."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
