"""The recorder: what is written down of each message, which trials stop, and which checkpoints stay."""

import math

import pytest
from played import METRIC, new_ledger, propose

from tunekit import checkpoint, paths
from tunekit.errors import StorageError
from tunekit.recorder import MAX_RETRIES, MOST_MOVES, Recorder
from tunekit.schedulers import Decisions


@pytest.fixture
def ledger(tmp_path):
    ledger = new_ledger(tmp_path)
    yield ledger
    ledger.close()


def make(ledger, scheduler="none", keep_best=5, mode="max", time_budget_s=None):
    return Recorder(ledger, Decisions(scheduler, 9, METRIC, mode, ledger.events()), keep_best, time_budget_s)


def started(recorder, number):
    return recorder.record(number, {"kind": "started", "node": "here"})


def epoch(recorder, number, epoch, value, last=False):
    """Reach the end of an epoch, with a checkpoint as a worker writes it; return whether the trial stops."""
    folder = paths.make_private(paths.trial_folder(recorder.ledger.folder, number))
    checkpoint.save(paths.epoch_checkpoint(folder, epoch), {"epoch": epoch}, {"epoch": epoch})
    return recorder.record(number, {"kind": "epoch", "epoch": epoch, "metrics": {METRIC: value}, "last": last})


def ended(recorder, number, state="finished", reason=""):
    return recorder.record(number, {"kind": "ended", "state": state, "reason": reason, "traceback": "Traceback ..."})


def run_whole(recorder, values, role="search"):
    """Propose and run a trial to its end; return its number."""
    number = propose(recorder.ledger, role=role)
    started(recorder, number)
    for at, value in enumerate(values, start=1):
        if epoch(recorder, number, at, value):
            return number
    ended(recorder, number)
    return number


def checkpoints(ledger):
    """Return the checkpoints of each trial that has any."""
    found = sorted(ledger.folder.glob("trials/*/*.safetensors"))
    return [(int(path.parent.name), path.stem) for path in found]


def test_messages_become_events(ledger):
    recorder = make(ledger)
    run_whole(recorder, [0.1, 0.3, 0.2])
    assert [event.kind for event in ledger.events()] == ["proposed", "started", "epoch", "epoch", "epoch", "ended"]
    trial = ledger.trials()[0]
    assert (trial.state, trial.node, [metrics[METRIC] for metrics in trial.history]) == (
        "finished",
        "here",
        [0.1, 0.3, 0.2],
    )
    assert recorder.stop_reason() == "" and recorder.error is None
    assert checkpoints(ledger) == [(0, "best")]
    assert checkpoint.load(ledger.folder / "trials/0000/best.safetensors")[0] == {"epoch": 2}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("role", ["search", "winner"])
def test_a_metric_that_is_not_finite_ends_the_trial_as_diverged(value, role, ledger):
    recorder = make(ledger)
    number = run_whole(recorder, [0.5, value, 0.9], role)
    trial = ledger.trials()[number]
    assert (trial.state, len(trial.history)) == ("diverged", 2)
    assert trial.reason == f"{METRIC} was {value} at epoch 2"
    assert paths.error_txt(ledger.folder / "trials/0000").read_text().startswith(trial.reason)
    assert checkpoints(ledger) == []


def test_the_scheduler_stops_trials_of_the_search_alone(ledger):
    recorder = make(ledger, "asha")
    run_whole(recorder, [0.9, 0.9])
    run_whole(recorder, [0.8, 0.8])  # asha compares from the third trial on
    stopped, confirms = run_whole(recorder, [0.1, 0.1]), run_whole(recorder, [0.1, 0.1], "default")
    trials = ledger.trials()
    assert (trials[stopped].state, trials[stopped].reason) == ("stopped", "by the scheduler, at epoch 1")
    assert (trials[confirms].state, len(trials[confirms].history)) == ("finished", 2)
    assert checkpoints(ledger) == [(0, "best"), (1, "best"), (2, "best")]


def test_a_trial_that_was_to_stop_when_the_driver_died_stops_as_the_next_session_begins(ledger):
    recorder = make(ledger, "asha")
    run_whole(recorder, [0.9])
    run_whole(recorder, [0.8])
    for value in (0.1, math.nan):
        number = propose(ledger)
        started(recorder, number)
        ledger.append("epoch", {METRIC: value}, number, 1)  # and here the driver died
    make(ledger, "asha")
    assert [trial.state for trial in ledger.trials().values()] == ["finished", "finished", "stopped", "diverged"]


