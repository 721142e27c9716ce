"""A plan before a search: what it says of time, memory, disk and cost, what it leaves behind, how far off it was."""

import json
from dataclasses import replace

import pytest

import tunekit
from tunekit.datasets.store import cache_folder
from tunekit.distributions import choice, grid, loguniform
from tunekit.errors import ConfigError
from tunekit.events import Event
from tunekit.ledger import Ledger
from tunekit.plan import Plan, plan_of

SPACE = {"backbone": choice(["mlp", "cnn_small"]), "lr": loguniform(1e-3, 1e-2), "batch_size": choice([32, 128])}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("planned")


def planned(home, space=SPACE, **options):
    asked = {"num_trials": 8, "max_epochs": 4, "folder": home, "verbose": 0, **options}
    return tunekit.run(space, "digits", dry_run=True, **asked)


@pytest.fixture(scope="module")
def plan(ray, home):
    return planned(home, name="first")


def again(plan, limits=None, **asked):
    """Return the plan for something else that was asked, from what was measured for this one."""
    was, measured, limited = plan._of
    return plan_of(plan.experiment, replace(was, **asked), measured, {**limited, **(limits or {})})


def test_a_plan_says_what_a_search_takes_and_begins_nothing(plan, home):
    assert isinstance(plan, Plan)
    assert (plan.num_trials, plan.workers, plan.cost) == (8, 1, None)
    assert plan.num_epochs == 4 + 7 + 6  # the forecaster's: one trial whole, one for each other, and a share of more
    assert plan.slots == 2  # of the Ray that all tests share
    assert 0 < plan.training_s < plan.duration_s == plan.begin_s + plan.training_s
    assert plan.memory_gb > 0.1 and 0 < plan.disk_gb < 1
    assert not list(home.iterdir())


def test_it_can_be_read(plan):
    text = str(plan.on(workers=4, price_per_hour=2.5))
    for words in ("first", "8 of up to 4 epochs, 2 side by side", "on 4 machines", "4 x 2.5 an hour", "memory"):
        assert words in text
    assert len(text.splitlines()) == len(plan.on(4, 2.5).rows()) < 12
    assert "\x1b" not in str(replace(plan, experiment="\x1b[2Jevil"))


def test_twice_the_trials_take_twice_the_training(plan):
    longer = again(plan, {"num_trials": 16}, searcher="random")
    shorter = again(plan, searcher="random")
    assert longer.training_s == pytest.approx(2 * shorter.training_s, rel=0.3)
    assert longer.begin_s == shorter.begin_s


def test_four_workers_take_a_quarter(plan):
    search = again(plan, {"num_trials": 64}, searcher="random", scheduler="none")
    others = search.on(workers=4, price_per_hour=3.0)
    assert others.duration_on_workers_s - search.begin_s == pytest.approx(search.training_s / 4, rel=0.3)
    assert others.duration_s == search.duration_s
    assert others.cost == pytest.approx(3.0 * 4 * others.duration_on_workers_s / 3600)
    assert search.on(price_per_hour=3.0).cost == pytest.approx(3.0 * search.duration_s / 3600)


def test_a_trial_is_on_one_machine_however_many_there_are(plan):
    whole = again(plan, {"num_trials": 4}, searcher="random", scheduler="none")
    assert whole.on(workers=100).duration_on_workers_s == pytest.approx(whole.on(workers=2).duration_on_workers_s)


def test_epochs_by_scheduler(plan):
    epochs = {name: again(plan, searcher="random", scheduler=name).num_epochs for name in ("none", "asha", "median")}
    assert epochs["none"] == 8 * 4
    assert 8 <= epochs["asha"] < epochs["median"] < 32


def test_a_grid_has_its_own_number_of_trials(plan):
    space = {"backbone": grid(["mlp", "cnn_small"]), "batch_size": grid([32, 128]), "lr": grid([1e-3, 1e-2])}
    found = again(plan, {"num_trials": 3}, space=space, searcher="grid", scheduler="none")
    assert (found.num_trials, found.num_epochs) == (8, 32)


def test_a_small_space_has_no_more_trials_than_configs(plan):
    found = again(plan, {"num_trials": 50}, space={"batch_size": choice([32, 64, 128])}, searcher="random")
    assert found.num_trials == 3


def test_confirming_and_a_time_budget_count(plan):
    search = again(plan, searcher="random", scheduler="none")
    assert again(plan, {"confirm": 3}, searcher="random", scheduler="none").num_epochs > search.num_epochs
    cut = again(plan, {"num_trials": 10_000, "time_budget_s": 600.0}, searcher="random", scheduler="none")
    assert cut.duration_s < 700 and cut.num_epochs < 40_000


@pytest.mark.parametrize(
    ("mistake", "words"), [({"workers": 0}, "workers"), ({"price_per_hour": -1}, "price_per_hour")]
)
def test_a_mistake_is_told(plan, mistake, words):
    with pytest.raises(ConfigError, match=words):
        plan.on(**mistake)


@pytest.mark.long
def test_the_search_goes_on_as_if_there_had_been_no_plan_and_the_next_plan_knows_how_far_off_it_was(plan, home):
    assert plan.past_error is None or plan.num_past > 0
    results = tunekit.run(SPACE, "digits", num_trials=8, max_epochs=4, folder=home, verbose=0, name="first")
    assert len(results.dataframe) == 8
    compared = [event.data for event in events_of(results.folder) if event.kind == "compared"]
    assert len(compared) == 1
    assert compared[0]["predicted_s"] == pytest.approx(plan.duration_s - plan._of[1].load_s)
    assert compared[0]["actual_s"] > 0
    known = json.loads((cache_folder() / "plans.json").read_text())
    assert known["searches"][-1] == compared[0]
    following = planned(home, num_trials=2, max_epochs=1, name="second")
    assert following.num_past == plan.num_past + 1
    assert f"{following.past_error:.0%}" in str(following)
    assert not (home / "second").exists()


def test_a_search_that_was_not_planned_compares_nothing_and_a_damaged_record_is_no_record(plan, home):
    (cache_folder() / "plans.json").write_text('{"plans": [1], "searches": [{"predicted_s": "x"}, 3]}')
    results = tunekit.run({"batch_size": choice([32, 64]), "backbone": "mlp"}, "digits", num_trials=1, max_epochs=1,
                          folder=home, verbose=0)  # fmt: skip
    assert "compared" not in {event.kind for event in events_of(results.folder)}
    assert again(plan).past_error is None


def events_of(folder) -> list[Event]:
    ledger = Ledger(folder)
    events = list(ledger.events())
    ledger.close()
    return events


@pytest.mark.long
def test_a_loop_of_ones_own_is_planned_too(ray, home):
    def own_loop(config, dataset, state=None):
        for epoch in range(config["max_epochs"]):
            yield {"val_accuracy": config["width"] / (2 + epoch)}, {"epoch": epoch + 1}

    found = planned(home, {"width": choice([1, 2, 3])}, train=own_loop, num_trials=3, searcher="random")
    assert found.num_trials == 3 and found.training_s > 0
