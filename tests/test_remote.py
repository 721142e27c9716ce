"""An experiment whose folder is a URL: the same search, which any machine can go on with."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tunekit
from tunekit.errors import ConfigError, DataError, ExperimentError, StorageError
from tunekit.ledger import Ledger
from tunekit.repair import repair
from tunekit.storage import Storage, joined
from tunekit.trial import TrialSetup, run_trial

SPACE = {"backbone": "mlp", "lr": tunekit.loguniform(1e-4, 1e-1), "batch_size": tunekit.choice([32, 64])}
ASKED = {"num_trials": 4, "max_epochs": 3, "searcher": "random", "scheduler": "none", "verbose": 0, "name": "first"}
ENDINGS = ["state", "num_epochs", "best_epoch", "val_accuracy"]
KILLED = f"""
import sys
import tunekit
from tunekit import choice, loguniform

if __name__ == "__main__":
    space = {{"backbone": "mlp", "lr": loguniform(1e-4, 1e-1), "batch_size": choice([32, 64])}}
    tunekit.run(space, "digits", folder=sys.argv[1], **{ASKED | {"max_epochs": 60}!r})
"""


def elsewhere(monkeypatch, tmp_path, name="elsewhere"):
    """Be another machine, which has nothing of the experiment but its URL."""
    home = tmp_path / name
    home.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))


def files_of(url):
    return set(Storage(joined(url, "first")).sizes())


def curves(results):
    frame = results.history.sort_values(["trial", "epoch"])
    return frame[["trial", "epoch", "val_accuracy", "train_loss"]].values.tolist()


@pytest.mark.usefixtures("ray")
def test_a_search_with_a_url_for_a_folder_is_the_same_search(url, tmp_path, monkeypatch):
    here = tunekit.run(SPACE, "digits", folder=tmp_path, **ASKED)
    there = tunekit.run(SPACE, "digits", folder=url, **ASKED, keep_best=2)
    assert curves(there) == curves(here) and there.best_config == here.best_config
    kept = {name.split("/")[1] for name in files_of(url) if name.endswith(".safetensors")}
    best = {f"{number:04d}" for number in [*here.top(2)["trial"], 0]}
    assert kept == best and all("best" in name for name in files_of(url) if name.endswith(".safetensors"))
    figures = there.test()

    elsewhere(monkeypatch, tmp_path)
    found = tunekit.load_results(joined(url, "first"))
    assert found.dataframe[ENDINGS].equals(there.dataframe[ENDINGS]) and curves(found) == curves(there)
    assert found.dataframe["node"].equals(there.dataframe["node"])
    assert found.dataframe["duration_s"].tolist() == pytest.approx(there.dataframe["duration_s"].tolist(), abs=0.01)
    assert found.test() == figures and figures["times_opened"] == 1
    assert (
        tunekit.run(SPACE, "digits", folder=url, **ASKED, keep_best=2)
        .dataframe[ENDINGS]
        .equals(found.dataframe[ENDINGS])
    )


@pytest.mark.long
@pytest.mark.usefixtures("ray")
def test_a_search_that_is_over_goes_on_with_more_trials(url):
    tunekit.run(SPACE, "digits", folder=url, **ASKED)
    more = tunekit.run(SPACE, "digits", folder=url, **ASKED | {"num_trials": 6})
    assert list(more.dataframe["trial"]) == list(range(6)) and set(more.dataframe["state"]) == {"finished"}
    assert not more.dataframe["config/lr"].duplicated().any()


@pytest.mark.long
@pytest.mark.usefixtures("ray")
def test_whoever_lost_the_machine_goes_on_with_another(url, tmp_path, monkeypatch, server):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    with subprocess.Popen([sys.executable, script, url], start_new_session=True) as driver:
        place, until = Storage(joined(url, "first")), time.monotonic() + 120
        far: set[str] = set()  # trials with a checkpoint of their third epoch or a later one
        while len(far) < 2:
            assert time.monotonic() < until and driver.poll() is None
            time.sleep(0.05)
            far |= set(re.findall(r"(\d{4})/00(?:0[3-9]|[1-9]\d)\.", " ".join(place.sizes("trials"))))
        os.killpg(driver.pid, signal.SIGKILL)
    began = {name.split("/")[1] for name in place.sizes("trials")}
    elsewhere(monkeypatch, tmp_path)
    seen = tunekit.load_results(joined(url, "first"))
    known = {tuple(row) for row in map(tuple, curves(seen))}
    assert len(known) >= 2 * 3 and set(seen.dataframe["state"]) <= {"waiting", "finished"}
    monkeypatch.setattr("tunekit.session.SILENT_S", 3.0)
    monkeypatch.setattr("tunekit.claims.LONGEST_TRY_S", 2.0)
    results = tunekit.resume(joined(url, "first"), verbose=0)
    assert list(results.dataframe["num_epochs"]) == [60] * 4 and set(results.dataframe["state"]) == {"finished"}
    assert known <= set(map(tuple, curves(results))) and began <= {f"{n:04d}" for n in results.trials}
    alone = tunekit.run(SPACE, "digits", folder=tmp_path, **ASKED | {"max_epochs": 60})
    assert curves(results) == curves(alone)  # as if nothing had happened


@pytest.mark.long
@pytest.mark.usefixtures("ray")
def test_a_second_machine_is_kept_out_while_the_first_lives(url, tmp_path, monkeypatch):
    script = tmp_path / "alive.py"
    script.write_text(KILLED.replace("'max_epochs': 60", "'max_epochs': 6000"))
    with subprocess.Popen([sys.executable, script, url], start_new_session=True) as driver:
        until = time.monotonic() + 120
        while not any(name.endswith(".safetensors") for name in files_of(url)):
            assert time.monotonic() < until and driver.poll() is None
            time.sleep(0.1)
        elsewhere(monkeypatch, tmp_path)
        with pytest.raises(ExperimentError, match=rf"first.* is in use by process {driver.pid} on .*: wait for it"):
            tunekit.resume(joined(url, "first"), verbose=0)
        os.killpg(driver.pid, signal.SIGKILL)


def test_who_was_taken_over_says_so_and_stops(url):
    taken = []

    def slow(config, dataset, state=None):
        for epoch in range(100):
            if epoch == 3 and not taken:
                taken.append(1)
                session = json.loads(Storage(joined(url, "first")).read("session.json"))
                Storage(joined(url, "first")).write("session.json", json.dumps(session | {"id": "other"}).encode())
            time.sleep(0.1)
            yield {"val_accuracy": 0.5}, {"epoch": epoch}

    with pytest.raises(ExperimentError, match=r"first.* is in use by process \d+ on "):
        tunekit.train({"x": 1}, "digits", train=slow, max_epochs=100, name="first", folder=url, verbose=0)


def test_who_was_taken_over_while_a_request_waited_does_not_make_it(url, server):
    """The link is cut; when it is back, the request is tried again: too late."""
    there = Storage(joined(url, "first").replace(str(server.proxy.port), str(server.port)))  # not by way of the proxy

    def loop(config, dataset, state=None):
        yield {"val_accuracy": 0.5}, {}
        while there.read("trials/0000/trial.json") is None:  # told by a thread of its own
            time.sleep(0.01)
        server.proxy.mode = "refuse"
        server.proxy.cut()
        there.write("session.json", json.dumps(json.loads(there.read("session.json")) | {"id": "other"}).encode())
        threading.Timer(1.0, setattr, (server.proxy, "mode", "pass")).start()

    with pytest.raises(ExperimentError, match=r"first.* is in use by process \d+ on "):
        tunekit.train({"x": 1}, "digits", train=loop, max_epochs=9, name="first", folder=url, verbose=0)
    assert "state" not in json.loads(there.read("trials/0000/trial.json"))
    assert {name for name in there.sizes("trials") if "safetensors" in name} == {"trials/0000/0001.safetensors"}


@pytest.mark.parametrize("what", ["read", "delete"])
def test_a_storage_that_may_not_be_used_ends_a_training_in_this_process(what, url, monkeypatch):
    def denied(self, *_):
        raise StorageError("ACCESS_DENIED")

    def loop(config, dataset, state=None):
        for epoch in range(5):
            monkeypatch.setattr(Storage, what, denied)
            yield {"val_accuracy": 0.5}, {"epoch": epoch}

    with pytest.raises(StorageError, match="ACCESS_DENIED"):
        tunekit.train({"x": 1}, "digits", train=loop, max_epochs=5, name="first", folder=url, verbose=0)


@pytest.mark.parametrize(
    "data", [b"\xff" * 100, b"damaged beyond all recognition" * 9, b"", b"\x05\0\0\0\0\0\0\0[[[[["]
)
def test_a_damaged_checkpoint_there_is_passed_over_elsewhere(data, url, tmp_path, monkeypatch):
    tunekit.train({"backbone": "mlp"}, "digits", max_epochs=2, name="first", folder=url, verbose=0)
    there = Storage(joined(url, "first"))
    told = json.loads(there.read("trials/0000/trial.json"))
    proposed = {key: told[key] for key in ("trial", "config", "params", "role", "source", "seed")}
    there.write("trials/0000/trial.json", json.dumps(proposed).encode())
    there.write("trials/0000/0009.safetensors", data)
    elsewhere(monkeypatch, tmp_path)
    found = tunekit.load_results(joined(url, "first"))
    assert (
        len(found.trials[0].history) == told["history"].index(max(told["history"], key=lambda m: m["val_accuracy"])) + 1
    )


def test_every_look_at_the_test_split_counts_wherever_it_was(url, tmp_path, monkeypatch):
    here = tunekit.train({"backbone": "mlp"}, "digits", max_epochs=1, name="first", folder=url, verbose=0)
    assert here.test()["times_opened"] == 1
    with monkeypatch.context() as patch:
        elsewhere(patch, tmp_path)
        assert tunekit.load_results(joined(url, "first")).test(again=True)["times_opened"] == 2
    here.test()
    assert json.loads(Storage(joined(url, "first")).read("test.json"))["times_opened"] == 2
    assert tunekit.load_results(joined(url, "first")).test()["times_opened"] == 2


def ended_session(url, **changed):
    """Have the storage say something else of the last session; return what it says."""
    there = Storage(joined(url, "first"))
    session = json.loads(there.read("session.json")) | {"id": "other", "host": "far", "pid": 7, **changed}
    there.write("session.json", json.dumps(session).encode())
    return session


def test_of_two_machines_that_go_on_at_once_one_is_refused(url, tmp_path, monkeypatch):
    tunekit.train({"backbone": "mlp"}, "digits", max_epochs=1, name="first", folder=url, verbose=0)
    elsewhere(monkeypatch, tmp_path)
    claims = threading.Timer(1.0, ended_session, [url])
    claims.start()
    with pytest.raises(ExperimentError, match=r"first.* is in use by process 7 on far: wait for it"):
        tunekit.resume(joined(url, "first"), verbose=0)
    claims.join()


@pytest.mark.long
def test_whoever_lives_through_an_outage_is_not_taken_for_dead(url, server, tmp_path, monkeypatch):
    tunekit.train({"backbone": "mlp"}, "digits", max_epochs=1, name="first", folder=url, verbose=0)
    ended_session(url, closed=False)
    elsewhere(monkeypatch, tmp_path)
    monkeypatch.setattr("tunekit.session.SILENT_S", 6.0)
    over = threading.Event()

    def lives():
        server.proxy.mode = "refuse"
        server.proxy.cut()
        time.sleep(8)
        server.proxy.mode = "pass"
        while not over.wait(1):
            ended_session(url, closed=False, renewed=str(time.monotonic()))

    thread = threading.Timer(0.5, lives)
    thread.start()
    try:
        with pytest.raises(ExperimentError, match=r"first.* is in use by process 7 on far"):
            tunekit.resume(joined(url, "first"), verbose=0)
    finally:
        over.set()
        thread.join()


@pytest.mark.long
def test_who_comes_second_to_begin_takes_what_the_first_asked_for(url, tmp_path, monkeypatch):
    def measured(self, device):  # while this machine finds out what it is fast in, another has begun
        there.append({"another": {}} if there else {})
        found = there[-1]
        if not found:
            with monkeypatch.context() as patch:
                patch.setenv("XDG_CACHE_HOME", str(tmp_path))
                tunekit.train({"backbone": "mlp"}, "digits", max_epochs=1, name="first", folder=url, verbose=0)
        return found

    there = []
    tmp_path.chmod(0o700)
    monkeypatch.setattr("tunekit.asked.Asked.choices", measured)
    with pytest.raises(ExperimentError, match="was begun by another machine just now: run the same command again"):
        tunekit.train({"backbone": "mlp"}, "digits", max_epochs=1, name="first", folder=url, verbose=0)
    tunekit.train({"backbone": "mlp"}, "digits", max_epochs=1, name="first", folder=url, verbose=0)


def test_a_machine_that_may_not_use_the_storage_is_left_out(url):
    url = url.replace("bucket", "no-such-bucket")
    setup = TrialSetup(url, tunekit.load_dataset("digits"), {"backbone": "mlp"}, "val_loss", "min", 1)
    request = {"trial": 0, "proposal": {"params": {}, "seed": 0}, "epoch": 0, "micro_batches": 1}
    *_, last = run_trial(setup, request)
    assert last["kind"] == "misplaced" and "NO_SUCH_BUCKET" in last["reason"]


def test_a_ledger_is_mended_with_what_the_storage_knows(url):
    seen = tunekit.train({"backbone": "mlp"}, "digits", max_epochs=2, name="first", folder=url, verbose=0)
    path = seen.folder / "ledger.db"
    for other in seen.folder.glob("ledger.*"):
        other.unlink()
    path.write_bytes(b"no ledger")
    assert "is damaged" in repair(seen.folder)[0]
    found = tunekit.load_results(joined(url, "first"))
    assert found.history.equals(seen.history) and found.dataframe["state"].tolist() == ["finished"]


def test_trials_of_which_nobody_knows_whose_they_are_are_not_begun_again(url, tmp_path, monkeypatch):
    tunekit.train({"backbone": "mlp"}, "digits", max_epochs=1, name="first", folder=url, verbose=0)
    Storage(joined(url, "first")).delete(["session.json"])
    elsewhere(monkeypatch, tmp_path)
    with pytest.raises(ExperimentError, match=r"first.* has trials, but no session\.json"):
        tunekit.resume(joined(url, "first"), verbose=0)


def test_an_outage_in_the_middle_costs_nothing_but_time(url, server, tmp_path):
    def loop(config, dataset, state=None):
        for epoch in range(state["epoch"] if state else 0, 6):
            if epoch == 2:
                server.proxy.mode = "refuse"
                server.proxy.cut()
                threading.Timer(2, setattr, (server.proxy, "mode", "pass")).start()
            yield {"val_accuracy": epoch / 10}, {"epoch": epoch + 1}

    results = tunekit.train({"x": 1}, "digits", train=loop, max_epochs=6, name="first", folder=url, verbose=0)
    assert list(results.history["val_accuracy"]) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert {"trials/0000/best.safetensors", "trials/0000/trial.json", "session.json"} <= files_of(url)


def test_what_ended_stays_ended_there_whenever_the_next_session_is_cut_off(url, monkeypatch):
    """The storage's record of a trial is never less than it was, not even for a moment."""
    tunekit.train({"backbone": "mlp"}, "digits", max_epochs=1, name="first", folder=url, verbose=0)
    there = Storage(joined(url, "first"))
    told, written = there.read("trials/0000/trial.json"), []

    def write(self, name, data, *, write=Storage.write, **options):
        written.append(name)
        write(self, name, data, **options)

    monkeypatch.setattr(Storage, "write", write)
    tunekit.train({"backbone": "mlp"}, "digits", max_epochs=1, name="first", folder=url, verbose=0)
    assert there.read("trials/0000/trial.json") == told and set(written) == {"session.json"}
    session = json.loads(there.read("session.json"))
    there.write("session.json", json.dumps(session | {"told": None}).encode())  # as after a repair
    written.clear()
    tunekit.train({"backbone": "mlp"}, "digits", max_epochs=1, name="first", folder=url, verbose=0)
    assert written.count("trials/0000/trial.json") == 1 and there.read("trials/0000/trial.json") == told


