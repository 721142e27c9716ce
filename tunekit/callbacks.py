"""What Ray Tune calls as trials run: hears of workers and machines that died, and ends those that hang."""

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import ray
from ray.tune import Callback, ProgressReporter, Stopper

from tunekit.recorder import Recorder

# Ray's words where a machine was lost before the trial had begun there, or did not answer for a moment
OF_THE_MACHINE = ("actor never ran", "temporarily unavailable")
ANSWER_S = 2.0  # for a machine, to say that it is there
HOLDS_S = 10.0  # for how long its answer holds: many trials may be lost with it
LONG_STEP_S = 5.0  # of Ray Tune's loop
START_S = 120.0  # at least, for a worker to start: it imports torch, from a disk of the network perhaps


class RayCallback(Callback):
    """Ray Tune's callback: hears of workers that died, and ends those that hang.

    Args:
        recorder: what is told.
        trial_timeout_s: a worker that gives no message for so long is killed, one that is being started after START_S
            at the soonest; None is never.
    """

    workers_of_trials: Callable[[], dict[Any, Any]]  # Ray's handle of the worker that each trial has; see engine

    def __init__(self, recorder: Recorder, trial_timeout_s: float | None) -> None:
        self.recorder, self.trial_timeout_s = recorder, trial_timeout_s
        self.last_sign: dict[Any, float] = {}  # when each trial that has a worker got it, or gave a message
        self.hung: dict[Any, str] = {}  # why each of these trials had its worker killed
        self.workers: WeakKeyDictionary[Any, dict[str, str]] = WeakKeyDictionary()  # where each process runs
        self.last_step_s = time.monotonic()
        self.asked: dict[str, tuple[float, bool]] = {}  # when each machine was asked whether it is there

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker begins with a trial; one that has run others need not be asked where it is."""
        if (where := self.workers.get(trial.temporary_state.ray_actor)) is not None:
            self.recorder.record(trial.config["trial"], {"kind": "started", **where})

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """A worker gave a message, which the scheduler has heard already; its first says where it is."""
        if trial in self.last_sign:
            self.last_sign[trial] = time.monotonic()
        worker = trial.temporary_state.ray_actor
        if worker is not None and worker not in self.workers:
            message = json.loads(result["message"])
            if message["kind"] == "started":
                self.workers[worker] = {"node": message["node"], "node_id": message["node_id"]}

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker died: what a training loop raises comes as a message instead."""
        if trial.config["trial"] in self.recorder.ledger.unfinished:
            text = Path(trial.error_file).read_text() if trial.error_file else "no reason known"
            text = self.hung.pop(trial, text)
            node_id = self.recorder.node_ids.pop(trial.config["trial"], "")
            self.recorder.lost(trial.config["trial"], text.strip(), "OutOfMemoryError" in text,
                               any(words in text for words in OF_THE_MACHINE) or self._is_gone(node_id))  # fmt: skip

    def _is_gone(self, node_id: str) -> bool:
        """Return whether a machine is lost: Ray itself takes half a minute to know of one that does not answer."""
        node = next((node for node in ray.nodes() if node["NodeID"] == node_id), None)
        if node is None or not node["Alive"]:
            return node is not None
        asked_s, answer = self.asked.get(node_id, (0.0, False))
        if time.monotonic() - asked_s > HOLDS_S:
            try:
                place = (node["NodeManagerAddress"], node["NodeManagerPort"])
                socket.create_connection(place, timeout=ANSWER_S).close()
                answer = False
            except OSError:
                answer = True
            self.asked[node_id] = time.monotonic(), answer
        return answer

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Kill the workers that are overdue; Ray then tells that they died."""
        if self.trial_timeout_s is None:
            return
        now = time.monotonic()
        gap_s, self.last_step_s = now - self.last_step_s, now
        waited_s = gap_s if gap_s > LONG_STEP_S else 0.0  # nobody was listened to meanwhile
        workers = self.workers_of_trials()
        self.last_sign = {trial: self.last_sign.get(trial, now - waited_s) + waited_s for trial in workers}
        for trial, worker in workers.items():
            most_s = self.trial_timeout_s if worker in self.workers else max(self.trial_timeout_s, START_S)
            if now - self.last_sign[trial] > most_s:
                self.last_sign[trial] = now
                self.hung[trial] = f"its worker gave no sign of life for {most_s:g} s and was killed"
                where = self.workers.get(worker, {"node_id": ""})  # it may not have begun with this trial
                self.recorder.node_ids.setdefault(trial.config["trial"], where["node_id"])
                ray.kill(worker)

    def __getstate__(self) -> dict[str, Any]:
        """Leave nothing for Ray to save."""
        return {}


class RayStopper(Stopper):
    """Ray Tune's stopper: ends the search when the recorder says so."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never: the scheduler stops single trials."""
        return False

    def stop_all(self) -> bool:
        """Return whether the search ends now."""
        return bool(self.recorder.stop_reason())

    def __getstate__(self) -> dict[str, Any]:
        """Leave nothing for Ray to save."""
        return {}


class NoReport(ProgressReporter):
    """What Ray Tune reports: nothing. Its own reporter clears a notebook's cell, however quiet it is asked to be."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        """Asked after each message."""
        return False
