"""What a worker runs: its messages, its checkpoints, and how it goes on from them."""

import json
import math
import platform
import random
import re
import resource
import shutil

import numpy as np
import pytest
import torch
from played import METRIC

from tunekit import checkpoint, paths
from tunekit.datasets import Dataset
from tunekit.distributions import choice, loguniform
from tunekit.trial import TrialSetup, newest_state, run_trial
from tunekit.trial_files import trial_files

VALUES = [0.1, 0.5, 0.4, 0.3, 0.2]


def a_loop(values=VALUES, seen=None):
    """Return a training loop of the documented form, that gives these values."""

    def loop(config, dataset, state=None):
        if seen is not None:
            seen.append({"config": config, "state": state})
        for epoch in range(state["epoch"] if state else 0, len(values)):
            yield {METRIC: values[epoch]}, {"epoch": epoch + 1, "weight": torch.full((2,), float(epoch + 1))}

    return loop


PARAMS = {"lr": 0.1, "backbone": "mlp"}
PROPOSAL = {"config": {**PARAMS, "width": 5}, "params": PARAMS, "role": "search", "source": "tpe", "seed": 11}


def make_setup(folder, loop=None, **changed):
    folder.mkdir(exist_ok=True)
    images = np.zeros((40, 8, 8), np.uint8)
    dataset = Dataset.from_arrays(train=(images, np.arange(40) % 2))
    space = {"lr": loguniform(1e-4, 1), "width": 5, "backbone": choice(["mlp"])}
    return TrialSetup(folder, dataset, space, METRIC, "max", 5, **({"train": loop} if loop else {}), **changed)


def a_request(epoch=0, trial=3, micro_batches=1):
    return {"trial": trial, "proposal": PROPOSAL, "epoch": epoch, "micro_batches": micro_batches}


def run(setup, epoch=0, most=None, **asked):
    """Run a trial, up to `most` epochs, and return its messages, as JSON gives them to the driver."""
    messages = []
    for message in run_trial(setup, a_request(epoch, **asked)):
        messages.append(json.loads(json.dumps(message)))
        if most is not None and sum(m["kind"] == "epoch" for m in messages) >= most:
            break
    return messages


def smallest():
    """Return what is left of a number that float32 holds with less than its whole precision."""
    return (torch.full((3,), 1e-40) * 1).max().item()


@pytest.mark.parametrize("before", [False, True])
def test_numbers_that_processors_are_slow_with_are_zero_while_a_trial_trains_and_only_then(tmp_path, before):
    seen = []

    def loop(config, dataset, state=None):
        for _ in range(2):
            seen.append(smallest())
            yield {METRIC: 0.5}, {}
        raise ValueError

    torch.set_flush_denormal(before)
    try:
        run(make_setup(tmp_path / "whole", loop))
        after = smallest()
        run(make_setup(tmp_path / "left", loop), most=1)
        after_leaving = smallest()
    finally:
        torch.set_flush_denormal(False)
    assert seen == [0.0, 0.0, 0.0]
    assert (after == 0, after_leaving == 0) == (before, before)


def files(folder):
    return sorted(path.name for path in (folder / "trials/0003").iterdir())


def epoch_in(path):
    return checkpoint.load(path)[0]["epoch"]


def test_a_trial_tells_its_start_each_epoch_and_its_end(tmp_path):
    seen = []
    messages = run(make_setup(tmp_path, a_loop(seen=seen)))
    assert [message["kind"] for message in messages] == ["started", *["epoch"] * 5, "ended"]
    assert messages[1:6] == [
        {"kind": "epoch", "epoch": n, "metrics": {METRIC: v}, "last": n == 5} for n, v in enumerate(VALUES, start=1)
    ]
    assert messages[6] == {"kind": "ended", "state": "finished"}
    config = {"lr": 0.1, "width": 5, "backbone": "mlp", "seed": 11, "max_epochs": 5, "micro_batches": 1}
    assert seen == [{"config": config, "state": None}]


def test_the_two_newest_checkpoints_and_the_best_are_kept(tmp_path):
    run(make_setup(tmp_path, a_loop()))
    assert files(tmp_path) == ["0002.safetensors", "0004.safetensors", "0005.safetensors"]
    folder = tmp_path / "trials/0003"
    about = checkpoint.about(folder / "0005.safetensors")
    assert about == {
        "trial": 3, **PROPOSAL, "epoch": 5, "history": [{METRIC: value} for value in VALUES],
    }  # fmt: skip
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_built_in_loop_runs_with_the_defaults_of_what_the_space_leaves_out(tmp_path):
    messages = run(make_setup(tmp_path), most=1)
    assert messages[1]["metrics"].keys() >= {METRIC, "train_loss", "epoch_s"}


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_a_trial_goes_on_from_its_newest_checkpoint(stop, tmp_path):
    seen = []
    setup = make_setup(tmp_path, a_loop(seen=seen))
    run(setup, most=stop)  # the worker died before it heard that the epoch was written down
    messages = run(setup, epoch=stop)
    assert [m["epoch"] for m in messages if m["kind"] == "epoch"] == list(range(stop + 1, 6))
    assert messages[-1] == {"kind": "ended", "state": "finished"}
    assert stop == 5 or seen[1]["state"]["epoch"] == stop  # what had its last epoch is not trained again
    assert files(tmp_path) == ["0002.safetensors", "0004.safetensors", "0005.safetensors"]


