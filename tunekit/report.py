"""What the report shows, as plain data: numbers and texts, worked out from the record and nothing else."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tunekit.answer import answer_of, asked_in_words
from tunekit.axes import Axis, axis_of, in_figures, linear_axis
from tunekit.events import Trial, winner_of
from tunekit.importance import CELLS, FEWEST, importances, surface
from tunekit.reproduction import call_of
from tunekit.safe_text import printable
from tunekit.story import Story, lanes

MOST_ROWS = 10_000  # of the trial table: more would make the page too large to send
MOST_LINES = 1_000  # of curves: more cannot be told apart
MOST_POINTS = 100  # of a curve
MOST_STINTS = 5_000  # of the timeline


def page_data(
    described: dict[str, Any],
    story: Story,
    *,
    name: str,
    going: bool,
    tested: dict[str, Any] | None = None,
    looked: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return all that the page shows, fit for JSON.

    Args:
        described: experiment.json.
        story: what the ledger tells.
        name: of the experiment.
        going: whether the search goes on, so that the page should look again now and then.
        tested: the test split's figures, if it was opened.
        looked: what the best model does on val: see `mistakes.look`.
    """
    asked, dataset = described["asked"], described["dataset"]
    metric, mode = asked["metric"], asked["mode"]
    trials = [trial for _, trial in sorted(story.trials.items()) if trial.role == "search"]
    with_score = [place for place, trial in enumerate(trials) if trial.score(metric, mode) is not None]
    scored = [trials[place] for place in with_score]
    values = [trial.best_value(metric, mode) or 0.0 for trial in scored]
    keys = list(dict.fromkeys(key for trial in trials for key in trial.config))
    axes = [axis_of(key, [trial.config.get(key) for trial in trials]) for key in keys]
    of_scored = [axis.only(with_score) for axis in axes]
    weights = importances(of_scored, values)
    seen = sorted((axis for axis in of_scored if axis.varies), key=lambda axis: -weights.get(axis.name, 0.0))[:2]
    shown = _spread(trials, MOST_LINES, story)
    source = dataset.get("source") or {}
    data = {
        "name": name,
        "going": going,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "began": datetime.fromtimestamp(story.began, UTC).strftime("%Y-%m-%d %H:%M UTC") if story.began else "",
        "metric": metric,
        "mode": mode,
        "max_epochs": asked["max_epochs"],
        "asked": asked_in_words(asked, dataset, story),
        "answer": answer_of(asked, dataset, story, going, tested),
        "progress": {"best": [list(best) for best in story.best], "num_epochs": story.num_epochs, "now_s": story.now_s},
        "trials": _table(sorted(story.trials.values(), key=lambda trial: trial.number), metric, mode, story),
        "parallel": _parallel(axes, trials, story, {trial.number for trial in shown}),
        "curves": [_curve(trial, metric) for trial in shown if trial.history],
        "importance": {"shares": list(weights.items()), "num_trials": len(scored), "fewest": FEWEST},
        "slices": [_drawn(axis) for axis in seen],
        "surface": {"cells": surface(seen[0], seen[1], values), "num_cells": CELLS} if len(seen) == 2 else None,
        "scored": [[trial.number, value] for trial, value in zip(scored, values, strict=True)],
        "timeline": _timeline(story),
        "tested": tested,
        "looked": looked or {},
        "reproduce": {
            "call": call_of(asked, source, story.limits, name),
            "facts": _facts(asked, dataset, described),
        },
    }
    return _clean(data)


def _table(trials: Sequence[Trial], metric: str, mode: str, story: Story) -> dict[str, Any]:
    """Return the trial table: its keys, and a row per trial with the values of the config in their order."""
    rows = sorted(_spread(trials, MOST_ROWS, story), key=lambda trial: trial.number)
    keys = list(dict.fromkeys(key for trial in rows for key in trial.config))
    cells = [
        [
            trial.number, trial.state, trial.best_value(metric, mode), trial.best_epoch(metric, mode),
            len(trial.history), round(trial.duration_s, 2), trial.node,
            trial.source if trial.role == "search" else f"confirms the {trial.role}: {trial.source}",
            trial.reason, [in_figures(trial.config[key]) if key in trial.config else None for key in keys],
        ]
        for trial in rows
    ]  # fmt: skip
    winner = winner_of(story.trials, metric, mode)
    return {"keys": keys, "rows": cells, "num_left_out": len(trials) - len(rows),
            "best": None if winner is None else winner.number}  # fmt: skip


