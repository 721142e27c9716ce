"""The searcher "forecast": trials take turns, none of their work is lost, and few epochs lead to the best.

Real searches on Ray, of training loops that compute their curve; and curves played to the Forecaster alone.
"""

import contextlib
import itertools
import math
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime

import tunekit
from tunekit import choice, loguniform, paths, randint, uniform
from tunekit.asked import check_asked
from tunekit.encoding import Encoding
from tunekit.errors import ConfigError, ExperimentError
from tunekit.events import Event
from tunekit.forecaster import Forecaster
from tunekit.forecasts import Forecast, Points, scores_of
from tunekit.ledger import Ledger
from tunekit.pausing import LEAST_PAUSED, MOST_PAUSED
from tunekit.proposer import NEW

MAX_EPOCHS = 9
SPACE = {"lr": loguniform(1e-4, 1.0), "width": randint(1, 8), "kind": choice(["a", "b"])}


def make_curve():
    """Return the curve, made where a worker need not import this file for it."""

    def curve(config, epoch):
        """Rises to what the config can reach; a good one may begin slowly."""
        off = abs(math.log10(config["lr"]) + 2), abs(config["width"] - 6), config["kind"] == "b"
        reach = 1 - 0.1 * off[0] - 0.02 * off[1] - 0.1 * off[2]
        return reach * (1 - 0.6 * math.exp(-epoch * (0.3 + 0.1 * config["width"])))

    return curve


def make_loop(curve):
    """Return a training loop that yields a curve; its state counts the epochs that were really trained."""

    def loop(config, dataset, state=None):
        done = state["done"] if state else 0
        for epoch in range(done + 1, config["max_epochs"] + 1):
            yield {"val_accuracy": curve(config, epoch)}, {"done": epoch}

    return loop


curve = make_curve()


def search(folder, space=SPACE, **options):
    asked = {"num_trials": 12, "max_epochs": MAX_EPOCHS, "verbose": 0, "name": "x", "metric": "val_accuracy"}
    return tunekit.run(space, "digits", train=make_loop(make_curve()), folder=folder, **{**asked, **options})


def kinds_of(results):
    ledger = Ledger(results.folder)
    events = list(ledger.events())
    ledger.close()
    return events


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray):
    return search(tmp_path_factory.mktemp("forecast"), cpus_per_trial=2)  # one at a time: always the same


def test_every_config_is_tried_and_the_most_promising_goes_on_to_the_end(finished):
    frame = finished.dataframe
    assert len(frame) == 12 and (frame["num_epochs"] >= 1).all()
    assert set(frame["state"]) == {"finished", "stopped"}
    assert finished.best_trial.state == "finished" and finished.best_trial.history[-1]["val_accuracy"] > 0.9
    assert (frame["num_epochs"] < MAX_EPOCHS / 2).sum() >= 6  # what promises little gets little


def test_it_trains_as_many_epochs_as_successive_halving_would(finished):
    planned = 9 + math.ceil(11 * (1 + 2 * 2 / 3))  # one to the end; each of the others 1, every third 3, every ninth 9
    assert len(finished.history) == planned


@pytest.mark.long
def test_where_the_space_holds_fewer_configs_the_same_epochs_go_to_these(tmp_path, ray):
    space = {"lr": 0.01, "width": randint(1, 6), "kind": "a"}
    results = search(tmp_path, space=space, cpus_per_trial=2)
    assert len(results.dataframe) == 6
    assert len(results.history) == 9 + math.ceil(11 * (1 + 2 * 2 / 3))  # as for the 12 that were asked for


def test_a_trial_that_paused_goes_on_where_it_was(finished):
    events = kinds_of(finished)
    assert sum(event.kind == "paused" for event in events) >= 6
    again = [event.trial for event in events if event.kind == "started" and event.trial is not None]
    assert len(again) > len(set(again))
    for trial in finished.trials.values():
        expected = [curve(trial.config, epoch) for epoch in range(1, len(trial.history) + 1)]
        assert [metrics["val_accuracy"] for metrics in trial.history] == expected


