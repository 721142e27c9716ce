"""Cluster files: the shipped ones pass once filled in, and each rule tells of what breaks it, and of no more."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tunekit.cli import main
from tunekit.cluster_file import check_cluster
from tunekit.cluster_launch import _sockets, up
from tunekit.cluster_rules import PLACEHOLDER
from tunekit.cluster_shell import ray_starts
from tunekit.cluster_token import ready_token
from tunekit.errors import ClusterError, StorageError

ROOT = Path(__file__).resolve().parent.parent
AWS, LOCAL = "cluster.yaml", "cluster-local.yaml"
VALUES = {
    "REGION": "eu-central-1", "IMAGE": "ami-0123456789abcdef0", "SECURITY_GROUP": "sg-0123456789abcdef0",
    "HEAD_PROFILE": "tunekit-head", "WORKER_PROFILE": "tunekit-worker", "HEAD_IP": "10.0.0.1", "WORKER_IP": "10.0.0.2",
    "USER": "tunekit", "SSH_KEY": "~/.ssh/tunekit", "BUCKET": "bucket", "YOUR_IP": "192.0.2.1",
}  # fmt: skip
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may give a folder to somebody else")


@pytest.fixture
def filled(tmp_path):
    """Write a shipped file, filled in and with one text replaced by another, beside what it mounts."""
    for name in ("requirements.lock", "tunekit", "search_spaces"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "a;b").mkdir()

    def write(name, old="", new=""):
        text = PLACEHOLDER.sub(lambda found: VALUES.get(found[0][1:-1], found[0]), (ROOT / name).read_text())
        assert old in text
        (tmp_path / name).write_text(text.replace(old, new, 1))
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", [AWS, LOCAL])
def test_shipped_files_pass_once_filled_in(name, filled):
    assert check_cluster(filled(name)) == []


@pytest.mark.parametrize("name", [AWS, LOCAL])
def test_shipped_files_say_what_to_fill_in(name):
    problems = check_cluster(ROOT / name)
    assert {problem.rule for problem in problems} == {"placeholder"}
    inside = {
        found
        for line in (ROOT / name).read_text().splitlines()
        for found in PLACEHOLDER.findall(line.partition("#")[0])
    }
    assert {PLACEHOLDER.search(problem.value)[0] for problem in problems} == inside


HEAD_START, WORKER_START = "~/tunekit/env/bin/ray start --head", "~/tunekit/env/bin/ray start --address"
TOKEN_MOUNT = '"~/.ray/auth_token": "~/.tunekit/auth_token"'
BROKEN = [
    (AWS, "cluster_name:", "colour: red\ncluster_name:", "schema", "colour"),
    (AWS, "head_node_type: head", "head_node_type: tail", "schema", "head_node_type"),
    (AWS, "resources: {CPU: 4, GPU: 1}", "resources: {CPU: four}", "schema", "four"),
    (AWS, "ImageId: *image", "ImageId: *image\n      KeyName: <KEY>", "placeholder", "<KEY>"),
    (AWS, "type: aws", "type: gcp", "provider", "gcp"),
    (AWS, "rsync_exclude:", "docker: {image: x, container_name: y}\nrsync_exclude:", "provider", "docker"),
    (LOCAL, "ssh_user: tunekit", "ssh_user: -oProxyCommand=id", "name", "ssh_user"),
    (LOCAL, "worker_ips: [10.0.0.2]", 'worker_ips: ["10.0.0.2; id"]', "name", "worker_ips[0]"),
    (LOCAL, "head_ip: 10.0.0.1", 'head_ip: "10.0.0.1\\nid"', "name", "head_ip"),
    (LOCAL, "ssh_private_key: ~/.ssh/tunekit", "ssh_private_key: -oProxyCommand=id", "name", "ssh_private_key"),
    (AWS, "region: eu-central-1", "region: $(id)", "name", "region"),
    (AWS, "  gpu:\n", '  "gpu; id":\n', "name", "gpu; id"),
    (AWS, "file_mounts:\n", 'file_mounts:\n  "~/$(id)": "tunekit"\n', "name", "$(id)"),
    (AWS, '"search_spaces"', '"a;b"', "name", "a;b"),
    (LOCAL, WORKER_START, f"echo it's; {WORKER_START}", "shell", "No closing quotation"),
    (LOCAL, "- ray stop", "- bash -c 'ray start --head --dashboard-host=10.0.0.1'", "shell", "hidden"),
    (LOCAL, "- ray stop", "- RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 true", "nothing", ""),
    (LOCAL, TOKEN_MOUNT, "", "token", "no ~/.ray/auth_token"),
    (LOCAL, "~/.tunekit/auth_token", "auth_token", "token", "comes from auth_token"),
    (LOCAL, "RAY_enable_autoscaler_v2=0 RAY_AUTH_MODE=token", "RAY_enable_autoscaler_v2=0", "token", "without"),
    (AWS, f"RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 PYTHONPATH=$HOME/tunekit/source\n    {WORKER_START}",
     f"RAY_AUTH_MODE=disabled {WORKER_START}", "token", "RAY_AUTH_MODE=disabled"),
    (AWS, "- ray stop", "- export RAY_AUTH_TOKEN=abc", "token", "RAY_AUTH_TOKEN"),
    (LOCAL, "--dashboard-host=127.0.0.1", "--dashboard-host=::", "open", "--dashboard-host=::"),
    (LOCAL, "--dashboard-host=127.0.0.1", "--dashboard-host=127.0.0.1 --dashboard-host=10.0.0.1", "open", "10.0.0.1"),
    (LOCAL, "- ray stop", "- python3 -m http.server --bind 0.0.0.0", "open", "0.0.0.0"),
    (LOCAL, "--port=6379", "--port=6379 --system-config='{}'", "open", "--system-config"),
    (AWS, "type: aws", "type: aws\n  security_group: {IpPermissions: [{IpProtocol: tcp, FromPort: 22, ToPort: 8265}]}",
     "open", "8265"),
    (AWS, "      SecurityGroupIds: *groups\n", "", "open", "gpu has no SecurityGroupIds"),
    (AWS, " --require-hashes", "", "versions", "pip install"),
    (AWS, "head_setup_commands: []", "head_setup_commands: [pip install boto3]", "versions", "boto3"),
    (AWS, "python3.12 -m venv", "python3 -m venv", "versions", "python3"),
    (AWS, "ImageId: *image", "ImageId: ami-0fedcba9876543210", "versions", "ami-0fedcba9876543210"),
    (AWS, "    min_workers: 0", "    worker_setup_commands: [uptime]\n    min_workers: 0", "versions", "of its own"),
    (AWS, "--requirement ~/tunekit/requirements.lock", "-r ~/other.lock", "versions", "~/other.lock"),
    (AWS, '"search_spaces"', '"search_space"', "mounts", "search_space"),
    (LOCAL, "--autoscaling-config=~/ray_bootstrap_config.yaml", "", "scaling", "no autoscaler"),
    (LOCAL, "RAY_enable_autoscaler_v2=0 RAY_AUTH", "RAY_AUTH", "scaling", "new autoscaler"),
    (AWS, "RAY_USAGE_STATS_ENABLED=0 PYTHONPATH", "PYTHONPATH", "usage", "report"),
    (AWS, "idle_timeout_minutes: 10", "", "costs", "idle_timeout_minutes"),
    (AWS, "\nmax_workers: 4", "\n", "costs", "max_workers"),
    (AWS, "cache_stopped_nodes: false", "cache_stopped_nodes: true", "costs", "cache_stopped_nodes"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "rule", "words"), BROKEN, ids=lambda value: str(value)[:30])
def test_a_rule_tells_of_what_breaks_it(name, old, new, rule, words, filled):
    problems = check_cluster(filled(name, old, new))
    assert {problem.rule for problem in problems} == ({rule} if words else set())
    assert all(words in str(problem) for problem in problems[:1])
    assert all(len(str(problem).splitlines()) == 1 for problem in problems)


@pytest.mark.parametrize("text", ["$(id)", "`id`", "a\nid", "a;id", "-a", "../a", "a b", "", "a" * 64, "ä", 7, None])
def test_names_that_a_shell_would_obey(text, filled):
    import json

    problems = check_cluster(filled(LOCAL, "cluster_name: tunekit-local", f"cluster_name: {json.dumps(text)}"))
    assert "name" in {problem.rule for problem in problems}
    assert all(len(str(problem).splitlines()) == 1 for problem in problems)


def test_defaults_of_ray_are_checked_too(filled):
    """A file without start commands gets Ray's own, which open the dashboard to all and ask for no token."""
    path = filled(AWS)
    path.write_text(re.sub(r"(?s)head_start_ray_commands:.*?\n\n", "\n", path.read_text()))
    assert {problem.rule for problem in check_cluster(path)} == {"token", "open", "usage"}


