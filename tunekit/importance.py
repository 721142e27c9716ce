"""Which hyperparameters matter: how much of the difference between trials each explains, and what two do together."""

from collections.abc import Sequence

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from tunekit.axes import Axis

FEWEST = 8  # trials; with fewer, a forest sees nothing but their noise
MOST = 200  # trials looked at: the time grows with their square
NUM_TREES = 32
CELLS = 36  # of a surface, a side
REACH = 0.11  # how far a trial is heard of on a surface, as a share of its side


def importances(axes: Sequence[Axis], values: Sequence[float], seed: int = 0) -> dict[str, float]:
    """Return the share of each hyperparameter in the differences between trials, 0..1, the largest first.

    A value that a config does not have (a conditional one) counts as the middle of its range, or as a word of its own.
    Of many trials, MOST are looked at, evenly spread over the search.

    Args:
        axes: of the hyperparameters, with a position per trial.
        values: the metric, finite, one per trial.

    Returns:
        Empty where there are fewer than FEWEST trials, or their values or their configs do not differ.

    Source: F. Hutter, H. Hoos, K. Leyton-Brown, An efficient approach for assessing hyperparameter importance (ICML
    2014): functional ANOVA by a random forest, in Optuna's implementation.

    Example:
        >>> from tunekit.axes import axis_of
        >>> x, y = [i * 7 % 20 / 20 for i in range(20)], [i * 11 % 20 / 20 for i in range(20)]
        >>> found = importances([axis_of("y", y), axis_of("x", x)], [value**2 for value in x])
        >>> list(found), found["x"] > 0.8
        (['x', 'y'], True)
    """
    axes = [axis for axis in axes if axis.varies]
    if len(values) < FEWEST or len(set(values)) < 2 or not axes:
        return {}
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances  # a second, which starts can spare

    rows = np.unique(np.linspace(0, len(values) - 1, MOST).astype(int))
    distributions, columns = {}, {}
    for number, axis in enumerate(axes):
        distributions[str(number)], columns[str(number)] = _column(axis)
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study()
        study.add_trials(
            optuna.trial.create_trial(
                params={name: column[row] for name, column in columns.items()},
                distributions=distributions,
                value=float(values[row]),
            )
            for row in rows
        )
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(n_trees=NUM_TREES, seed=seed))
    finally:
        optuna.logging.set_verbosity(before)
    return {axes[int(number)].name: float(share) for number, share in found.items()}


def surface(across: Axis, up: Axis, values: Sequence[float]) -> list[tuple[int, int, float]]:
    """Return the metric over two hyperparameters: (column, row, value) of each cell that has trials nearby.

    A cell has the mean of all trials, weighted by a Gaussian of their distance from it; words and steps have a cell
    each, and know nothing of their neighbours.

    Source: E. Nadaraya, On estimating regression (1964); G. Watson, Smooth regression analysis (1964).
    """
    points = [(x, y, v) for x, y, v in zip(across.positions, up.positions, values, strict=True)
              if x is not None and y is not None]  # fmt: skip
    if not points:
        return []
    xs, ys, heights = (np.array(column, float) for column in zip(*points, strict=True))
    columns, near_columns = _weights(across, xs)
    rows, near_rows = _weights(up, ys)
    weights = near_columns[:, None, :] * near_rows[None, :, :]  # (columns, rows, trials)
    total = weights.sum(2)
    mean = (weights * heights).sum(2) / np.maximum(total, 1e-12)
    heard = total > np.exp(-2.0)  # a trial within two deviations, or several a little further off
    return [(c, r, float(mean[c, r])) for c in range(columns) for r in range(rows) if heard[c, r]]


def _column(axis: Axis) -> tuple[BaseDistribution, list[float | int]]:
    """Return an axis as Optuna's distribution, and each trial's place in it."""
    if axis.kind == "words":  # one more word stands for none
        places = [len(axis.ticks) if at is None else int(at) for at in axis.positions]
        return CategoricalDistribution(sorted(set(places))), list(places)
    low, high = axis.span
    if low == high:  # there or not there: that is all it says
        there = [int(at is not None) for at in axis.positions]
        return CategoricalDistribution([0, 1]), list(there)
    return FloatDistribution(low, high), [(low + high) / 2 if at is None else at for at in axis.positions]


def _weights(axis: Axis, positions: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the number of cells along an axis, and how much each hears of each trial: (cells, trials)."""
    if not axis.is_numeric:
        return len(axis.ticks), (np.arange(len(axis.ticks))[:, None] == positions[None]).astype(float)
    low, high = axis.span
    middles = (np.arange(CELLS) + 0.5) / CELLS
    shares = (positions - low) / ((high - low) or 1.0)
    return CELLS, np.exp(-0.5 * ((middles[:, None] - shares[None]) / REACH) ** 2)
