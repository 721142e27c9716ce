"""Ray Tune, set up for one experiment: the only file that builds a Tuner."""

import atexit
import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
from ray import tune
from ray.tune import tune as tune_module
from ray.tune.execution.tune_controller import TuneController

from tunekit import gpus, training
from tunekit.asked import Asked
from tunekit.cluster import clear_left_behind, ray_session
from tunekit.datasets import publish
from tunekit.forecaster import MOST_PAUSED, Forecaster
from tunekit.ledger import Ledger, read_experiment
from tunekit.proposer import Proposer
from tunekit.recorder import RayCallback, RayStopper, Recorder
from tunekit.schedulers import RayScheduler
from tunekit.searchers import RaySearcher
from tunekit.session import check_room, interruptible
from tunekit.trial import RayTrial, TrialSetup

atexit.register(gc.freeze)  # Python would look through all of torch and Ray once more as it ends, for over a second


class PatientController(TuneController):
    """Ray Tune's controller, but a worker that is being started is not given up for one that becomes free.

    Ray's own gives the free worker to the trial that waits for the new one, and ends the new one. Where trials take
    less time than the start of a worker, some seconds, a single worker would do all of them.
    """

    def _maybe_reuse_cached_actor(self, trial: Any) -> bool:
        worker = self._trial_to_actor.get(trial)
        if worker in self._actor_manager.live_actors and trial not in self._resetting_trials:
            return False
        return super()._maybe_reuse_cached_actor(trial)


@contextmanager
def patient_workers() -> Iterator[None]:
    """Let Ray Tune use a PatientController, for a while: it offers no place to say so."""
    tune_module.TuneController = PatientController  # type: ignore[misc]
    try:
        yield
    finally:
        tune_module.TuneController = TuneController  # type: ignore[misc]


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

    def search(self, proposer: Proposer | Forecaster, num_trials: int, confirm: Callable[[], None]) -> None:
        """Run every trial that has not ended, propose new ones up to `num_trials`, then confirm.

        Ray is started only if there is something to run.
        """
        clear_left_behind()  # also where there is nothing to run: a search may be killed as it ends
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
            fraction, setup = self._gpus(setup)
            resources = {"cpu": self.cpus_per_trial, "gpu": fraction}
            slots = Slots(resources)
            at_once = min(slots(), num_trials)
            going = min(num_trials, at_once + MOST_PAUSED) if proposer.pauses else at_once
            check_room(self.ledger.folder, self.asked, going, self.recorder.kept.keep_best)

            def over() -> None:
                self.recorder.end_paused()
                confirm()

            searcher = RaySearcher(self.ledger, proposer, num_trials, self.asked.max_epochs, slots, over)
            self.recorder.turns = searcher
            os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(slots())  # start workers side by side
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
            with patient_workers():
                tuner.fit()
        if searcher.used_up and not self.ledger.unfinished:
            self.recorder.note = f"the space holds no more than {proposer.num_proposed} configs: all were tried"

    def _gpus(self, setup: TrialSetup) -> tuple[float, TrialSetup]:
        """Return the GPUs of each trial, and the setup with the memory that each may use of one."""
        have = ray.cluster_resources()
        if self.gpus_per_trial != "auto":
            return float(self.gpus_per_trial), setup
        if have.get("GPU", 0) < 1:
            return 0.0, setup
        if setup.train is not training.train:
            return 1.0, setup  # what a loop of one's own needs is not known
        measuring = ray.remote(num_cpus=self.cpus_per_trial, num_gpus=1, max_calls=1)(gpus.measure)
        try:
            configs = gpus.largest_configs(setup.space)
            need = ray.get(measuring.remote(configs, setup.dataset, setup.choices, setup.backbones))
        except Exception as error:  # out of memory, say: then as many as are safe
            self.ledger.problems.append(f"each trial has a GPU: what it needs could not be measured ({error!r})")
            return 1.0, setup
        at_most = int(have["CPU"] / have["GPU"] / self.cpus_per_trial)
        fraction, memory, words = gpus.share(need, at_most)
        self.ledger.problems.append(words)
        return fraction, replace(setup, gpu_memory=memory)


class Slots:
    """How many trials the cluster can run at once, at least 1: asked again and again, as nodes come and go.

    Args:
        resources: of a trial, "cpu" and "gpu".
    """

    def __init__(self, resources: dict[str, float]) -> None:
        self.need = {"CPU": resources["cpu"], "GPU": resources["gpu"]}
        self.counted, self.due_s = 1, 0.0

    def __call__(self) -> int:
        """Return the number, at most a second old: it is asked at every message, and Ray takes a while to answer."""
        if time.monotonic() >= self.due_s:
            have = ray.cluster_resources()
            self.counted = max(1, min(int(have.get(kind, 0) / n + 1e-9) for kind, n in self.need.items() if n))
            self.due_s = time.monotonic() + 1
        return self.counted
