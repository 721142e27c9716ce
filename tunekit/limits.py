"""How long a search may go on and what its trials get: checked before anything starts, written down as it begins."""

from collections.abc import Mapping
from typing import Any

from tunekit.checks import check_positive, check_whole
from tunekit.errors import ConfigError

LIMITS = ("num_trials", "time_budget_s", "confirm", "keep_best", "cpus_per_trial", "gpus_per_trial", "trial_timeout_s",
          "tracker")  # fmt: skip
LEAST = {"num_trials": 1, "confirm": 0, "keep_best": 1, "cpus_per_trial": 1}


def check_limits(limits: Mapping[str, Any]) -> None:
    """Raise ConfigError unless all of them, by the names of `tunekit.run`, can be honoured."""
    for name, low in LEAST.items():
        check_whole(name, limits[name], low)
    check_positive("time_budget_s", limits["time_budget_s"])
    check_positive("trial_timeout_s", limits["trial_timeout_s"])
    gpus = limits["gpus_per_trial"]
    if gpus != "auto" and (not isinstance(gpus, int | float) or gpus < 0):
        raise ConfigError(f"gpus_per_trial must be 'auto' or a number of at least 0, but is {gpus!r}")
