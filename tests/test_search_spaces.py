"""Every ready-made space is one that can be searched, with a default config of its own."""

import pytest

from tunekit.checks import check_keys
from tunekit.config import DEFAULTS, check_config
from tunekit.distributions import choice
from tunekit.errors import ConfigError
from tunekit.proposer import Proposer
from tunekit.space import default_config
from tunekit.spaces import find_space, space_names


def test_shifted_images_go_with_a_frozen_backbone_where_others_are_not_frozen():
    check_keys({"freeze": choice([None, "backbone"]), "augment": "crop"})
    check_keys({"backbone": choice([{"name": "resnet18", "freeze": "backbone"}, "cnn"]), "augment": "flip_crop"})
    with pytest.raises(ConfigError, match="augment 'crop' moves the images"):
        check_keys({"freeze": "backbone", "augment": choice(["none", "crop"])})


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
