"""How long a trial is waited for that has learned nothing yet."""

import pytest

from tunekit.beginnings import Beginnings, behind


def heard(*trials, max_epochs=27):
    """Return what is known once each trial has come so far: (epochs, the epoch at which it began, or None)."""
    beginnings, values = Beginnings(max_epochs), {}
    for number, (epochs, begin) in enumerate(trials):
        values[number] = [0.9 if begin and epoch >= begin else 0.1 for epoch in range(1, epochs + 1)]
        for epoch, value in enumerate(values[number], start=1):
            beginnings.hear(number, epoch, value > 0.1, len(trials))
    return beginnings, values


def straight(*trials, **options):
    beginnings, values = heard(*trials, **options)
    return [number for number in values if beginnings.goes_straight_on(number, values)]


def test_while_nobody_has_begun_each_is_waited_for_a_third_of_all_epochs():
    assert straight((8, None), (9, None), (1, None)) == [0, 2]
    assert straight((2, None), (3, None), max_epochs=6) == [0]  # or for as many epochs as there are trials, and one
    assert straight(*[(11, None)] * 9) == []
    assert straight(*[(11, None)] * 12) == list(range(12))


def test_once_some_have_begun_others_are_waited_for_half_as_long_again():
    assert straight((8, 6), (8, None)) == [0, 1]
    assert straight((8, 6), (9, None)) == [0]
    beginnings, values = heard((8, 6), (9, None))
    beginnings.hear(1, 10, True, 2)  # it has begun after all
    assert beginnings.begun == {0: 6, 1: 10} and beginnings.goes_straight_on(1, values)
    beginnings.forget(1)
    assert beginnings.begun == {0: 6}


@pytest.mark.parametrize(("begin", "slow"), [(1, False), (2, False), (3, True)])
def test_where_half_begin_at_once_none_goes_straight_on(begin, slow):
    beginnings, values = heard((4, begin), (4, begin), (4, None))
    assert beginnings.slow == slow
    assert beginnings.goes_straight_on(0, values) == slow


def test_who_is_worse_than_half_of_the_others_were_gives_way():
    values = {0: [0.1, 0.5], 1: [0.1, 0.6], 2: [0.1, 0.7, 0.8], 3: [0.1]}
    assert not behind(0, values)  # of two others nothing can be told
    values[3] = [0.1, 0.4]
    assert [number for number in values if behind(number, values)] == [0, 3]
