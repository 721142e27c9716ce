"""Connecting to Ray: our own on this machine, started and stopped with the search, or a cluster that runs already."""

import logging
import os
import secrets
import shutil
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants

from tunekit import paths
from tunekit.errors import ClusterError, ExperimentError
from tunekit.locks import take_lock
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
SCRATCH = "tunekit-"  # begins the names of our scratch folders
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
    unneeded = {secret: None for name in trackers for secret in trackers[name].SECRETS}
    with _scratch_folder() as scratch, _environment({**SETTINGS, **unneeded}), _quiet_logs():
        try:
            if ours:
                _start(address, num_cpus, scratch)
            yield scratch
        finally:
            if ours:
                ray.shutdown()


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    """Make a folder for a while. Those of processes that were killed, which could not delete theirs, go too."""
    for left in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*/lock"):
        with suppress(OSError, ExperimentError):
            lock = take_lock(left) if left.lstat().st_uid == os.getuid() and not left.is_symlink() else None
            if lock is not None:
                shutil.rmtree(left.parent, ignore_errors=True)
                os.close(lock)
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH))  # 0700, and short enough for Unix sockets below it
    lock = take_lock(scratch / "lock", create=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _start(address: str | None, num_cpus: int | None, scratch: Path) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address is not None:
        ray.init(address=address, **options)
        return
    ensure_token()
    spread, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(scratch / "ray"),
            _node_ip_address="127.0.0.1",  # which Ray takes at its word only where it does not look for other machines
            **options,
        )
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = spread


def ensure_token() -> None:
    """Make the token without which nobody may talk to our Ray, where Ray looks for it, if there is none yet.

    Raises:
        ClusterError: Ray is told to do without a token, or its token is not the user's alone.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        raise ClusterError(f"RAY_AUTH_MODE is {mode!r}, which would let anybody run code here: unset it")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    paths.make_private(path.parent) if not path.parent.exists() else None
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        owner = path.lstat()
        if not stat.S_ISREG(owner.st_mode) or owner.st_uid != os.getuid():
            raise ClusterError(f"Ray's token {path} must be a plain file of your own: delete it") from None
        path.chmod(0o600)  # Ray itself makes it readable by all
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))


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
