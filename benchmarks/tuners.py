"""tunekit, its variants and random search, as `simulator.py` wants them; the peers are in tuners_of_others.py.

The work is done by tunekit's own Proposer and Decisions: only the training is replayed.

Every tuner draws whole numbers along the axes of the table's grid, which are log-spaced: so an axis keeps its order,
all see the same space, and what is proposed is always a config of the table. (With choices in place of whole numbers no
searcher could interpolate, and CMA-ES could not work; a loguniform rounded to the grid would let tunekit propose the
same point twice, which it does not do.) The forecaster alone draws the values themselves, as choices of numbers, which
keep their order too: it knows what a learning rate is, and what momentum and batch size make of it.
"""

import math
from collections import defaultdict
from typing import Any

import numpy as np
from curves import METRIC, Curves
from simulator import Job

from tunekit.distributions import choice, randint
from tunekit.events import Event
from tunekit.forecaster import Forecaster
from tunekit.pausing import MOST_PAUSED
from tunekit.proposer import NEW, Proposer
from tunekit.schedulers import Decisions
from tunekit.space import draw_config
from tunekit.training import derive_seed


class Tunekit:
    """tunekit itself: its Proposer and its Decisions, told the events that a ledger would hold, in their order.

    Args:
        curves: the table.
        seed: of the experiment.
        searcher, scheduler: names, as in `tunekit.run`.
        told: what the searcher hears of a trial that was stopped: "partial", its values so far, as tunekit does;
            "finished", as if it had ended there; "nothing".
        max_trials: the most there may be.
    """

    def __init__(
        self, curves: Curves, seed: int, searcher: str, scheduler: str, told: str = "partial", max_trials: int = 1_000
    ) -> None:
        self.curves, self.seed, self.told, self.max_trials = curves, seed, told, max_trials
        self.num_new = 0
        self.space = {name: randint(0, last) for name, last in curves.bounds.items()}
        self.proposer = Proposer(self.space, searcher, METRIC, "max", seed, [("default", curves.default)])
        self.decisions = Decisions(scheduler, curves.max_epochs, METRIC, "max")
        self.events: list[Event] = []
        self.held_back: dict[int, list[Event]] = defaultdict(list)

    def ask(self) -> Job | None:
        """Propose as `RaySearcher` does: into the ledger, and from there to the proposer."""
        number = self.proposer.num_proposed
        proposal = self.proposer.propose(number) if self.num_new < self.max_trials else None
        if proposal is None:
            return None
        self.num_new += 1
        source, params = proposal
        self.propose(number, source, params)
        return Job(number, self.curves.number(params))

    def propose(self, number: int, source: str, params: dict[str, Any]) -> None:
        """Write a proposal down."""
        config = draw_config(self.space, lambda name, _: params[name])
        seed = derive_seed(self.seed, "trial", number)
        described = {"config": config, "params": params, "role": "search", "source": source, "seed": seed}
        self.append("proposed", described, number)

    def tell(self, trial: int, epoch: int, value: float) -> bool:
        """Settle a trial as `Recorder` does."""
        self.append("epoch", {METRIC: value}, trial, epoch)
        if not math.isfinite(value):
            return self.end(trial, "diverged")
        if self.decisions.decide(trial, epoch, value):
            return self.end(trial, "stopped")
        return epoch == self.curves.max_epochs and self.end(trial, "finished")

    def end(self, trial: int, state: str) -> bool:
        """Write down that a trial has ended."""
        for event in self.held_back.pop(trial, ()) if state == "finished" else ():
            self.proposer.hear(event)
        self.append("ended", {"state": "finished" if state == "stopped" and self.told == "finished" else state}, trial)
        return True

    def append(self, kind: str, data: dict[str, Any], trial: int, epoch: int | None = None) -> None:
        """Add an event, which the proposer hears; values of trials that may yet be stopped only if it is to."""
        event = Event(len(self.events) + 1, 0.0, 0.0, kind, trial, epoch, data)
        self.events.append(event)
        if kind == "epoch" and self.told == "nothing":
            self.held_back[trial].append(event)
        else:
            self.proposer.hear(event)