def test_a_checkpoint_ahead_of_the_ledger_is_not_used(tmp_path):
    setup = make_setup(tmp_path, a_loop())
    run(setup, most=4)
    assert files(tmp_path) == ["0002.safetensors", "0003.safetensors", "0004.safetensors"]
    state, history, _ = newest_state(trial_files(tmp_path, 3), a_request(3))
    assert state["epoch"] == len(history) == 3
    assert newest_state(trial_files(tmp_path, 3), a_request(0)) == (None, [], [])
    assert [m["epoch"] for m in run(setup, epoch=3) if m["kind"] == "epoch"] == [4, 5]


@pytest.mark.parametrize("heard", [1, 3])
def test_a_worker_that_was_taken_over_from_leaves_what_is_newer_alone(heard, tmp_path):
    """Its machine was cut off, as it began or later, another went on, and now it hears that it may go on too."""
    values = [0.5, 0.9, 0.6, 0.7, 0.95]
    run(make_setup(tmp_path, a_loop(values)), most=1)
    cut_off = run_trial(make_setup(tmp_path, a_loop(values)), a_request(1))
    for _ in range(heard):
        next(cut_off)
    run(make_setup(tmp_path, a_loop(values)), epoch=min(heard, 1))
    kept = {name: epoch_in(tmp_path / "trials/0003" / name) for name in files(tmp_path)}
    assert kept == {"0004.safetensors": 4, "0005.safetensors": 5}
    next(cut_off)
    assert kept.items() <= {name: epoch_in(tmp_path / "trials/0003" / name) for name in files(tmp_path)}.items()


def test_a_checkpoint_of_another_epoch_than_its_name_says_is_not_used(tmp_path):
    setup, folder = make_setup(tmp_path, a_loop()), tmp_path / "trials/0003"
    run(setup, most=4)
    (folder / "0004.safetensors").write_bytes((folder / "0003.safetensors").read_bytes())
    state, _, warnings = newest_state(trial_files(tmp_path, 3), a_request(4))
    assert state["epoch"] == 3 and warnings == [
        "the checkpoint of epoch 4 is another one's; going on from the one before"
    ]


@pytest.mark.parametrize("num_bad", [1, 2])
def test_a_damaged_checkpoint_is_passed_over_and_trained_again(num_bad, tmp_path):
    setup, folder = make_setup(tmp_path, a_loop()), tmp_path / "trials/0003"
    run(setup, most=4)
    keep = {2: "0003.safetensors", 1: "0004.safetensors"}[num_bad]
    for name in ("0003.safetensors", "0004.safetensors")[2 - num_bad :]:
        raw = bytearray((folder / name).read_bytes())
        raw[-1] ^= 1
        (folder / name).write_bytes(raw)
    state, _, warnings = newest_state(trial_files(tmp_path, 3), a_request(4))
    assert len(warnings) == num_bad and all("damaged" in warning for warning in warnings)
    assert state["epoch"] == 4 - num_bad and keep in files(tmp_path)
    messages = run(setup, epoch=4)
    assert sum(m["kind"] == "warned" for m in messages) == num_bad
    assert [m["epoch"] for m in messages if m["kind"] == "epoch"] == list(range(5 - num_bad, 6))
    assert {epoch_in(path) for path in paths.epoch_checkpoints(folder).values()} == {2, 4, 5}


def test_damaged_newer_checkpoints_do_not_push_out_the_new_ones(tmp_path):
    setup, folder = make_setup(tmp_path, a_loop()), tmp_path / "trials/0003"
    run(setup, most=4)
    for path in paths.epoch_checkpoints(folder).values():
        path.write_bytes(b"torn")
    run(setup, epoch=4, most=2)
    assert list(paths.epoch_checkpoints(folder)) == [1, 2, 3, 4]
    assert newest_state(trial_files(tmp_path, 3), a_request(2))[0]["epoch"] == 2


