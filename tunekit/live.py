"""The terminal's view of a search while it runs: a reader of the ledger, on a thread of its own."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tunekit.events import ENDED, Event, Trial, trials_from
from tunekit.ledger import Ledger
from tunekit.safe_text import printable
from tunekit.scores import EPOCH_METRICS, is_better

EVERY_S = 0.5
SPARKS = "▁▂▃▄▅▆▇█"


@contextmanager
def view(
    folder: Path, num_trials: int, max_epochs: int, metric: str, mode: str, verbose: int, num_epochs: int | None = None
) -> Iterator[None]:
    """Show the search in `folder` while the block runs: a live table on a terminal, else a line per trial that ends.

    Args:
        folder: the experiment's.
        num_trials: how many trials the search has in all.
        max_epochs: the most epochs a trial gets.
        metric, mode: what best means.
        verbose: 0 shows nothing.
        num_epochs: how many the search trains in all, where that is known.
    """
    if not verbose:
        yield
        return
    state = ViewState(Ledger(folder), num_trials, max_epochs, metric, mode, num_epochs)
    console = Console()
    done = threading.Event()
    thread = threading.Thread(target=_show, args=(state, console, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=10)
        state.ledger.close()


class ViewState:
    """What the view knows: the trials, as the ledger has them so far."""

    def __init__(
        self, ledger: Ledger, num_trials: int, max_epochs: int, metric: str, mode: str, num_epochs: int | None = None
    ) -> None:
        self.ledger, self.num_trials, self.max_epochs, self.num_epochs = ledger, num_trials, max_epochs, num_epochs
        self.metric, self.mode = metric, mode
        self.trials: dict[int, Trial] = {}
        self.heard = 0
        self.best: tuple[float, Trial] | None = None
        self.began = time.monotonic()
        self.epochs_before = sum(event.kind == "epoch" for event in self.catch_up())

    def catch_up(self) -> list[Event]:
        """Take in what is new in the ledger, and return it."""
        events = list(self.ledger.events(after=self.heard))
        trials_from(events, self.trials)
        self.heard = events[-1].number if events else self.heard
        for event in events:
            trial = self.trials.get(event.trial) if event.trial is not None else None
            value = event.data.get(self.metric) if event.kind == "epoch" else None
            if trial is None or trial.role != "search" or value is None:
                continue
            if is_better(value, self.best[0] if self.best else None, self.mode):
                self.best = value, trial
        return events

    def left_s(self) -> float | None:
        """Return the seconds that the search still takes, judged by the trials that ended so far; None if unknown."""
        ended = [trial for trial in self.trials.values() if trial.state in ENDED]
        epochs = sum(len(trial.history) for trial in self.trials.values())
        new_epochs = epochs - self.epochs_before
        if new_epochs < 1 or not (ended or self.num_epochs):
            return None
        each = sum(len(trial.history) for trial in ended) / max(1, len(ended))
        total = self.num_epochs or each * max(self.num_trials, len(self.trials))
        return (time.monotonic() - self.began) / new_epochs * max(0.0, total - epochs)


def _show(state: ViewState, console: Console, done: threading.Event) -> None:
    if console.is_terminal:
        with Live(_table(state), console=console, refresh_per_second=4) as screen:
            while not done.wait(EVERY_S):
                state.catch_up()
                screen.update(_table(state))
            state.catch_up()
            screen.update(_table(state))
        return
    while True:
        last = done.wait(EVERY_S)
        for event in state.catch_up():
            if event.kind == "epoch" and state.num_trials == 1 and event.trial is not None:
                console.print(_epoch_line(state, event), highlight=False, markup=False, soft_wrap=True)
            if event.kind == "warned":
                text = f"trial {event.trial}: {printable(event.data['text'])}"
                console.print(text, highlight=False, markup=False, soft_wrap=True)
            if event.kind in ("ended", "paused", "retry") and event.trial is not None:
                console.print(_line(state, state.trials[event.trial], event), highlight=False, soft_wrap=True)
        if last:
            return


def _epoch_line(state: ViewState, event: Event) -> str:
    shown = [name for name in event.data if name not in EPOCH_METRICS]
    figures = ", ".join(f"{printable(name)} {event.data[name]:.4f}" for name in shown)
    return f"epoch {event.epoch} of {state.max_epochs}: {figures} ({event.data.get('epoch_s', 0):.1f} s)"


def _line(state: ViewState, trial: Trial, event: Event) -> str:
    value = trial.best_value(state.metric, state.mode)
    ended = sum(t.state in ENDED for t in state.trials.values())
    what = {"ended": event.data.get("state"), "paused": "pauses", "retry": "tried again"}[event.kind]
    scores = [f"{state.metric} {value:.4f}"] if value is not None else []
    well = event.kind == "paused" or event.data.get("state") in ("finished", "stopped")
    reasons = [] if well else [printable(event.data["reason"])]
    score = escape(", ".join(scores + reasons))
    best = f", best {state.best[0]:.4f} of trial {state.best[1].number}" if state.best else ""
    counts = f"{ended} of {max(state.num_trials, len(state.trials))} ended"
    return f"trial {trial.number} {what} after {len(trial.history)} epochs: {score} ({counts}{best})"


def _table(state: ViewState) -> Group:
    table = Table(box=None, pad_edge=False, header_style="dim")
    several = len({trial.node for trial in state.trials.values()} - {""}) > 1
    for column in ("trial", *(("node",) if several else ()), "epochs", "", state.metric, "", "config"):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    for trial in state.trials.values():
        if trial.state == "running":
            values = [metrics[state.metric] for metrics in trial.history if state.metric in metrics]
            table.add_row(
                str(trial.number),
                *([printable(trial.node)] if several else []),
                f"{len(trial.history)}/{state.max_epochs}",
                ProgressBar(total=state.max_epochs, completed=len(trial.history), width=12),
                f"{values[-1]:.4f}" if values else "",
                sparkline(values),
                Text(in_short(trial.config)),
            )
    counts: dict[str, int] = {}
    for trial in state.trials.values():
        counts[trial.state] = counts.get(trial.state, 0) + 1
    ended = sum(counts.get(name, 0) for name in ENDED)
    left = state.left_s()
    parts = [
        f"{ended} of {max(state.num_trials, len(state.trials))} trials",
        ", ".join(f"{number} {name}" for name, number in counts.items()),
        f"{clock(time.monotonic() - state.began)} gone" + (f", about {clock(left)} left" if left is not None else ""),
    ]
    best = Text("best so far: none yet")
    if state.best:
        value, trial = state.best
        best = Text(f"best so far: {state.metric} {value:.4f}, trial {trial.number}: {in_short(trial.config)}")
    return Group(table, Text(" · ".join(part for part in parts if part), style="bold"), best)


def sparkline(values: list[float]) -> str:
    """Return values as a line of small bars.

    Example:
        >>> sparkline([0.0, 0.5, 1.0])
        '▁▅█'
    """
    finite = [value for value in values if value == value and abs(value) != float("inf")]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    step = (high - low) / (len(SPARKS) - 1) or 1.0
    return "".join(SPARKS[round((value - low) / step)] for value in finite[-12:])


def in_short(config: dict[str, Any]) -> str:
    """Return a config in one line.

    Example:
        >>> in_short({"lr": 0.00123456, "optimizer": "adam"})
        'lr=0.00123 optimizer=adam'
    """
    shown = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in config.items()}
    return printable(" ".join(f"{key}={value}" for key, value in shown.items()))


def clock(seconds: float) -> str:
    """Return seconds as m:ss or h:mm:ss.

    Example:
        >>> clock(75), clock(3675)
        ('1:15', '1:01:15')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
