"""Attacks by files: what somebody sends, to be unpacked, decoded, read or opened. Each test is a family of attacks.

There are 34 families: 11 here, 5 in test_attacks_bounds.py (too much, too deep, more than data), 3 in
test_attacks_folders.py (ledgers, links, owners), 7 in test_attacks_names.py (names and values), 8 in
test_attacks_search.py (a search that runs). A test's property "probes" says how many attacks it made; one that is
accepted fails its test. `pytest tests/faults/test_attacks*.py -o junit_family=xunit1 --junitxml=FILE` writes them down.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import attack_files
import pytest
import torch
from attack_cli import COMMANDS, LITTLE_MEMORY, Answer, command, look_at, memory_of, snapshot, table

import tunekit
from tunekit.errors import TunekitError


def unpacked(folder: Path, archive: bytes) -> Answer:
    """Hand an archive to the command that unpacks one, as if it had been downloaded; nothing but it may change."""
    (folder / "data").mkdir(exist_ok=True)
    (folder / "outside").write_text("as it was")
    (folder / "data" / "place-pulse-2.0.zip").write_bytes(archive)
    before = snapshot(folder)
    answer = command("download", "placepulse", "--data-dir", folder / "data", cwd=folder)
    assert snapshot(folder) == before
    return answer


def test_archive_paths(tmp_path, record_property):
    probes = [pair for name in attack_files.LEAD_OUT for pair in attack_files.archives_with(name)]
    for kind, archive in probes:
        answer = unpacked(tmp_path, archive)
        assert answer.is_refused and "nothing was unpacked" in answer.stderr, kind
    record_property("probes", len(probes))


def test_archive_links(tmp_path, record_property):
    probes = list(attack_files.archives_with_links())
    for what, archive in probes:
        answer = unpacked(tmp_path, archive)
        assert answer.is_refused and "is a link or another thing" in answer.stderr, what
    record_property("probes", len(probes))


def test_archive_bombs(tmp_path, record_property):
    probes = list(attack_files.archive_bombs())
    for what, archive in probes:
        answer = unpacked(tmp_path, archive)
        assert answer.is_refused and any(word in answer.stderr for word in ("bomb", "overlaps", "damaged")), what
    record_property("probes", len(probes))


def test_image_bombs(original, tmp_path, record_property):
    """Few bytes that claim up to 1.6 thousand million pixels, for training and for predicting."""
    sizes = [(10_000, 6_000), (20_000, 10_000), (40_000, 40_000), (2**31 - 1, 1), (1, 2**31 - 1), (2**31 - 1,) * 2]
    for number, size in enumerate(sizes):
        path = tmp_path / "pets" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(attack_files.png_of(*size))
    answers = []
    memory = memory_of(lambda: answers.append(command("check", tmp_path / "pets")))
    answers.append(command("predict", original, tmp_path / "pets", cwd=tmp_path))
    assert memory < LITTLE_MEMORY and all(answer.is_refused for answer in answers)
    assert all(f"{number}.png: " in answer.printed for number in range(len(sizes)) for answer in answers)
    record_property("probes", len(sizes) * 2)


def test_data_outside_its_folder(tmp_path, record_property):
    """Tables and folders that point at images elsewhere, by path or by link."""
    secret = table(tmp_path / "secret").parent / "images" / "0.png"
    inside = table(tmp_path / "data").parent
    (inside / "images" / "link.png").symlink_to(secret)
    (inside / "folder").symlink_to(secret.parent)
    names = ["../secret/images/0.png", str(secret), "images/../../secret/images/0.png"]
    names += ["images/link.png", "folder/0.png"]
    for name in names:
        lines = (inside / "table.csv").read_text().splitlines()
        (inside / "with.csv").write_text("\n".join([*lines, f'"{name}",cat']))
        assert command("check", inside / "with.csv").is_refused, name
        with pytest.raises(TunekitError):
            tunekit.load_dataset(inside / "with.csv", on_bad_image="error")
    record_property("probes", len(names) * 2)


def test_checkpoint_pickles(experiment, tmp_path, record_property):
    """Pickles in the place of the best checkpoint, whose names promise tensors."""
    best = experiment / "trials" / "0000" / "best.safetensors"
    probes = list(attack_files.pickles(tmp_path / "sprung"))
    for data in probes:
        best.write_bytes(data)
        answers = dict(look_at(experiment, cwd=tmp_path, commands=("predict", "export")))
        assert all(answer.is_refused for answer in answers.values()), answers
    (experiment / "test.json").unlink()
    assert command("test", experiment).is_refused
    assert not (tmp_path / "sprung").exists()
    record_property("probes", len(probes) * 2 + 1)


def test_pickles_that_wait_for_a_resume(tmp_path, record_property):
    """Pickles in the place of every checkpoint of a trial that was cut off: it starts again, and none is opened."""
    probes = list(attack_files.pickles(tmp_path / "sprung"))

    begun = []

    def cut_off(config, dataset, state=None):
        begun.append(state)
        for epoch in range(2):
            yield {"val_accuracy": 0.5}, {"epoch": epoch, "weight": torch.ones(3)}
        raise KeyboardInterrupt

    for number, data in enumerate(probes):
        for _ in ("before", "after"):
            with pytest.raises(KeyboardInterrupt):
                tunekit.train(
                    {"x": 1}, "digits", train=cut_off, max_epochs=3, verbose=0, name=str(number), folder=tmp_path
                )
            for path in (tmp_path / str(number) / "trials" / "0000").glob("*.safetensors"):
                path.write_bytes(data)
    assert begun == [None] * 2 * len(probes) and not (tmp_path / "sprung").exists()
    record_property("probes", len(probes))


def test_pickles_in_every_file(original, tmp_path, monkeypatch, record_property):
    """A pickle in the place of each file of an experiment, one at a time, and every command on it."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    data = next(attack_files.pickles(tmp_path / "sprung"))
    alone = ["experiment.json", "ledger.db", "test.json", "trials/0000/best.safetensors"]
    others = {str(path.relative_to(original)) for path in original.rglob("*") if path.is_file()} - set(alone)
    others |= {"trackers/wandb.json", "tuner.pkl", "params.pkl", "trials/0000/error.pkl", "ledger.db-wal"}
    unclear, probes = {}, 0
    for names in (*([name] for name in alone), sorted(others)):
        place = tmp_path / str(probes)
        copy = Path(shutil.copytree(original, place / "first"))
        for name in names:
            (copy / name).parent.mkdir(exist_ok=True)
            (copy / name).unlink(missing_ok=True)
            (copy / name).write_bytes(data)
        commands = ("test", "resume") if names == ["test.json"] else (*COMMANDS, "resume")
        commands += () if names[0] in alone[2:] else ("sync",)
        for word, answer in look_at(copy, cwd=place, commands=commands):
            assert not (tmp_path / "sprung").exists(), (names, word)
            if answer.status and not answer.is_refused:
                unclear[*names, word] = answer.in_short
            probes += 1
    assert not unclear
    record_property("probes", probes)


