"""What an experiment found: frames, the best model, the test split, and the answer in words."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tunekit import figures, notebook, paths
from tunekit.arithmetic import settled
from tunekit.config import complete
from tunekit.confirm import Verdict, default_of, verdict_of
from tunekit.datasets import load_dataset
from tunekit.datasets.base import Dataset
from tunekit.errors import ExperimentError, TunekitError
from tunekit.events import UNSCORED, Trial, winner_of
from tunekit.frames import epoch_frame, trial_frame
from tunekit.inference import TrainedModel
from tunekit.ledger import Ledger, in_use_by, read_experiment
from tunekit.mistakes import look
from tunekit.remote import on_this_machine, place_of
from tunekit.reporter import write_report
from tunekit.sealed import open_test_split
from tunekit.space import Config, Space, draw_config
from tunekit.space_json import space_from_json
from tunekit.storage import as_place
from tunekit.story import Story
from tunekit.trial_files import best_state


def load_results(folder: str | Path, *, dataset: Dataset | None = None, space: Space | None = None) -> "Results":
    """Return the results in an experiment's folder, finished or not; needs that folder alone.

    Args:
        folder: the experiment's folder, or its URL.
        dataset: the data, for `test()`; loaded from where it came when None.
        space: what was searched, for `best_model()`; needed only where it holds functions that cannot be imported.

    Raises:
        ExperimentError: the folder is no experiment, or its ledger is damaged.
    """
    return Results(on_this_machine(as_place(folder)), dataset, space)


class Results:
    """What an experiment found. Made by `run`, `train`, `resume` and `load_results`.

    Args:
        folder: the experiment's folder.
        dataset, space: as in `load_results`.
    """

    def __init__(self, folder: Path, dataset: Dataset | None = None, space: Space | None = None) -> None:
        described = self._described = read_experiment(folder)
        self.folder = folder
        self.asked: dict[str, Any] = described["asked"]
        self.versions: dict[str, Any] = described["versions"]
        self.arithmetic: dict[str, Any] = described["arithmetic"]
        try:
            self.metric: str = self.asked["metric"]
            self.mode: str = self.asked["mode"]
            self.described_dataset = Dataset.from_summary(described["dataset"])
        except (TypeError, LookupError, ValueError) as error:
            raise ExperimentError(f"{folder} is no experiment of this version of tunekit: {error}") from None
        self._dataset, self._space = dataset, space
        self._story = Story(self.metric, self.mode)
        ledger = Ledger(folder)
        self._story.hear(ledger.events())
        ledger.close()
        self.trials: dict[int, Trial] = self._story.trials
        self.limits: dict[str, Any] = self._story.limits
        if any(trial.state == "running" for trial in self.trials.values()) and in_use_by(folder) is None:
            for trial in self.trials.values():
                trial.state = "waiting" if trial.state == "running" else trial.state

    @property
    def best_trial(self) -> Trial:
        """The trial of the search with the best epoch on val.

        Raises:
            ExperimentError: no trial has come to a result yet.
        """
        winner = winner_of(self.trials, self.metric, self.mode)
        if winner is None:
            failed = any(self.folder.glob("trials/*/error.txt"))
            why = "see its trials/*/error.txt" if failed else "it goes on with tunekit resume"
            raise ExperimentError(f"no trial of {self.folder} has come to a result: {why}")
        return winner

    @property
    def best_config(self) -> Config:
        """The best trial's config: the values drawn, and the space's constants."""
        return self.best_trial.config

    @property
    def best_epoch(self) -> int:
        """The best trial's best epoch, from 1."""
        return self.best_trial.best_epoch(self.metric, self.mode) or 0

    @property
    def best_value(self) -> float:
        """The metric at the best epoch of the best trial."""
        value = self.best_trial.best_value(self.metric, self.mode)
        return math.nan if value is None else value

    @property
    def dataframe(self) -> pd.DataFrame:
        """One row per trial of the search.

        Columns: trial, state, num_epochs, best_epoch, the metric, config/<key>..., node, duration_s.
        """
        return trial_frame(self.trials, self.metric, self.mode)

    @property
    def history(self) -> pd.DataFrame:
        """One row per trial of the search and epoch: trial, epoch and all metrics."""
        return epoch_frame(self.trials)

    @property
    def verdict(self) -> Verdict | None:
        """Whether the winner is better than the default config, on the seeds of `confirm`; None without them."""
        return verdict_of(self.trials, self.metric, self.mode)

    def top(self, n: int = 5) -> pd.DataFrame:
        """Return the n best rows of `dataframe` among the trials that have a score, the best first."""
        frame = self.dataframe
        scored = frame[~frame["state"].isin(UNSCORED) & frame[self.metric].notna()]
        return scored.sort_values([self.metric, "trial"], ascending=[self.mode == "min", True]).head(n)

    def best_model(self) -> torch.nn.Module:
        """Return the best trial's model with the weights of its best epoch, in eval mode, on the CPU.

        Raises:
            ExperimentError: the experiment has a training loop of its own, whose model tunekit does not know; the
                weights are in `best_state()`.
        """
        return self.trained_model().module

    def trained_model(self) -> TrainedModel:
        """Return the best model with all that predicting needs; it can be exported to files.

        Raises:
            ExperimentError: as `best_model`.
        """
        return self._trained(self.best_trial)

    def predict(self, images: Any) -> pd.DataFrame:
        """Return the best model's predictions for new images: see `TrainedModel.predict`."""
        return self.trained_model().predict(images)

    def export(self, path: str | Path) -> list[Path]:
        """Write the best model to files that `tunekit.load_model` opens: see `TrainedModel.export`."""
        return self.trained_model().export(path)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report: one HTML page with all that was found, which opens without a network.

        It also has what the best model does on val, where the data and the model are to be had. The test split is not
        opened for it: its figures are there if `test()` was called before.

        Args:
            path: of the page; report.html in the experiment's folder when None.

        Returns:
            The page's path.

        Raises:
            StorageError: it cannot be written.
        """
        path = paths.report_html(self.folder) if path is None else Path(path)
        try:
            looked = look(self.trained_model(), self._data())
        except TunekitError as error:
            looked = {"note": str(error)}
        going = any(trial.state == "running" for trial in self.trials.values())
        write_report(path, self.folder, self._described, self._story, going=going, looked=looked)
        return path

    def parallel_coordinates(self) -> Any:
        """Return a plotly Figure: a line per trial through its config to its score."""
        return figures.parallel_coordinates(self.dataframe, self.metric)

    def learning_curves(self) -> Any:
        """Return a plotly Figure: the metric of every trial over its epochs."""
        return figures.learning_curves(self.history, [self.metric])

    def best_state(self) -> dict[str, Any]:
        """Return the state that the training loop yielded at the best epoch of the best trial."""
        return self._state(self.best_trial)

    def test(self, again: bool = False) -> dict[str, Any]:
        """Open the test split: measure the best model, and the default config's beside it.

        It is opened once: the figures are kept in test.json, and given from there ever after.

        Args:
            again: open it once more, after the search went on and found another winner; test.json counts the times.

        Returns:
            test_loss, and for classification test_accuracy (0..1) with its 95 % Wilson interval, per_class accuracy
            with intervals, confusion (rows are true classes) and num_images; for regression test_mse, test_mae,
            test_r2, test_pearson (None where it is not defined) and, with votes, test_pairwise_accuracy. Besides:
            trial, epoch, times_opened, and default, the default config's figures.

        Raises:
            ExperimentError: another trial has become the best since the split was opened, or the data has changed.
        """
        winner, default = self.best_trial, default_of(self.trials)

        def measure(trial: Trial) -> dict[str, Any]:
            return self._trained(trial).test(self._data())

        return open_test_split(self.folder, winner, self.best_epoch, default, measure, again)

    @property
    def dataset_source(self) -> dict[str, Any]:
        """The arguments of `load_dataset` that give the experiment's dataset again; empty for one made in memory."""
        return self.described_dataset.source

    def _data(self) -> Dataset:
        """Return the data that was searched on; it is loaded once."""
        if self._dataset is None and not self.dataset_source:
            raise ExperimentError(f"{self.folder} was run on data made in memory: load_results(folder, dataset=...)")
        dataset = self._dataset = self._dataset or load_dataset(**self.dataset_source)
        if dataset.fingerprint != self.described_dataset.fingerprint:
            raise ExperimentError(f"the data of {self.folder} has changed since the search: test on what it was run on")
        return dataset

    def _trained(self, trial: Trial) -> TrainedModel:
        if self.asked["train"]:
            raise ExperimentError("the training loop is not tunekit's: build the model yourself, and load best_state()")
        space = space_from_json(self.asked["space"]) if self._space is None else self._space
        try:
            config = settled(complete(draw_config(space, lambda name, _: trial.params[name])), self.arithmetic)
        except (LookupError, ValueError) as error:
            raise ExperimentError(f"trial {trial.number} of {self.folder} is not of its space: {error!r}") from None
        return TrainedModel.of(self._state(trial)["model"], config, self.described_dataset)

    def _state(self, trial: Trial) -> dict[str, Any]:
        return best_state(place_of(self.folder), trial.number, trial.best_epoch(self.metric, self.mode))

    def _repr_html_(self) -> str:
        return notebook.answer_html(self.trials, self.metric, self.mode, self.folder)

    def __repr__(self) -> str:
        states = pd.Series([trial.state for trial in self.trials.values()]).value_counts()
        counts = ", ".join(f"{number} {state}" for state, number in states.items())
        return f"Results({str(self.folder)!r}: {counts})"
