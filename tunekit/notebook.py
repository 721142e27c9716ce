"""A notebook's forms: the live view, redrawn in place, and an experiment's answer. Plain HTML, without script or style.

IPython is there only where a notebook brought it: it is looked up, never needed.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

from tunekit import paths
from tunekit.confirm import verdict_of
from tunekit.events import Trial, winner_of
from tunekit.live import ViewState, clock, counted, in_short, sparkline
from tunekit.remote import place_of
from tunekit.safe_text import printable
from tunekit.scores import is_better

MOST_ROWS = 12  # of the live view; a search on a cluster has hundreds of running trials
NUM_TOP = 5


def in_notebook() -> bool:
    """Return whether this process is a notebook's kernel."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def in_cell(state: ViewState) -> Iterator[Callable[[list[str]], None]]:
    """Give a function that redraws the view in the output of the cell that runs."""
    from IPython.display import HTML, display

    shown = display(HTML(live_html(state)), display_id=True)
    yield lambda _: shown.update(HTML(live_html(state)))


def live_html(state: ViewState) -> str:
    """Return the view as it is now: trials, how far the search is, the best so far, and what went wrong last."""
    shown = state.shown()
    rows = []
    for trial in shown[:MOST_ROWS]:
        values = [metrics[state.metric] for metrics in trial.history if state.metric in metrics]
        done, value = len(trial.history), f"{values[-1]:.4f}" if values else ""
        bar = f'<progress value="{done}" max="{state.max_epochs}"></progress> {done}/{state.max_epochs}'
        rows.append([trial.number, trial.node, _Html(bar), value, sparkline(values), in_short(trial.config)])
    more = [f"and {len(shown) - MOST_ROWS} more"] if len(shown) > MOST_ROWS else []
    return (
        _table(["trial", "node", "epochs", state.metric, "", "config"], rows)
        + _lines([*more, *state.summary()])
        + _lines(f"⚠ {trouble}" for trouble in state.troubles)
    )


def answer_html(trials: dict[int, Trial], metric: str, mode: str, folder: Path) -> str:
    """Return what a search found: the answer, the best config, the best trials, and where all of it is.

    Args:
        trials: by their numbers.
        metric, mode: what best means.
        folder: the experiment's. The test split is not opened for this: its figures are given if it was.
    """
    searched = [trial for trial in trials.values() if trial.role == "search"]
    winner = winner_of(trials, metric, mode)
    states = [trial.state for trial in searched]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    where = f"{counted(len(searched), 'trial')} ({counts}) in {place_of(folder)}"
    if winner is None:
        return _lines(["no trial has come to a result", where])
    epoch = winner.best_epoch(metric, mode)
    said = [f"best: {metric} {winner.best_value(metric, mode):.4f}, trial {winner.number}, epoch {epoch}"]
    said += [_tested(paths.test_json(folder), winner)]
    verdict = verdict_of(trials, metric, mode)
    if verdict is not None:
        said.append(f"winner against the default config: {verdict}")
    elif winner.source == "default":
        said.append("the default config is the best that was found")
    top = _ranked(searched, metric, mode)[:NUM_TOP]
    rows = [
        [trial.number, trial.state, len(trial.history), f"{trial.best_value(metric, mode):.4f}",
         clock(trial.duration_s), in_short(trial.config)] for trial in top
    ]  # fmt: skip
    return (
        _lines(line for line in said if line)
        + _table(["config key", "best value"], list(winner.config.items()))
        + _table(["trial", "state", "epochs", metric, "time", "config"], rows)
        + _lines([where])
    )


def _ranked(trials: Iterable[Trial], metric: str, mode: str) -> list[Trial]:
    """Return the trials that have a score, the best first; of equals, the first."""
    scored = [trial for trial in trials if trial.score(metric, mode) is not None]
    sign = -1 if is_better(1.0, 0.0, mode) else 1
    return sorted(scored, key=lambda trial: (sign * (trial.score(metric, mode) or 0.0), trial.number))


def _tested(figures: Path, winner: Trial) -> str:
    """Return the winner's figures on test, in words; nothing where they are not known."""
    try:
        known = paths.read_json(figures)
        if known["trial"] != winner.number:
            return ""
        if "interval" not in known:
            return f"on test: mse {known['test_mse']:.4f}"
        low, high = known["interval"]
        return f"on test: accuracy {known['test_accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f})"
    except (OSError, ValueError, LookupError, TypeError):  # damage is said where the figures are asked for
        return ""


class _Html(str):
    """Text that is HTML already."""


def _cell(value: Any) -> str:
    return value if isinstance(value, _Html) else escape(printable(value))


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table of texts; columns that have nothing to say are left out."""
    rows = list(rows)
    kept = [at for at, _ in enumerate(columns) if any(str(row[at]) for row in rows)]
    if not rows:
        return ""
    head = "".join(f"<th>{_cell(columns[at])}</th>" for at in kept)
    body = "".join("<tr>" + "".join(f"<td>{_cell(row[at])}</td>" for at in kept) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _lines(lines: Iterable[Any]) -> str:
    return "".join(f"<div>{_cell(line)}</div>" for line in lines)
