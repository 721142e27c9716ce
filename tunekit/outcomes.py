"""What Optuna is told of a trial: by our searchers, and in a study that is exported for its own tools."""

import math
from collections.abc import Mapping

from optuna.trial import TrialState

from tunekit.events import ENDED
from tunekit.scores import is_better


def reported(value: float) -> float:
    """Return what Optuna is told of the metric at an epoch: NaN where it is not finite."""
    return value if math.isfinite(value) else math.nan


def outcome(state: str, values: Mapping[int, float], mode: str) -> tuple[TrialState, float | None]:
    """Return a trial's state in Optuna, and its value where it finished.

    A diverged trial is one that was stopped at NaN, which samplers rank last; of a failed one they learn nothing.

    Args:
        state: of the trial.
        values: the metric by epoch, as `reported`.
        mode: "max" or "min".

    Example:
        >>> outcome("finished", {1: 0.8, 2: 0.9, 3: 0.7}, "max")
        (<TrialState.COMPLETE: 1>, 0.9)
        >>> outcome("stopped", {1: 0.8}, "max"), outcome("failed", {1: 0.8}, "max")
        ((<TrialState.PRUNED: 2>, None), (<TrialState.FAIL: 3>, None))
    """
    if state not in ENDED:
        return TrialState.RUNNING, None
    best = math.nan
    for value in values.values():
        best = value if is_better(value, best, mode) else best
    if state == "finished" and math.isfinite(best):
        return TrialState.COMPLETE, best
    return TrialState.PRUNED if state in ("stopped", "diverged") and values else TrialState.FAIL, None
