"""Connecting to Ray: our own on this machine, started and stopped with the search, or a cluster that runs already."""

import logging
import os
import secrets
import shutil
import signal
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import ray
import torch
from ray._private import node, ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.tune.execution import class_cache

from tunekit.errors import ClusterError, ExperimentError
from tunekit.locks import take_lock
from tunekit.safe_text import is_secret
from tunekit.trackers import trackers

# What Ray reads from the environment when it is imported or started; set only while we use it.
SETTINGS: dict[str, str | None] = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # SIGTERM ends a search cleanly, which is ours to do
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU sees none
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # the ledger is the record: Ray need not keep one
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000000",
}
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
SCRATCH = "tunekit-ray-"  # begins the names of our scratch folders
LONGEST_FOLDER = 24  # characters, below which Ray's sockets have names of at most 107
OBJECT_STORE_BYTES = 100 * 2**20  # data goes through memory maps, not through Ray


@contextmanager
def ray_session(address: str | None, num_cpus: int | None = None) -> Iterator[Path]:
    """Connect to Ray for a while; yield a scratch folder that is gone afterwards.

    Args:
        address: of a running cluster, or "auto"; None uses the Ray that this process is connected to, or else starts
            one on this machine, on loopback and behind a token, and stops it in the end.
        num_cpus: how many cores a Ray that we start may use; None is all.
    """
    ours = not ray.is_initialized()
    local = ours and address is None
    unneeded = {secret: None for name in trackers for secret in trackers[name].SECRETS}
    with (
        _scratch_folder() as scratch,
        _environment({**SETTINGS, **unneeded}),
        _sent_to_workers(nothing=local),
        _quiet_logs(),
        _token(scratch) if local else nullcontext(),
    ):
        try:
            if local:
                _start(num_cpus, scratch)
            elif ours:
                ray.init(address=address, **QUIET)
            yield scratch
        finally:
            if ours:
                ray.shutdown()


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    """Make a folder for a while."""
    top = _short_folder()
    made = Path(tempfile.mkdtemp(prefix=f".{SCRATCH}", dir=top))  # 0700
    lock = take_lock(made / "lock", create=True)
    scratch = made.rename(top / made.name[1:])  # with its lock in it, without which nobody takes it for ours
    try:
        yield scratch
    finally:
        _delete(scratch)
        if lock is not None:
            os.close(lock)


def clear_left_behind() -> None:
    """Delete the scratch folders of processes that were killed, which could not do it, and end what runs in them."""
    top = _short_folder()
    for lock_file in (*top.glob(f"{SCRATCH}*/lock"), *top.glob(f".{SCRATCH}*/lock")):
        with suppress(OSError, ExperimentError):
            _clear(lock_file.parent)


def _short_folder() -> Path:
    """Return the folder for temporary files, or another where its name is too long for the sockets below it.

    Raises:
        ClusterError: there is none.
    """
    for folder in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if len(folder) <= LONGEST_FOLDER and os.access(folder, os.W_OK | os.X_OK):
            return Path(folder)
    raise ClusterError(f"Ray needs a temporary folder with a name of at most {LONGEST_FOLDER} characters: set TMPDIR")


def _clear(left: Path) -> None:
    """Delete a scratch folder whose owner is dead, and end what its Ray has left running, which writes there."""
    kinds = ((left, stat.S_ISDIR), (left / "lock", stat.S_ISREG))
    if not all(path.lstat().st_uid == os.getuid() and is_kind(path.lstat().st_mode) for path, is_kind in kinds):
        return
    lock = take_lock(left / "lock")
    if lock is None:
        return
    for pid in _users_of(left):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    _delete(left)
    os.close(lock)


def _delete(scratch: Path) -> None:
    """Delete a scratch folder, its lock last: whoever is killed on the way leaves what the next can clear."""
    for path in scratch.iterdir():
        if path.name != "lock":
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)


def _users_of(folder: Path) -> Iterator[int]:
    """Yield our processes, but this one, that have a file of a folder open (where the system tells)."""
    for files in Path("/proc").glob("[0-9]*/fd"):
        pid = int(files.parent.name)
        with suppress(OSError):
            if pid != os.getpid() and any(os.readlink(file).startswith(f"{folder}/") for file in files.iterdir()):
                yield pid


class SmallNode(node.Node):
    """A Ray of one machine without what clusters and dashboards need, which takes three seconds to start and end."""

    def start_monitor(self) -> None:
        """Start no autoscaler."""

    def start_log_monitor(self) -> None:
        """Send no log lines to the driver."""

    def start_api_server(self, **_: Any) -> None:
        """Start no server of the dashboard and of jobs."""
        self._webui_url = ""


def _start(num_cpus: int | None, scratch: Path) -> None:
    spread, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    usual, node.Node = node.Node, SmallNode  # type: ignore[misc]
    early = None if torch.cuda.is_available() else "tunekit.trial"  # where trials share GPUs, few workers are needed
    try:
        with _environment({"RAY_preload_python_modules": early}):
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(scratch / "ray"),
                _node_ip_address="127.0.0.1",  # taken at its word only where Ray does not look for other machines
                **QUIET,
            )
    finally:
        ray_constants.ENABLE_RAY_CLUSTER, node.Node = spread, usual  # type: ignore[misc]


@contextmanager
def _sent_to_workers(nothing: bool) -> Iterator[None]:
    """Hold back secrets from the runtime_env that Ray Tune gives its workers, which Ray logs; or all of it.

    Workers of this machine have our environment anyway, and those with a runtime_env are not the ones that Ray starts
    in advance.
    """
    usual = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    allowed = {name for name in usual[1] if not is_secret(name)}
    class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = ({}, set()) if nothing else (usual[0], allowed)
    try:
        yield
    finally:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = usual


@contextmanager
def _token(scratch: Path) -> Iterator[None]:
    """Have Ray answer to a token that is made for this session, and that nobody else can read.

    Raises:
        ClusterError: Ray is told to do without.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        raise ClusterError(f"RAY_AUTH_MODE is {mode!r}, which would let anybody run code here: unset it")
    path = scratch / "token"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path), "RAY_AUTH_TOKEN": None}
    try:
        with _environment(ours):
            _read_environment_again()
            yield
    finally:
        _read_environment_again()


def _read_environment_again() -> None:
    """Have Ray forget the mode and the token that this process began with."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _environment(values: dict[str, str | None]) -> Iterator[None]:
    """Set variables for a while, or take away those that are None."""
    before = {name: os.environ.get(name) for name in values}

    def put(wanted: dict[str, str | None]) -> None:
        for name, value in wanted.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    put(values)
    try:
        yield
    finally:
        put(before)


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Keep Ray's own log lines from the terminal: what matters of them comes through the ledger."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"ray\.")
        try:
            yield
        finally:
            logger.setLevel(level)
