"""Searchers: what each proposes, what Optuna is told, and that a search resumed proposes what it would have.

The Proposer is driven through a real ledger, without Ray and with values that are computed rather than trained.
"""

import json
import math

import optuna
import pytest
from optuna.trial import TrialState
from played import METRIC, new_ledger, play

from tunekit.distributions import choice, grid, loguniform, randint, uniform
from tunekit.errors import SpaceError, UnknownNameError
from tunekit.forecaster import Forecaster
from tunekit.proposer import Proposer
from tunekit.samplers import searchers
from tunekit.space import draw_config, labels, params_of

SPACE = {
    "lr": loguniform(1e-4, 1e-1),
    "width": randint(8, 4096),
    "freeze": choice([None, "backbone"]),
    "optimizer": choice([
        {"name": "adam", "decay": loguniform(1e-6, 1e-2)},
        {"name": "sgd", "momentum": uniform(0.0, 0.99), "nesterov": choice([True, False])},
    ]),
}  # fmt: skip
SMALL = {"batch_size": choice([16, 32, 64]), "pretrained": choice([True, False])}  # six configs
DEFAULT = {"lr": 1e-3, "width": 64, "freeze": None, "optimizer": "adam", "decay": 1e-4}
START = {"lr": 0.1, "width": 8, "freeze": "backbone", "optimizer": "sgd", "momentum": 0, "nesterov": False}
SMALL_FIRST = [("default", {"batch_size": 64, "pretrained": False})]
DRAWN = [name for name in searchers if name != "grid"]
ENDS = {3: ("stopped", 2), 5: ("diverged", 2), 6: ("failed", 1), 8: ("failed", 0)}  # the others finish, in 3 epochs


def make(searcher, space=SPACE, first=(("default", DEFAULT), ("start_from", START)), mode="max", seed=0):
    if searcher == Forecaster.searcher:
        return Forecaster(space, METRIC, mode, seed, first, max_epochs=3)
    return Proposer(space, searcher, METRIC, mode, seed, first)


def values_of(number, params):
    """What a trial reaches, epoch by epoch: the second is the best, unless it diverges there."""
    state, num_epochs = ENDS.get(number, ("finished", 3))
    score = -abs(math.log10(params.get("lr", 0.01)) + 2) + 0.1 * (params.get("optimizer") == "sgd")
    values = [score + better for better in (0, 0.2, 0.1)][:num_epochs]
    return state, [*values[:-1], math.nan] if state == "diverged" else values


def search(ledger, proposer, num_trials):
    """Run trials one at a time, and return what was proposed; the proposer hears all that happens."""
    heard, proposed = 0, []
    while len(proposed) < num_trials:
        number = ledger.next_number
        proposal = proposer.propose(number)
        if proposal is None:
            break
        source, params = proposal
        config = labels(draw_config(proposer.space, lambda name, _, params=params: params[name]))
        described = {"config": config, "params": params, "role": "search", "source": source, "seed": 0}
        ledger.append("proposed", described, number)
        state, values = values_of(number, params)
        play(ledger, number, values, state)
        for event in ledger.events(after=heard):
            heard = event.number
            proposer.hear(event)
        proposed.append((source, params))
    return proposed


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """What each searcher proposes for 16 trials, and the ledger's events: made when first asked for."""
    made = {}

    def searched_by(searcher):
        if searcher not in made:
            ledger = new_ledger(tmp_path_factory.mktemp(searcher))
            proposed = search(ledger, make(searcher), 16)
            made[searcher] = proposed, list(ledger.events())
            ledger.close()
        return made[searcher]

    return searched_by


@pytest.mark.parametrize("searcher", DRAWN)
def test_the_default_comes_first_then_start_from_then_new_configs_of_the_space(searcher, searched):
    proposed, _ = searched(searcher)
    assert [source for source, _ in proposed] == ["default", "start_from", *[searcher] * 14]
    configs = [draw_config(SPACE, lambda name, _, params=params: params[name]) for _, params in proposed]
    assert configs[:2] == [DEFAULT, START]
    assert [params_of(SPACE, config) for config in configs] == [params for _, params in proposed]  # all inside
    assert len({json.dumps(config) for config in configs}) == 16
    assert {config["optimizer"] for config in configs} == {"adam", "sgd"}
    momenta = [config["momentum"] for config in configs if "momentum" in config]
    assert len(set(momenta)) >= len(momenta) - 2  # each drawn anew; neighbours beyond the range's end get its end


@pytest.mark.parametrize("searcher", DRAWN)
def test_a_proposer_refilled_from_the_ledger_proposes_what_it_would_have(searcher, searched):
    proposed, events = searched(searcher)
    for cut in (0, 1, 2, 4, 7, 14, 15):
        refilled = make(searcher)
        for event in events:
            if event.kind == "proposed" and event.trial == cut:
                break
            refilled.hear(event)
        assert refilled.num_proposed == cut
        assert refilled.propose(cut) == proposed[cut]


