"""TensorBoard as a tracker: a run for each trial, and a row in its hparams table."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tunekit import paths
from tunekit.events import Event, Trial
from tunekit.safe_text import printable

EXACT = 2**53  # up to which a float, which is what hparams are kept as, holds every whole number


class TensorBoard:
    """TensorBoard: a run for each trial, named by its number: `tensorboard --logdir experiments/first/trackers`.

    A run holds every metric as a scalar, whose step is the epoch and whose time is when it came; the config, for the
    hparams table; and at the trial's end its best value and how it ended, as finished and stopped trials succeed.

    The file of a trial that was cut off is written anew: every epoch is there once. As the ledger alone says what is
    in it, a TensorBoard that has read the old one goes on where it was. No file stays open, as hundreds of trials may
    wait for their turn.

    Source: TensorBoard, tensorboard/compat/proto/event.proto and tensorboard/plugins/hparams/plugin_data.proto.
    """

    SECRETS: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def environment(environ: Mapping[str, str], folder: Path) -> dict[str, str] | None:
        """Return the environment as it is."""
        return dict(environ)

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        asked = paths.read_json(paths.experiment_json(folder))["asked"]
        self.metric, self.mode = asked["metric"], asked["mode"]
        self.destination = "files"
        self.folder = paths.make_private(paths.tracker_folder(folder) / "tensorboard")
        self.begun: set[int] = set()  # trials whose file this process has begun

    def log(self, trial: Trial, event: Event) -> None:
        """Write an epoch's metrics."""
        self._write(trial, event, event.epoch or 0, _scalars(event.data))

    def end(self, trial: Trial, event: Event) -> None:
        """Write the best value, at its epoch, and how the trial ended."""
        from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
        from tensorboard.plugins.hparams.metadata import NULL_TENSOR, SESSION_END_INFO_TAG, create_summary_metadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

        epoch = trial.best_epoch(self.metric, self.mode)
        if epoch is not None:
            best = {f"best_{self.metric}": trial.history[epoch - 1][self.metric]}
            self._write(trial, event, epoch, _scalars(best))
        status = STATUS_SUCCESS if trial.state in ("finished", "stopped") else STATUS_FAILURE
        data = HParamsPluginData(session_end_info=SessionEndInfo(status=status, end_time_secs=event.time))
        how = {"tag": SESSION_END_INFO_TAG, "metadata": create_summary_metadata(data), "tensor": NULL_TENSOR}
        paths.flush(self._write(trial, event, 0, [how]))

    def close(self) -> None:
        """Do nothing: no file is open."""

    def _write(self, trial: Trial, event: Event, step: int, values: list[dict[str, Any]]) -> Path:
        """Append to a trial's file, begun anew where this process has not begun it, and return it."""
        from tensorboard.compat.proto.event_pb2 import Event as Entry
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        entries = [Entry(wall_time=event.time, step=step, summary=Summary(value=[Summary.Value(**v) for v in values]))]
        path = self.folder / f"{trial.number:04d}" / "events.out.tfevents"
        begun = trial.number in self.begun
        if not begun:
            name = paths.make_private(path.parent).name
            config = hparams_pb(_hparams(trial.config), trial_id=name, start_time_secs=event.time)
            entries[:0] = [
                Entry(wall_time=event.time, file_version="brain.Event:2"),
                Entry(wall_time=event.time, summary=config),
            ]
            self.begun.add(trial.number)
        with open(path, "ab" if begun else "wb", opener=_no_link) as file:
            for entry in entries:
                RecordWriter(file).write(entry.SerializeToString())
        return path


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _scalars(metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    return [{"tag": printable(name), "simple_value": value} for name, value in metrics.items()]


def _hparams(config: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """Return a config as the plug-in knows it: truths, numbers and texts; what is None is left out."""
    return {
        printable(key): value if isinstance(value, float) or (isinstance(value, int) and abs(value) <= EXACT)
        else printable(value)
        for key, value in config.items() if value is not None
    }  # fmt: skip
