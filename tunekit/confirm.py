"""Is the winner really better than the default config? Both are trained again, on seeds that chose neither."""

import math
import statistics
from typing import NamedTuple

from scipy.special import stdtrit

from tunekit.events import Trial, winner_of
from tunekit.ledger import Ledger
from tunekit.training import derive_seed

CONFIDENCE = 0.95
NO_VERDICT = (
    "whether it is really better than the default config is not known, as the best of many trials is partly luck: the "
    "same call with confirm=3 trains both again, on three seeds each, and gives a verdict with an interval"
)


class Verdict(NamedTuple):
    """What the repeated trainings say about the winner against the default config.

    Args:
        word: "better", "worse" or "no difference shown".
        difference: of the means, winner minus default.
        interval: 95 %, of the difference.
        winner, default: the values, one per seed.
    """

    word: str
    difference: float
    interval: tuple[float, float]
    winner: tuple[float, ...]
    default: tuple[float, ...]

    def __str__(self) -> str:
        mean_and_spread = [f"{statistics.mean(v):.4f} ± {statistics.stdev(v):.4f}" for v in (self.winner, self.default)]
        return (
            f"{self.word}: {mean_and_spread[0]} against {mean_and_spread[1]} of the default config "
            f"({len(self.winner)} seeds each; difference {self.difference:+.4f}, "
            f"95 % interval {self.interval[0]:+.4f} to {self.interval[1]:+.4f})"
        )


def default_of(trials: dict[int, Trial]) -> Trial | None:
    """Return the trial of the default config."""
    return next((trial for trial in trials.values() if trial.source == "default" and trial.role == "search"), None)


def propose_confirmations(ledger: Ledger, metric: str, mode: str, seed: int, num_seeds: int) -> None:
    """Write the trials that confirm into the ledger: winner and default config, on `num_seeds` new seeds each.

    Those that are there already, from an earlier call, are not written again; none if the default config won.
    """
    trials = ledger.trials()
    winner, default = winner_of(trials, metric, mode), default_of(trials)
    if winner is None or default is None or winner.params == default.params:
        return
    for role, trial in (("winner", winner), ("default", default)):
        known = {t.seed for t in trials.values() if t.role == role and t.params == trial.params}
        for number in range(num_seeds):
            new_seed = derive_seed(seed, "confirm", number)
            if new_seed not in known:
                drawn = {"config": trial.config, "params": trial.params}
                described = {"role": role, "source": f"trial {trial.number}", "seed": new_seed}
                ledger.append("proposed", {**drawn, **described}, ledger.next_number)


def verdict_of(trials: dict[int, Trial], metric: str, mode: str) -> Verdict | None:
    """Return the verdict, drawn on val; None unless both were trained on two seeds or more.

    Source: B. L. Welch, The generalization of Student's problem, Biometrika 34 (1947): means of unequal variances.
    """
    winner = winner_of(trials, metric, mode)
    if winner is None:
        return None
    values: dict[str, list[float]] = {"winner": [], "default": []}
    for trial in trials.values():
        value = trial.best_value(metric, mode)
        counts = trial.role == "default" or (trial.role == "winner" and trial.params == winner.params)
        if counts and trial.state == "finished" and value is not None:
            values[trial.role].append(value)
    if min(map(len, values.values())) < 2:
        return None
    difference = statistics.mean(values["winner"]) - statistics.mean(values["default"])
    low, high = _welch_interval(values["winner"], values["default"])
    better, worse = (low > 0, high < 0) if mode == "max" else (high < 0, low > 0)
    word = "better" if better else "worse" if worse else "no difference shown"
    return Verdict(word, difference, (low, high), tuple(values["winner"]), tuple(values["default"]))


def _welch_interval(a: list[float], b: list[float]) -> tuple[float, float]:
    difference = statistics.mean(a) - statistics.mean(b)
    if statistics.variance(a) + statistics.variance(b) == 0:
        return difference, difference
    of_a, of_b = statistics.variance(a) / len(a), statistics.variance(b) / len(b)  # the variances of the means
    freedom = (of_a + of_b) ** 2 / (of_a**2 / (len(a) - 1) + of_b**2 / (len(b) - 1))
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(of_a + of_b)
    return difference - half, difference + half