def most_paused(results):
    """How many trials of a search were paused at once, at the most."""
    paused, most = set(), 0
    for event in kinds_of(results):
        if event.kind == "paused":
            paused.add(event.trial)
        elif event.kind in ("started", "ended"):
            paused.discard(event.trial)
        most = max(most, len(paused))
    return most


@pytest.mark.long
def test_only_so_many_trials_of_a_size_that_is_not_known_are_paused_at_once(tmp_path, ray):
    results = search(tmp_path, num_trials=30, max_epochs=3)
    most = most_paused(results)
    assert LEAST_PAUSED <= most <= LEAST_PAUSED + 1  # one more, until the least promising of them is ended
    assert len(results.dataframe) == 30
    kept = [folder for folder in (results.folder / "trials").iterdir() if any(folder.glob(f"*{paths.SUFFIX}"))]
    assert len(kept) <= 6  # keep_best, and the default config


@pytest.mark.long
def test_more_trials_of_small_models_are_paused_at_once(tmp_path, ray):
    space = {"backbone": "mlp", "batch_size": 256, "lr": loguniform(1e-4, 1.0)}
    results = tunekit.run(space, "digits", num_trials=25, max_epochs=3, verbose=0, name="x", folder=tmp_path)
    assert most_paused(results) > LEAST_PAUSED + 1
    kept = [folder for folder in (results.folder / "trials").iterdir() if any(folder.glob(f"*{paths.SUFFIX}"))]
    assert len(kept) <= 6  # keep_best, and the default config


def test_as_many_trials_may_pause_as_have_room_for_their_checkpoints():
    def allowed(space, train=None):
        digits = tunekit.load_dataset("digits")
        metric = "val_accuracy" if train else None
        asked = check_asked(space, digits, metric, None, MAX_EPOCHS, "forecast", "auto", (), train, 0)
        return asked.proposer().most_paused

    space = {"lr": loguniform(1e-4, 1.0), "image_size": 64}
    assert allowed({**space, "backbone": "cnn_small", "image_size": None}) == MOST_PAUSED
    assert LEAST_PAUSED < allowed({**space, "backbone": "resnet18"}) < MOST_PAUSED
    assert allowed({**space, "backbone": "resnet50"}) == LEAST_PAUSED
    assert allowed({**space, "backbone": choice(["cnn_small", "resnet50"])}) == LEAST_PAUSED  # the largest counts
    assert allowed(SPACE, make_loop(curve)) == LEAST_PAUSED  # no telling how large these are


@pytest.mark.long
def test_stopped_in_the_middle_it_chooses_what_it_would_have_chosen(tmp_path, ray):
    whole = search(tmp_path / "whole", cpus_per_trial=2)

    def stop():
        count = 0
        while count < 14:
            time.sleep(0.02)
            with contextlib.suppress(ExperimentError):  # nothing is there yet
                ledger = Ledger(tmp_path / "part" / "x")
                count = sum(event.kind == "epoch" for event in ledger.events())
                ledger.close()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "part", cpus_per_trial=2)
    assert "paused" in {trial.state for trial in tunekit.load_results(tmp_path / "part" / "x").trials.values()}
    part = search(tmp_path / "part", cpus_per_trial=2)
    order = [[(e.trial, e.epoch) for e in kinds_of(found) if e.kind == "epoch"] for found in (whole, part)]
    assert order[0] == order[1]
    assert part.history.equals(whole.history)


def test_a_loop_that_cannot_go_on_is_refused(tmp_path):
    def forgetful(config, dataset, state=None):
        yield {"val_accuracy": 0.5}, {}

    with pytest.raises(ConfigError, match="forgetful never reads its third argument, the state to go on from"):
        tunekit.run(SPACE, "digits", train=forgetful, metric="val_accuracy", folder=tmp_path, verbose=0)
    assert not any(tmp_path.iterdir())


