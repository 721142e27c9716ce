"""Ray Tune, set up for one experiment: the only file that builds a Tuner."""

import os
from collections.abc import Callable

import ray
from ray import tune

from tunekit.asked import Asked
from tunekit.cluster import ray_session
from tunekit.datasets import publish
from tunekit.ledger import Ledger, read_experiment
from tunekit.proposer import Proposer
from tunekit.recorder import RayCallback, RayStopper, Recorder
from tunekit.schedulers import RayScheduler
from tunekit.searchers import RaySearcher
from tunekit.session import check_room, interruptible
from tunekit.trial import RayTrial, TrialSetup


class Engine:
    """Ray Tune, set up for one experiment."""

    def __init__(
        self,
        asked: Asked,
        ledger: Ledger,
        recorder: Recorder,
        cpus_per_trial: int,
        gpus_per_trial: float | str,
        trial_timeout_s: float | None,
        address: str | None,
    ) -> None:
        self.asked, self.ledger, self.recorder = asked, ledger, recorder
        self.cpus_per_trial, self.gpus_per_trial = cpus_per_trial, gpus_per_trial
        self.trial_timeout_s, self.address = trial_timeout_s, address

    def search(self, proposer: Proposer, num_trials: int, confirm: Callable[[], None]) -> None:
        """Run every trial that has not ended, propose new ones up to `num_trials`, then confirm.

        Ray is started only if there is something to run.
        """
        if self.recorder.stop_reason():
            return
        if sum(trial.role == "search" for trial in self.ledger.trials().values()) >= num_trials:
            if not self.ledger.unfinished:
                confirm()
            if not self.ledger.unfinished:
                return
        setup = TrialSetup(
            self.ledger.folder.resolve(), publish(self.asked.dataset), self.asked.space, self.asked.metric,
            self.asked.mode, self.asked.max_epochs, self.asked.train, self.cpus_per_trial,
            read_experiment(self.ledger.folder)["arithmetic"], self.asked.registered_backbones,
        )  # fmt: skip
        with ray_session(self.address) as scratch, interruptible(self.recorder):  # Ray sets handlers as it starts
            resources = {"cpu": self.cpus_per_trial, "gpu": self._gpus()}
            at_once = min(num_slots(resources), num_trials)
            check_room(self.ledger.folder, self.asked, at_once, self.recorder.kept.keep_best)
            searcher = RaySearcher(self.ledger, proposer, num_trials, lambda: num_slots(resources), confirm)
            os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(1, num_slots(resources)))  # start workers side by side
            tuner = tune.Tuner(
                tune.with_resources(tune.with_parameters(RayTrial, setup=setup), resources),
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=RayScheduler(self.recorder.record),
                    num_samples=-1,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name="tunekit",
                    storage_path=str(scratch),
                    callbacks=[RayCallback(self.recorder, self.trial_timeout_s)],
                    stop=RayStopper(self.recorder),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # our checkpoints are our own
                    verbose=0,
                ),
            )
            tuner.fit()
        if searcher.used_up and not self.ledger.unfinished:
            self.recorder.note = f"the space holds no more than {proposer.num_proposed} configs: all were tried"

    def _gpus(self) -> float:
        if self.gpus_per_trial == "auto":
            return 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
        return float(self.gpus_per_trial)


def num_slots(resources: dict[str, float]) -> int:
    """Return how many trials the cluster can run at once, at least 1."""
    have = ray.cluster_resources()
    need = {"CPU": resources["cpu"], "GPU": resources["gpu"]}
    return max(1, min(int(have.get(kind, 0) / amount + 1e-9) for kind, amount in need.items() if amount))
