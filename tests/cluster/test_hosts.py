"""A cluster of several hosts, made on this machine: from `up` to a search on all of them, to `down`; and its ports."""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import pytest

import tunekit

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOOLS = ("ip", "unshare", "ssh", "ssh-keygen", "/usr/sbin/sshd", "rsync", "ss", "setsid")
SEARCH = """
import os, sys
import tunekit
space = {"backbone": "cnn", "lr": tunekit.loguniform(1e-3, 1e-1)}
results = tunekit.run(space, "digits", num_trials=4, max_epochs=1, searcher="random", scheduler="none", verbose=0,
    cpus_per_trial=os.cpu_count(), address="auto", folder=sys.argv[1], name=sys.argv[2])
print("best", results.best_config, sys.argv[3])
"""
EXACT = {"backbone": "cnn_small", "precision": "float32"}  # not what each machine measures to be its faster one
SPACE = {**EXACT, "lr": tunekit.grid([1e-4, 1e-3, 1e-2]), "batch_size": tunekit.grid([32, 64])}
ASKED = {"searcher": "grid", "scheduler": "none", "max_epochs": 12, "seed": 0, "verbose": 0, "name": "grid"}
GRID = f"""
import sys
import tunekit
from tunekit import grid
space = {{**{EXACT}, "lr": grid([1e-4, 1e-3, 1e-2]), "batch_size": grid([32, 64])}}
results = tunekit.run(space, "digits", address="auto", folder=sys.argv[1], **{ASKED})
print("best", results.best_config)
"""
HOLD = """
import os, time, ray
ray.init(address="auto", log_to_driver=False)
@ray.remote(num_cpus=os.cpu_count())
def hold():
    time.sleep(900)
held = [hold.remote() for _ in range(2)]
print("holding", flush=True)
ray.get(held)
"""


def why_not() -> str:
    """Return why no hosts can be made here; nothing where they can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.getuid() or missing:
        return f"needs root, and {', '.join(missing) or 'all tools are there'}"
    made = subprocess.run(["unshare", "--net", "--pid", "--fork", "--mount", "--uts", "mount", "--make-rprivate", "/"])
    return "" if made.returncode == 0 else "namespaces cannot be made here"


pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(why_not()), reason=why_not())]


def hosts_sh(*words):
    return subprocess.run(["bash", HERE / "hosts.sh", *map(str, words)], check=True, timeout=120)


def traces():
    """What hosts.sh makes outside its folder."""
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    names = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    found = [line.split("@")[0].split()[0] for line in links.splitlines()] + names.split("\n")
    return {name for name in found if re.match(r"(tk|v)\d", name)}


def processes_of(name):
    """The command lines of all processes in a host."""
    pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=True).stdout.split()
    lines = {}
    for pid in pids:
        try:
            lines[int(pid)] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended
            continue
    return lines


def processes_with(text):
    """The pids of all processes whose command line has a text."""
    return [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if text in read(path)]


def read(path):
    try:
        return path.read_text(errors="replace")
    except OSError:  # the process ended
        return ""


class Hosts:
    """Three hosts, a cluster file for the first two, and the command line of whoever owns them."""

    def __init__(self, folder: Path):
        self.folder, self.checkout = folder, folder / "checkout"
        self.environment = {**os.environ, "HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
        rows = [line.split() for line in (folder / "hosts" / "addresses").read_text().splitlines()]
        self.names, self.addresses = [row[0] for row in rows], [row[1] for row in rows]
        self.file = self.checkout / "cluster-local.yaml"

    def write_checkout(self):
        """Write what `up` copies. Nothing is installed: what this Python has otherwise than the lock is left out."""
        (self.folder / "home").mkdir()
        for name in ("tunekit", "search_spaces"):
            shutil.copytree(ROOT / name, self.checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        entries = re.split(r"(?m)^(?=\S)", (ROOT / "requirements.lock").read_text())
        (self.checkout / "requirements.lock").write_text("".join(entry for entry in entries if is_installed(entry)))
        values = {"HEAD_IP": self.addresses[0], "WORKER_IP": self.addresses[1], "USER": "root"}
        text = (ROOT / "cluster-local.yaml").read_text().replace("tunekit-local", f"tunekit-{secrets.token_hex(4)}")
        for name, value in {**values, "SSH_KEY": str(self.folder / "hosts" / "key")}.items():
            text = text.replace(f"<{name}>", value)
        self.file.write_text(text)

    def run(self, command, *words):
        line = [sys.executable, "-m", "tunekit", "cluster", command, str(self.file), *words]
        quiet = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        return subprocess.run(line, env=self.environment, cwd=self.folder, timeout=300, **quiet)

    def wait(self, words, seconds):
        """Ask for the status until it has some words; return it."""
        until = time.monotonic() + seconds
        while words not in (told := self.run("status").stdout):
            assert time.monotonic() < until and " failed " not in told, told
            time.sleep(2)
        return told

    def submit(self, name, script, *arguments):
        """Submit a script; return the job's name."""
        (self.folder / f"{name}.py").write_text(script)
        told = self.run("submit", str(self.folder / f"{name}.py"), "--", *arguments)
        assert told.returncode == 0, told
        return re.search(rf"job ({name}-\S+) is running", told.stdout)[1]


