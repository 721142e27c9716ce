"""Optimizers, and the learning rate over time."""

import pytest
import torch

from tunekit.config import DEFAULTS
from tunekit.optimization import build_optimizer, learning_rate, lr_schedules, optimizers, plain_step


def rates(epochs_done, **config):
    config = {"lr": 0.1, "lr_schedule": "constant", "warmup_epochs": 0, "max_epochs": 10, **config}
    return [learning_rate(config, done) for done in epochs_done]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.1, 0.1, 0.1, 0.1, 0.1]),
        ("cosine", [0.1, 0.0853553, 0.05, 0.0146447, 0.0]),
        ("inverse_time", [0.1, 0.1 / 3.25, 0.1 / 5.5, 0.1 / 7.75, 0.01]),
        ("one_cycle", [0.004, 0.0935696, 0.0811745, 0.0283061, 4e-7]),  # at 0, 2.5, 5, 7.5, 10 epochs
    ],
)
def test_each_schedule_by_its_formula(schedule, expected):
    assert rates([0, 2.5, 5, 7.5, 10], lr_schedule=schedule) == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert rates([0, 2.5, 5, 7.5, 10], lr_schedule=schedule) == rates([0, 2.5, 5, 7.5, 10], lr_schedule=schedule)


def test_one_cycle_is_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=1001, cycle_momentum=False)
    for step in range(1001):
        assert rates([step / 100], lr_schedule="one_cycle") == pytest.approx(theirs.get_last_lr(), abs=3e-4)
        if step < 1000:
            optimizer.step()
            theirs.step()


@pytest.mark.parametrize("schedule", list(lr_schedules))
def test_warmup_rises_in_a_line_and_the_schedule_follows_in_what_is_left(schedule):
    warm = rates([0, 1, 2, 4], lr_schedule=schedule, warmup_epochs=4)
    assert warm[:3] == pytest.approx([0.1 * 0.01 / 4, 0.025, 0.05])
    assert warm[3] == pytest.approx(rates([0], lr_schedule=schedule)[0])
    assert rates([10], lr_schedule=schedule, warmup_epochs=4) == pytest.approx(rates([10], lr_schedule=schedule))


@pytest.mark.parametrize("warmup", [0.001, 0.01, 3, 10, 20])
def test_no_warmup_goes_above_the_learning_rate(warmup):
    warm = rates([step / 100 for step in range(1001)], warmup_epochs=warmup)
    assert max(warm) <= 0.1 and min(warm) > 0


@pytest.mark.parametrize("name", list(optimizers))
def test_a_plain_step_is_the_optimizers_step_to_the_bit_and_builds_no_graph(name):
    torch.manual_seed(0)
    config = {**DEFAULTS, "optimizer": name, "lr": 0.05, "momentum": 0.5, "weight_decay": 0.25}
    models = [torch.nn.Linear(3, 2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    steps = [plain_step(build_optimizer(models[0], config)), build_optimizer(models[1], config).step]
    for _ in range(5):
        images = torch.randn(4, 3)
        for model, step in zip(models, steps, strict=True):
            model.zero_grad()
            model(images).square().sum().backward()
            step()
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other) and one.grad_fn is None and one.requires_grad


@pytest.mark.parametrize("name", list(optimizers))
def test_optimizers_take_what_the_config_says_and_train_only_what_is_free(name):
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    config = {**DEFAULTS, "optimizer": name, "lr": 0.05, "momentum": 0.5, "weight_decay": 0.25}
    (group,) = build_optimizer(model, config).param_groups
    assert group["params"] == [model.weight]
    assert (group["lr"], group["weight_decay"]) == (0.05, 0.25)
    assert group.get("momentum", 0.5) == 0.5


def test_sgd_steps_as_in_the_book():
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = optimizers["sgd"]([weight], {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.0})
    for expected in (0.9, 0.75):  # v = 1, then 0.5 + 1
        weight.grad = torch.ones(1)
        optimizer.step()
        assert weight.item() == pytest.approx(expected)
