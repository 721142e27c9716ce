"""Which trials that have ended keep their checkpoints."""

from collections.abc import Callable, Collection, Iterable

from tunekit.events import ENDED, Trial
from tunekit.trial_files import TrialFiles


class KeptCheckpoints:
    """Which ended trials keep the checkpoint of their best epoch: the best few, and those of the default config.

    Args:
        files: a trial's, by its number.
        keep_best: how many.
        metric, mode: what best means.
    """

    def __init__(self, files: Callable[[int], TrialFiles], keep_best: int, metric: str, mode: str) -> None:
        self.files, self.keep_best, self.metric, self.mode = files, keep_best, metric, mode
        self.best: list[tuple[float, int]] = []  # (value, trial's number), the best first

    def begin(self, trials: Iterable[Trial], having: Collection[int]) -> None:
        """Take in the trials of earlier sessions, and do what those did not come to; `having` have any checkpoint."""
        ended = [trial for trial in trials if trial.state in ENDED]
        for trial in ended:
            self._take(trial)
        for trial in ended:
            if trial.number in having:
                self._tidy(trial)

    def ended(self, trial: Trial) -> None:
        """Take in a trial that has ended, and delete the checkpoints that nobody needs any more."""
        worse = self._take(trial)
        self._tidy(trial)
        for number in worse:
            self.files(number).clear()

    def _take(self, trial: Trial) -> list[int]:
        """Give a trial its rank; return those that are no longer among the best, which it may itself be."""
        value = trial.best_value(self.metric, self.mode)
        if not _may_stay(trial) or trial.source == "default" or value is None:
            return []
        self.best.append((value, trial.number))
        self.best.sort(key=lambda pair: (-pair[0] if self.mode == "max" else pair[0], pair[1]))
        worse = [number for _, number in self.best[self.keep_best :]]
        del self.best[self.keep_best :]
        return worse

    def _tidy(self, trial: Trial) -> None:
        epoch = trial.best_epoch(self.metric, self.mode)
        among_the_best = any(number == trial.number for _, number in self.best)
        default = trial.source == "default"  # what the winner is compared with stays, whatever its rank
        if epoch is not None and _may_stay(trial) and (among_the_best or default):
            self.files(trial.number).keep_only(epoch)
        else:
            self.files(trial.number).clear()


def _may_stay(trial: Trial) -> bool:
    return trial.role == "search" and trial.state in ("finished", "stopped")
