"""Every ready-made space is one that can be searched, with a default config of its own."""

import pytest

from tunekit.checks import check_keys
from tunekit.config import DEFAULTS, check_config
from tunekit.proposer import Proposer
from tunekit.space import default_config
from tunekit.spaces import find_space, space_names


@pytest.mark.parametrize("name", space_names())
def test_a_ready_made_space_is_proposed_from(name):
    space = find_space(name)
    check_keys(space)
    default = default_config(space, DEFAULTS)
    check_config(default)
    proposer = Proposer(space, "tpe", "val_accuracy", "max", 0, [("default", default)])
    proposals = [proposer.propose(number) for number in range(12)]
    assert proposals[0][0] == "default"
    assert all(source == "tpe" for source, _ in proposals[1:])
