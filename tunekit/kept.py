"""Which trials that have ended keep their checkpoints."""

import shutil
from pathlib import Path

from tunekit import paths
from tunekit.events import Trial


class KeptCheckpoints:
    """Which ended trials keep the checkpoint of their best epoch: the best few. The rest is deleted as they end."""

    def __init__(self, folder: Path, keep_best: int, metric: str, mode: str) -> None:
        self.folder, self.keep_best, self.metric, self.mode = folder, keep_best, metric, mode
        self.best: list[tuple[float, int]] = []  # (value, trial's number), the best first

    def consider(self, trial: Trial) -> None:
        """Take in a trial that has ended, and delete the checkpoints that nobody needs any more."""
        folder = paths.trial_folder(self.folder, trial.number)
        epoch, value = trial.best_epoch(self.metric, self.mode), trial.best_value(self.metric, self.mode)
        if trial.role != "search" or epoch is None or value is None:
            delete_checkpoints(folder)
            return
        newest = paths.epoch_checkpoint(folder, epoch)
        if newest.exists():  # the newest epoch was the best, or one of the two newest: it takes the best one's place
            newest.replace(paths.best_checkpoint(folder))
        for path in paths.epoch_checkpoints(folder).values():
            path.unlink()
        if trial.source == "default":
            return  # what the winner is compared with stays, whatever its rank
        self.best.append((value, trial.number))
        self.best.sort(key=lambda pair: (-pair[0] if self.mode == "max" else pair[0], pair[1]))
        for _, number in self.best[self.keep_best :]:
            delete_checkpoints(paths.trial_folder(self.folder, number))
        del self.best[self.keep_best :]


def delete_checkpoints(folder: Path) -> None:
    """Delete a trial's checkpoints, whole or half written, and its folder if nothing else is in it."""
    for path in folder.glob(f"*{paths.SUFFIX}*"):
        path.unlink()
    if folder.exists() and not any(folder.iterdir()):
        shutil.rmtree(folder)