def is_installed(entry):
    name, _, version = entry.split()[0].partition("==") if entry.strip() else ("", "", "")
    try:
        return not version or ";" in entry.partition("\\")[0] or metadata.version(name).partition("+")[0] == version
    except metadata.PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    before = traces()
    hosts_sh("up", folder / "hosts", 3, Path(sys.prefix).resolve())
    try:
        made = Hosts(folder)
        made.write_checkout()
        yield made
    finally:
        hosts_sh("down", folder / "hosts")
    assert traces() <= before


@pytest.fixture(scope="module")
def cluster(hosts):
    told = hosts.run("up", "--yes")
    assert told.returncode == 0, told.stdout + told.stderr
    hosts.wait("2 local.cluster.node", 120)
    return hosts


def test_a_search_runs_on_all_hosts(cluster, tmp_path):
    job = cluster.submit("search", SEARCH, str(tmp_path), "two words", "$(id); `id`")
    told = cluster.wait("finished", 180)
    assert job in told and re.search(r"best \{.*\} \$\(id\); `id`", cluster.run("log", job).stdout)
    frame = tunekit.load_results(tmp_path / "two words").dataframe
    assert list(frame["state"]) == ["finished"] * 4
    assert set(frame["node"]) == {"host1", "host2"}


def cut(name, seconds):
    """Take a host's network away for a while: the other end of its cable, so that what it has set up stays."""
    identity, _, number = name.removeprefix("tk").partition("-")
    for state in ("down", "up"):
        subprocess.run(["ip", "link", "set", f"v{identity}{number}", state], check=True)
        if state == "down":
            time.sleep(seconds)


@pytest.mark.usefixtures("ray")
def test_a_host_that_is_killed_and_cut_off_changes_nothing(cluster, tmp_path):
    job, until = cluster.submit("grid", GRID, str(tmp_path)), time.monotonic() + 400
    trained = tmp_path / "grid" / "trials"
    while len(list(trained.glob("*/0002.safetensors"))) < 2:
        assert time.monotonic() < until, cluster.run("log", job).stdout
        time.sleep(0.2)
    for pid, line in processes_of(cluster.names[1]).items():
        if re.search("raylet|ray::", line):
            os.kill(pid, signal.SIGKILL)
    cut(cluster.names[1], 5)
    while "best" not in (told := cluster.run("log", job).stdout):
        assert time.monotonic() < until and "Traceback" not in told, told
        time.sleep(2)
    there, here = (
        tunekit.load_results(tmp_path / "grid"),
        tunekit.run(SPACE, "digits", folder=tmp_path / "here", **ASKED),
    )
    curves = [found.history[["trial", "epoch", "val_accuracy", "val_loss"]] for found in (there, here)]
    assert curves[0].equals(curves[1]) and there.best_config == here.best_config
    assert str(here.best_config) in told and not sum(trial.num_retries for trial in there.trials.values())
    cluster.wait("2 local.cluster.node", 180)  # it came back by itself


def test_the_token_is_for_nobody_else(cluster):
    ours = cluster.folder / "home" / ".tunekit" / "auth_token"
    for number in (1, 2):
        copy = cluster.folder / "hosts" / f"host{number}" / "home" / ".ray" / "auth_token"
        assert copy.read_text() == ours.read_text() and copy.stat().st_mode & 0o777 == 0o600
        assert copy.parent.stat().st_mode & 0o777 == 0o700
    for name in cluster.names:
        assert not [line for line in processes_of(name).values() if ours.read_text() in line]


def is_held(name):
    return any(line.startswith("ray::hold") for line in processes_of(name).values())


