"""Cluster files, as `ray up` takes them: read as plain data and checked, offline, before anything is started."""

import contextlib
import copy
import io
import logging
from pathlib import Path
from typing import Any

from ray.autoscaler._private.util import prepare_config, validate_config

from tunekit.cluster_rules import OPENNESS, Cluster, Problem
from tunekit.cluster_upkeep import UPKEEP
from tunekit.errors import ClusterError, SpaceError
from tunekit.yaml_files import read_yaml


def read_cluster(path: Path) -> dict[str, Any]:
    """Return what a cluster file says.

    Args:
        path: a YAML file of plain data.

    Raises:
        ClusterError: it cannot be read, or does not say what machines it is about.
    """
    try:
        written = read_yaml(path)
    except SpaceError as error:
        raise ClusterError(str(error)) from None
    if not isinstance(written, dict) or not isinstance(written.get("provider"), dict):
        raise ClusterError(f"{path} is no cluster file: it has no `provider`; cluster.yaml is an example")
    return written


def check_cluster(path: Path) -> list[Problem]:
    """Return everything that is wrong with a cluster file: by Ray's schema, and by our rules.

    Nothing is contacted: whether a security group lets in more than SSH, say, cannot be seen from here.

    Raises:
        ClusterError: as `read_cluster`.
    """
    written = read_cluster(path)
    config, problems = _prepared(written)
    cluster = Cluster(written, config, path.resolve().parent)
    return problems + [problem for rule in (*OPENNESS, *UPKEEP) for problem in rule(cluster)]


def _prepared(written: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Return a file with Ray's defaults, and what is wrong by Ray's schema; as it is, where Ray cannot read it."""
    said = io.StringIO()  # Ray prints some of what it finds
    config, logger = written, logging.getLogger("ray.autoscaler")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            config = prepare_config(copy.deepcopy(written))
            validate_config(config)
    except Exception as error:  # of three libraries, and whatever Ray trips over: all of it is the file's fault
        where = ".".join(str(key) for key in getattr(error, "absolute_path", ()))
        text = getattr(error, "message", "") or str(error) or said.getvalue()
        return config, [
            Problem("schema", f"{where}: {text}" if where else text, "see Ray's reference of cluster files")
        ]
    finally:
        logger.setLevel(level)
    return config, []
