"""Trials and their epochs as pandas frames."""

import pandas as pd

from tunekit.events import Trial


def trial_frame(trials: dict[int, Trial], metric: str, mode: str) -> pd.DataFrame:
    """Return one row per trial of the search; see `Results.dataframe`."""
    return pd.DataFrame([
        {
            "trial": trial.number,
            "state": trial.state,
            "num_epochs": len(trial.history),
            "best_epoch": trial.best_epoch(metric, mode),
            metric: trial.best_value(metric, mode),
            **{f"config/{key}": value for key, value in trial.config.items()},
            "node": trial.node,
            "duration_s": trial.duration_s,
        }
        for trial in trials.values() if trial.role == "search"
    ])  # fmt: skip


def epoch_frame(trials: dict[int, Trial]) -> pd.DataFrame:
    """Return one row per trial of the search and epoch; see `Results.history`."""
    return pd.DataFrame([
        {"trial": trial.number, **metrics, "epoch": epoch}
        for trial in trials.values() if trial.role == "search"
        for epoch, metrics in enumerate(trial.history, start=1)
    ])  # fmt: skip
