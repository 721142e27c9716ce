"""The terminal's form of the live view: a line per running trial, redrawn in place."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tunekit.events import Trial
from tunekit.live import NUM_TROUBLES, ViewState, in_short, sparkline
from tunekit.safe_text import printable

OTHER_LINES = NUM_TROUBLES + 6  # beside those of trials: header, "and more", summary, and the line of the cursor
NARROW, WIDE = 72, 100  # columns, below which there is no room for long bars, and for the names of machines


def can_redraw(console: Console) -> bool:
    """Return whether a terminal can show the view: it moves the cursor, and knows more letters than ASCII's."""
    return console.is_terminal and not console.is_dumb_terminal and not console.options.ascii_only


@contextmanager
def on_screen(console: Console, state: ViewState) -> Iterator[Callable[[list[str]], None]]:
    """Give a function that redraws the view; the cursor comes back after the block, however it ends."""
    live = Live(frame(state, console), console=console, refresh_per_second=4)
    try:  # no `with`: Ctrl-C may come while it starts
        live.start(refresh=True)
        yield lambda _: live.update(frame(state, console))
    finally:
        live.stop()


def frame(state: ViewState, console: Console) -> Group:
    """Return the view as it is now: trials, how far the search is, the best so far, and what went wrong last.

    It is no wider and no higher than the terminal.
    """
    shown = state.shown()
    room = max(1, console.height - OTHER_LINES)
    parts: list[Table | Text] = []
    if shown:
        parts.append(_table(state, shown[:room], console.width))
    if len(shown) > room:
        parts.append(_line(f"and {len(shown) - room} more", "dim"))
    ended, *counts, best = state.summary()
    parts += [_line(ended, "bold"), *(_line(count) for count in counts), _line(best, "green" if state.best else "")]
    return Group(*parts, *(_line(trouble, "yellow") for trouble in state.troubles))


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _table(state: ViewState, trials: list[Trial], width: int) -> Table:
    bar_width = spark_width = 12 if width >= NARROW else 6
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    node = ["node"] if len({trial.node for trial in state.trials.values()} - {""}) > 1 and width >= WIDE else []
    table.add_column("trial", justify="right", no_wrap=True)
    for column in (*node, "epochs", "", escape(printable(state.metric))):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    table.add_column(width=spark_width)  # from the start, so that nothing moves when it fills
    table.add_column("config", no_wrap=True, overflow="ellipsis", ratio=1)  # which has what the others leave
    for trial in trials:
        values = [metrics[state.metric] for metrics in trial.history if state.metric in metrics]
        runs = trial.state == "running" or not state.whole
        table.add_row(
            str(trial.number),
            *([Text(printable(trial.node)[:16])] if node else []),
            f"{len(trial.history)}/{state.max_epochs}",
            ProgressBar(state.max_epochs, len(trial.history), width=bar_width, complete_style="cyan"),
            f"{values[-1]:.4f}" if values else "",
            sparkline(values)[-spark_width:],
            Text(in_short(trial.config)),
            style="" if runs else "dim",
        )
    return table
