"""Schedulers: which trials each rule stops, and that one refilled from the ledger decides as if never interrupted."""

import math
import random

import pytest
from played import METRIC, new_ledger, propose

from tunekit.errors import UnknownNameError
from tunekit.schedulers import Decisions, Hyperband, schedulers

MAX_EPOCHS = 9


def decide_all(decisions, values, epoch=1):
    """Let trials 0, 1, ... reach an epoch one after the other; return which of them stop."""
    return [decisions.decide(trial, epoch, value) for trial, value in enumerate(values)]


def play_at_random(ledger, decisions, num_steps, seed=0):
    """Advance random trials of a growing search, as a recorder would; return what was decided, in order."""
    generator, epochs, decided = random.Random(seed), {}, []
    for _ in range(num_steps):
        if not epochs or generator.random() < 0.3:
            number = propose(ledger, role="search" if generator.random() < 0.8 else "winner")
            epochs[number] = 0
        number = generator.choice(list(epochs))
        epochs[number] += 1
        value = math.nan if generator.random() < 0.05 else generator.random() + epochs[number] / 10
        ledger.append("epoch", {METRIC: value}, number, epochs[number])
        stop = ledger.unfinished[number].role == "search" and decisions.decide(number, epochs[number], value)
        decided.append((ledger.unfinished[number].role, number, epochs[number], value, stop))
        if stop or epochs[number] == MAX_EPOCHS or math.isnan(value):
            del epochs[number]
    return decided


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("name", list(schedulers))
def test_a_rule_refilled_from_the_ledger_decides_as_if_never_interrupted(name, mode, tmp_path):
    ledger = new_ledger(tmp_path)
    decided = play_at_random(ledger, Decisions(name, MAX_EPOCHS, METRIC, mode), 200)
    assert any(stop for *_, stop in decided) == (name != "none")
    events = list(ledger.events())
    ledger.close()
    epochs = [index for index, event in enumerate(events) if event.kind == "epoch"]
    for cut in (1, 20, 90, 150):
        refilled = Decisions(name, MAX_EPOCHS, METRIC, mode, events[: epochs[cut]])
        for role, trial, epoch, value, stop in decided[cut:]:
            assert role != "search" or refilled.decide(trial, epoch, value) == stop


@pytest.mark.parametrize("name", list(schedulers))
def test_asked_again_of_the_same_epoch_the_answer_is_the_same(name):
    once, twice = (Decisions(name, MAX_EPOCHS, METRIC, "max") for _ in range(2))
    generator = random.Random(1)
    for epoch in range(1, 5):
        for trial in range(12):
            value = generator.random()
            first = once.decide(trial, epoch, value)
            assert [twice.decide(trial, epoch, value), twice.decide(trial, epoch, value)] == [first, first]


@pytest.mark.parametrize("name", list(schedulers))
def test_no_rule_hears_of_nan_or_stops_at_the_last_epoch(name):
    decisions = Decisions(name, MAX_EPOCHS, METRIC, "max")
    for epoch in range(1, MAX_EPOCHS + 1):
        decide_all(decisions, [0.9] * 12, epoch)
    assert not any(decisions.decide(20, epoch, value) for epoch in range(1, 10) for value in (math.nan, math.inf))
    assert not decisions.decide(21, MAX_EPOCHS, 0.0)


def test_asha_keeps_the_top_third_of_each_rung():
    asha = Decisions("asha", 9, METRIC, "max")
    assert decide_all(asha, [0.5, 0.4, 0.6, 0.3, 0.55, 0.7]) == [False, False, False, True, True, False]
    assert not asha.decide(0, 2, 0.0)  # no rung: they are at 1 and 3
    assert decide_all(asha, [0.5, 0.4, 0.3], epoch=3) == [False, False, True]
    values = [number / 100 for number in range(99)]
    random.Random(0).shuffle(values)
    asha = Decisions("asha", 9, METRIC, "max")
    decide_all(asha, values)
    late = [asha.decide(200 + n, 1, value) for n, value in enumerate([0.70, 0.60])]
    assert late == [False, True]
    assert not any(decide_all(Decisions("asha", 1, METRIC, "max"), [3, 2, 1]))  # one epoch: nothing to stop


def test_asha_with_a_loss_keeps_the_lowest():
    assert decide_all(Decisions("asha", 9, METRIC, "min"), [0.5, 0.4, 0.6, 0.3]) == [False, False, True, False]


@pytest.mark.parametrize("name", list(schedulers))
def test_nobody_is_compared_with_what_is_no_number(name):
    decisions = Decisions(name, MAX_EPOCHS, METRIC, "max")
    for epoch in (1, 2, 3):
        assert not any(decide_all(decisions, [math.inf, math.nan, math.inf, math.nan, 0.5], epoch))


def test_equals_go_on_together():
    assert not any(decide_all(Decisions("asha", 9, METRIC, "max"), [0.5] * 9))


def test_hyperband_deals_trials_to_brackets_that_start_at_different_epochs():
    hyperband = Hyperband(MAX_EPOCHS)
    assert [sorted(bracket.rungs) for bracket in hyperband.brackets] == [[1, 3], [3]]
    for epoch in (1, 3):
        for trial in range(60):
            hyperband.hear(trial, epoch, 0.5)
    counts = [len(bracket.rungs[3]) for bracket in hyperband.brackets]
    assert sum(counts) == 60 and counts[0] > counts[1] > 10
    assert len(hyperband.brackets[0].rungs[1]) == counts[0]
    assert not Hyperband(1).hear(0, 1, 0.5)


def test_median_is_viziers():
    """A trial stops when its best value is worse than the median of the others' averages up to its epoch."""
    median = Decisions("median", 9, METRIC, "max")
    for trial, level in enumerate([0.2, 0.4, 0.6]):
        assert not median.decide(trial, 1, level - 0.1)
        assert not median.decide(trial, 2, level + 0.1)  # averages of 0.2, 0.4 and 0.6; no more than two others
    assert not median.decide(3, 1, 0.0)  # the first epoch is everybody's
    assert not median.decide(3, 2, 0.41)
    assert not median.decide(4, 1, 0.0) and median.decide(4, 2, 0.3)  # the fourth's average is 0.205
    assert not median.decide(5, 1, 0.45) and not median.decide(5, 2, 0.1)  # its best is what counts


def test_an_unknown_scheduler_is_told():
    with pytest.raises(UnknownNameError, match="unknown scheduler 'ahsa': did you mean 'asha'"):
        Decisions("ahsa", 9, METRIC, "max")
