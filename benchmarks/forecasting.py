"""An experiment: trials that pause after every epoch, and a Gaussian process that forecasts how each would end.

Whoever's end is expected to improve most on the best seen so far, paused trial or new config, trains the next epoch.
The forecast is of a config's value at the last epoch, from the values of all configs at the epochs they came to:

    value(config, epoch) = limit(config) + transient(config) * (b / (epoch + epoch' + b)) ** a + what is the trial's own

with limit and transient smooth functions of the config (Matern 5/2), the kernel in time that of freeze-thaw.

Source: Swersky, Snoek and Adams, Freeze-thaw Bayesian optimization, arXiv:1406.3896; the choice of one epoch at a time,
Wistuba, Kadra and Grabocka, DyHPO, arXiv:2202.09774.
"""

import math

import numpy as np
import torch
from curves import Curves
from scipy.special import ndtr
from scipy.stats import qmc
from simulator import Job

NUM_FIRST = 4  # configs, spread evenly, of which the first is the default
REFIT_EVERY = 5  # proposals
SEEN = (1, 2, 3, 4, 6, 8, 10, 13, 16, 20, 24, 27)  # the epochs of a curve that are looked at, and its last
OFFSET = 0.01  # errors are compared by their logarithm, of the error plus this
START = (
    -0.69,
    0.0,
    -3.0,
    0.0,
    0.69,
    -3.9,
)  # logs of the variances of limit, transient and own, of a, of b, of the noise
SPREAD = (1.0, 1.0, 1.0, 0.7, 0.7, 1.0)


class Points:
    """Where values were seen, or are asked for: which config, at which epoch."""

    def __init__(self, axes: np.ndarray, configs: list[int], epochs: list[float]) -> None:
        self.number = torch.tensor(configs)
        self.axes, self.epoch = torch.tensor(axes[configs]), torch.tensor(epochs, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.number)


