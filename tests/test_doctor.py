"""tunekit doctor: what it finds, what it warns of, and that it says no secret."""

import os
import subprocess

import pytest

from tunekit.cli import main
from tunekit.doctor import examine, satisfies
from tunekit.machine import usable_cores, usable_memory

SECRET = "abcdef0123456789abcdef0123456789abcdef01"


@pytest.fixture
def doctor(capsys, monkeypatch, tmp_path):
    """Run the command in an empty folder, and return (status, what was printed)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody is asked outside: nothing listens there
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")

    def run(*arguments):
        status = 0
        try:
            main(["doctor", *map(str, arguments)])
        except SystemExit as end:
            status = end.code
        answer = capsys.readouterr()
        return status, answer.out + answer.err

    return run


def problems(text):
    return [line for line in text.splitlines() if line.startswith(("mind:", "stops any search:"))]


def test_it_says_what_there_is_and_leaves_nothing(doctor, tmp_path):
    status, text = doctor()
    assert status == 0
    for topic in ("cores", "memory", "GPU", "experiments", "cache", "temporary", "libraries", "extras", "network"):
        assert any(line.startswith(topic) for line in text.splitlines()), topic
    for words in ("ray 2.", "wandb is", "GB free", "proxy does not"):
        assert words in text
    assert not list(tmp_path.iterdir())


def test_no_secret_is_said(doctor, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("https_proxy", "http://me:hunter2hunter2@127.0.0.1:9")
    _, text = doctor()
    assert "a key was found" in text and "http://me:***@127.0.0.1:9" in text
    assert SECRET not in text and "hunter2" not in text


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OMP_NUM_THREADS", "many", "OMP_NUM_THREADS is 'many', no number: unset it"),
        ("OMP_NUM_THREADS", "4096", "more than there are cores"),
        ("OMP_WAIT_POLICY", "ACTIVE", "OMP_WAIT_POLICY"),
        ("RAY_ADDRESS", "10.0.0.1:6379", "tunekit goes by --address alone"),
        ("no_proxy", "example.org", "no_proxy lacks 127.0.0.1"),
        ("WANDB_MODE", "oflline", "did you mean 'offline'?"),
        ("https_proxy", "http://[broken", "is no URL"),
    ],
)
def test_what_is_odd_is_a_line_with_what_to_do_and_stops_nothing(doctor, monkeypatch, name, value, words):
    monkeypatch.setenv(name, value)
    status, text = doctor()
    assert status == 0
    assert len([line for line in problems(text) if words in line]) == 1


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("RAY_AUTH_MODE", "disabled", "RAY_AUTH_MODE is 'disabled'"),
        ("TUNEKIT_CACHE_GB", "lots", "TUNEKIT_CACHE_GB must be a number of gigabytes"),
        ("XDG_CACHE_HOME", "/proc/none", "set XDG_CACHE_HOME to another folder"),
    ],
)
def test_what_stops_a_search_is_status_1(doctor, monkeypatch, name, value, words):
    monkeypatch.setenv(name, value)
    status, text = doctor()
    assert status == 1
    assert problems(text)[0].startswith("stops any search:") and words in problems(text)[0]


def test_a_cache_that_others_may_write_stops_a_search(doctor, monkeypatch, tmp_path):
    (tmp_path / "tunekit").mkdir()
    (tmp_path / "tunekit").chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    status, text = doctor()
    assert status == 1 and "others may write to the cache" in problems(text)[0]


def test_a_folder_below_a_file_cannot_be_written(doctor, tmp_path):
    (tmp_path / "taken").write_text("")
    status, text = doctor("--folder", tmp_path / "taken" / "experiments")
    assert status == 1 and "cannot be written" in problems(text)[0]


@pytest.mark.parametrize(
    ("fill", "status", "words"), [(0, 0, "nearly full"), (1, 1, "cannot be written (No space left on device)")]
)
def test_a_disk_that_is_full(doctor, tmp_path, fill, status, words):
    disk = tmp_path / "disk"
    disk.mkdir()
    size = 4 if fill else 64
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "none", str(disk)]
    if os.getuid() or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        if fill:
            with pytest.raises(OSError, match="No space"):
                (disk / "full").write_bytes(bytes(2**23))
        assert doctor("--folder", disk / "experiments")[0] == status
        assert words in problems(doctor("--folder", disk / "experiments")[1])[0]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_may_only_be_read(doctor, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "ro,size=4m", "none", str(disk)]
    if os.getuid() or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        status, text = doctor("--folder", disk / "experiments")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert status == 1 and "Read-only file system" in problems(text)[0]


@pytest.mark.long
def test_a_cluster_that_is_not_there_and_a_ray_that_is(doctor, ray):
    found = [finding for finding in examine("experiments", "local", {"https_proxy": "127.0.0.1:9"})]
    assert any("a Ray on this machine answers: 1 machines with 2 CPUs" in finding.text for finding in found)


def test_a_storage_is_not_looked_at(doctor):
    status, text = doctor("--folder", "s3://bucket/experiments")
    assert status == 0 and "a storage, which is not looked at" in text


def test_what_a_terminal_obeys_is_written_out(doctor):
    _, text = doctor("--folder", "evil\x1b[2J")
    assert "\x1b" not in text and "evil\\x1b[2J" in text


def test_a_typo_is_one_line(doctor):
    status, text = doctor("--adress", "auto")
    assert status == 2 and len(text.splitlines()) == 1 and "--address" in text


def test_bounds_of_versions():
    assert satisfies("2.14.1", ">=2.11,<3") and satisfies("2.11", ">=2.11") and satisfies("5.0.0rc1", "<6,>=5")
    assert not satisfies("2.9.9", ">=2.11,<3") and not satisfies("3.0.0", "<3,>=2.11")


def test_what_may_be_used_is_no_more_than_there_is():
    assert 0 < usable_cores() <= (os.cpu_count() or 1)
    assert 0 < usable_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
