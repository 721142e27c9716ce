"""One real search, with secrets in its environment and W&B switched on, in a home that any user may look into."""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from attack_ports import descendants

ROOT = Path(__file__).resolve().parents[2]
OF_TRACKERS = ("WANDB_API_KEY", "WB_KEY")
NAMES = (*OF_TRACKERS, "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MY_PASSWORD", "GIT_CREDENTIALS", "SIGNING_KEY")
SCRIPT = '''
import os, time
import tunekit

NAMES = %r

def loop(config, dataset, state=None):
    """Every other trial fails, and says all that it can find."""
    for epoch in range(2):
        time.sleep(0.05)
        yield {"val_accuracy": config["x"]}, {"epoch": epoch}
        if config["x"] > 0.5:
            told = " ".join(os.environ.get(name, "") for name in NAMES)
            try:
                raise KeyError(told)
            except KeyError:
                raise RuntimeError(f"cannot log in with {told}\\n{told}, at {os.environ['DATABASE_URL']}")

if __name__ == "__main__":
    tunekit.run({"x": tunekit.uniform(0, 1)}, "digits", train=loop, num_trials=100_000, max_epochs=2, scheduler="none",
                searcher="random", tracker="wandb", name="first", folder="experiments", verbose=1)
'''


@dataclass
class Search:
    """A search that runs.

    Args:
        home: its HOME; experiments/first, .cache/tunekit and .ray lie in it.
        scratch: its folder for temporary files.
        process: the driver.
        canaries: the secrets in its environment, by name.
        gone: what was in Ray's folder and in arguments while it ran, taken when it was stopped.
    """

    home: Path
    scratch: Path
    process: subprocess.Popen[bytes]
    canaries: dict[str, list[str]]
    gone: dict[str, bytes] = field(default_factory=dict)

    @property
    def experiment(self) -> Path:
        return self.home / "experiments" / "first"

    @property
    def token(self) -> Path:
        return next(self.scratch.glob("tunekit-*/token"))

    @property
    def known_token(self) -> Path:
        """One that everybody could read, where Ray looks for it by itself."""
        return self.home / ".ray" / "auth_token"

    @property
    def pids(self) -> list[int]:
        return descendants(self.process.pid)

    def command_lines(self) -> dict[int, bytes]:
        """Return the arguments of all its processes, which every user may read."""
        return {pid: read_bytes(Path(f"/proc/{pid}/cmdline")) for pid in self.pids}


@contextmanager
def running_search() -> Iterator[Search]:
    """Start a search, wait until some of its trials have ended, and stop it in the end."""
    with tempfile.TemporaryDirectory(prefix="home-", ignore_cleanup_errors=True) as made:
        home, scratch = Path(made), Path(made, "t")
        for folder in (home, scratch):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o777 if folder == scratch else 0o755)
        (home / "script.py").write_text(SCRIPT % (NAMES,))
        canaries = {name: [f"canary{secrets.token_hex(12)}"] for name in NAMES}
        canaries["SIGNING_KEY"] = [f"canary{secrets.token_hex(12)}" for _ in range(2)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "WB_", "RAY_"))}
        environment |= {name: "\n".join(values) for name, values in canaries.items()}
        canaries["DATABASE_URL"] = [f"canary{secrets.token_hex(12)}"]
        environment |= {"DATABASE_URL": f"postgres://me:{canaries['DATABASE_URL'][0]}@db.example/x"}
        environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "TMPDIR": str(scratch)}
        environment |= {"WANDB_MODE": "offline", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        (home / ".ray").mkdir(mode=0o755)
        (home / ".ray" / "auth_token").write_text(secrets.token_hex(32))
        (home / ".ray" / "auth_token").chmod(0o644)  # as Ray itself makes it
        with (home / "printed").open("wb") as printed:
            process = subprocess.Popen(
                [sys.executable, "script.py"], cwd=home, env=environment, stdout=printed, stderr=printed, umask=0
            )
        search = Search(home, scratch, process, canaries)
        try:
            wait_for_failures(search)
            yield search
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_failures(search: Search, number: int = 3, timeout_s: float = 120.0) -> None:
    """Wait until some trials have failed and a tracker has written its first file."""
    until = time.monotonic() + timeout_s
    while True:
        failed = list(search.experiment.glob("trials/*/error.txt"))
        if len(failed) >= number and any(path.suffix == ".wandb" for path in files_below(search.experiment)):
            return
        assert search.process.poll() is None and time.monotonic() < until, (search.home / "printed").read_text()
        time.sleep(0.1)


def read_bytes(path: Path) -> bytes:
    """Return a file's bytes; none for one that is gone or is no file."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError:
        return b""


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder that is at work, whose folders may be deleted meanwhile."""
    for at, _, names in os.walk(folder):
        yield from (Path(at, name) for name in names)


def files_with(folder: Path, words: list[str]) -> dict[str, list[str]]:
    """Return the files below a folder that hold one of some words, each with those that it holds."""
    found = {}
    for path in files_below(folder):
        content = read_bytes(path)
        hits = [word for word in words if word.encode() in content or word.encode("utf-16-le") in content]
        if hits:
            found[str(path.relative_to(folder))] = hits
    return found


def as_another_user(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command as the user nobody."""
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    line = [*user, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd="/")