def test_a_machine_keeps_its_own_ledger_where_the_storage_never_heard_of_its_last_session(url, server, monkeypatch):
    seen = tunekit.train({"backbone": "mlp"}, "digits", max_epochs=2, name="first", folder=url, verbose=0)
    with monkeypatch.context() as patch:
        patch.setattr("tunekit.follower.Follower.__init__", broken)
        with pytest.raises(StorageError, match="no right to write"):
            tunekit.train({"backbone": "mlp"}, "digits", max_epochs=2, name="first", folder=url, verbose=0)
    kinds = [event.kind for event in Ledger(seen.folder).events()]
    assert tunekit.load_results(joined(url, "first")).trials[0].state == "finished"
    assert [event.kind for event in Ledger(seen.folder).events()] == kinds


def broken(*_):
    raise StorageError("no right to write")


def test_what_was_deleted_there_is_not_taken_from_here(url):
    tunekit.train({"backbone": "mlp"}, "digits", max_epochs=1, name="first", folder=url, verbose=0)
    Storage(joined(url, "first")).delete(files_of(url))
    with pytest.raises(ExperimentError, match="is no more, but this machine has its ledger: to begin anew, delete"):
        tunekit.train({"backbone": "mlp"}, "digits", max_epochs=1, name="first", folder=url, verbose=0)


