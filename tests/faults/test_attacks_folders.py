"""Attacks by folders that are not what they seem: ledgers, links, owners. Each test is a family of attacks."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from attack_cli import command, snapshot, table

import tunekit
from tunekit.errors import TunekitError

NOBODY = 65534


def test_hostile_ledgers(experiment, tmp_path, record_property):
    """SQLite files that are programs: a view that never ends, triggers, rows of other types."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"
    columns = "i AS number, 0.0 AS time, 0.0 AS at_s, 'opened' AS kind, NULL AS trial, NULL AS epoch, '{}' AS data"
    hostile = {
        "endless": f"ALTER TABLE events RENAME TO e; CREATE VIEW events AS {endless} {columns} FROM n",
        "elsewhere": "UPDATE events SET trial = '../../evil' WHERE trial = 0",
        "a list": "UPDATE events SET data = '[]'",
        "deep": f"UPDATE events SET data = '{'[' * 100_000}' WHERE kind = 'epoch'",
        "another kind": "UPDATE events SET kind = 'evil'",
        "large": "UPDATE events SET data = zeroblob(100000000) WHERE kind = 'closed'",
    }
    for name, statements in hostile.items():
        copy = Path(shutil.copytree(experiment, tmp_path / name))
        connection = sqlite3.connect(copy / "ledger.db")
        connection.executescript(statements)
        connection.close()
    before = snapshot(experiment.parent)
    unclear = {}
    for name in hostile:
        script = "import sys; from tunekit.cli import main; main(['results', sys.argv[1]])"
        if name == "endless":
            line = [sys.executable, "-c", script, tmp_path / name]
            assert subprocess.run(line, capture_output=True, timeout=20, check=False).returncode == 2
            continue
        answer = command("results", tmp_path / name)
        assert name != "large" or "too big" in answer.stderr  # which nobody has read
        unclear |= {} if answer.is_refused else {name: answer.in_short}
    assert not unclear and snapshot(experiment.parent) == before and not (tmp_path.parent / "evil").exists()
    record_property("probes", len(hostile))


def test_links_in_a_resumed_trial(tmp_path, record_property):
    """A trial that was cut off, whose folder has become a link to one with files that are not its own."""
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o755)
    for name in ("0001.safetensors", "0007.safetensors", "best.safetensors", ".best.tmp", "error.txt"):
        (precious / name).write_bytes(b"precious")
    before = snapshot(precious), precious.stat().st_mode
    for what in ("trials/0000", "trials"):
        (precious / "0000").mkdir(exist_ok=True)
        asked = {"train": cut_off, "max_epochs": 3, "verbose": 0, "name": what[-4:], "folder": tmp_path}
        with pytest.raises(KeyboardInterrupt):
            tunekit.train({"x": 1}, "digits", **asked)
        place = tmp_path / what[-4:] / what
        shutil.rmtree(place)
        place.symlink_to(precious)
        (precious / "0000").rmdir() if what == "trials/0000" else None
        with pytest.raises((TunekitError, KeyboardInterrupt)):
            tunekit.train({"x": 1}, "digits", **asked)
        shutil.rmtree(precious / "0000", ignore_errors=True)
        assert (snapshot(precious), precious.stat().st_mode) == before, what
    record_property("probes", 2)


def cut_off(config, dataset, state=None):
    """A training loop that does not come to its end."""
    yield {"val_accuracy": 0.5}, {}
    yield {"val_accuracy": 0.6}, {}
    raise KeyboardInterrupt


def test_links_and_owners(original, tmp_path, monkeypatch, record_property):
    """Links made before we come, where an experiment, its trials, the cache are to be; folders of somebody else."""
    precious = Path(shutil.copytree(original / "trials" / "0000", tmp_path / "precious"))
    (precious / "0001.safetensors").write_bytes(b"precious")
    precious.chmod(0o755)
    place, data = tmp_path / "experiments" / "first", table(tmp_path / "new")
    train = ("train", "backbone=mlp", "--max-epochs", 1, "--folder", place.parent, "--name", place.name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    before, wrong, probes = (snapshot(precious), precious.stat().st_mode), [], 0

    def attack(what: str, line: tuple[object, ...], is_refused: bool) -> None:
        nonlocal probes, before
        answer = command(*line, cwd=tmp_path)
        after = snapshot(precious), precious.stat().st_mode
        if after != before or (is_refused and not answer.is_refused):
            wrong.append((what, line[0], "it changed" if after != before else answer.in_short))
        before, probes = after, probes + 1

    (tmp_path / "empty").mkdir(mode=0o755)
    place.parent.mkdir()
    os.chown(tmp_path / "empty", NOBODY, NOBODY) if os.geteuid() == 0 else None
    for target in ("precious", "empty") if os.geteuid() == 0 else ("precious",):
        place.symlink_to(tmp_path / target)
        attack(f"the experiment is a link to {target}", train, True)
        place.unlink()
    for what in ("trials", "trials/0000", "trackers"):
        shutil.copytree(original, place)
        shutil.rmtree(place / what, ignore_errors=True)
        (place / what).symlink_to(precious)
        for name in ("results", "test", "resume", *(["sync"] if what == "trackers" else [])):
            attack(f"{what} is a link", (name, place), False)
        shutil.rmtree(place)
    for mode in (0o700, 0o755, 0o777) if os.geteuid() == 0 else ():
        place.mkdir()
        cache = tmp_path / f"cache{mode:o}" / "tunekit"
        cache.mkdir(parents=True)
        for folder in (place, cache):
            folder.chmod(mode)
            os.chown(folder, NOBODY, NOBODY)
        attack(f"the experiment's folder is somebody else's, {mode:o}", train, True)
        shutil.rmtree(place)
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
        attack(f"the cache is somebody else's, {mode:o}", ("check", data), True)
    assert not wrong
    record_property("probes", probes)
