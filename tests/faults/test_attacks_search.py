"""Attacks on a search that runs, by other processes and users of the machine. Each test is a family of attacks."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attack_ports
import pytest
from attack_search import (
    NAMES,
    OF_TRACKERS,
    ROOT,
    Search,
    as_another_user,
    files_below,
    files_with,
    read_bytes,
    running_search,
)

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="becoming another user takes root and setpriv"
)
needs_ss = pytest.mark.skipif(not shutil.which("ss"), reason="listing ports takes ss, of iproute2")
LOOPBACK = ("127.0.0.1", "::1")
TOKENS = """
import json, os, stat, sys
from pathlib import Path
import tunekit
from tunekit.errors import ClusterError

def ask(name):
    home = Path("homes", name).absolute()
    (home / ".ray").mkdir(parents=True, exist_ok=True)
    os.environ["HOME"] = str(home)
    try:
        tunekit.run({"x": tunekit.uniform(0, 1)}, "digits", train=loop, num_trials=1, max_epochs=1, verbose=0,
                    name=name, folder="experiments")
    except ClusterError as error:
        return f"refused: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"

def loop(config, dataset, state=None):
    yield {"val_accuracy": 0.5}, {}

answers = {}
os.environ["TMPDIR"] = str(Path("x" * 120).absolute())  # too long for Ray's sockets: what is not refused ends there
Path(os.environ["TMPDIR"]).mkdir()
for mode in ("disabled", "Disabled", "none", "", "0", "k8s"):
    os.environ["RAY_AUTH_MODE"] = mode
    answers[f"mode {mode}"] = ask(f"mode-{mode}")
del os.environ["RAY_AUTH_MODE"]
json.dump(answers, sys.stdout)
"""


@pytest.fixture(scope="module")
def search() -> Iterator[Search]:
    """A search with secrets in its environment, some trials of which have failed."""
    with running_search() as running:
        yield running


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """How searches end that were told to do without a token."""
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "script.py").write_text(TOKENS)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    answer = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, check=True, cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return json.loads(answer.stdout)


@pytest.mark.long
def test_auth_modes(refusals, record_property):
    """Ray told by its environment to let everybody in."""
    found = {mode: answer for mode, answer in refusals.items() if mode.startswith("mode ")}
    assert found and all(answer.startswith("refused: ") for answer in found.values()), found
    record_property("probes", len(found))


def test_token_files(search, record_property):
    """A token that others know, where Ray looks for one: each search has its own, which nobody else can read."""
    token = search.token
    assert token.read_text() != search.known_token.read_text() and len(token.read_text()) == 64
    for path in (token, token.parent):
        assert path.stat().st_mode & 0o077 == 0 and path.stat().st_uid == os.getuid()
    environments = [read_bytes(Path(f"/proc/{pid}/environ")) for pid in search.pids]
    assert not [text for text in environments if token.read_bytes() in text]
    record_property("probes", 2 + len(environments))


@needs_ss
def test_loopback(search, record_property):
    """Whoever is on another machine finds no port at all."""
    found = attack_ports.listeners(search.pids)
    kinds = {read_bytes(Path(f"/proc/{listener.pid}/comm")).decode().strip() for listener in found}
    assert {"gcs_server", "raylet"} <= kinds
    elsewhere = [listener for listener in found if listener.host not in LOOPBACK]
    assert not elsewhere
    record_property("probes", len(found))


@needs_ss
def test_ports_without_the_token(search, record_property):
    """Every port, every service, by somebody with no token, an empty one or a wrong one."""
    token, accepted, refused = search.token.read_text().strip(), [], 0
    found = attack_ports.listeners(search.pids)
    stranger = list(attack_ports.strangers(token, search.known_token.read_text()))
    for listener, method, headers in itertools.product(found, attack_ports.GRPC_METHODS, stranger):
        status = attack_ports.grpc_status(listener, method, headers)
        refused += status == attack_ports.UNAUTHENTICATED
        accepted += [(listener, method, headers)] if status == 0 else []
    for listener, path, headers in itertools.product(found, attack_ports.HTTP_PATHS, stranger):
        for verb in ("GET", "POST", "PUT", "DELETE"):
            status = attack_ports.http_status(listener, f"{verb} {path}", {**attack_ports.BROWSER, **headers})
            accepted += [(listener, verb, path, headers, status)] if 200 <= status < 400 else []
    assert not accepted
    assert refused >= 10 * len(stranger)  # they were heard, and turned away
    known = [
        attack_ports.grpc_status(
            listener, "ray.rpc.JobInfoGcsService/GetAllJobInfo", {"authorization": f"Bearer {token}"}
        )
        for listener in found
        if read_bytes(Path(f"/proc/{listener.pid}/comm")).startswith(b"gcs_server")
    ]
    assert 0 in known  # who has the token is let in
    assert search.process.poll() is None
    record_property(
        "probes", len(found) * len(stranger) * (len(attack_ports.GRPC_METHODS) + 4 * len(attack_ports.HTTP_PATHS))
    )


@needs_ss
def test_dashboard(search, record_property):
    """Nothing on any port serves Ray's dashboard or its API of jobs, not even to who has the token."""
    token = {"authorization": f"Bearer {search.token.read_text().strip()}"}
    found = attack_ports.listeners(search.pids)
    statuses = [
        attack_ports.http_status(listener, f"GET {path}", token)
        for listener, path in itertools.product(found, ("/", "/api/version", "/api/jobs/", "/api/cluster_status"))
    ]
    assert all(not 200 <= status < 300 for status in statuses)
    record_property("probes", len(statuses))