def played(forecaster, num_trials, workers, reach=curve):
    """Replay a search with so many workers that are equally fast; return (trial, epoch, value) in order."""
    found, busy = [], []

    def hear(kind, data, trial, epoch=None):
        forecaster.hear(Event(0, 0.0, 0.0, kind, trial, epoch, data))

    while True:
        while len(busy) < workers and (turn := forecaster.turn(num_trials, busy)) is not None:
            if turn == NEW:
                turn = forecaster.num_proposed
                proposal = forecaster.propose(turn)
                if proposal is None:
                    return found
                hear("proposed", {"params": proposal[1], "role": "search"}, turn)
            busy.append(turn)
        if not busy:
            return found
        trial = busy.pop(0)
        epoch = len(forecaster.values[trial]) + 1
        value = reach(forecaster.params[trial], epoch)
        hear("epoch", {"val_accuracy": value}, trial, epoch)
        found.append((trial, epoch, value))
        if epoch == forecaster.max_epochs or not math.isfinite(value):
            hear("ended", {"state": "finished" if math.isfinite(value) else "diverged"}, trial)


def new_forecaster(seed=0, space=SPACE, mode="max", chance=None, max_epochs=MAX_EPOCHS):
    default = {"lr": 1e-3, "width": 1, "kind": "b"}
    return Forecaster(space, "val_accuracy", mode, seed, [("default", default)], max_epochs, chance)


def epochs_at_random(target, seed):
    """How many epochs random search needs, each trial trained to its end."""
    random, encoding, epochs = np.random.default_rng(seed), Encoding(SPACE), 0
    while True:
        config = encoding.draw(random)
        values = [curve(config, epoch) for epoch in range(1, MAX_EPOCHS + 1)]
        if max(values) >= target:
            return epochs + next(epoch for epoch, value in enumerate(values, start=1) if value >= target)
        epochs += MAX_EPOCHS


@pytest.mark.parametrize("workers", [1, pytest.param(16, marks=pytest.mark.long)])
def test_it_finds_the_best_in_a_fraction_of_the_epochs_of_random_search(workers):
    target, epochs = 0.98, []
    for seed in range(3):
        values = [value for *_, value in played(new_forecaster(seed), 60, workers)]
        epochs.append(next((n for n, value in enumerate(values, start=1) if value >= target), math.inf))
    at_random = [epochs_at_random(target, seed) for seed in range(40)]
    assert np.median(epochs) <= np.median(at_random) / 5, (epochs, at_random)


def test_many_workers_do_not_use_up_the_epochs_before_the_best_comes_to_its_end():
    def slow(config, epoch):
        return curve(config, epoch / 3)

    found = [played(new_forecaster(seed, max_epochs=27), 60, 32, slow) for seed in range(3)]
    assert np.median([max(value for *_, value in search) for search in found]) > 0.968


def test_the_least_promising_are_given_up_also_where_none_may_go_on(monkeypatch):
    epochs = iter(range(14))

    def cut_short(config, epoch):
        next(epochs)  # then the search is in its middle
        return curve(config, epoch / 3)

    forecaster = new_forecaster(max_epochs=27)
    with contextlib.suppress(StopIteration):
        played(forecaster, 12, 1, cut_short)
    forecaster.most_paused = 1
    given_up = forecaster.given_up(())
    (kept,) = (n for n in forecaster.params if forecaster.takes_turns(n) and n not in given_up)
    monkeypatch.setattr("tunekit.forecaster.LASTING", math.inf)
    assert len(given_up) >= 3 and forecaster.turn(12, [kept]) == NEW  # none of those paused
    assert forecaster.given_up(()) == given_up


def test_the_fit_follows_the_slope():
    random, encoding = np.random.default_rng(0), Encoding(SPACE)
    seen = [(trial, encoding.draw(random), epoch) for trial in range(8) for epoch in (1, 4)]
    points = Points.of([t for t, *_ in seen], [encoding.point(c) for _, c, _ in seen], [e for *_, e in seen])
    scores = scores_of([curve(config, epoch) for _, config, epoch in seen])
    forecast = Forecast(encoding.groups, points, scores)
    squares = (points.config[:, None] - points.config[None]).square()
    apart = torch.stack([squares[..., encoding.groups == axis].sum(-1) for axis in range(len(SPACE))])
    for at in random.normal(forecast.prior, 0.5, (5, len(forecast.prior))):
        _, slope = forecast._misfit(torch.from_numpy(at), points, scores, apart)
        told = approx_fprime(at, lambda at: forecast._misfit(torch.from_numpy(at), points, scores, apart)[0].item())
        assert slope.numpy() == pytest.approx(told, rel=1e-3, abs=1e-4)


