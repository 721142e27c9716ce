"""The ledger: every event in order, on disk when acknowledged, one writer, readable from any copy."""

import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from played import METRIC, new_ledger, play, propose

from tunekit.errors import ExperimentError
from tunekit.events import trials_from
from tunekit.ledger import Ledger, in_use_by

READ = """
import json, os, sys
from tunekit.ledger import Ledger
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
ledger = Ledger(__import__("pathlib").Path(sys.argv[1]))
print(json.dumps({number: [trial.state, len(trial.history)] for number, trial in ledger.trials().items()}))
ledger.close()
"""
WRITE = """
import sys
from pathlib import Path
from tunekit.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]), write=True)
ledger.append("proposed", {"config": {}, "params": {}}, 0)
for epoch in range(1, 100_000):
    ledger.append("epoch", {"val_accuracy": epoch / 7}, 0, epoch)
    print(epoch, flush=True)
"""


def rows_of(ledger):
    return [(event.number, event.kind, event.trial, event.epoch) for event in ledger.events()]


def test_events_come_back_in_order_and_make_the_trials(tmp_path):
    ledger = new_ledger(tmp_path)
    propose(ledger, {"lr": 0.1, "freeze": None}, seed=2**62), propose(ledger, {"lr": 0.2})
    play(ledger, 1, [0.25, 0.75, 0.75], "stopped")
    ledger.append("started", {"node": "there"}, 0)
    ledger.append("epoch", {METRIC: float("nan")}, 0, 1)
    ledger.append("retry", {"reason": "its worker died", "counts": True}, 0)
    assert rows_of(ledger) == [
        (1, "proposed", 0, None), (2, "proposed", 1, None), (3, "started", 1, None), (4, "epoch", 1, 1),
        (5, "epoch", 1, 2), (6, "epoch", 1, 3), (7, "ended", 1, None), (8, "started", 0, None), (9, "epoch", 0, 1),
        (10, "retry", 0, None),
    ]  # fmt: skip
    assert [event.number for event in ledger.events(after=8)] == [9, 10]
    first, second = ledger.trials().values()
    assert (first.state, first.num_retries, first.reason, first.node) == ("waiting", 1, "its worker died", "there")
    assert (first.seed, first.config["freeze"], first.best_epoch(METRIC, "max")) == (2**62, None, None)
    assert (second.state, second.best_epoch(METRIC, "max"), second.best_value(METRIC, "max")) == ("stopped", 2, 0.75)
    assert (second.best_epoch(METRIC, "min"), second.best_epoch("val_loss", "min")) == (1, None)
    assert 0 < second.duration_s < 60
    assert list(ledger.unfinished) == [0] and ledger.next_number == 2
    ledger.close()
    with_one = Ledger(tmp_path, write=True)
    assert (list(with_one.unfinished), with_one.next_number) == ([0], 2)
    assert len(with_one.unfinished[0].history) == 1
    with_one.close()


@pytest.mark.parametrize(
    ("kind", "trial", "epoch"),
    [("epoch", 0, 1), ("proposed", 0, None), ("ended", 1, None), ("epoch", 1, 2), ("epoch", 5, 1)],
)
def test_what_is_there_already_or_over_is_not_taken(kind, trial, epoch, tmp_path):
    ledger = new_ledger(tmp_path)
    for number in (propose(ledger), propose(ledger)):
        play(ledger, number, [0.5], "finished" if number == 1 else None)
    before = rows_of(ledger)
    with pytest.raises(ExperimentError, match="the ledger of"):
        ledger.append(kind, {"config": {}, "params": {}, "state": "failed", METRIC: 0.5}, trial, epoch)
    assert rows_of(ledger) == before
    ledger.append("epoch", {METRIC: 0.6}, 0, 2)
    assert len(ledger.unfinished[0].history) == 2
    ledger.close()


def test_the_clock_goes_on_over_sessions_and_stands_still_between_them(tmp_path):
    open_s = 0.0
    for session in range(3):
        began = time.monotonic()
        ledger = new_ledger(tmp_path)
        ledger.append("opened", {"session": session})
        time.sleep(0.03)
        ledger.append("closed", {})
        ledger.close()
        open_s += time.monotonic() - began
        time.sleep(0.1)  # does not count
    reader = Ledger(tmp_path)
    seconds = [event.at_s for event in reader.events()]
    reader.close()
    assert seconds == sorted(seconds) and 0.09 <= seconds[-1] <= open_s