class Forecasting:
    """An experiment's Forecaster, told the events that a ledger would hold, in their order.

    As many trials may pause as there may of models this small: see `pausing.most_paused`. With first=False it is told
    of no default, and does not begin with the middle of the space: no config is given to it but by what it learns.
    """

    def __init__(self, curves: Curves, seed: int, first: bool = True, max_trials: int = 1_000) -> None:
        self.curves, self.max_trials = curves, max_trials
        space = {name: choice(list(values)) for name, values in curves.grid.items()}
        given = [("default", {name: curves.grid[name][at] for name, at in curves.default.items()})]
        self.forecaster = Forecaster(space, METRIC, "max", seed, given, curves.max_epochs, curves.chance, MOST_PAUSED)
        if not first:
            self.forecaster.first.clear()
        self.busy: set[int] = set()

    def ask(self) -> Job | None:
        """Ask whose turn it is, as `RaySearcher` does."""
        number = self.forecaster.num_proposed
        turn = self.forecaster.turn(self.max_trials, self.busy)
        if turn == NEW:
            proposal = self.forecaster.propose(number)
            if proposal is None:
                return self.ask()
            self.hear("proposed", {"params": proposal[1], "role": "search"}, number)
            turn = number
        if turn is None:
            return None
        self.busy.add(turn)
        done = len(self.forecaster.values[turn])
        params = self.forecaster.params[turn]
        at = {name: values.index(params[name]) for name, values in self.curves.grid.items()}
        return Job(turn, self.curves.number(at), done)

    def tell(self, trial: int, epoch: int, value: float) -> bool:
        """Each trial pauses after each epoch; it may be its turn again."""
        self.busy.discard(trial)
        self.hear("epoch", {METRIC: value}, trial, epoch)
        if not math.isfinite(value) or epoch == self.curves.max_epochs:
            self.hear("ended", {"state": "finished" if math.isfinite(value) else "diverged"}, trial)
        elif self.forecaster.turn(self.max_trials, self.busy) != trial:
            for other in self.forecaster.given_up(self.busy):
                self.hear("ended", {"state": "stopped"}, other)
        return True

    def hear(self, kind: str, data: dict[str, Any], trial: int, epoch: int | None = None) -> None:
        """Let the forecaster hear an event."""
        self.forecaster.hear(Event(0, 0.0, 0.0, kind, trial, epoch, data))


class Promoting(Tunekit):
    """An experiment: tunekit's searchers with ASHA as published, where trials pause at a rung until promoted.

    A trial that pauses is told to the searcher as stopped; one that is promoted, as a new trial with the same config
    that has already come as far, since Optuna cannot open a trial again.

    Source: Li et al., arXiv:1810.05934, algorithm 2.
    """

    def __init__(self, curves: Curves, seed: int, searcher: str, factor: int = 3, max_trials: int = 1_000) -> None:
        super().__init__(curves, seed, searcher, "none", max_trials=max_trials)
        self.factor = factor
        self.rungs: dict[int, dict[int, float]] = {}  # epoch -> the number of each trial that came so far -> value
        epoch = 1
        while epoch < curves.max_epochs:
            self.rungs[epoch] = {}
            epoch *= factor
        self.promoted: set[tuple[int, int]] = set()
        self.params: dict[int, dict[str, Any]] = {}
        self.history: dict[int, list[float]] = defaultdict(list)

    def ask(self) -> Job | None:
        """Promote, from the highest rung that has a trial to promote; else begin a new trial."""
        for epoch, rung in reversed(self.rungs.items()):
            best = sorted(rung, key=lambda number: -rung[number])[: len(rung) // self.factor]
            for number in best:
                if (epoch, number) not in self.promoted:
                    return self.promote(number, epoch)
        job = super().ask()
        if job:
            self.params[job.trial] = self.events[-1].data["params"]
        return job

    def promote(self, number: int, epoch: int) -> Job:
        """Go on with a paused trial, under a new number."""
        self.promoted.add((epoch, number))
        new = self.proposer.num_proposed
        self.params[new], self.history[new] = self.params[number], self.history[number]
        self.propose(new, "promoted", self.params[new])
        for done, value in enumerate(self.history[new], start=1):
            self.append("epoch", {METRIC: value}, new, done)
        return Job(new, self.curves.number(self.params[new]), epoch)

    def tell(self, trial: int, epoch: int, value: float) -> bool:
        """Pause at a rung."""
        self.history[trial].append(value)
        over = super().tell(trial, epoch, value)
        if over or epoch not in self.rungs:
            return over
        self.rungs[epoch][trial] = value
        return self.end(trial, "stopped")


class Random:
    """Random search without repeats: every trial trains all its epochs."""

    def __init__(self, curves: Curves, seed: int) -> None:
        self.max_epochs = curves.max_epochs
        self.jobs = iter([Job(i, int(c)) for i, c in enumerate(np.random.default_rng(seed).permutation(len(curves)))])

    def ask(self) -> Job | None:
        """Return the next."""
        return next(self.jobs, None)

    def tell(self, trial: int, epoch: int, value: float) -> bool:
        """Go on to the last epoch."""
        return epoch == self.max_epochs