@needs_root
def test_other_users(search, record_property):
    """Another user of the machine, who sees the folders that ours lie in, reads and writes nothing of ours."""
    mine = search.home / "script.py"
    mine.chmod(0o644)
    assert as_another_user("cat", mine).returncode == 0  # the way there is open
    ray = next(search.scratch.glob("tunekit-*/ray"))
    places = [search.experiment, search.token, search.home / ".cache" / "tunekit", ray, ray.parent]
    places += [ray / "session_latest" / name for name in ("logs", "sockets", "sockets/raylet")]
    places += [search.experiment / name for name in ("experiment.json", "ledger.db", "trials", "trackers")]
    opened = []
    for place in places:
        assert os.path.lexists(place), place
        for attempt in (
            ("ls", place),
            ("cat", place),
            ("touch", place / "x"),
            ("rm", "-rf", place),
            ("mv", place, "/x"),
        ):
            if place.is_dir() and attempt[0] == "cat":
                continue
            listed = as_another_user(*attempt)
            opened += [attempt] if listed.returncode == 0 and listed.stdout.strip() != str(place) else []
    assert not opened
    left = [
        path for path in Path("/dev/shm").glob("*") if path.stat().st_mode & 0o077 and path.stat().st_uid == os.getuid()
    ]
    assert not [path for path in left if "plasma" in path.name or "ray" in path.name]
    for pid in search.pids:
        assert as_another_user("cat", f"/proc/{pid}/environ").returncode
        assert as_another_user("ls", f"/proc/{pid}/fd").returncode
    assert search.process.poll() is None
    record_property("probes", 4 * len(places) + 2 * len(search.pids))


def test_secrets_in_the_environment(search, record_property):
    """Secrets that failing trials tell of are in no file, no argument and nothing that was printed."""
    words = [word for values in search.canaries.values() for word in values]
    token = search.token.read_text().strip()
    names = {word: name for name, values in search.canaries.items() for word in values} | {token: "token"}
    reasons = [path.read_text() for path in search.experiment.glob("trials/*/error.txt")]
    assert reasons and all("cannot log in with" in reason for reason in reasons)
    assert any(path.suffix == ".wandb" for path in files_below(search.experiment))
    ray = next(search.scratch.glob("tunekit-*/ray"))
    found = {
        "experiment": files_with(search.experiment, [*words, token]),
        "Ray's folder": files_with(ray, [*words, token]),
        "other temporary files": files_with(search.scratch, words),
        "cache": files_with(search.home / ".cache", [*words, token]),
        "printed": [word for word in [*words, token] if word.encode() in (search.home / "printed").read_bytes()],
        "arguments": [
            word for word in [*words, token] for line in search.command_lines().values() if word.encode() in line
        ],
    }
    assert not {
        place: {file: {names[word] for word in hits} for file, hits in where.items()}
        if isinstance(where, dict)
        else {names[word] for word in where}
        for place, where in found.items()
        if where
    }
    record_property("probes", len(found) * (len(words) + 1))


def test_environments_of_ray(search, record_property):
    """What only trackers need is in no other process's environment."""
    trackers = {pid for pid, line in search.command_lines().items() if b"tunekit.tracking" in line or b"wandb" in line}
    others = [pid for pid in search.pids if pid not in trackers and pid != search.process.pid]
    assert len(others) >= 3
    known = {}
    for pid, name in itertools.product(others, OF_TRACKERS):
        environment = read_bytes(Path(f"/proc/{pid}/environ"))
        if any(word.encode() in environment for word in search.canaries[name]):
            known[pid, name] = read_bytes(Path(f"/proc/{pid}/comm")).decode().strip()
    assert not known
    assert len(NAMES) > len(OF_TRACKERS)
    record_property("probes", len(others) * len(OF_TRACKERS))