def test_lower_may_be_better():
    values = [value for *_, value in played(new_forecaster(mode="min"), 20, 2, lambda *at: 1 - curve(*at))]
    assert min(values) < 0.05


def test_what_diverges_is_not_tried_again_and_what_is_near_it_seldom():
    def reach(config, epoch):
        return math.nan if config["lr"] > 0.01 else curve(config, epoch)

    counts = []
    for seed in range(2):
        found = played(new_forecaster(seed), 40, 2, reach)
        diverged = {trial for trial, _, value in found if not math.isfinite(value)}
        assert all(sum(trial == number for trial, *_ in found) == 1 for number in diverged)
        counts.append(len(diverged))
    assert sum(counts) <= 2 * 40 * 0.35  # half of the space diverges


def slow_curve(config, epoch):
    """Chance for some epochs, with the noise of chance; then it rises as ever."""
    begins = 3 + config["width"] // 4
    if epoch < begins or config["lr"] < 1e-3:
        return 0.1 + 0.01 * math.sin(1e4 * config["lr"] * epoch)
    return max(0.2, curve(config, 3 * (epoch - begins + 1)))


def test_trials_that_begin_slowly_go_straight_on():
    found = played(new_forecaster(chance=0.12), 30, 1, slow_curve)
    values = {trial: [v for t, _, v in found if t == trial] for trial, *_ in found}
    turns = [trial for trial, epoch, _ in found if epoch > 1]
    assert turns[: MAX_EPOCHS - 1] == [0] * (MAX_EPOCHS - 1)  # which is the first to begin
    assert sum(a != b for a, b in itertools.pairwise(turns)) <= 2 * len(set(turns))  # hardly any comes back
    assert any(1 < len(seen) < MAX_EPOCHS and max(seen) < 0.12 for seen in values.values())  # but the worst half stops


@pytest.mark.long
def test_a_search_knows_what_chance_gives_on_its_dataset(tmp_path, ray):
    space = {"lr": loguniform(1e-9, 1e-8), "backbone": "cnn_small"}  # nobody learns anything
    options = {"num_trials": 5, "max_epochs": 4, "cpus_per_trial": 2, "verbose": 0}
    results = tunekit.run(space, "digits", folder=tmp_path, seed=2, **options)
    order = [(event.trial, event.epoch) for event in kinds_of(results) if event.kind == "epoch"]
    assert order[4:7] == [(0, 2), (0, 3), (0, 4)]


def test_as_many_trials_as_there_are_slots_get_unlike_configs():
    forecaster = new_forecaster()
    busy = []
    for number in range(20):
        assert forecaster.turn(100, busy) == NEW
        assert forecaster.propose(number) is not None
        busy.append(number)
    assert len(forecaster.candidates.tried) == 20


def test_points_keep_the_order_of_what_has_one():
    space = {"batch_size": choice([64, 16, 32]), "lr": loguniform(1e-4, 1.0), "drop": uniform(0, 0.5),
             "net": choice([{"name": "a", "depth": randint(1, 3)}, {"name": "b"}])}  # fmt: skip
    encoding = Encoding(space)
    assert encoding.groups.tolist() == [0, 1, 2, 3, 3, 4]
    encoding.paces.range = None  # the learning rate as it is drawn
    first = encoding.point({"batch_size": 16, "lr": 0.01, "drop": 0.5, "net": "a", "net=a/depth": 3})
    assert first == pytest.approx([0, 0.5, 1, math.sqrt(0.5), 0, 1])
    second = encoding.point({"batch_size": 32, "lr": 1.0, "drop": 0.0, "net": "b"})
    assert second == pytest.approx([0.5, 1, 0, 0, math.sqrt(0.5), 0.5])