def test_a_lost_worker_is_tried_again_three_times(ledger):
    recorder, number = make(ledger), propose(ledger)
    for attempt in range(1, MAX_RETRIES + 2):
        started(recorder, number)
        epoch(recorder, number, attempt, 0.5)
        assert ledger.unfinished[number].num_retries == attempt - 1
        recorder.lost(number, "RayActorError\nThe worker died: out of memory" if attempt > 1 else "")
    trial = ledger.trials()[number]
    assert (trial.state, trial.num_retries, len(trial.history)) == ("failed", 3, 4)
    assert trial.reason == "its worker died 4 times, at last: The worker died: out of memory"
    assert "RayActorError" in paths.error_txt(ledger.folder / "trials/0000").read_text()
    assert next(event for event in ledger.events() if event.kind == "retry").data["reason"] == "no reason known"
    assert checkpoints(ledger) == [] and recorder.interrupted == ""


def test_epochs_trained_again_after_their_checkpoint_was_lost_are_not_written_twice(ledger):
    recorder, number = make(ledger, "asha"), propose(ledger)
    started(recorder, number)
    for at in (1, 2, 3):
        epoch(recorder, number, at, at / 10)
    recorder.lost(number, "its worker died, and took its newest checkpoints along")
    started(recorder, number)
    assert not any(epoch(recorder, number, at, at / 10) for at in (2, 3, 4))
    assert recorder.error is None
    assert [metrics[METRIC] for metrics in ledger.unfinished[number].history] == [0.1, 0.2, 0.3, 0.4]


def test_lost_machines_do_not_count_against_a_trial_unless_it_seems_to_end_them(ledger):
    recorder, number = make(ledger), propose(ledger)
    for epoch_ended in (1, 2):
        started(recorder, number)
        for _ in range(MOST_MOVES):
            recorder.lost(number, "the machine is gone", node_too=True)
        assert ledger.unfinished[number].num_retries == 0
        epoch(recorder, number, epoch_ended, 0.5)
    for _ in range(MOST_MOVES + MAX_RETRIES + 1):
        recorder.lost(number, "the machine is gone", node_too=True)
    assert ledger.trials()[number].state == "failed"


@pytest.mark.parametrize(("mode", "winners"), [("max", [1, 3]), ("min", [0, 2])])
def test_the_best_few_keep_their_best_epoch_also_over_sessions(mode, winners, ledger):
    recorder = make(ledger, keep_best=2, mode=mode)
    for values in ([0.2, 0.1, 0.15], [0.8, 0.6], [0.3, 0.1]):
        run_whole(recorder, values)
    run_whole(make(ledger, keep_best=2, mode=mode), [0.5, 0.9, 0.95, 0.6, 0.7])
    assert checkpoints(ledger) == [(number, "best") for number in winners]
    for number in winners:
        state, _ = checkpoint.load(ledger.folder / f"trials/{number:04d}/best.safetensors")
        assert state["epoch"] == ledger.trials()[number].best_epoch(METRIC, mode)
    assert sorted(path.name for path in (ledger.folder / "trials").iterdir()) == [f"{n:04d}" for n in winners]


def test_of_equals_the_first_is_kept_and_trials_that_confirm_keep_nothing(ledger):
    recorder = make(ledger, keep_best=1)
    for role in ("search", "search", "winner"):
        run_whole(recorder, [0.5], role)
    assert checkpoints(ledger) == [(0, "best")]


def test_three_trials_that_fail_alike_end_the_search(ledger):
    recorder = make(ledger)
    for count in range(3):
        assert recorder.stop_reason() == ""
        number = propose(ledger)
        started(recorder, number)
        assert ended(recorder, number, "failed", "KeyError: 'width'")
        assert len(ledger.trials()) == count + 1
    assert recorder.stop_reason() == "the first 3 trials failed alike: KeyError: 'width'"
    assert "Traceback ..." in paths.error_txt(ledger.folder / "trials/0000").read_text()


@pytest.mark.parametrize("good_first", [False, True])
def test_failures_that_differ_or_come_later_do_not(good_first, ledger):
    if good_first:
        run_whole(make(ledger), [0.5])  # in an earlier session
    recorder = make(ledger)
    for number in range(4):
        trial = propose(ledger)
        started(recorder, trial)
        ended(recorder, trial, "failed", "alike" if good_first else f"reason {number}")
    assert recorder.stop_reason() == ""


def test_the_last_epoch_is_the_end_of_a_trial(ledger):
    recorder, number = make(ledger, keep_best=1), propose(ledger)
    started(recorder, number)
    assert not epoch(recorder, number, 1, 0.5) and epoch(recorder, number, 2, 0.7, last=True)
    assert ledger.trials()[number].state == "finished" and checkpoints(ledger) == [(number, "best")]
    assert checkpoint.load(ledger.folder / f"trials/{number:04d}/best.safetensors")[0] == {"epoch": 2}


