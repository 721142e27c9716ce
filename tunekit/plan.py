"""A plan: how long a search would take, how much memory and disk, and what it would cost, before it is begun."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tunekit.asked import Asked
from tunekit.checks import check_name, check_positive, check_whole
from tunekit.costs import Measured
from tunekit.expected import Expected, expected
from tunekit.live import clock, counted
from tunekit.measuring import measure
from tunekit.predictions import past_errors, predict
from tunekit.safe_text import printable
from tunekit.storage import joined
from tunekit.trial_files import NUM_CHECKPOINTS


@dataclass(frozen=True)
class Plan:
    """What a search would take, from its beginning to its end; `tunekit.run(..., dry_run=True)` returns it.

    Args:
        experiment: where the search would keep what it finds.
        num_trials: of the search, without those that confirm; fewer than asked where the space holds no more.
        num_epochs: of all trials, with those that confirm; a mean where a scheduler decides.
        slots: trials side by side on this machine.
        begin_s: of the duration, what passes before the first trial and after the last.
        training_s: of the duration, the rest: training, validation, checkpoints, a worker's going from trial to trial.
        duration_s: on this machine, as it was while the plan was made.
        workers: machines like this one, each with as many slots.
        duration_on_workers_s: on those.
        memory_gb: of one machine, the most that was in use while it was measured, and the data.
        disk_gb: of checkpoints, in the experiment's folder, at the most.
        cache_gb: of data and features of frozen backbones, in the cache of each machine.
        price_per_hour: of one machine, in whatever currency; None where none was given.
        cost: of all machines for as long as it takes; None without a price.
        past_error: by how much earlier plans on this machine were off, as a fraction: their median; None if there are
            none whose search has ended.
        num_past: how many there are.
    """

    experiment: str
    num_trials: int
    num_epochs: float
    slots: int
    begin_s: float
    training_s: float
    duration_s: float
    workers: int
    duration_on_workers_s: float
    memory_gb: float
    disk_gb: float
    cache_gb: float
    price_per_hour: float | None
    cost: float | None
    past_error: float | None
    num_past: int
    _of: tuple[Asked, Measured, Mapping[str, Any]] = field(repr=False, compare=False)

    def on(self, workers: int = 1, price_per_hour: float | None = None) -> "Plan":
        """Return the plan for so many machines like this one, each at a price. Nothing is measured anew.

        Raises:
            ConfigError: workers is no whole number of at least 1, or the price is not above 0.
        """
        check_whole("workers", workers, 1)
        check_positive("price_per_hour", price_per_hour)
        duration_s = self.begin_s + _training(*self._of, self.slots * workers).training_s
        cost = None if price_per_hour is None else price_per_hour * workers * duration_s / 3600
        return replace(
            self, workers=workers, duration_on_workers_s=duration_s, price_per_hour=price_per_hour, cost=cost
        )

    def rows(self) -> list[tuple[str, str]]:
        """Return it in words: what, and how much."""
        found = [
            ("experiment", f"{printable(self.experiment)} (nothing of it was begun)"),
            ("trials", f"{self.num_trials} of up to {counted(self._of[0].max_epochs, 'epoch')}, {self.slots} side by "
                       f"side; about {counted(round(self.num_epochs), 'epoch')} in all"),
            ("time here", f"{clock(self.duration_s)}: {clock(self.begin_s)} to begin and end, and "
                          f"{clock(self.training_s)} of training"),
        ]  # fmt: skip
        if self.workers > 1:
            side_by_side = f"{self.slots * self.workers} trials side by side"
            found.append(
                (
                    f"on {self.workers} machines",
                    f"{clock(self.duration_on_workers_s)}: like this one, with {side_by_side}",
                )
            )
        if self.cost is not None:
            each = (
                f"{self.workers} x {self.price_per_hour:g} an hour"
                if self.workers > 1
                else f"{self.price_per_hour:g} an hour"
            )
            found.append(("cost", f"{self.cost:.2f} at {each}"))
        found += [
            ("memory", f"{self.memory_gb:.1f} GB of each machine"),
            (
                "disk",
                f"{self.disk_gb:.3f} GB of checkpoints at the most; {self.cache_gb:.3f} GB of cache on each machine",
            ),
        ]
        off = "no search that was planned on this machine has ended yet"
        if self.past_error is not None:
            off = f"by {self.past_error:.0%}, the median of {self.num_past} searches planned on this machine"
        return [*found, ("was off so far", off)]

    def __str__(self) -> str:
        return "\n".join(f"{what:<16}{how_much}" for what, how_much in self.rows())


def make_plan(asked: Asked, limits: Mapping[str, Any], folder: Path | str, name: str | None) -> Plan:
    """Measure on this machine what a search would take, and write the prediction down for its end.

    Args:
        asked: of the search.
        limits: of the search, as `tunekit.run` writes them down.
        folder, name: of the experiment, which is not begun.
    """
    place = joined(folder, check_name(name) if name is not None else asked.default_name)
    measured = measure(asked, limits["cpus_per_trial"], limits["gpus_per_trial"])
    plan = plan_of(str(place), asked, measured, limits)
    predict(place, asked, limits, plan.duration_s - measured.load_s)
    return plan


def plan_of(experiment: str, asked: Asked, measured: Measured, limits: Mapping[str, Any]) -> Plan:
    """Work out a plan from what was measured."""
    found = _training(asked, measured, limits, measured.slots)
    begin_s = measured.load_s + measured.begin_s + measured.end_s
    duration_s = begin_s + found.training_s
    errors = past_errors()
    images = sum(asked.dataset.num_images[part] for part in ("train", "val"))
    data_gb = asked.dataset.train.all_images.nbytes / 1e9
    return Plan(
        experiment, found.num_trials, found.num_epochs, measured.slots, begin_s, found.training_s, duration_s,
        1, duration_s, measured.memory_gb + data_gb, _checkpoints_gb(asked, measured, limits, found.num_trials),
        data_gb + images * measured.features_gb, None, None,
        statistics.median(errors) if errors else None, len(errors), (asked, measured, limits),
    )  # fmt: skip


def _training(asked: Asked, measured: Measured, limits: Mapping[str, Any], slots: int) -> Expected:
    return expected(asked, measured, limits["num_trials"], slots, limits["confirm"], limits["time_budget_s"])


def _checkpoints_gb(asked: Asked, measured: Measured, limits: Mapping[str, Any], num_trials: int) -> float:
    """Return what checkpoints take at the most, by the largest that was written: see `session.check_room`."""
    going = min(num_trials, measured.slots + asked.proposer().most_paused)
    kept = min(num_trials, limits["keep_best"] + 1)
    return measured.checkpoint_gb * (NUM_CHECKPOINTS * going + kept)
