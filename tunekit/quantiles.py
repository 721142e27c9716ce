"""Distributions by their quantiles: those that Optuna lacks are drawn as the quantile at a uniform share.

A distribution is a dict in the words of a W&B sweep: {"distribution": "q_normal", "mu": 0.0, "sigma": 1.0, "q": 1}, or
{"distribution": "categorical", "values": [...], "probabilities": [...]}. A q_ form gives round(x / q) * q, and whole
numbers where q is one.

Source: W&B, Sweep configuration options (distribution options); wandb/sweeps, src/sweeps/params.py (ppf and cdf).
"""

import bisect
import itertools
import math
from statistics import NormalDist
from typing import Any

Parameters = dict[str, Any]
DIGITS = 9  # of a value, so that 0.3 is found again as 0.3 on its way through a share and back


def quantile(parameters: Parameters, share: float) -> Any:
    """Return the value below which a share of the draws falls.

    Args:
        parameters: of the distribution, as above.
        share: above 0 and below 1.

    Example:
        >>> quantile({"distribution": "normal", "mu": 5.0, "sigma": 2.0}, 0.5)
        5.0
        >>> quantile({"distribution": "q_uniform", "min": 1, "max": 100, "q": 8}, 0.5)
        48
        >>> quantile({"distribution": "categorical", "values": ["a", "b"], "probabilities": [0.9, 0.1]}, 0.95)
        'b'
    """
    if "values" in parameters:
        ends = list(itertools.accumulate(parameters["probabilities"]))
        return parameters["values"][bisect.bisect_right(ends[:-1], share * ends[-1])]
    value = _continuous(parameters, share)
    if "q" in parameters:
        q = parameters["q"]
        value = round(value / q) * q
        return value if isinstance(q, int) else _rounded(value)
    return _rounded(value)


def share_below(parameters: Parameters, value: Any) -> float:
    """Return the share at which `quantile` gives a value, or the nearest to it; 0 to 1.

    Example:
        >>> share_below({"distribution": "log_normal", "mu": 0.0, "sigma": 1.0}, 1.0)
        0.5
    """
    if "values" in parameters:
        number = next(i for i, known in enumerate(parameters["values"]) if alike(known, value))
        ends = [0.0, *itertools.accumulate(parameters["probabilities"])]
        return (ends[number] + ends[number + 1]) / 2 / ends[-1]
    kind = parameters["distribution"].removeprefix("q_")
    if kind == "beta":
        from scipy.special import betainc

        return float(betainc(parameters["a"], parameters["b"], min(max(value, 0.0), 1.0)))
    if kind in ("log_uniform", "log_uniform_values", "log_normal"):
        if value <= 0:
            return 0.0
        value = math.log(value)
    if kind in ("normal", "log_normal"):
        return NormalDist(parameters["mu"], parameters["sigma"]).cdf(value)
    low, high = _bounds(parameters)
    return min(max((value - low) / (high - low), 0.0), 1.0)


def alike(one: Any, other: Any) -> bool:
    """Return whether two values of a config are the same, up to the rounding of a quantile.

    Example:
        >>> alike(0.3, 0.30000000000000004), alike(1, True), alike("sgd", "sgd")
        (True, False, True)
    """
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=10.0 ** (1 - DIGITS), abs_tol=1e-12)
    return bool(one == other)


def _continuous(parameters: Parameters, share: float) -> float:
    kind = parameters["distribution"].removeprefix("q_")
    if kind == "beta":
        from scipy.special import betaincinv

        return float(betaincinv(parameters["a"], parameters["b"], share))
    if kind in ("normal", "log_normal"):
        value = NormalDist(parameters["mu"], parameters["sigma"]).inv_cdf(share)
    else:
        low, high = _bounds(parameters)
        value = low + share * (high - low)
    return math.exp(value) if kind.startswith("log_") else value


def _bounds(parameters: Parameters) -> tuple[float, float]:
    """Return the bounds of a uniform distribution, or of a log-uniform one's logarithm."""
    low, high = parameters["min"], parameters["max"]
    return (math.log(low), math.log(high)) if parameters["distribution"].endswith("_values") else (low, high)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