def _drawn(axis: Axis) -> dict[str, Any]:
    """Return an axis for the page, with a place beside the others for trials that have no value on it."""
    low, high = axis.span
    missing = None in axis.positions
    aside = low - (1.0 if not axis.is_numeric else 0.12 * ((high - low) or 1.0))
    ticks = [[aside, "none"]] if missing else []
    return {
        "name": axis.name,
        "kind": axis.kind,
        "low": low,
        "high": high,
        "least": aside if missing else low,
        "ticks": ticks + [list(tick) for tick in axis.ticks],
        "positions": [aside if at is None else round(at, 5) for at in axis.positions],
    }


def _parallel(axes: Sequence[Axis], trials: Sequence[Trial], story: Story, shown: set[int]) -> dict[str, Any]:
    """Return the axes of the parallel coordinates, the metric's last, and the trials that are lines there."""
    values = [trial.score(story.metric, story.mode) for trial in trials]
    if all(value is None for value in values):
        return {"axes": [], "trials": []}
    kept = [place for place, trial in enumerate(trials) if trial.number in shown]
    drawn = [axis for axis in axes if axis.varies] + [linear_axis(story.metric, values)]
    return {"axes": [_drawn(axis.only(kept)) for axis in drawn], "trials": [trials[place].number for place in kept]}


def _curve(trial: Trial, metric: str) -> dict[str, Any]:
    values = [metrics.get(metric) for metrics in trial.history]
    at = sorted({round(i) for i in np.linspace(0, len(values) - 1, min(len(values), MOST_POINTS))})
    return {"trial": trial.number, "state": trial.state, "points": [[i + 1, _short(values[i])] for i in at]}


def _spread(trials: Sequence[Trial], most: int, story: Story) -> list[Trial]:
    """Return at most so many trials: the best tenth, and others evenly spread over the search."""
    if len(trials) <= most:
        return list(trials)
    sign = -1 if story.mode == "max" else 1

    def rank(trial: Trial) -> float:
        value = trial.score(story.metric, story.mode)
        return math.inf if value is None else sign * value

    ranked = sorted(trials, key=rank)
    others = sorted(ranked[most // 10 :], key=lambda trial: trial.number)
    picked = np.linspace(0, len(others) - 1, most - most // 10).astype(int)
    return [*ranked[: most // 10], *(others[place] for place in picked)]


def _timeline(story: Story) -> dict[str, Any]:
    stints = story.stints
    names, places = lanes(stints)
    order = sorted(range(len(stints)), key=lambda at: stints[at].start_s - stints[at].end_s)[:MOST_STINTS]
    rows = [[places[at], round(stints[at].start_s, 2), round(stints[at].end_s, 2), stints[at].trial, stints[at].how]
            for at in order]  # fmt: skip
    return {"lanes": names, "stints": rows, "num_left_out": len(stints) - len(rows)}


def _facts(asked: dict[str, Any], dataset: dict[str, Any], described: dict[str, Any]) -> list[list[str]]:
    versions, measured = described["versions"], described["arithmetic"].values()
    arithmetic = sorted({f"{chosen['precision']}, {chosen['memory_format']}" for chosen in measured})
    split_seed = (dataset.get("source") or {}).get("split_seed", "not known: the data was made in memory")
    return [
        ["seed", str(asked["seed"])],
        ["split_seed", str(split_seed)],
        ["data fingerprint", dataset["fingerprint"]],
        ["git commit", versions.get("commit") or "not known: begun outside of a git repository"],
        *(["arithmetic, measured here", each] for each in arithmetic),
        *([key, str(value)] for key, value in versions.items() if key != "commit" and value),
    ]


def _short(value: Any) -> Any:
    """Return a number with as many digits as a chart can show."""
    return float(f"{value:.6g}") if isinstance(value, float) and math.isfinite(value) else value


def _clean(value: Any) -> Any:
    """Return data fit for JSON and for people: no NaN, no control characters."""
    if isinstance(value, dict):
        return {printable(key): _clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return printable(value) if isinstance(value, str) else value