def test_pickles_in_exported_models(original, tmp_path, record_property):
    assert command("export", original, tmp_path / "model").status == 0
    about, weights = tmp_path / "model.json", tmp_path / "model.safetensors"
    sound = json.loads(about.read_text()), weights.read_bytes()
    probes = list(attack_files.pickles(tmp_path / "sprung"))
    for data in probes:
        about.write_bytes(data)
        with pytest.raises(TunekitError):
            tunekit.load_model(tmp_path / "model")
        weights.write_bytes(data)
        for digest in (sound[0]["sha256"], hashlib.sha256(data).hexdigest()):
            about.write_text(json.dumps({**sound[0], "sha256": digest}))
            with pytest.raises(TunekitError):
                tunekit.load_model(tmp_path / "model")
        weights.write_bytes(sound[1])
    assert not (tmp_path / "sprung").exists()
    record_property("probes", len(probes) * 3)


def test_pickles_in_the_cache(tmp_path, monkeypatch, record_property):
    """Object arrays in the place of every file of the cache: they are made anew, and none is opened."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = table(tmp_path / "data")
    fingerprint = tunekit.load_dataset(data).fingerprint
    tunekit.datasets.publish(tunekit.load_dataset(data))
    probes = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.parent.name != "locks"]
    for path in probes:
        size = path.stat().st_size
        path.write_bytes(attack_files.object_array(tmp_path / "sprung").ljust(size, b"\0")[: max(size, 300)])
        dataset = tunekit.load_dataset(data)
        assert dataset.fingerprint == fingerprint
        tunekit.datasets.publish(dataset)
    assert len(probes) >= 6 and not (tmp_path / "sprung").exists()
    record_property("probes", len(probes))


def test_planted_code(experiment, tmp_path, monkeypatch, record_property):
    """Functions that experiment.json names and that its own folder brings along, where Python would find them."""
    monkeypatch.syspath_prepend(tmp_path)  # as `python -m tunekit`, a script or a notebook beside the folder does
    code = f"open({str(tmp_path / 'sprung')!r}, 'w').close()\ndef model(config, dataset): raise SystemExit"
    (experiment / "evil.py").write_text(code)
    (experiment / "package").mkdir()
    (experiment / "package" / "__init__.py").write_text(code)
    described = json.loads((experiment / "experiment.json").read_text())
    asked, accepted, probes = described["asked"], [], 0
    for module in ("experiments.first.evil", "experiments.first.package"):
        function = {"function": f"{module}:model"}
        for changed in ({"space": {**asked["space"], "backbone": function}}, {"train": function}):
            (experiment / "experiment.json").write_text(json.dumps({**described, "asked": {**asked, **changed}}))
            (experiment / "test.json").unlink(missing_ok=True)
            for name, _ in look_at(experiment, cwd=tmp_path, commands=(*COMMANDS, "resume")):
                probes += 1
                if (tmp_path / "sprung").exists():
                    accepted.append((name, changed))
                    (tmp_path / "sprung").unlink()
                    for known in [known for known in sys.modules if known.startswith("experiments")]:
                        del sys.modules[known]
    assert not accepted
    record_property("probes", probes)
