"""The test split: opened once, its figures written down, and how often anybody looked counted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunekit import paths
from tunekit.errors import ExperimentError
from tunekit.events import Trial
from tunekit.remote import store_figures


def open_test_split(
    folder: Path,
    winner: Trial,
    epoch: int,
    default: Trial | None,
    measure: Callable[[Trial], dict[str, Any]],
    again: bool = False,
) -> dict[str, Any]:
    """Return the figures of the winner and the default config on the test split; see `Results.test`.

    Args:
        folder: the experiment's.
        winner, epoch: the best trial, and its best epoch.
        default: the trial of the default config.
        measure: returns a trial's figures on the test split. Not called where they are known already.
        again: look once more, though another trial has become the best.

    Raises:
        ExperimentError: another trial has become the best since the split was opened, or test.json is damaged.
    """
    path, known = paths.test_json(folder), figures_of(folder)
    if known is not None and not again:
        if known["trial"] != winner.number:
            raise ExperimentError(
                f"the test split was opened for trial {known['trial']}, but now trial {winner.number} is the best: "
                "each further look makes it a little less of a test; results.test(again=True) looks and counts"
            )
        store_figures(folder)  # which may have been cut off
        return known
    found = {"trial": winner.number, "epoch": epoch, **measure(winner)}
    if default is not None and default.state in ("finished", "stopped"):
        found["default"] = {"trial": default.number, **measure(default)}
    found["times_opened"] = (known["times_opened"] if known else 0) + 1
    paths.write_json(path, found)
    store_figures(folder)
    return paths.read_json(path)


def figures_of(folder: Path) -> dict[str, Any] | None:
    """Return the test split's figures as they were written down; None if it was never opened. Opens nothing.

    Raises:
        ExperimentError: they are damaged.
    """
    path = paths.test_json(folder)
    if not path.exists():
        return None
    try:
        known = paths.read_json(path)
        return {**known, "trial": int(known["trial"]), "times_opened": int(known["times_opened"])}
    except (ValueError, TypeError, KeyError) as error:
        raise ExperimentError(f"{path} is damaged ({error}): delete it to open the test split anew") from None
