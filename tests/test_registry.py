"""One registry for every family of names: entering, finding, and unknown names."""

import pytest

from tunekit.errors import ConfigError, UnknownNameError
from tunekit.registry import Registry


def make_registry():
    colours = Registry("colour")
    for name in ("red", "green", "blue"):
        colours.register(name)(name.upper())
    return colours


def test_finds_what_was_entered():
    colours = make_registry()
    assert colours["red"] == "RED"
    assert list(colours) == ["blue", "green", "red"]
    assert "red" in colours and "purple" not in colours and ["red"] not in colours


@pytest.mark.parametrize("name", ["gren", ["red"], None])
def test_an_unknown_name_is_told_with_the_known_ones(name):
    with pytest.raises(UnknownNameError, match=r"unknown colour .*Known: blue, green, red") as told:
        make_registry()[name]
    assert ("did you mean 'green'?" in str(told.value)) == (name == "gren")


def test_a_name_is_not_taken_twice_but_its_own_thing_may_come_again():
    shapes = Registry("shape")

    def make():
        def square():
            return 4

        return square

    def circle():
        return 0

    shapes.register("square")(make())
    again = shapes.register("square")(make())  # a notebook cell that is run again
    assert shapes["square"] is again
    with pytest.raises(ConfigError, match="shape 'square' is registered already"):
        shapes.register("square")(circle)
