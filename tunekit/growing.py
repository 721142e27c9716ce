"""Whether a cluster can grow, and by what: as far as Ray tells of its autoscaler."""

from pathlib import Path
from typing import Any

import ray
from ray._private.state import state

from tunekit.yaml_files import read_yaml

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")


def can_grow(num_nodes: int) -> bool:
    """Return whether an autoscaler may add machines to the cluster, of so many now, that this process is connected to.

    Ray tells where it runs on Kubernetes; `ray up` leaves its configuration on the head node.
    """
    most = state.get_max_resources_from_cluster_config()
    if most:
        return most.get("CPU", 0) > ray.cluster_resources().get("CPU", 0)
    workers = _bootstrap().get("max_workers")
    return isinstance(workers, int) and workers + 1 > num_nodes


def gpus_to_come() -> bool:
    """Return whether the machines that an autoscaler may add have GPUs."""
    kinds = _bootstrap().get("available_node_types") or {}
    return any((kind.get("resources") or {}).get("GPU") and kind.get("max_workers", 1) for kind in kinds.values())


def _bootstrap() -> dict[str, Any]:
    left = BOOTSTRAP.expanduser()
    config = read_yaml(left) if left.is_file() else None
    return config if isinstance(config, dict) else {}
