"""The live view of a search, beside it or of one that was started elsewhere, in the form that fits the output."""

import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from tunekit.errors import ExperimentError
from tunekit.ledger import Ledger, read_experiment
from tunekit.live import ViewState, counted
from tunekit.notebook import in_cell, in_notebook
from tunekit.safe_text import printable
from tunekit.screen import can_redraw, on_screen
from tunekit.watched import EVERY_S, Watched

Show = Callable[[list[str]], None]


@contextmanager
def view(folder: Path, verbose: int) -> Iterator[None]:
    """Show the search in `folder` while the block runs: on a terminal, in a notebook, or else as plain lines.

    Args:
        folder: the experiment's, whose ledger was just opened by this process.
        verbose: 0 shows nothing.
    """
    if not verbose:
        yield
        return
    state, ledger, done = ViewState(read_experiment(folder)["asked"]), Ledger(folder), threading.Event()
    state.hear(ledger.events())
    with form_of(state) as show:

        def follow() -> None:
            last = False
            try:
                while not last:
                    last = done.wait(EVERY_S)
                    show(state.hear(ledger.events(after=state.last.number if state.last else 0)))
            except ExperimentError as error:  # the search itself will say it, if it matters
                say(printable(f"the view has ended: {error}"))
            except BrokenPipeError:  # whoever read the lines has read enough
                pass

        thread = threading.Thread(target=follow, name="tunekit-view", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(timeout=10)
            state.end()
            show([])
    ledger.close()


def form_of(state: ViewState) -> AbstractContextManager[Show]:
    """Return the form that fits where the output goes; it gives a function that shows what was just heard."""
    if in_notebook():
        return in_cell(state)
    console = Console()
    return on_screen(console, state) if can_redraw(console) else as_lines(state)


@contextmanager
def as_lines(state: ViewState) -> Iterator[Show]:
    """Give a function that prints what was just heard; how far the search is, is said after the block."""

    def show(lines: list[str]) -> None:
        for line in lines:
            say(line)

    yield show
    with suppress(BrokenPipeError):
        show(state.summary())


def say(line: str) -> None:
    """Print a line at once, in letters that the output knows."""
    encoding = sys.stdout.encoding or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def watch(place: Path | str) -> bool:
    """Show a search that was started elsewhere until it is over; return whether its driver ended it, and did not die.

    Args:
        place: the experiment's folder or URL. Nothing is written there.

    Raises:
        ExperimentError: it is no experiment, or its ledger is damaged.
    """
    with _signals_raise(), tempfile.TemporaryDirectory(prefix="tunekit-watch-") as copy:
        watched = Watched(place, Path(copy))
        state = watched.state
        watched.look()
        if state.over:
            for line in state.summary():
                say(line)
        else:
            with form_of(state) as show:
                show([])
                while not state.over:
                    watched.wait()
                    show(watched.look())
        closed = watched.was_closed()
    left, go_on = state.num_trials - state.num_ended, f"tunekit resume {place}"
    if not closed:
        driver = f"its driver, process {state.opened.get('pid')} on {state.opened.get('host')}, died"
        say(printable(f"Cut off: {driver}. What it wrote down is safe, and goes on with: {go_on}"))
    elif left:
        say(printable(f"Stopped, with {counted(left, 'trial')} left. It goes on with: {go_on}"))
    else:
        say(printable(f"Over: tunekit results {place}"))
    return closed


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does: a terminal must get its cursor back."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
