"""The live view: what a person sees while a search runs, in a terminal, a pipe or a notebook, here or elsewhere."""

import contextlib
import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import nbclient
import nbformat
import pytest
from rich.console import Console

import tunekit
from tunekit import paths
from tunekit.cli import main
from tunekit.events import Event
from tunekit.live import ViewState
from tunekit.notebook import live_html
from tunekit.screen import can_redraw, frame
from tunekit.storage import Storage, joined

ROOT = Path(__file__).resolve().parent.parent
TOUR = ROOT / "examples" / "tour.ipynb"
SPACE = {"backbone": "mlp", "lr": tunekit.loguniform(1e-4, 1e-1)}
TRAIN = """
import sys
import tunekit

tunekit.train({"backbone": "mlp"}, "digits", max_epochs=int(sys.argv[2]), name="x", folder=sys.argv[1], verbose=0)
"""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # see conftest.py
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"  # the cursor


class Driver:
    """A process that trains one trial for so many epochs, in a folder or a storage."""

    def __init__(self, folder, tmp_path, max_epochs):
        script = tmp_path / "train.py"
        script.write_text(TRAIN)
        self.process = subprocess.Popen(
            [sys.executable, script, str(folder), str(max_epochs)], env={**os.environ, **ONE_THREAD}
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def wait_for(there, seconds=180.0):
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until
        time.sleep(0.1)


def epochs_of(experiment):
    with contextlib.suppress(tunekit.ExperimentError):
        return len(tunekit.load_results(experiment).history)
    return 0


def watching(experiment, **options):
    command = [sys.executable, "-m", "tunekit", "watch", str(experiment)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def in_terminal(command, until, width=80, height=24):
    """Run a command in a terminal, interrupt it once a text is on the screen; return its status and all it wrote."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    env = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**env, **ONE_THREAD, "TERM": "xterm-256color"},
    )
    os.close(slave)
    written = b""
    with contextlib.suppress(OSError):  # the terminal is closed
        while part := os.read(master, 2**16):
            written += part
            if until is not None and until.encode() in written:
                os.kill(process.pid, signal.SIGINT)
                until = None
    os.close(master)
    return process.wait(timeout=180), written.decode()


def event(number, kind, trial=None, epoch=None, **data):
    return Event(number, 0.0, float(number), kind, trial, epoch, data)


def many_events(num_running, reason="no\nreason \x1b[2J [red]"):
    """What is heard of trials that run side by side, one that failed, one that is tried again and one that warned."""
    events = [event(1, "opened", trials_in_all=300, pid=1, host="here")]
    for trial in range(num_running):
        config = {"lr": 0.1, "name": "\x1b[2J[bold]<b>" + "x" * 200}
        events.append(event(2, "proposed", trial, config=config, params={}))
        events.append(event(3, "started", trial, node=f"node-{trial % 3}"))
        events.extend(event(4, "epoch", trial, epoch, val_accuracy=epoch / 20) for epoch in range(1, 16))
    return [
        *events,
        event(5, "ended", 0, state="failed", reason=reason),
        event(6, "retry", 1, reason=reason, counts=True),
        event(7, "warned", 2, text=reason),
    ]


ASKED = {"metric": "val_accuracy", "mode": "max", "max_epochs": 20}


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("num_running", [3, 103])
def test_the_view_fits_the_terminal_whatever_it_shows(width, num_running):
    state = ViewState(ASKED)
    state.hear(many_events(num_running))
    console = Console(width=width, height=24, force_terminal=True, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(frame(state, console))
    console.file.close()
    lines = console.export_text().splitlines()
    assert len(lines) < 24 and max(map(len, lines)) <= width and not any("\x1b" in line for line in lines)
    text = "\n".join(lines)
    assert "trial 0 failed: no reason \\x1b[2J [red]" in text and "trial 1 is tried again: no" in text
    assert "trial 2: no reason" in text and "1 of 300 trials ended · " in text and "best so far: val_accuracy" in text
    assert "15/20" in text and "0.7500" in text and "▇█" in text
    assert ("and 88 more" in text) == (num_running == 103)


def test_the_view_of_a_notebook_is_escaped():
    state = ViewState(ASKED)
    state.hear(many_events(40))
    page = live_html(state)
    assert "<b>" not in page and "&lt;b&gt;" in page and "\x1b" not in page and "<script" not in page
    assert '<progress value="15" max="20">' in page and "and 28 more" in page and "trial 0 failed: no reason" in page


def test_the_best_is_that_of_the_results():
    """Of equals the first by number, whoever came first; a trial that fails or diverges has no score."""
    state = ViewState(ASKED)
    events = [event(1, "opened", trials_in_all=3)]
    events += [event(2, "proposed", trial, config={}, params={}) for trial in range(3)]
    events += [event(3, "epoch", 2, 1, val_accuracy=0.8), event(4, "epoch", 1, 1, val_accuracy=0.8)]
    state.hear(events)
    assert state.best[1].number == 1
    state.hear([event(5, "epoch", 0, 1, val_accuracy=0.9)])
    assert state.best[1].number == 0
    state.hear([event(6, "ended", 0, state="diverged", reason="nan")])
    assert state.best[1].number == 1 and state.best[0] == 0.8


def test_the_clock_does_not_go_back_where_nothing_more_is_heard():
    """A search that is stopped while Ray starts has written nothing down for a while."""
    state = ViewState(ASKED)
    state.hear([event(1, "opened", trials_in_all=3)])
    state.heard_at -= 10  # as if it had been heard earlier
    before = state.gone_s()
    state.end()
    assert state.gone_s() >= before >= 10 and "0:1" in state.summary()[0]


def test_a_trial_that_starts_takes_the_line_of_one_that_waits():
    """With trials that take turns the others stay where they are: nothing jumps."""
    state = ViewState(ASKED)
    events = [event(1, "opened", trials_in_all=9)]
    events += [event(2, "proposed", trial, config={}, params={}) for trial in range(4)]
    state.hear([*events, event(3, "started", 0, node=""), event(4, "started", 1, node="")])
    state.hear([event(5, "paused", 0)])
    assert [trial.number for trial in state.shown()] == [0, 1]
    state.hear([event(6, "started", 2, node=""), event(7, "paused", 1)])
    assert [trial.number for trial in state.shown()] == [2, 1]
    state.hear([event(8, "started", 1, node=""), event(9, "ended", 2, state="stopped", reason="")])
    state.hear([event(10, "started", 3, node="")])
    assert [trial.number for trial in state.shown()] == [3, 1]
    assert state.summary()[1] == "0 epochs · 2 running, 1 paused, 1 stopped"


def test_the_time_left_keeps_to_the_plan_and_to_the_budget():
    state = ViewState(ASKED)
    state.hear([event(0, "opened", trials_in_all=2, epochs_in_all=30, time_budget_s=None)])
    state.hear([event(0, "proposed", 0, config={}, params={}), event(100, "started", 0, node="")])
    assert state.left_s() is None
    state.hear([event(110, "epoch", 0, 1, val_accuracy=0.5)])
    assert state.left_s() == pytest.approx(290, abs=30)  # 10 s an epoch
    state.opened["time_budget_s"] = 150.0
    assert state.left_s() == pytest.approx(40, abs=5)


@pytest.mark.usefixtures("ray")
def test_a_search_says_in_plain_lines_what_happens(tmp_path, capfd):
    tunekit.run(SPACE, "digits", num_trials=3, max_epochs=2, folder=tmp_path, name="x")
    lines = capfd.readouterr().out.splitlines()
    pauses = re.compile(r"trial \d pauses after 1 epoch: val_accuracy 0\.\d{4} \(\d of 3 ended, best 0")
    assert any(pauses.match(line) for line in lines)
    assert lines[-3].startswith("3 of 3 trials ended · ") and lines[-1].startswith("best: val_accuracy 0.")
    tunekit.run(SPACE, "digits", num_trials=3, max_epochs=2, folder=tmp_path, name="x", verbose=0)
    assert capfd.readouterr().out == ""


@pytest.mark.long
def test_in_a_terminal_the_view_is_drawn_in_place_and_ctrl_c_gives_the_cursor_back(tmp_path):
    train = [sys.executable, "-m", "tunekit", "train", "backbone=mlp", "--max-epochs", "2000"]
    train += ["--folder", str(tmp_path)]
    status, written = in_terminal(train, until="/2000")
    assert status == 130 and "\x1b[1A" in written
    assert written.rindex(SHOW) > written.rindex(HIDE)
    assert "0 of 1 trial ended" in written and "val_accuracy" in written and "Run the same command again" in written


def test_a_terminal_that_cannot_draw_gets_plain_lines(tmp_path):
    assert can_redraw(Console(force_terminal=True, _environ={"TERM": "xterm"}))
    assert not can_redraw(Console(force_terminal=True, _environ={"TERM": "dumb"}))
    with (tmp_path / "out").open("w", encoding="latin-1") as latin:
        assert not can_redraw(Console(file=latin, force_terminal=True, _environ={"TERM": "xterm"}))


@pytest.fixture(scope="module")
def ended(tmp_path_factory, cache_home):
    """A search that is over."""
    folder = tmp_path_factory.mktemp("x")
    return tunekit.train({"backbone": "mlp"}, "digits", max_epochs=2, folder=folder, verbose=0).folder


def everything(folder):
    """All that a folder holds, and when it was changed."""
    there = (folder, *folder.rglob("*"))
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in there}


def test_watching_a_search_that_is_over_says_how_it_went_and_leaves_no_trace(ended, capfd):
    before = everything(ended)
    main(["watch", str(ended)])
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("1 of 1 trial ended") and lines[1] == "2 epochs · 1 finished"
    assert lines[2].startswith("best: val_accuracy 0.") and lines[3] == f"Over: tunekit results {ended}"
    assert everything(ended) == before


def test_watching_what_is_no_experiment_is_one_line(tmp_path, capfd):
    with pytest.raises(SystemExit) as end:
        main(["watch", str(tmp_path)])
    assert end.value.code == 2 and "is no experiment" in capfd.readouterr().err


@pytest.mark.long
def test_watching_beside_a_search_until_it_ends_or_is_cut_off(tmp_path):
    folder = tmp_path / "x"
    with Driver(tmp_path, tmp_path, 100_000) as driver:
        wait_for(lambda: epochs_of(folder) > 2)
        status, seen = in_terminal([sys.executable, "-m", "tunekit", "watch", str(folder)], until="0 of 1 trial")
        assert status == 130 and seen.rindex(SHOW) > seen.rindex(HIDE)
        assert driver.process.poll() is None  # the search goes on
        watcher = watching(folder)
        wait_for(lambda: watcher.stdout.readline().startswith("epoch "))
        driver.process.kill()
        lines = watcher.communicate(timeout=180)[0].splitlines()
    assert watcher.returncode == 1
    assert lines[-1].startswith(f"Cut off: its driver, process {driver.process.pid} on ")
    assert lines[-1].endswith(f"goes on with: tunekit resume {folder}")
    before = everything(folder)  # with SQLite's log, which a reader would bring into the file
    assert paths.ledger_db(folder).with_name("ledger.db-wal").stat().st_size
    watcher = watching(folder)
    assert watcher.communicate(timeout=180)[0].splitlines()[-1] == lines[-1] and everything(folder) == before


def test_watching_what_may_not_be_written(ended, tmp_path):
    folder = tmp_path / "x"
    shutil.copytree(ended, folder)
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = everything(folder)
    main(["watch", str(folder)])
    assert everything(folder) == before
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)


@pytest.mark.long
def test_watching_a_search_of_another_machine_from_its_storage(url, tmp_path, monkeypatch):
    place = joined(url, "x")
    with Driver(url, tmp_path, 500) as driver:  # half a minute: enough for the watcher to come up beside it
        wait_for(lambda: any("safetensors" in name for name in Storage(place).sizes("trials")))
        home = tmp_path / "elsewhere"
        home.mkdir(mode=0o700)
        watcher = watching(place, env={**os.environ, "XDG_CACHE_HOME": str(home)})
        printed, problems = watcher.communicate(timeout=180)
        assert driver.process.wait(timeout=180) == 0
    lines = printed.splitlines()
    assert watcher.returncode == 0 and not problems
    assert lines[-1] == f"Over: tunekit results {place}" and "1 of 1 trial ended" in printed
    assert "epoch 500 of 500: train_loss" in printed


def test_results_in_a_notebook_tell_the_answer(tmp_path):
    results = tunekit.train({"backbone": "mlp"}, "digits", folder=tmp_path / "<i>", max_epochs=1, name="x", verbose=0)
    page = results._repr_html_()
    assert f"trial {results.best_trial.number}, epoch 1" in page and "&lt;i&gt;" in page and "<i>" not in page
    assert "on test" not in page and not paths.test_json(results.folder).exists()
    tested = results.test()
    assert f"accuracy {tested['test_accuracy']:.4f} (95 % interval" in results._repr_html_()


@pytest.mark.long
@pytest.mark.usefixtures("cache_home")
def test_the_tour_runs_as_it_was_kept(tmp_path):
    kept = nbformat.read(TOUR, as_version=4)
    nbformat.validate(kept)
    ran = nbformat.read(TOUR, as_version=4)
    nbclient.NotebookClient(ran, timeout=400, resources={"metadata": {"path": str(tmp_path)}}).execute()

    def outputs(notebook):
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        return [[(output.output_type, *sorted(output.get("data", {}))) for output in cell.outputs] for cell in cells]

    assert outputs(ran) == outputs(kept)
    assert not any(kind in ("error", "stream") for cell in outputs(ran) for kind, *_ in cell)
    view = ran.cells[4].outputs[0].data["text/html"]
    assert "8 of 8 trials ended" in view and "best: val_accuracy" in view
    text = TOUR.read_text()
    assert len(text) < 40_000 and "/home/" not in text and "/tmp/" not in text