@pytest.mark.parametrize("searcher", list(searchers))
def test_a_small_space_is_tried_whole_and_then_ends_also_when_resumed(searcher, tmp_path):
    ledger = new_ledger(tmp_path)
    proposed = search(ledger, make(searcher, SMALL, SMALL_FIRST), 10)
    assert [source for source, _ in proposed] == ["default", *[searcher] * 5]
    assert proposed[0][1] == SMALL_FIRST[0][1]
    assert len({json.dumps(params) for _, params in proposed}) == 6
    refilled = make(searcher, SMALL, SMALL_FIRST)
    for event in ledger.events():
        if event.kind == "proposed":  # at each trial, as if resumed there
            assert refilled.propose(event.trial) == proposed[event.trial]
            refilled = make(searcher, SMALL, SMALL_FIRST)
            for earlier in ledger.events():
                if earlier.number <= event.number:
                    refilled.hear(earlier)
        else:
            refilled.hear(event)
    assert refilled.propose(6) is None and refilled.num_proposed == 6
    ledger.close()


@pytest.mark.parametrize("searcher", DRAWN)
def test_trials_side_by_side_get_unlike_configs(searcher):
    proposer = make(searcher)
    proposed = [proposer.propose(number) for number in range(8)]
    assert len({json.dumps(params) for _, params in proposed}) == 8


@pytest.mark.parametrize("searcher", DRAWN)
def test_the_seed_decides(searcher):
    def fourth(seed):  # after the default, the given one, and the forecaster's middle of the space
        proposer = make(searcher, seed=seed)
        return [proposer.propose(number) for number in range(4)][3]

    assert fourth(0) == fourth(0) != fourth(1)


@pytest.mark.parametrize(("mode", "best"), [("max", 1), ("min", 0)])
def test_optuna_is_told_each_value_with_its_epoch_and_how_each_trial_ended(mode, best, tmp_path):
    ledger, proposer = new_ledger(tmp_path), make("tpe", mode=mode)
    proposed = search(ledger, proposer, 10)
    ledger.append("proposed", {"config": {}, "params": {}, "role": "winner", "source": "trial 0", "seed": 1}, 10)
    play(ledger, 10, [5.0])
    for event in list(ledger.events())[-4:]:
        proposer.hear(event)  # a trial that confirms is none of the searcher's business
    told = proposer.study.trials
    assert [trial.params for trial in told] == [params for _, params in proposed]
    states = {"finished": "COMPLETE", "stopped": "PRUNED", "diverged": "PRUNED", "failed": "FAIL"}
    for number, trial in enumerate(told):
        state, values = values_of(number, proposed[number][1])
        assert trial.state == TrialState[states[state]]
        seen = [trial.intermediate_values[epoch] for epoch in range(1, len(values) + 1)]
        assert seen == pytest.approx(values, nan_ok=True) and len(trial.intermediate_values) == len(values)
        if state == "finished":
            assert trial.value == pytest.approx(values[best])
    assert proposer.num_proposed == 10
    assert math.isnan(told[5].intermediate_values[2])
    wanted = optuna.study.StudyDirection.MAXIMIZE if mode == "max" else optuna.study.StudyDirection.MINIMIZE
    assert proposer.study.direction == wanted
    ledger.close()


def test_tpe_learns_where_the_good_configs_are_also_from_stopped_and_diverged_trials(tmp_path):
    """Good is an lr below 1e-4, a quarter of the range; the others are stopped early or diverge, and none finishes."""
    space, ledger = {"lr": loguniform(1e-5, 1e-1)}, new_ledger(tmp_path)
    proposer, heard = make("tpe", space, [("default", {"lr": 1e-2})]), 0
    for number in range(40):
        source, params = proposer.propose(number)
        described = {"config": params, "params": params, "role": "search", "source": source, "seed": 0}
        ledger.append("proposed", described, number)
        bad = params["lr"] > 1e-4
        play(ledger, number, [math.nan if number % 2 else 0.1] if bad else [0.9], "diverged" if bad else "stopped")
        for event in ledger.events(after=heard):
            heard = event.number
            proposer.hear(event)
    rates = [trial.params["lr"] for trial in proposer.study.trials]
    assert sum(rate < 1e-4 for rate in rates[-20:]) >= 10
    ledger.close()


