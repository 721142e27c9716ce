"""Forecasts of how trainings end: a Gaussian process over configs and epochs, from the values seen so far.

    value(config, epoch) = limit(config) + transient(config) * (b / (epoch + epoch' + b)) ** a + what is the trial's own

is how two values vary together, with limit and transient smooth in the config (Matern 5/2, a length scale for each
parameter), and the kernel in time that of freeze-thaw. Values are compared by their ranks alone, so that no metric's
scale or outlier matters: each is the normal quantile of its rank.

Sources: Swersky, Snoek and Adams, Freeze-thaw Bayesian optimization, arXiv:1406.3896; ranks: Salinas et al., A
quantile-based approach for hyperparameter transfer learning, ICML 2020; length scales that grow with the number of
parameters: Hvarfner et al., Vanilla Bayesian optimization performs great in high dimensions, ICML 2024.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import ndtr, ndtri

# Logs of the variances of limit, transient and own, of a, of b, of the noise's variance, before anything was seen; and
# how far from these they are looked for. Found on recorded learning curves of digits and MNIST.
START = (-0.69, 0.0, -3.0, 0.0, 0.69, -3.9)
SPREAD = (1.0, 1.0, 1.0, 0.7, 0.7, 1.0)
MAX_STEPS = 30
NEAR = 1e-3  # of the best: half the steps of torch's 1e-9, to the same parameters
MOST_POINTS = 150  # values that a forecast is made of: its time grows with their cube
LOOKED_AT = sorted({round(1.3**power) for power in range(40)})  # the epochs of a trial that tell, beside its last


class Points(NamedTuple):
    """Where values were seen, or are asked for.

    Args:
        trial: (n,), which training.
        config: (n, columns), its point: see `encoding`.
        epoch: (n,), from 1.
    """

    trial: torch.Tensor
    config: torch.Tensor
    epoch: torch.Tensor

    @classmethod
    def of(cls, trials: list[int], configs: list[np.ndarray], epochs: list[int]) -> "Points":
        """Return them as tensors."""
        return cls(torch.tensor(trials), torch.from_numpy(np.array(configs)), torch.tensor(epochs, dtype=torch.float64))

    def and_(self, other: "Points") -> "Points":
        """Return these and others."""
        return Points(*(torch.cat(pair) for pair in zip(self, other, strict=True)))


def scores_of(values: list[float]) -> torch.Tensor:
    """Return values, higher is better, as normal quantiles of their ranks; what is not finite is the worst."""
    finite = np.where(np.isfinite(values), values, -np.inf)
    _, which, counts = np.unique(finite, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[which]  # from 1; equals share the mean of theirs
    return torch.from_numpy(ndtri((ranks - 0.5) / len(ranks)))


def most_telling(seen: Iterable[tuple[int, int]], values: Mapping[int, list[float]]) -> list[tuple[int, int]]:
    """Return of the (trial, epoch) that were seen at most MOST_POINTS: the last of each trial, and more of the best.

    Args:
        seen: in the order in which they were.
        values: of each trial, by epoch.
    """
    last = dict(seen)
    best = sorted(last, key=lambda number: (-finite_max(values[number][: last[number]]), number))
    if len(best) > MOST_POINTS * 2 // 3:  # the best, and some of all the rest
        rest = best[MOST_POINTS // 3 :]
        spread = np.linspace(0, len(rest) - 1, MOST_POINTS // 3, dtype=int)
        best = best[: MOST_POINTS // 3] + [rest[i] for i in spread]
    kept = [(number, last[number]) for number in best]
    between = [(number, epoch) for number in best for epoch in LOOKED_AT if epoch < last[number]]
    return sorted(kept + between[: MOST_POINTS - len(kept)])


def finite_max(values: list[float]) -> float:
    """Return the largest of those values that are finite; minus infinity where none is."""
    return max((value for value in values if math.isfinite(value)), default=-math.inf)


class Forecast:
    """A Gaussian process with the parameters that suit some values best.

    Args:
        groups: (columns,), which parameter each column of a config's point belongs to.
        points, scores: what was seen, at least two.
    """

    def __init__(self, groups: np.ndarray, points: Points, scores: torch.Tensor) -> None:
        self.groups = torch.from_numpy(groups)
        self.num_axes = int(groups.max()) + 1
        lengths = [math.log(math.sqrt(self.num_axes) / 2)] * 2 * self.num_axes
        self.prior = torch.tensor([*lengths, *START], dtype=torch.float64)
        self.spread = torch.tensor([1.0] * 2 * self.num_axes + list(SPREAD), dtype=torch.float64)
        self.logs = self.prior
        with one_thread():
            self._fit(points, scores)

    def _fit(self, seen: Points, scores: torch.Tensor) -> None:
        """Find the parameters of highest posterior density."""
        scaled = (scores - scores.mean()) / (scores.std() + 1e-6)
        squares = (seen.config[:, None] - seen.config[None]).square().permute(2, 0, 1).contiguous()
        apart = torch.zeros(self.num_axes, *squares.shape[1:], dtype=torch.float64)
        apart.index_add_(0, self.groups, squares)  # how far along each parameter, squared
        logs = self.prior.clone()
        optimizer = torch.optim.LBFGS(
            [logs], max_iter=MAX_STEPS, tolerance_grad=NEAR, tolerance_change=NEAR, line_search_fn="strong_wolfe"
        )

        def loss() -> torch.Tensor:
            total, logs.grad = self._misfit(logs, seen, scaled, apart)
            return total

        try:
            optimizer.step(loss)
        except torch.linalg.LinAlgError:
            return  # a step too far: those from before anything was seen do
        if torch.isfinite(logs).all():
            self.logs = logs

    def _misfit(
        self, logs: torch.Tensor, seen: Points, scores: torch.Tensor, apart: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return minus the log of the posterior density of some parameters, and its gradient.

        Source: Rasmussen and Williams, Gaussian processes for machine learning (2006), equations 5.8 and 5.9.
        """
        per_square = logs[:-6].mul(-2).exp().view(2, -1)  # 1 / length scale ** 2
        limit, transient, own, power, scale, noise = logs[-6:].exp()
        (steady, steady_slope), (moving, moving_slope) = (matern(torch.tensordot(row, apart, 1)) for row in per_square)
        share = self._share(scale, seen, seen)
        decay = share.log().mul(power).exp()
        same = (seen.trial[:, None] == seen.trial[None]).double()
        kernel = limit * steady + transient * moving * decay + own * same
        factor = torch.linalg.cholesky(kernel.diagonal_scatter(kernel.diagonal() + noise + 1e-6))
        weights = torch.cholesky_solve(scores[:, None], factor)
        away = (logs - self.prior) / self.spread
        total = (scores @ weights)[0] / 2 + factor.diagonal().log().sum() + away.square().sum() / 2

        pull = (torch.cholesky_inverse(factor) - weights @ weights.T) / 2  # what the kernel's values each add to it
        fading = pull * decay * transient
        moved = fading * moving
        by_limit, by_own = (pull * steady).sum() * limit, (pull * same).sum() * own
        by_power, by_scale = (moved * share.log()).sum() * power, (moved * (1 - share)).sum() * power
        by_lengths = [torch.tensordot(apart, part, 2) for part in (pull * steady_slope * limit, fading * moving_slope)]
        others = [by_limit, moved.sum(), by_own, by_power, by_scale, pull.trace() * noise]
        gradient = torch.cat([(torch.stack(by_lengths) * per_square).flatten(), torch.stack(others)])
        return total, gradient + away / self.spread

    def predict(self, seen: Points, scores: torch.Tensor, at: Points) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation of the scores at some points, (n,) each, given what was seen."""
        with torch.no_grad(), one_thread():
            middle, scale = scores.mean(), scores.std() + 1e-6
            factor, cross = self._factor(self.logs, seen), self._kernel(self.logs, seen, at)
            mean = cross.T @ torch.cholesky_solve((scores - middle)[:, None] / scale, factor)[:, 0]
            explained = torch.linalg.solve_triangular(factor, cross, upper=False).square().sum(0)
            variance = (self._variance(at) - explained).clamp_min(1e-9)
        return mean * scale + middle, variance.sqrt() * scale

    def _kernel(self, logs: torch.Tensor, a: Points, b: Points) -> torch.Tensor:
        """Return how values at two sets of points vary together, (len(a), len(b))."""
        axes = self.num_axes
        limit, transient, own, power, scale = torch.exp(logs[2 * axes : 2 * axes + 5])
        lengths = [torch.exp(logs[i * axes + self.groups]) for i in range(2)]
        smooth = [matern(torch.cdist(a.config / each, b.config / each).square())[0] for each in lengths]
        decay = self._share(scale, a, b) ** power
        return limit * smooth[0] + transient * smooth[1] * decay + own * (a.trial[:, None] == b.trial[None])

    def _share(self, scale: torch.Tensor, a: Points, b: Points) -> torch.Tensor:
        """Return how much of what is transient is left, (len(a), len(b))."""
        return scale / (a.epoch[:, None] + b.epoch[None] + scale)

    def _variance(self, at: Points) -> torch.Tensor:
        """Return the kernel's diagonal."""
        limit, transient, own, power, scale = torch.exp(self.logs[2 * self.num_axes : 2 * self.num_axes + 5])
        return limit + transient * (scale / (2 * at.epoch + scale)) ** power + own

    def _factor(self, logs: torch.Tensor, seen: Points) -> torch.Tensor:
        """Return the Cholesky factor of the kernel of what was seen, with its noise."""
        noise = torch.exp(logs[-1]) + 1e-6
        diagonal = noise * torch.eye(len(seen.trial), dtype=torch.float64)
        return torch.linalg.cholesky(self._kernel(logs, seen, seen) + diagonal)


def expected_improvement(mean: torch.Tensor, deviation: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """Return by how much normal variables surpass the best on average, counting as 0 where they do not.

    Source: Jones, Schonlau and Welch, Efficient global optimization of expensive black-box functions (1998), eq. 15.
    """
    over = (mean - best) / deviation
    density = torch.exp(-over * over / 2) / math.sqrt(2 * math.pi)
    return deviation * (over * torch.from_numpy(ndtr(over.numpy())) + density)


def matern(squares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the Matern 5/2 kernel at some squared distances, and minus twice its slope by them."""
    distance = torch.sqrt(5 * squares)
    fading = torch.exp(-distance)
    return (1 + distance + 5 / 3 * squares) * fading, 5 / 3 * (1 + distance) * fading


@contextmanager
def one_thread() -> Iterator[None]:
    """Leave the other cores to the trials for a while."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