def test_a_url_that_is_no_experiment_is_said(url):
    with pytest.raises(ExperimentError, match=r"nothing\?.* is no experiment: it has no experiment.json"):
        tunekit.load_results(joined(url, "nothing"))


def photos(folder: Path, count: int = 40) -> Path:
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / ("cats" if number % 2 else "dogs") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.mark.long
def test_data_behind_a_url_is_fetched_once(url, server, tmp_path, monkeypatch):
    elsewhere(monkeypatch, tmp_path)
    for path in photos(tmp_path / "photos").rglob("*.png"):
        Storage(url).write(f"{path.parent.name}/{path.name}", path.read_bytes())
    there, here = tunekit.load_dataset(url), tunekit.load_dataset(tmp_path / "photos")
    assert there.fingerprint == here.fingerprint and there.source["name_or_path"] == url
    before = server.proxy.num_connections
    assert tunekit.load_dataset(**there.source).fingerprint == here.fingerprint
    assert server.proxy.num_connections - before < 10  # it looked, and fetched none of the forty again
    Storage(url).write("dogs/40.png", next(photos(tmp_path / "more", 41).glob("dogs/40.png")).read_bytes())
    assert sum(tunekit.load_dataset(url).num_images.values()) == 41


def test_data_that_is_not_there_or_leads_elsewhere_is_refused(url, server):
    with pytest.raises(DataError, match="there are no files at s3://"):
        tunekit.load_dataset(url)
    key = f"{joined(url, 'a').split('?')[0].removeprefix('s3://')}/%2E%2E/%2E%2E/%2E%2E/escaped.png"
    asked = urllib.request.Request(f"http://127.0.0.1:{server.proxy.port}/{key}", method="PUT", data=b"")
    urllib.request.urlopen(asked, timeout=5).close()
    with pytest.raises(DataError, match="leads out of its folder"):
        tunekit.load_dataset(url)
    with pytest.raises(ConfigError, match="is no place for files"):
        tunekit.load_dataset("http://127.0.0.1/photos")