def test_one_writer_any_number_of_readers(tmp_path):
    ledger = new_ledger(tmp_path)
    propose(ledger)
    with pytest.raises(ExperimentError, match="in use by another run: wait for it"):
        Ledger(tmp_path, write=True)
    assert "in use" in in_use_by(tmp_path)
    readers = [Ledger(tmp_path), Ledger(tmp_path)]
    play(ledger, 0, [0.5])
    assert [reader.trials()[0].state for reader in readers] == ["finished"] * 2
    with pytest.raises(ExperimentError, match="cannot be written"):
        readers[0].append("opened", {})
    for opened in (*readers, ledger):
        opened.close()
    assert in_use_by(tmp_path) is None
    new_ledger(tmp_path).close()


def test_a_second_process_is_refused_until_the_first_dies(tmp_path):
    new_ledger(tmp_path).close()
    process = subprocess.Popen([sys.executable, "-c", WRITE, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    said = [process.stdout.readline() for _ in range(20)]
    with pytest.raises(ExperimentError, match="in use"):
        Ledger(tmp_path, write=True)
    os.kill(process.pid, signal.SIGKILL)
    said += process.stdout.readlines()
    process.stdout.close()
    process.wait()
    acknowledged = [int(line) for line in said if line.endswith("\n")]
    ledger = Ledger(tmp_path, write=True)  # the system gave the lock back
    history = ledger.unfinished[0].history
    assert len(history) >= acknowledged[-1] >= 20
    assert [metrics[METRIC] for metrics in history] == [epoch / 7 for epoch in range(1, len(history) + 1)]
    ledger.append("epoch", {METRIC: 1.0}, 0, len(history) + 1)
    ledger.close()


@pytest.mark.parametrize("writable", [True, False])
def test_a_copy_is_read_with_all_that_is_not_yet_in_the_main_file(writable):
    """By another user, who may not write beside it; taken while the writer was at work."""
    with tempfile.TemporaryDirectory() as top:  # pytest's own folder is closed to others
        ledger = new_ledger(Path(top) / "experiment")
        for _ in range(3):
            play(ledger, propose(ledger), [0.1, 0.2])
        os.chmod(top, 0o755)
        copy = Path(shutil.copytree(Path(top) / "experiment", Path(top) / "copy"))
        assert (copy / "ledger.db-wal").stat().st_size > 0
        ledger.close()
        (copy / "ledger.db-shm").unlink()  # it holds nothing, and SQLite would make it anew
        for path in (copy, *copy.iterdir()):
            path.chmod((0o777 if writable else 0o555) if path.is_dir() else 0o666 if writable else 0o444)
        names = sorted(os.listdir(copy))
        done = subprocess.run([sys.executable, "-c", READ, str(copy)], capture_output=True, text=True, cwd="/")
        assert json.loads(done.stdout or "null") == {str(n): ["finished", 2] for n in range(3)}, done.stderr
        assert writable or sorted(os.listdir(copy)) == names
        copy.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("write", [False, True])
def test_a_folder_without_a_ledger_or_with_a_damaged_one_is_told(write, tmp_path):
    with pytest.raises(ExperimentError, match=f"{tmp_path} is no experiment"):
        Ledger(tmp_path, write=write)
    (tmp_path / "experiment.json").write_text("{}")
    (tmp_path / "ledger.db").write_bytes(b"no database, but long enough to be taken for one " * 100)
    with pytest.raises(ExperimentError, match=r"the ledger of .* is damaged .*: tunekit repair"):
        Ledger(tmp_path, write=write)
    assert in_use_by(tmp_path) is None  # the lock was given back


def test_a_ledger_that_cannot_be_written_says_so(tmp_path):
    ledger = new_ledger(tmp_path)
    propose(ledger)
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count={pages}")  # a full disk, as SQLite sees it
    with pytest.raises(ExperimentError, match=r"cannot be written.*full.*what it holds is safe"):
        for epoch in range(1, 10_000):
            ledger.append("epoch", {METRIC: 0.5}, 0, epoch)
    history = ledger.unfinished[0].history
    assert len(ledger.trials()[0].history) == len(history) == epoch - 1
    ledger.close()


def test_rows_are_never_changed(tmp_path):
    ledger = new_ledger(tmp_path)
    play(ledger, propose(ledger), [0.5])
    before = list(ledger.events())
    ledger.append("closed", {})
    assert list(ledger.events())[:-1] == before
    assert trials_from(before)[0] == ledger.trials()[0]
    ledger.close()
    connection = sqlite3.connect(tmp_path / "ledger.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