def test_versions_are_those_of_this_machine(filled):
    path = filled(AWS)
    lock = (ROOT / "requirements.lock").read_text()
    (path.parent / "requirements.lock").unlink()
    (path.parent / "requirements.lock").write_text(re.sub(r"(?m)^ray==\S+", "ray==2.0.0", lock))
    assert [problem.rule for problem in check_cluster(path)] == ["versions"]
    assert "2.0.0" in str(check_cluster(path)[0])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "[provider]",
        "provider: aws",
        "provider: {}\na: !!python/object/apply:os.system [id]",
        "a: 1\na: 2",
        "a: [",
    ],
)
def test_what_is_no_cluster_file(text, tmp_path):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ClusterError):
        check_cluster(tmp_path / "x.yaml")


@pytest.mark.parametrize("value", ["7", "[1, [2]]", "{a: {b: 1}}", "null", "text", "-1"])
@pytest.mark.parametrize("name", [AWS, LOCAL])
def test_no_value_of_another_kind_ends_the_check(name, value, filled):
    text = filled(name).read_text()
    for key in re.findall(r"(?m)^(\w+):", text):
        changed = re.sub(rf"(?ms)^{key}:.*?(?=^\S|\Z)", f"{key}: {value}\n", text)
        path = filled(name)
        path.write_text(changed)
        try:
            check_cluster(path)
        except ClusterError as error:
            assert len(str(error).splitlines()) == 1


