"""The verdict: whether the winner is better than the default config, on seeds that chose neither."""

import random
import statistics

import pytest
from played import METRIC, new_ledger, play, propose
from scipy import stats

from tunekit.confirm import default_of, propose_confirmations, verdict_of
from tunekit.events import winner_of

BETTER = [0.95, 0.96, 0.955]
WORSE = [0.80, 0.82, 0.81]


@pytest.fixture
def ledger(tmp_path):
    ledger = new_ledger(tmp_path)
    yield ledger
    ledger.close()


def search(ledger, default=0.5, other=0.9):
    """A search of two trials: the default config and another."""
    play(ledger, propose(ledger, {"lr": 0.1}, source="default"), [default])
    play(ledger, propose(ledger, {"lr": 0.2}), [other / 2, other])


def confirm(ledger, winner, default, mode="max"):
    """Train winner and default again, with these values, and return the verdict."""
    propose_confirmations(ledger, METRIC, mode, 0, len(winner))
    for number, value in zip(list(ledger.unfinished), [*winner, *default], strict=True):
        play(ledger, number, [value])
    return verdict_of(ledger.trials(), METRIC, mode)


def test_winner_and_default(ledger):
    search(ledger)
    play(ledger, propose(ledger), [0.9])  # of equals the first
    play(ledger, propose(ledger), [0.99, float("nan")], "diverged")
    play(ledger, propose(ledger), [0.98], "failed")
    play(ledger, propose(ledger, role="winner"), [0.97])
    play(ledger, propose(ledger), [0.85], "stopped")
    trials = ledger.trials()
    assert (winner_of(trials, METRIC, "max").number, winner_of(trials, METRIC, "min").number) == (1, 1)
    assert default_of(trials).number == 0
    assert winner_of({}, METRIC, "max") is None and default_of({}) is None


def test_each_is_trained_again_on_the_same_new_seeds_once(ledger):
    search(ledger)
    for _ in range(2):  # the same call again adds nothing
        propose_confirmations(ledger, METRIC, "max", 0, 3)
    new = list(ledger.unfinished.values())
    assert [(trial.role, trial.params["lr"], trial.source) for trial in new] == [
        *[("winner", 0.2, "trial 1")] * 3, *[("default", 0.1, "trial 0")] * 3,
    ]  # fmt: skip
    seeds = [trial.seed for trial in new]
    assert seeds[:3] == seeds[3:] and len({*seeds, 0}) == 4
    propose_confirmations(ledger, METRIC, "max", 0, 4)
    assert len(ledger.unfinished) == 8


@pytest.mark.parametrize(
    ("winner", "default", "mode", "word"),
    [
        (BETTER, WORSE, "max", "better"),
        (WORSE, BETTER, "max", "worse"),
        (WORSE, BETTER, "min", "better"),
        (BETTER, WORSE, "min", "worse"),
        ([0.90, 0.95, 0.85], [0.89, 0.94, 0.80], "max", "no difference shown"),
        ([0.9, 0.9, 0.9], [0.8, 0.8, 0.8], "max", "better"),
        ([0.9, 0.9, 0.9], [0.9, 0.9, 0.9], "min", "no difference shown"),
        ([0.9, 0.9, 0.9], [0.8, 0.81, 0.8], "max", "better"),
    ],
)
def test_the_verdict(winner, default, mode, word, ledger):
    search(ledger, other=0.9 if mode == "max" else 0.1)
    verdict = confirm(ledger, winner, default, mode)
    assert verdict.word == word
    assert (verdict.winner, verdict.default) == (tuple(winner), tuple(default))
    assert verdict.difference == pytest.approx(statistics.mean(winner) - statistics.mean(default))
    assert str(verdict).startswith(f"{word}: {statistics.mean(winner):.4f} ± ")


def test_the_interval_is_scipys(ledger):
    generator = random.Random(0)
    winner, default = [generator.gauss(0.9, 0.02) for _ in range(5)], [generator.gauss(0.88, 0.005) for _ in range(5)]
    search(ledger)
    theirs = stats.ttest_ind(winner, default, equal_var=False).confidence_interval(0.95)
    assert confirm(ledger, winner, default).interval == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def test_no_verdict_on_less_than_two_seeds_each(ledger):
    assert verdict_of({}, METRIC, "max") is None
    search(ledger)
    assert confirm(ledger, [0.9], [0.8]) is None


def test_the_verdict_is_on_the_winner_of_now(ledger):
    search(ledger)
    confirm(ledger, BETTER, WORSE)
    play(ledger, propose(ledger, {"lr": 0.3}), [0.99])  # the search went on, and found a better one
    assert verdict_of(ledger.trials(), METRIC, "max") is None
    propose_confirmations(ledger, METRIC, "max", 0, 3)
    assert [(trial.role, trial.params["lr"]) for trial in ledger.unfinished.values()] == [("winner", 0.3)] * 3
    for number in list(ledger.unfinished):
        play(ledger, number, [0.5 + number / 100])
    assert verdict_of(ledger.trials(), METRIC, "max").word == "worse"