def test_configs_are_alike_whose_steps_move_as_far():
    """A momentum of 0.9 makes each step ten times as long, and of as long steps a third as many make a third."""
    sgd = choice([{"name": "sgd", "momentum": choice([0.0, 0.9])}, {"name": "adam"}])
    space = {"optimizer": sgd, "lr": loguniform(1e-3, 1.0), "batch_size": choice([16, 64])}
    encoding = Encoding(space)

    def pace_at(lr, batch_size, **params):
        return encoding.point({"lr": lr, "batch_size": batch_size, **params})[
            encoding.groups == list(encoding.axes).index("lr")
        ]

    plain = {"optimizer": "sgd", "optimizer=sgd/momentum": 0.0}
    heavy = {"optimizer": "sgd", "optimizer=sgd/momentum": 0.9}
    assert pace_at(0.1, 64, **plain) == pytest.approx(pace_at(0.01, 64, **heavy))
    assert pace_at(0.1, 64, **plain) == pytest.approx(pace_at(0.025, 16, **plain))
    assert pace_at(0.1, 64, optimizer="adam") == pytest.approx(pace_at(0.05, 16, optimizer="adam"))
    assert pace_at(1e-3, 64, **plain) == pytest.approx(0) and pace_at(1.0, 16, **heavy) == pytest.approx(1)


@pytest.mark.parametrize("lr", [0.1, choice([0.0, 0.1]), choice(["fast", "slow"])])
def test_a_rate_that_is_none_is_drawn_as_anything_else(lr):
    encoding, random = Encoding({"lr": lr, "momentum": choice([0.5, 2.0])}), np.random.default_rng(0)
    points = np.array([encoding.point(encoding.draw(random)) for _ in range(20)])
    assert np.isfinite(points).all() and len(np.unique(points, axis=0)) > 1


def test_the_middle_of_the_space_comes_after_the_first_configs():
    forecaster = new_forecaster()
    tried = [forecaster.propose(number) for number in range(3)]
    assert [source for source, _ in tried] == ["default", "forecast", "forecast"]
    assert tried[1][1] == {"lr": pytest.approx(1e-2), "width": 5, "kind": "b"}
    alone = Forecaster({"lr": loguniform(1e-4, 1.0)}, "val_accuracy", "max", 0, [("default", {"lr": 0.01})], 9)
    assert len({alone.propose(number)[1]["lr"] for number in range(4)}) == 4  # where it is the default, once


def test_draws_are_spread_evenly_and_neighbours_are_near():
    encoding, random = Encoding(SPACE), np.random.default_rng(0)
    drawn = [encoding.draw(random) for _ in range(4000)]
    counts = np.bincount([params["width"] for params in drawn])[1:]
    assert len(counts) == 8 and counts.min() > 400 and counts.max() < 600
    assert np.mean([params["lr"] < 1e-2 for params in drawn]) == pytest.approx(0.5, abs=0.03)
    near = {"lr": 1e-2, "width": 4, "kind": "b"}
    close = [encoding.draw(random, near) for _ in range(1000)]
    assert np.median([abs(math.log10(params["lr"]) + 2) for params in close]) < 0.4
    assert np.mean([params["kind"] == "b" for params in close]) > 0.7
    assert len({params["lr"] for params in close}) > 900


def test_a_trial_whose_end_is_due_waits_for_no_turn():
    """It was cut off between its last epoch, or one without a number, and its end: that is what it needs to run for."""
    forecaster = new_forecaster()
    for number in range(4):
        forecaster.propose(number)
    for number, values in enumerate([[0.5] * MAX_EPOCHS, [0.5, math.nan], [0.5]]):
        for epoch, value in enumerate(values, start=1):
            forecaster.hear(Event(0, 0.0, 0.0, "epoch", number, epoch, {"val_accuracy": value}))
    assert [forecaster.takes_turns(number) for number in range(4)] == [False, False, True, False]