@pytest.mark.parametrize("searcher", ["grid", "random", "forecast"])
@pytest.mark.parametrize("missing", [0, 1, 2])
def test_what_was_to_be_tried_first_and_is_not_in_the_ledger_is_tried_next(searcher, missing, tmp_path):
    """As where a machine is lost before it has told the storage of its newest trials."""
    space = {"lr": loguniform(1e-4, 1e-1), "momentum": uniform(0, 1)} if searcher != "grid" else {"a": grid([1, 2, 3])}
    first = [("start_from", {"lr": lr, "momentum": 0}) for lr in (1e-3, 0.01, 0.1)] if searcher != "grid" else []
    wanted = [make(searcher, space, first).propose(0)]
    ledger, proposer, whole = new_ledger(tmp_path), make(searcher, space, first), make(searcher, space, first)
    wanted = [whole.propose(number) for number in range(3)]
    for number, (source, params) in enumerate(wanted):
        if number != missing:
            proposed = {"config": labels(params), "params": params, "role": "search", "source": source, "seed": 0}
            proposer.hear(ledger.append("proposed", json.loads(json.dumps(proposed)), number))
    assert proposer.propose(3) == wanted[missing]
    following = proposer.propose(4)
    assert following is None or following[1] not in [params for _, params in wanted]


def test_grid_tries_the_default_then_start_from_then_the_rest_once():
    space = {"a": grid([1, 2]), "b": choice([{"name": "x", "c": grid([None, True])}, {"name": "y"}]), "d": 7}
    first = [("default", {"a": 2, "b": "y", "d": 7}), ("start_from", {"a": 1, "b": "x", "c": True, "d": 7})]
    proposer = make("grid", space, first)
    proposed = [proposer.propose(number) for number in range(6)]
    assert [source for source, _ in proposed] == ["default", "start_from", *["grid"] * 4]
    assert [params for _, params in proposed[:2]] == [{"a": 2, "b": "y"}, {"a": 1, "b": "x", "b=x/c": True}]
    assert len({json.dumps(params) for _, params in proposed}) == 6
    assert proposer.propose(6) is None


@pytest.mark.parametrize(
    ("searcher", "space", "first", "text"),
    [
        ("grid", SPACE, [], "lr is .*a range, of which searcher='grid' cannot try every value"),
        (
            "grid",
            {f"{n}": choice(list(range(9))) for n in range(6)},
            [],
            "over 100,000 configs: leave some options out",
        ),
        ("tpe", SPACE, [("start_from", {**DEFAULT, "lr": 1.0})], "lr=1.0 lies outside"),
        ("tpe", SPACE, [("start_from", {**DEFAULT, "momentum": 0.5})], "momentum=0.5 does not fit the space"),
        ("grid", SMALL, [("start_from", {"batch_size": 8, "pretrained": True})], "batch_size=8 lies outside"),
    ],
)
def test_what_cannot_be_searched_is_told_before_the_first_trial(searcher, space, first, text):
    with pytest.raises(SpaceError, match=text):
        make(searcher, space, first)


def test_an_unknown_searcher_is_told():
    with pytest.raises(
        UnknownNameError, match=r"unknown searcher 'tpee': did you mean 'tpe'\? Known: cmaes, forecast, gp, grid"
    ):
        make("tpee")


@pytest.mark.parametrize("searcher", DRAWN)
def test_draws_in_vain_leave_no_trace(searcher, tmp_path):
    """In a small space many a draw was tried before; what is proposed after a crash does not depend on them."""
    space, first = {"a": randint(1, 4), "b": randint(1, 5)}, [("default", {"a": 1, "b": 1})]
    ledger = new_ledger(tmp_path)
    proposed = search(ledger, make(searcher, space, first), 13)
    for cut in (6, 9, 12):
        refilled = make(searcher, space, first)
        for event in ledger.events():
            if event.trial == cut:
                break
            refilled.hear(event)
        assert refilled.propose(cut) == proposed[cut]
    ledger.close()


def test_a_range_of_whole_numbers_is_tried_to_its_last():
    proposer = make("random", {"width": randint(1, 150)}, [("default", {"width": 20})])
    proposed = [proposer.propose(number) for number in range(150)]
    assert sorted(params["width"] for _, params in proposed) == list(range(1, 151))
    assert proposer.propose(150) is None


def test_what_a_sampler_looks_at_does_not_grow_with_the_search(tmp_path, monkeypatch):
    """Also the best of long ago is known; and a proposal is the same after a crash."""
    monkeypatch.setattr("tunekit.proposer.MOST_KNOWN", 24)
    monkeypatch.setattr("tunekit.proposer.NUM_BEST", 4)
    as_ever = values_of
    monkeypatch.setitem(
        globals(), "values_of", lambda *about: ("finished", [9.0]) if about[0] == 7 else as_ever(*about)
    )
    ledger, proposer = new_ledger(tmp_path), make("tpe")
    proposed = search(ledger, proposer, 60)
    trials = proposer.study.get_trials(deepcopy=False)
    assert len(trials) < 24 + 4 and max(trial.value for trial in trials if trial.value is not None) == 9.0
    refilled = make("tpe")
    for event in ledger.events():
        if event.trial == 59:
            break
        refilled.hear(event)
    assert refilled.propose(59) == proposed[59]
    ledger.close()