class Forecasting:
    """A tuner as `simulator.py` wants it."""

    def __init__(self, curves: Curves, seed: int, max_trials: int = 1_000) -> None:
        self.last, self.max_trials = curves.max_epochs, max_trials
        lengths = [max(1, last) for last in curves.bounds.values()]
        self.axes = np.array(curves.points) / np.array(lengths)
        self.seen: dict[int, list[float]] = {}
        self.trials: dict[int, int] = {}  # config -> trial
        self.running: set[int] = set()
        self.first = [curves.number(curves.default)]
        for point in qmc.Sobol(self.axes.shape[1], seed=seed).random(8)[: NUM_FIRST - 1]:
            distance = ((self.axes - point) ** 2).sum(axis=1)
            distance[self.first] = np.inf
            self.first.append(int(distance.argmin()))
        mean = [0.0] * 2 * self.axes.shape[1] + list(START)
        self.mean = torch.tensor(mean, dtype=torch.float64)
        self.spread = torch.tensor([1.0] * 2 * self.axes.shape[1] + list(SPREAD), dtype=torch.float64)
        self.logs = self.mean.clone()
        self.num_asked = 0

    def ask(self) -> Job | None:
        """Return the config whose end promises most, for one epoch."""
        waiting = [config for config in self.first if config not in self.trials]
        if waiting:
            return self.begin(waiting[0])
        seen, values = self.known()
        if len(values) < 2:
            return None
        if self.num_asked % REFIT_EVERY == 0:
            self.fit(seen, values)
        self.num_asked += 1
        values = torch.cat([values, self.predict(seen, values, ahead := self.ahead())[0]])
        seen = Points(self.axes, [*seen.number.tolist(), *ahead.number.tolist()], [*seen.epoch, *ahead.epoch])
        new = len(self.trials) < self.max_trials
        open_ = [c for c in range(len(self.axes)) if self.may_train(c) and (new or c in self.trials)]
        if not open_:
            return None
        mean, deviation = self.predict(seen, values, Points(self.axes, open_, [self.last] * len(open_)))
        over = (mean - values.max()) / deviation
        density = torch.exp(-over * over / 2) / math.sqrt(2 * math.pi)
        gain = deviation * (over * torch.from_numpy(ndtr(over.numpy())) + density)
        return self.begin(open_[int(gain.argmax())])

    def tell(self, trial: int, epoch: int, value: float) -> bool:
        """Take in a value; each trial pauses after each epoch."""
        config = next(config for config, number in self.trials.items() if number == trial)
        self.seen.setdefault(config, []).append(value)
        self.running.discard(config)
        return True

    def begin(self, config: int) -> Job:
        """Train a config for one epoch more."""
        self.running.add(config)
        return Job(self.trials.setdefault(config, len(self.trials)), config, len(self.seen.get(config, [])))

    def may_train(self, config: int) -> bool:
        """Return whether a config waits, has epochs left, and has not diverged."""
        values = self.seen.get(config, [])
        return config not in self.running and len(values) < self.last and all(map(math.isfinite, values))

    def known(self) -> tuple[Points, torch.Tensor]:
        """Return all that was seen; those that diverged count as the worst."""
        found = [(config, epoch, value) for config, values in self.seen.items()
                 for epoch, value in enumerate(values, start=1) if epoch in SEEN or epoch == len(values)]  # fmt: skip
        scores = torch.tensor([-math.log(max(1 - value, 0) + OFFSET) for *_, value in found], dtype=torch.float64)
        scores = torch.nan_to_num(scores, nan=float(scores[torch.isfinite(scores)].min()) if len(found) else 0.0)
        return Points(self.axes, [config for config, *_ in found], [epoch for _, epoch, _ in found]), scores

    def ahead(self) -> Points:
        """Return what is being trained now."""
        configs = sorted(self.running)
        return Points(self.axes, configs, [len(self.seen.get(config, [])) + 1 for config in configs])

    def kernel(self, logs: torch.Tensor, a: Points, b: Points) -> torch.Tensor:
        """Return how values at two sets of points vary together, (len(a), len(b))."""
        dims = self.axes.shape[1]
        limit, transient, own, power, scale = torch.exp(logs[2 * dims : 2 * dims + 5])
        decay = (scale / (a.epoch[:, None] + b.epoch[None] + scale)) ** power
        smooth = [matern(a.axes, b.axes, torch.exp(logs[i * dims : (i + 1) * dims])) for i in range(2)]
        return limit * smooth[0] + transient * smooth[1] * decay + own * (a.number[:, None] == b.number[None])

    def factor(self, logs: torch.Tensor, seen: Points) -> torch.Tensor:
        """Return the Cholesky factor of the kernel of what was seen, with its noise."""
        noise = torch.exp(logs[-1]) + 1e-6
        return torch.linalg.cholesky(self.kernel(logs, seen, seen) + noise * torch.eye(len(seen), dtype=torch.float64))

    def fit(self, seen: Points, values: torch.Tensor) -> None:
        """Find the parameters that make what was seen likeliest, near those of before."""
        logs = self.logs.clone().requires_grad_(True)
        optimizer = torch.optim.LBFGS([logs], max_iter=30, line_search_fn="strong_wolfe")
        scaled = (values - values.mean()) / (values.std() + 1e-6)

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            factor = self.factor(logs, seen)
            fit = scaled @ torch.cholesky_solve(scaled[:, None], factor)[:, 0] / 2
            prior = (((logs - self.mean) / self.spread) ** 2).sum() / 2
            total = fit + factor.diagonal().log().sum() + prior
            total.backward()
            return total

        try:
            optimizer.step(loss)
        except torch.linalg.LinAlgError:
            return
        if torch.isfinite(logs).all():
            self.logs = logs.detach()

    def predict(self, seen: Points, values: torch.Tensor, at: Points) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and deviation of the values at some points."""
        with torch.no_grad():
            middle, scale = values.mean(), values.std() + 1e-6
            factor, cross = self.factor(self.logs, seen), self.kernel(self.logs, seen, at)
            mean = cross.T @ torch.cholesky_solve((values - middle)[:, None] / scale, factor)[:, 0]
            explained = torch.linalg.solve_triangular(factor, cross, upper=False).square().sum(0)
            variance = (self.kernel(self.logs, at, at).diagonal() - explained).clamp_min(1e-9)
        return mean * scale + middle, variance.sqrt() * scale


def matern(a: torch.Tensor, b: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return the Matern 5/2 kernel of two sets of points."""
    distance = torch.sqrt((((a[:, None] - b[None]) / lengths) ** 2).sum(-1) + 1e-12) * math.sqrt(5)
    return (1 + distance + distance**2 / 3) * torch.exp(-distance)
