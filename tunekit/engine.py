"""Ray Tune, set up for one experiment: the only file that builds a Tuner."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import tune
from ray.air._internal import usage as air_usage
from ray.tune import tune as tune_module
from ray.tune.execution.tune_controller import TuneController

from tunekit import gpus, training
from tunekit.asked import Asked
from tunekit.callbacks import NoReport, RayCallback, RayStopper
from tunekit.cluster import ray_session
from tunekit.datasets import publish
from tunekit.forecaster import Forecaster
from tunekit.ledger import Ledger, read_experiment
from tunekit.notebook import in_notebook
from tunekit.pausing import LEAST_PAUSED, most_paused
from tunekit.places import KIND, Places, Portion, any_gpus, request_of
from tunekit.proposer import Proposer
from tunekit.recorder import Recorder
from tunekit.remote import place_of
from tunekit.schedulers import RayScheduler
from tunekit.scratch import clear_left_behind
from tunekit.searchers import RaySearcher
from tunekit.session import check_room, interruptible
from tunekit.trial import TrialSetup
from tunekit.worker import RayTrial

MOST_PENDING = 1000  # trials that Ray Tune lets wait for a place on a cluster: how many there are is for us to say


class PatientController(TuneController):
    """Ray Tune's controller, but a worker that is being started is not given up for one that becomes free.

    Ray's own gives the free worker to the trial that waits for the new one, and ends the new one. Where trials take
    less time than the start of a worker, some seconds, a single worker would do all of them.

    It tells RayCallback of the workers that are being started or given another trial too, of which Ray's own says
    nothing: they may hang as others do.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for callback in options["callbacks"]:
            callback.workers_of_trials = self._workers_of_trials

    def _workers_of_trials(self) -> dict[Any, Any]:
        live = self._actor_manager._live_actors_to_ray_actors_resources
        return {trial: live[worker][0] for trial, worker in self._trial_to_actor.items() if worker in live}

    def _maybe_reuse_cached_actor(self, trial: Any) -> bool:
        worker = self._trial_to_actor.get(trial)
        if worker in self._actor_manager.live_actors and trial not in self._resetting_trials:
            return False
        return super()._maybe_reuse_cached_actor(trial)


@contextmanager
def changed_tune() -> Iterator[None]:
    """Let Ray Tune use a PatientController, for a while, and count no callbacks: it offers no place to say so.

    It counts those of W&B and its like, for usage statistics that we switch off, and imports them all to do so.
    """
    counting = air_usage.tag_callbacks
    tune_module.TuneController = PatientController  # type: ignore[misc]
    air_usage.tag_callbacks = lambda callbacks: False
    try:
        yield
    finally:
        tune_module.TuneController = TuneController  # type: ignore[misc]
        air_usage.tag_callbacks = counting


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
        self.at_once = 0  # trials, as it began

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
        data, source = self.asked.dataset, self.asked.dataset.source
        setup = TrialSetup(
            place_of(self.ledger.folder.resolve()), publish(data) if source or self.address is None else data,
            self.asked.space, self.asked.metric, self.asked.mode, self.asked.max_epochs, self.asked.train,
            self.cpus_per_trial, read_experiment(self.ledger.folder)["arithmetic"], self.asked.registered_backbones,
            source=source,
        )  # fmt: skip
        with ray_session(self.address) as scratch, interruptible(self.recorder):  # Ray sets handlers as it starts
            places = Places(self.cpus_per_trial, self._portion(setup), self.recorder.unfit, self.address is not None)
            self.at_once = min(places(), num_trials)
            going = min(num_trials, self.at_once + min(proposer.most_paused, LEAST_PAUSED))
            room = check_room(self.ledger.folder, self.asked, going, self.recorder.keep_best)
            if proposer.pauses:
                proposer.most_paused = most_paused(self.asked.checkpoint_bytes, room / 2)

            def over() -> None:
                self.recorder.end_paused()
                confirm()

            searcher = RaySearcher(self.ledger, proposer, num_trials, places, over)
            self.recorder.turns = searcher
            most = places() if self.address is None else MOST_PENDING
            os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(most)  # start workers side by side
            tuner = tune.Tuner(
                tune.with_resources(tune.with_parameters(RayTrial, setup=setup), request_of),
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
                    progress_reporter=NoReport() if in_notebook() else None,
                ),
            )
            with changed_tune():
                tuner.fit()
        if proposer.used_up and not self.ledger.unfinished:
            self.recorder.note = f"the space holds no more than {proposer.num_proposed} configs: all were tried"

    def _portion(self, setup: TrialSetup) -> Callable[[str, int], Portion] | Portion:
        """Return what a trial gets of a GPU; where that is to be found out, a function of the kind of GPU."""
        if self.gpus_per_trial != "auto":
            return Portion(float(self.gpus_per_trial))
        if not any_gpus(self.address is not None):
            return Portion(0.0)
        if setup.train is not training.train:
            return Portion(1.0)  # what a loop of one's own needs is not known

        def measured(kind: str, at_most: int) -> Portion:
            try:
                configs, alone = gpus.largest_configs(setup.space), {KIND + kind: 0.001} if kind else {}
                measuring = ray.remote(num_cpus=self.cpus_per_trial, num_gpus=1, max_calls=1, resources=alone)
                what = (configs, setup.dataset, setup.source, setup.choices, setup.backbones)
                asked = measuring(gpus.measure).remote(*what)
                while not ray.wait([asked], timeout=1.0)[0]:  # where GPUs are to come, for as long as that takes
                    if self.recorder.stop_reason():
                        return Portion(1.0)
                need = ray.get(asked)
            except Exception as error:  # out of memory, say: then as many as are safe
                why = f"each trial has a GPU: what it needs could not be measured ({error!r})"
                self.ledger.problems.append(why)
                return Portion(1.0)
            fraction, memory, words = gpus.share(need, at_most)
            self.ledger.problems.append(f"{kind}: {words}" if kind else words)
            return Portion(fraction, memory)

        return measured
