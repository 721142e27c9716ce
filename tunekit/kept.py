"""Which trials that have ended keep their checkpoints."""

from pathlib import Path

from tunekit.events import Trial
from tunekit.trial_files import epochs_of, trial_files


class KeptCheckpoints:
    """Which ended trials keep the checkpoint of their best epoch: the best few. The rest is deleted as they end."""

    def __init__(self, place: Path | str, keep_best: int, metric: str, mode: str) -> None:
        self.place, self.keep_best, self.metric, self.mode = place, keep_best, metric, mode
        self.best: list[tuple[float, int]] = []  # (value, trial's number), the best first

    def ended(self, trial: Trial) -> None:
        """Take in a trial that has ended, and delete the checkpoints that nobody needs any more."""
        files = trial_files(self.place, trial.number)
        epoch, value = trial.best_epoch(self.metric, self.mode), trial.best_value(self.metric, self.mode)
        if trial.role != "search" or trial.state not in ("finished", "stopped") or epoch is None or value is None:
            files.clear()
            return
        there = epochs_of(files)
        if epoch in there:  # one of the two newest is the best: it takes the best one's place
            files.keep_as_best(epoch)
        files.delete(there)
        if trial.source == "default":
            return  # what the winner is compared with stays, whatever its rank
        self.best.append((value, trial.number))
        self.best.sort(key=lambda pair: (-pair[0] if self.mode == "max" else pair[0], pair[1]))
        for _, number in self.best[self.keep_best :]:
            trial_files(self.place, number).clear()
        del self.best[self.keep_best :]