def listening(hosts):
    """Every TCP port of head and worker that others can reach, but SSH's."""
    found = []
    for name, address in list(zip(hosts.names, hosts.addresses, strict=True))[:2]:
        words = ["ip", "netns", "exec", name, "ss", "-Hltn"]
        for line in subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines():
            host, _, port = line.split()[3].rpartition(":")
            if port != "22" and not re.match(r"\[?(127\.|::1\]|::ffff:127\.)", host):
                found.append((address, int(port)))
    return found


def as_stranger(hosts, script, *words, text="", home="stranger", **variables):
    """Run a script on the third host, which has no token; return what it wrote."""
    home = hosts.folder / home
    home.mkdir(exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "RAY_TMPDIR": str(home), **variables}
    command = ["ip", "netns", "exec", hosts.names[2], sys.executable, str(HERE / script), *words]
    return subprocess.run(command, env=environment, input=text, capture_output=True, text=True, timeout=180).stdout


def test_no_port_lets_a_stranger_in(cluster, record_property):
    job = cluster.submit("hold", HOLD)
    until = time.monotonic() + 120
    while "\nholding" not in (told := cluster.run("log", job).stdout.replace("\r", "")):
        assert time.monotonic() < until, told
        time.sleep(1)
    until = time.monotonic() + 120
    while not all(is_held(name) for name in cluster.names[:2]):  # by a worker, which listens too
        assert time.monotonic() < until, cluster.run("log", job).stdout
        time.sleep(1)
    ports = listening(cluster)
    assert len(ports) >= 10 and len({host for host, _ in ports}) == 2
    token = (cluster.folder / "home" / ".tunekit" / "auth_token").read_text()
    asked = {"ports": ports, "token": token, "known": secrets.token_hex(32)}
    told = json.loads(as_stranger(cluster, "knock.py", text=json.dumps(asked)))
    assert told["accepted"] == []
    left = [list(place) for place in listening(cluster)]  # some were of workers that had nothing to do, and ended
    assert not [place for place in told["never_asked"] if place in left]  # each was heard, and asked for the token
    assert told["with_token"] == 1  # who has it is let in
    record_property("probes", told["knocks"])


def test_ray_itself_lets_no_stranger_in(cluster):
    other = cluster.folder / "other_token"
    other.write_text(secrets.token_hex(32))
    without, wrong = {"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(other)}
    doors = {f"{cluster.addresses[0]}:6379": "Failed to connect", f"ray://{cluster.addresses[0]}:10001": "timeout"}
    tries = [(door, refusal, variables) for door, refusal in doors.items() for variables in (without, wrong)]

    def reach_in(number):  # a home of its own for each: they wait, side by side, until Ray gives up
        door, refusal, variables = tries[number]
        return refusal, as_stranger(cluster, "reach_in.py", door, home=f"stranger{number}", **variables)

    with ThreadPoolExecutor() as pool:
        for refusal, told in pool.map(reach_in, range(len(tries))):
            assert told.startswith("refused") and refusal in told


def test_ray_lets_in_who_has_the_token(cluster):
    """Else the refusals above would say nothing."""
    token = str(cluster.folder / "home" / ".tunekit" / "auth_token")
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token}
    told = as_stranger(cluster, "reach_in.py", f"ray://{cluster.addresses[0]}:10001", **variables)
    assert told.startswith("accepted and ran code"), told
    [log] = (cluster.folder / "hosts" / "host1" / "ray").glob("session_2*/logs/ray_client_server.err")
    assert "fork() handlers" not in log.read_text()  # with which gRPC ends a process for one client in 25


def test_down_ends_all_that_runs_on_all_hosts(cluster):
    """Ray and jobs; one is running, if the tests above were."""
    told = cluster.run("down", "--yes")
    assert told.returncode == 0, told.stdout + told.stderr
    left = [line for name in cluster.names[:2] for line in processes_of(name).values() if "hosts.sh" not in line]
    assert not [line for line in left if re.search("gcs_server|raylet|ray::|python", line)]
    assert listening(cluster) == []


def test_hosts_that_are_half_made_are_taken_away(tmp_path):
    before = traces()
    for seconds in [number / 100 for number in range(2, 26)]:
        subprocess.run(
            ["timeout", "-s", "KILL", str(seconds), "bash", HERE / "hosts.sh", "up", tmp_path / "hosts", "3"]
        )
        hosts_sh("down", tmp_path / "hosts")
        assert traces() <= before
    until = time.monotonic() + 30  # for one that was on its way, and ends itself
    while left := processes_with(str(tmp_path / "hosts")):
        assert time.monotonic() < until, left
        time.sleep(0.2)