@pytest.mark.parametrize(
    ("yielded", "text"),
    [
        (({"val_loss": 1.0}, {}), f"TrainingError: the training loop yielded no '{METRIC}', .* it yielded val_loss"),
        ((0.5, {}), r"TrainingError: a training loop yields \(metrics, state\), metrics a dict; got 0.5"),
        ({METRIC: 0.5}, r"TrainingError: a training loop yields \(metrics, state\), but this one yielded"),
        (({METRIC: "good"}, {}), f"TrainingError: metric '{METRIC}' must be a number, but is 'good'"),
        (({METRIC: None}, {}), f"metric '{METRIC}' must be a number"),
        (({METRIC: torch.zeros(3)}, {}), f"metric '{METRIC}' must be a number"),
        (
            ({METRIC: 0.5, **{f"unit_{i}": i for i in range(70_000)}}, {}),
            "the 70001 metrics of an epoch are more than 1 MiB",
        ),
        (({METRIC: 0.5}, {"model": object()}), "CheckpointError: state.model in the state is a object"),
    ],
)
def test_a_loop_that_breaks_the_form_fails_its_trial(yielded, text, tmp_path):
    def loop(config, dataset, state=None):
        yield yielded

    messages = run(make_setup(tmp_path, loop))
    assert [message["kind"] for message in messages] == ["started", "ended"]
    assert messages[1]["state"] == "failed" and re.match(f".*{text}", messages[1]["reason"])
    assert "\n" not in messages[1]["reason"]


def test_a_loop_that_raises_fails_with_its_reason_and_traceback(tmp_path):
    def loop(config, dataset, state=None):
        yield {METRIC: 0.5}, {}
        raise RuntimeError("no such cell\nmuch more")

    *_, last = run(make_setup(tmp_path, loop))
    assert (last["state"], last["reason"]) == ("failed", "RuntimeError: no such cell")
    assert "Traceback (most recent call last)" in last["traceback"] and "in loop" in last["traceback"]


@pytest.mark.parametrize(
    "loop", [lambda config, dataset, state=None: iter(()), lambda config, dataset, state=None: None]
)
def test_a_loop_that_yields_nothing_fails(loop, tmp_path):
    *_, last = run(make_setup(tmp_path, loop))
    assert last["state"] == "failed" and re.search("without yielding|not iterable", last["reason"])


def test_a_loop_may_end_early_but_not_go_on_for_ever(tmp_path):
    assert len(run(make_setup(tmp_path / "a", a_loop([0.5, 0.6])))) == 4
    messages = run(make_setup(tmp_path / "b", a_loop([0.5] * 100)))
    assert [message["kind"] for message in messages] == ["started", *["epoch"] * 5, "ended"]


def test_nan_passes_on_to_the_driver_which_decides(tmp_path):
    messages = run(make_setup(tmp_path, a_loop([0.5, math.nan, 0.6, 0.4, math.inf])))
    assert [m["metrics"][METRIC] for m in messages[1:-1]] == pytest.approx(
        [0.5, math.nan, 0.6, 0.4, math.inf], nan_ok=True
    )
    assert files(tmp_path) == ["0003.safetensors", "0004.safetensors", "0005.safetensors"]


def test_numbers_of_other_libraries_are_metrics_too(tmp_path):
    def loop(config, dataset, state=None):
        yield {METRIC: torch.tensor(0.5), "a": np.float32(0.25), "b": np.int64(3), "c": 2, "d": True}, {}

    assert run(make_setup(tmp_path, loop))[1]["metrics"] == {METRIC: 0.5, "a": 0.25, "b": 3, "c": 2, "d": True}


def test_what_a_process_did_before_does_not_change_a_users_loop(tmp_path):
    def loop(config, dataset, state=None):
        yield {METRIC: torch.rand(()).item()}, {}

    first = run(make_setup(tmp_path / "a", loop))
    torch.manual_seed(random.randrange(2**32))
    assert run(make_setup(tmp_path / "b", loop)) == first


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_that_runs_out_is_told_as_such(error, tmp_path):
    def loop(config, dataset, state=None):
        assert config["micro_batches"] == 4
        raise error
        yield

    *_, last = run(make_setup(tmp_path, loop), micro_batches=4)
    assert last["kind"] == "out_of_memory" and type(error).__name__ in last["reason"]


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_trial(tmp_path):
    def loop(config, dataset, state=None):
        shutil.rmtree(tmp_path / "trials/0003")
        yield {METRIC: 0.5}, {"epoch": 1}

    *_, last = run(make_setup(tmp_path, loop))
    assert last["kind"] == "unwritable" and "run the same command again" in last["reason"]


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library has no say in it")
def test_what_a_step_frees_the_next_one_takes_without_new_pages_and_the_trial_gives_back(tmp_path):
    def loop(config, dataset, state=None):
        for epoch in range(2):  # the first of them takes its pages from the system
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(3):
                held = [torch.ones(10 * 2**20) for _ in range(8)]  # 320 MiB, 81,920 pages: more than a worker keeps
                del held
            yield {METRIC: 0.5, "faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before}, {"epoch": epoch}

    before = resident_bytes()
    epochs = [m["metrics"] for m in run(make_setup(tmp_path, loop)) if m["kind"] == "epoch"]
    assert epochs[1]["faults"] < 81_920 / 4
    assert resident_bytes() < before + 2**24
