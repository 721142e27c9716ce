"""Where trials run: how many at once, on which machines, and what of one each gets."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import ray
from ray import tune
from ray.util.placement_group import NODE_ID_LABEL_KEY as NODE_ID

from tunekit.errors import ClusterError
from tunekit.growing import can_grow, gpus_to_come

EVERY_S = 1.0  # the machines are looked at; Ray takes a while to answer
KIND = "accelerator_type:"  # begins the name of what Ray has one of on each machine with GPUs of a kind
MOST_UNFIT = 3  # machines that lack what trials need, one after the other: the next would too
MOST_ON_A_GPU = 32  # trials, where it is not known yet how many cores come with one
ANY = ""  # the kind where all machines are alike to a trial


class Portion(NamedTuple):
    """What a trial gets of a machine's GPUs: how many, and the share of one's memory that torch may use, 0..1."""

    gpus: float
    memory: float | None = None


class Places:
    """How many trials the cluster can run at once, asked again and again, as machines come and go.

    Args:
        cpus: of a trial.
        portion: what a trial gets of a GPU of a kind, which may be found out by measuring, once for each kind; or for
            all machines the same.
        unfit: the nodes that can run no trial, by id, and why not.
        may_grow: whether machines may be added when trials wait for them.
    """

    def __init__(
        self, cpus: int, portion: Callable[[str, int], Portion] | Portion, unfit: dict[str, str], may_grow: bool
    ) -> None:
        self.cpus, self.portion, self.unfit, self.may_grow = cpus, portion, unfit, may_grow
        self.portions: dict[str, Portion] = {}
        self.counted: Counter[str] = Counter()
        self.due_s = 0.0

    def __call__(self) -> int:
        """Return how many, as of a second ago at most; at least 1, as a machine may be on its way.

        Raises:
            ClusterError: no machine there is can run trials.
        """
        if time.monotonic() >= self.due_s:
            self._look()
            self.due_s = time.monotonic() + EVERY_S
        return max(1, self.counted.total())

    def take(self, taken: Iterable[str]) -> tuple[str, dict[str, Any]]:
        """Return the kind of machine that has most room beside those taken, and what Ray is to be asked for on it."""
        free = self.counted - Counter(taken) or self.counted
        kind = max(free, key=lambda name: free[name], default=next(iter(self.portions), ANY))
        gpus, memory = self.portions.get(kind, self.portion if isinstance(self.portion, Portion) else Portion(1.0))
        bundle = {"CPU": self.cpus, "GPU": gpus, **({KIND + kind: 0.001} if kind else {})}
        return kind, {"bundle": bundle, "without": sorted(self.unfit), "gpu_memory": memory}

    def _look(self) -> None:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        grows = self.may_grow and can_grow(len(nodes))
        fit = [node["Resources"] for node in nodes if node["NodeID"] not in self.unfit]
        self._measure_the_first(fit)
        self.counted = Counter()
        for have in fit:
            kind = self._kind(have)
            if kind is not None:
                self.counted[kind] += self._number_on(have, self.portions[kind].gpus)
        if self.unfit and not self.counted.total() and (not grows or len(self.unfit) >= MOST_UNFIT):
            raise ClusterError(f"no machine can run trials: {'; '.join(self.unfit.values())}")
        if grows:
            for kind in self.counted:
                self.counted[kind] *= 2  # trials that wait for a machine are what makes an autoscaler start one

    def _measure_the_first(self, fit: list[dict[str, float]]) -> None:
        """Where there are no GPUs yet, wait until the first one comes, for which the measuring itself asks."""
        there = any(have.get("GPU", 0) >= 1 for have in fit)
        if isinstance(self.portion, Portion) or self.portions or there:
            return
        first = self.portion(ANY, MOST_ON_A_GPU)
        fit[:] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        for have in fit:
            if have.get("GPU", 0) >= 1:
                self.portions.setdefault(_kind_of(have), first)

    def _kind(self, have: dict[str, float]) -> str | None:
        """Return the kind of a machine, None if it is of none that trials use; what they get there is known then."""
        if isinstance(self.portion, Portion):
            self.portions[ANY] = self.portion
            return ANY
        if have.get("GPU", 0) < 1:
            return None
        kind = _kind_of(have)
        if kind not in self.portions:
            self.portions[kind] = self.portion(kind, int(have.get("CPU", 0) / have["GPU"] / self.cpus))
        return kind

    def _number_on(self, have: dict[str, float], gpus: float) -> int:
        number = have.get("CPU", 0) / self.cpus
        if gpus:  # a share of a GPU is of one of them
            number = min(number, have.get("GPU", 0) // gpus if gpus >= 1 else int(1 / gpus + 1e-9) * have.get("GPU", 0))
        return int(number + 1e-9)


def _kind_of(have: dict[str, float]) -> str:
    return next((name.removeprefix(KIND) for name in have if name.startswith(KIND)), ANY)


def any_gpus(on_cluster: bool) -> bool:
    """Return whether the machines have GPUs, or those have that can be added."""
    return ray.cluster_resources().get("GPU", 0) >= 1 or (on_cluster and gpus_to_come())


def request_of(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """Return what Ray is to give a trial, from what `Places.take` returned."""
    without = config["without"]
    where: Any = {"bundle_label_selector": [{NODE_ID: f"!in({','.join(without)})"}]} if without else {}
    return tune.PlacementGroupFactory([config["bundle"]], **where)
