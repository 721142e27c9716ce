"""What a view of a search knows, and how it says it: the trials so far, the best, the time."""

import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from tunekit.events import ENDED, UNSCORED, Event, Trial, trials_from, winner_of
from tunekit.safe_text import printable
from tunekit.scores import EPOCH_METRICS, is_better

SPARKS = "▁▂▃▄▅▆▇█"
NUM_TROUBLES = 3  # the last few that are shown
STATES = ("running", "waiting", "paused", *ENDED)


class ViewState:
    """What is known of a search, from the events heard so far.

    Args:
        asked: what experiment.json says of it.
        whole: the events are the driver's own; else they were made of what a storage knows, which is not told that a
            trial starts or pauses.
    """

    def __init__(self, asked: dict[str, Any], whole: bool = True) -> None:
        self.metric, self.mode, self.max_epochs = asked["metric"], asked["mode"], asked["max_epochs"]
        self.whole = whole
        self.opened: dict[str, Any] = {}
        self.trials: dict[int, Trial] = {}
        self.rows: list[int] = []  # the trials that are shown: whoever starts takes the row of one that runs no more
        self.troubles: deque[str] = deque(maxlen=NUM_TROUBLES)
        self.best: tuple[float, Trial] | None = None
        self.last: Event | None = None
        self.over = False
        self.hear_time(0.0)
        self.num_ended = 0
        self.num_epochs = self.epochs_before = 0  # trained so far, and before this session
        self.from_s = 0.0  # when the first trial of this session started

    def hear(self, events: Iterable[Event]) -> list[str]:
        """Take in what happened next; return a line for each event of which people want to know."""
        lines = []
        for event in events:
            trials_from([event], self.trials)
            if event.kind == "opened":
                self.opened, self.rows, self.epochs_before = event.data, [], self.num_epochs
                self.from_s = event.at_s if self.whole else 0.0
            elif event.trial is not None:
                self._hear_of(self.trials[event.trial], event)
                lines += [line] if (line := self._line(self.trials[event.trial], event)) else []
            self.last = event
            if self.whole:
                self.hear_time(event.at_s)
        return lines

    def hear_time(self, at_s: float) -> None:
        """Take in how many seconds the search has run for by now."""
        self.at_s, self.heard_at = at_s, time.monotonic()

    def _hear_of(self, trial: Trial, event: Event) -> None:
        if event.kind == "epoch":
            self.num_epochs += 1
            value = event.data.get(self.metric)
            if trial.role == "search" and value is not None:
                known, first = (self.best[0], self.best[1].number) if self.best else (None, 0)
                if is_better(value, known, self.mode) or (value == known and trial.number < first):
                    self.best = value, trial
        elif event.kind == "started" and self.whole:
            if not self.rows:
                self.from_s = event.at_s
            if trial.number not in self.rows:
                free = [row for row, number in enumerate(self.rows) if self.trials[number].state != "running"]
                row = free[0] if free else len(self.rows)
                self.rows[row : row + 1] = [trial.number]
        elif event.kind == "ended":
            self.num_ended += 1
            if event.data["state"] in UNSCORED and self.best and self.best[1] is trial:
                best = winner_of(self.trials, self.metric, self.mode)  # a trial that ends like this has no score
                self.best = (best.best_value(self.metric, self.mode) or 0.0, best) if best else None
        if trouble := _trouble(event):
            self.troubles.append(trouble)

    def shown(self) -> list[Trial]:
        """Return the trials that have a line each: those that run, and in the place of one that ran, that one."""
        if self.over:
            return []
        if self.whole:
            return [self.trials[number] for number in self.rows]
        return [trial for trial in self.trials.values() if trial.state not in ENDED]

    def end(self) -> None:
        """Take note that nothing more is heard; the clock stands still."""
        self.at_s, self.over = self.gone_s(), True

    def gone_s(self) -> float:
        """Return the seconds that the search has run for, over all its sessions."""
        return self.at_s + (0.0 if self.over or self.last is None else time.monotonic() - self.heard_at)

    def left_s(self) -> float | None:
        """Return the seconds that the search still takes, as fast as this session was so far; None if unknown."""
        in_all, new_epochs = self.epochs_in_all(), self.num_epochs - self.epochs_before
        if self.over or new_epochs < 1 or in_all is None:
            return None
        left_s = (self.gone_s() - self.from_s) / new_epochs * (in_all - self.num_epochs)
        budget_s = self.opened.get("time_budget_s")
        return left_s if budget_s is None else max(0.0, min(left_s, budget_s - self.gone_s()))

    def epochs_in_all(self) -> float | None:
        """Return how many epochs the search trains: as planned, or judged by the trials that ended so far; or None."""
        planned, trials = self.opened.get("epochs_in_all"), self.trials.values()
        if planned is not None:
            confirming = self._num_confirming() or 2 * self.opened.get("confirm", 0)
            return max(planned + confirming * self.max_epochs, self.num_epochs)
        if not self.num_ended:
            return None
        each = sum(len(trial.history) for trial in trials if trial.state in ENDED) / self.num_ended
        going = sum(max(each, len(trial.history)) for trial in trials if trial.state not in ENDED)
        return each * (self.num_ended + self.num_trials - len(trials)) + going

    @property
    def num_trials(self) -> int:
        """How many trials the search has in all."""
        planned = self.opened.get("trials_in_all", self.opened.get("num_trials", 0)) + self._num_confirming()
        return max(planned, len(self.trials))

    def _num_confirming(self) -> int:
        return sum(trial.role != "search" for trial in self.trials.values())

    def summary(self) -> list[str]:
        """Return how far the search is: trials and time, how many are in each state, and the best so far."""
        states = [trial.state for trial in self.trials.values()]
        if self.over:  # which its driver may not have come to write down
            states = ["waiting" if state == "running" else state for state in states]
        left = self.left_s()
        gone = f"{clock(self.gone_s())} gone" + (f", about {clock(left)} left" if left is not None else "")
        names = {} if self.whole else {"waiting": "not ended"}
        counts = [f"{states.count(state)} {names.get(state, state)}" for state in STATES if state in states]
        planned = None if self.over or not self.opened.get("epochs_in_all") else self.epochs_in_all()
        trained = f"{self.num_epochs} of about {planned:.0f} epochs" if planned else counted(self.num_epochs, "epoch")
        best = "none yet"
        if self.best:
            value, trial = self.best
            best = f"{self.metric} {value:.4f}, trial {trial.number}: {in_short(trial.config)}"
        if self.whole and not self.over and "trials_in_all" in self.opened and counts and not self.rows:
            counts.append("Ray and its workers are starting")
        return [
            f"{self.num_ended} of {counted(self.num_trials, 'trial')} ended · {gone}",
            *([f"{trained} · {', '.join(counts)}"] if counts else []),
            f"best{'' if self.over else ' so far'}: {printable(best)}",
        ]

    def _line(self, trial: Trial, event: Event) -> str:
        """Return an event in words; nothing for one that says nothing to people."""
        if event.kind == "epoch" and self.num_trials == 1:
            shown = [f"{printable(name)} {event.data[name]:.4f}" for name in event.data if name not in EPOCH_METRICS]
            took = event.data.get("epoch_s", 0)
            return f"epoch {event.epoch} of {self.max_epochs}: {', '.join(shown)} ({took:.1f} s)"
        if event.kind not in ("ended", "paused", "retry"):
            return _trouble(event)
        what = {"ended": str(event.data.get("state")), "paused": "pauses", "retry": "tried again"}[event.kind]
        what += f", to confirm the {trial.role}," if trial.role != "search" else ""
        value = trial.best_value(self.metric, self.mode)
        said = [f"{self.metric} {value:.4f}"] if value is not None else []
        if event.kind == "retry" or event.data.get("state") in UNSCORED:
            said.append(_one_line(event.data["reason"]))
        best = f", best {self.best[0]:.4f} of trial {self.best[1].number}" if self.best else ""
        after = f"trial {trial.number} {what} after {counted(len(trial.history), 'epoch')}: {', '.join(said)}"
        return printable(f"{after} ({self.num_ended} of {self.num_trials} ended{best})")


def _trouble(event: Event) -> str:
    """Return what went wrong, in a line; nothing where nothing did."""
    trial = f"trial {event.trial}"
    if event.kind == "warned":
        return f"{trial}: {_one_line(event.data['text'])}"
    if event.kind == "retry":
        return f"{trial} is tried again: {_one_line(event.data['reason'])}"
    if event.kind == "ended" and event.data["state"] in UNSCORED:
        return f"{trial} {event.data['state']}: {_one_line(event.data['reason'])}"
    return ""


def _one_line(text: str) -> str:
    return printable(" ".join(text.split())) or "no reason known"


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
    return "the defaults" if not config else printable(" ".join(f"{key}={value}" for key, value in shown.items()))


def clock(seconds: float) -> str:
    """Return seconds as m:ss or h:mm:ss.

    Example:
        >>> clock(75), clock(3675)
        ('1:15', '1:01:15')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def counted(number: int, what: str) -> str:
    """Return how many there are of something.

    Example:
        >>> counted(1, "epoch"), counted(2, "epoch")
        ('1 epoch', '2 epochs')
    """
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
