"""Connecting to Ray: our own on this machine, started and stopped with the search, or a cluster that runs already."""

import logging
import os
import secrets
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import ray
import torch
from ray._private import node, ray_constants, services
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.tune.execution import class_cache

from tunekit import memory
from tunekit.errors import ClusterError
from tunekit.safe_text import is_secret
from tunekit.scratch import scratch_folder
from tunekit.trackers import trackers

# What Ray reads from the environment when it is imported or started; set only while we use it.
SETTINGS: dict[str, str | None] = {
    "PL_DISABLE_FORK": "1",  # as Ray Tune has it for its workers
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # SIGTERM ends a search cleanly, which is ours to do
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU sees none
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "60",  # a worker that is to end, and hangs, keeps its place for no longer
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # the ledger is the record: Ray need not keep one
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000000",
}
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
USUAL_TOKEN = Path("~/.ray/auth_token")
REACH_S = 5.0  # for a head to take a connection; Ray itself tries for a minute and a half
ASK_WITHOUT_TOKEN = """
import sys
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5)
"""
# For a Ray of our own.
QUICK = {
    # It looks for the object store that it has begun ten times, a second apart; in one start of nine it looks too soon.
    "RAY_raylet_client_connect_timeout_milliseconds": "20",
    "RAY_raylet_client_num_connect_attempts": "500",
    # What tasks did is for a dashboard, which is not there; to send the last of it takes a quarter of a second.
    "RAY_task_events_report_interval_ms": "0",
}
OBJECT_STORE_BYTES = 100 * 2**20  # data goes through memory maps, not through Ray


@contextmanager
def ray_session(address: str | None, num_cpus: int | None = None) -> Iterator[Path]:
    """Connect to Ray for a while; yield a scratch folder that is gone afterwards.

    Args:
        address: of a running cluster, or "auto", which is joined with its token; None uses the Ray that this process is
            connected to, or else starts one on this machine, on loopback and behind a token, and stops it in the end.
        num_cpus: how many cores a Ray that we start may use; None is all.
    """
    ours = not ray.is_initialized()
    local = ours and address is None
    unneeded = {secret: None for name in trackers for secret in trackers[name].SECRETS}
    with (
        scratch_folder() as scratch,
        _environment({**SETTINGS, memory.TUNABLES: memory.large_pages(), **unneeded}),
        _sent_to_workers(nothing=local),
        _quiet_logs(),
        _token(scratch if local else None) if ours else nullcontext(),
    ):
        try:
            if local:
                _start(num_cpus, scratch)
            elif ours:
                _join(str(address))
            yield scratch
        finally:
            if ours:
                ray.shutdown()


class SmallNode(node.Node):
    """A Ray of one machine without what clusters and dashboards need, which takes three seconds to start and end."""

    def start_monitor(self) -> None:
        """Start no autoscaler."""

    def start_log_monitor(self) -> None:
        """Send no log lines to the driver."""

    def start_api_server(self, **_: Any) -> None:
        """Start no server of the dashboard and of jobs."""
        self._webui_url = ""

    def start_ray_processes(self) -> None:
        """Start the others, and return when they can be asked for: Ray itself then asks but once a second."""
        super().start_ray_processes()
        until = time.monotonic() + REACH_S
        while time.monotonic() < until and not self.get_gcs_client().get_all_node_info():
            time.sleep(0.01)


def _start(num_cpus: int | None, scratch: Path) -> None:
    spread, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    usual, node.Node = node.Node, SmallNode  # type: ignore[misc]
    try:  # where trials share GPUs, few of the workers are needed
        preloaded = None if torch.cuda.is_available() else "tunekit.preload"
        with _environment({"RAY_preload_python_modules": preloaded, **QUICK}):
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
    allowed = {memory.TUNABLES} | {name for name in usual[1] if not is_secret(name)}
    class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = ({}, set()) if nothing else (usual[0], allowed)
    try:
        yield
    finally:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = usual


def _join(address: str) -> None:
    """Connect to a cluster.

    Raises:
        ClusterError: it cannot be reached, refuses our token, or answers to anybody.
    """
    try:
        head = services.canonicalize_bootstrap_address(address)
        if head is not None and "://" not in address:
            socket.create_connection(head.rsplit(":", 1), REACH_S).close()  # type: ignore[arg-type]
        ray.init(address=address, **QUIET)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ClusterError(
            f"no cluster at {address!r} can be joined ({why}): is it up, and has it this token?"
        ) from None
    found = ray.get_runtime_context().gcs_address
    without = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    ask = [sys.executable, "-c", ASK_WITHOUT_TOKEN, found]
    with suppress(subprocess.SubprocessError):  # it ends with an error, or not at all, where it is not answered
        subprocess.run(ask, env=without, capture_output=True, check=True, timeout=60)
        ray.shutdown()
        raise ClusterError(
            f"the cluster at {found} answers without a token, so anybody who reaches it can run code on it: start it "
            "with RAY_AUTH_MODE=token, as `tunekit cluster up` does"
        )


@contextmanager
def _token(scratch: Path | None) -> Iterator[None]:
    """Have Ray answer to a token that is made for this session, and that nobody else can read.

    Args:
        scratch: a folder of this session; None where a cluster is joined, whose token is there already.

    Raises:
        ClusterError: Ray is told to do without; or there is no token to join with.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        raise ClusterError(f"RAY_AUTH_MODE is {mode!r}, which would let anybody run code here: unset it")
    ours: dict[str, str | None] = {"RAY_AUTH_MODE": "token"}
    if scratch is not None:
        path = scratch / "token"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        ours |= {"RAY_AUTH_TOKEN_PATH": str(path), "RAY_AUTH_TOKEN": None}
    elif not any(os.environ.get(name) for name in TOKENS) and not USUAL_TOKEN.expanduser().exists():
        raise ClusterError(
            f"a cluster is joined with its token, which is looked for in {USUAL_TOKEN}, RAY_AUTH_TOKEN_PATH and "
            "RAY_AUTH_TOKEN: copy it from the head node, or run the search there with `tunekit cluster submit`"
        )
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