def test_a_last_epoch_that_was_trained_again_ends_the_trial_too(ledger):
    recorder, number = make(ledger), propose(ledger)
    assert not epoch(recorder, number, 1, 0.5)
    assert epoch(recorder, number, 1, 0.5, last=True)
    assert [event.kind for event in ledger.events()] == ["proposed", "epoch", "ended"]


def test_a_trial_that_diverged_at_its_last_epoch_did_not_finish(ledger):
    recorder, number = make(ledger), propose(ledger)
    assert epoch(recorder, number, 1, math.nan, last=True)
    assert ledger.trials()[number].state == "diverged"


def test_the_time_budget_covers_all_sessions(ledger):
    assert make(ledger, time_budget_s=100).stop_reason() == ""
    assert make(ledger, time_budget_s=1e-9).stop_reason() == "the time budget of 1e-09 s is used up"


def test_what_goes_wrong_here_ends_the_search_and_is_kept(ledger):
    recorder = make(ledger)
    number = run_whole(recorder, [0.5])
    assert recorder.record(number, {"kind": "epoch", "epoch": 2, "metrics": {METRIC: 0.6}, "last": False})
    assert recorder.error is not None and recorder.stop_reason()
    assert len(ledger.trials()[number].history) == 1


def out_of_memory(recorder, number):
    return recorder.record(number, {"kind": "out_of_memory", "reason": "MemoryError: ", "traceback": "Traceback ..."})


def test_a_trial_whose_memory_ran_out_goes_on_in_smaller_parts_three_times(ledger):
    recorder, number = make(ledger), propose(ledger)
    for parts in (4, 16, 64):
        started(recorder, number)
        assert out_of_memory(recorder, number)
        assert ledger.unfinished[number].request["micro_batches"] == parts
    started(recorder, number)
    assert out_of_memory(recorder, number)
    trial = ledger.trials()[number]
    assert (trial.state, trial.reason, trial.num_retries) == ("failed", "MemoryError: ", 3)


def test_a_worker_that_the_host_killed_for_its_memory_counts_as_out_of_memory(ledger):
    recorder, number = make(ledger), propose(ledger)
    started(recorder, number)
    recorder.lost(number, "killed")
    assert ledger.unfinished[number].micro_batches == 1
    recorder.lost(number, "ray.exceptions.OutOfMemoryError: killed", out_of_memory=True)
    assert ledger.unfinished[number].micro_batches == 4


def test_a_full_disk_ends_the_search_and_no_trial(ledger):
    recorder, number = make(ledger), propose(ledger)
    started(recorder, number)
    assert recorder.record(number, {"kind": "unwritable", "reason": "no room: run the same command again"})
    assert isinstance(recorder.error, StorageError) and recorder.stop_reason() == str(recorder.error)
    assert ledger.trials()[number].state == "running"


def test_what_a_loop_says_without_end_is_cut_short_in_the_ledger_alone(ledger, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "canary-4711")
    recorder, number = make(ledger), propose(ledger)
    started(recorder, number)
    endless = "x" * 1_995 + "canary-4711" + "y" * 2**24  # more than a row may have; a secret where it is cut
    recorder.record(number, {"kind": "warned", "text": endless})
    recorder.lost(number, endless)
    recorder.record(number, {"kind": "ended", "state": "failed", "reason": endless, "traceback": endless})
    said = [event.data.get("text") or event.data.get("reason") for event in ledger.events()][-3:]
    assert all(len(text) < 2_100 and text.startswith("xxx") and "cana" not in text for text in said)
    assert len(next(ledger.folder.rglob("error.txt")).read_text()) > 2**24


def test_secrets_stay_out_of_what_is_written(ledger, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "canary-4711")
    recorder, number = make(ledger), propose(ledger)
    monkeypatch.delenv("SOME_API_KEY")  # the search takes some from its environment; what they were is known
    started(recorder, number)
    recorder.record(number, {"kind": "warned", "text": "canary-4711"})
    text = "KeyError: canary-4711 at https://me:canary-4711@example.org"
    recorder.record(number, {"kind": "ended", "state": "failed", "reason": text, "traceback": text})
    for path in ledger.folder.rglob("*"):
        assert path.is_dir() or b"canary" not in path.read_bytes(), path
    assert "KeyError: *** at https://me:***@" in next(ledger.folder.rglob("error.txt")).read_text()