def test_starts_of_ray_are_found():
    [start] = ray_starts("ulimit -n 9; A=1 /x/ray start --head --port 6379 > log 2>&1 && echo 'ray; start'")
    assert start.environment == {"A": "1"} and start.option("--port") == "6379"
    for hidden in ("sudo ray start", "bash -c 'ray start --head'", 'echo "$(ray start)"', "env -u A ray start"):
        with pytest.raises(ValueError, match="hidden"):
            ray_starts(hidden)


def test_a_token_is_made_once_for_its_owner_alone(tmp_path):
    path = ready_token(tmp_path / "ours" / "auth_token")
    text = path.read_text()
    assert re.fullmatch("[0-9a-f]{64}", text)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert ready_token(path).read_text() == text
    assert ready_token(tmp_path / "other" / "auth_token").read_text() != text


@pytest.mark.parametrize("what", ["read", "entered", "link", "short", "folder", "fifo"])
def test_a_token_that_others_may_know_is_refused(what, tmp_path):
    path = ready_token(tmp_path / "ours" / "auth_token")
    if what == "read":
        path.chmod(0o640)
    elif what == "entered":
        path.parent.chmod(0o710)
    elif what == "short":
        path.write_text("secret")
    else:
        path.rename(path.with_name("before"))
        {
            "link": lambda: path.symlink_to("before"),
            "folder": lambda: path.mkdir(),
            "fifo": lambda: os.mkfifo(path, 0o600),
        }[what]()
    with pytest.raises(ClusterError):
        ready_token(path)


@needs_root
def test_a_token_of_somebody_else_is_refused(tmp_path):
    path = ready_token(tmp_path / "ours" / "auth_token")
    os.chown(path, 65534, 65534)
    with pytest.raises(ClusterError, match="somebody else"):
        ready_token(path)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder of the test's own, and a user whose folder of sockets nobody has made."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOGNAME", f"tunekit-{os.getpid()}")
    (tmp_path / "home").mkdir()
    yield tmp_path / "home"
    if _sockets().is_dir():
        _sockets().rmdir()


def test_up_starts_nothing_where_there_are_problems(home, filled):
    with pytest.raises(ClusterError, match="2 problems"):
        up(filled(LOCAL, "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"), yes=True)
    assert not list(home.iterdir())


def test_up_starts_nothing_where_others_can_read_the_token(home, filled):
    ready_token(home / ".tunekit" / "auth_token").chmod(0o644)
    with pytest.raises(ClusterError, match="read by others"):
        up(filled(LOCAL), yes=True)
    assert not _sockets().exists()


@needs_root
def test_no_socket_is_put_where_somebody_else_listens(home, filled):
    _sockets().mkdir()
    os.chown(_sockets(), 65534, 65534)
    with pytest.raises((ClusterError, StorageError), match=r"somebody else|not installed"):
        up(filled(LOCAL), yes=True)


def test_check_as_a_command(filled, capsys):
    main(["cluster", "check", str(filled(LOCAL))])
    assert capsys.readouterr().out.endswith("no problems\n")
    with pytest.raises(SystemExit) as end:
        main(["cluster", "check", str(ROOT / LOCAL)])
    told = capsys.readouterr()
    assert end.value.code == 2 and len(told.out.splitlines()) == 4
    assert told.err == f"tunekit: 4 problems in {ROOT / LOCAL}\n"


def test_commands_have_help():
    answer = subprocess.run(
        [sys.executable, "-m", "tunekit", "cluster", "-h"], capture_output=True, text=True, check=True
    )
    assert all(f"  {word} " in answer.stdout for word in ("check", "up", "down", "status", "submit", "log", "attach"))
