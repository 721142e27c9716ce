"""What happened goes into the ledger here, before anything else hears of it, and what follows from it is decided."""

import time
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.tune import Callback, Stopper

from tunekit import paths
from tunekit.errors import StorageError
from tunekit.kept import KeptCheckpoints, delete_checkpoints
from tunekit.ledger import Ledger
from tunekit.safe_text import redacted, secrets_of
from tunekit.schedulers import Decisions
from tunekit.scores import is_better

MAX_RETRIES = 3  # of a trial whose worker died, or whose memory ran out
SPLIT = 4  # into how many parts each batch goes after that: 4, 16, 64 with the retries there are
NUM_ALIKE = 3  # trials that fail alike, before any has reached the end of an epoch, end the search


class Turns(Protocol):
    """Who knows whose turn it is: the searcher."""

    def goes_on(self, number: int) -> bool:
        """Return whether a trial that came to the end of an epoch trains the next, or pauses."""

    def given_up(self) -> list[int]:
        """Return the paused trials that are never to go on."""


class Recorder:
    """Takes the messages of all trials, writes them down and says which trials stop. Knows nothing of Ray.

    Args:
        ledger: open for writing.
        decisions: the scheduler's, refilled from the ledger.
        keep_best: how many trials keep the checkpoint of their best epoch, at least 1.
        time_budget_s: seconds the search may run for, over all its sessions; None is no limit.
    """

    def __init__(self, ledger: Ledger, decisions: Decisions, keep_best: int, time_budget_s: float | None) -> None:
        self.ledger, self.decisions, self.time_budget_s = ledger, decisions, time_budget_s
        self.secrets = secrets_of()
        self.kept = KeptCheckpoints(ledger.folder, keep_best, decisions.metric, decisions.mode)
        trials = ledger.trials().values()
        self.any_epoch = any(trial.history for trial in trials)
        for trial in trials:
            if trial.state in ("finished", "stopped"):
                self.kept.consider(trial)
            elif trial.state in ("failed", "diverged"):
                delete_checkpoints(paths.trial_folder(ledger.folder, trial.number))
        self.turns: Turns | None = None  # where trials may pause
        self.interrupted = ""  # why the search ends at the next opportunity
        self.signal = 0  # the number of the signal that said so
        self.note = ""  # what people should know of how the search ended
        self.error: Exception | None = None
        self.failures: list[str] = []

    def record(self, number: int, message: dict[str, Any]) -> bool:
        """Write down one message of a trial; return whether the trial stops here.

        What goes wrong here (a full disk, say) ends the search: it is kept in `error`, as Ray would wrap it up.
        """
        try:
            with paths.writing(self.ledger.folder):
                return self._record(number, message)
        except Exception as error:
            self.error, self.interrupted = error, str(error)
            return True

    def _record(self, number: int, message: dict[str, Any]) -> bool:
        if message["kind"] == "started":
            self.ledger.append("started", {"node": message["node"]}, number)
            return self._settle(number)
        if message["kind"] == "epoch":
            self.any_epoch = True
            if message["epoch"] <= len(self.ledger.unfinished[number].history):
                return False  # trained again, as its checkpoint was lost or damaged; what was written down holds
            self.ledger.append("epoch", message["metrics"], number, message["epoch"])
            return self._settle(number) or self._pauses(number)
        if message["kind"] == "warned":
            self.ledger.append("warned", {"text": redacted(message["text"], self.secrets)}, number)
            return False
        if message["kind"] == "unwritable":
            raise StorageError(message["reason"])
        if message["kind"] == "out_of_memory":
            self._retry(number, message["reason"], message["reason"], message["traceback"], SPLIT)
        else:
            self._end(number, message["state"], message.get("reason", ""), message.get("traceback", ""))
        return True

    def lost(self, number: int, reason: str, out_of_memory: bool = False) -> None:
        """Write down that a trial's worker died: it is tried again, up to MAX_RETRIES times."""
        last = (reason.strip().splitlines() or ["no reason known"])[-1]
        finally_ = f"its worker died {MAX_RETRIES + 1} times, at last: {last}"
        self._retry(number, last, finally_, reason, SPLIT if out_of_memory else 1)

    def _retry(self, number: int, reason: str, last_reason: str, traceback: str, split: int) -> None:
        """Try a trial again, its batches split into so many times more parts, unless it had its retries."""
        trial = self.ledger.unfinished[number]
        if trial.num_retries >= MAX_RETRIES:
            self._end(number, "failed", last_reason, traceback)
            return
        data = {"reason": redacted(reason, self.secrets), "counts": True, "micro_batches": trial.micro_batches * split}
        self.ledger.append("retry", data, number)

    def stop_reason(self) -> str:
        """Return why the search ends now, or nothing."""
        if self.time_budget_s is not None and self.ledger.now_s >= self.time_budget_s:
            return f"the time budget of {self.time_budget_s:g} s is used up"
        return self.interrupted

    def _settle(self, number: int) -> bool:
        """End a trial whose newest value says so. Asked at each epoch, and again when a trial goes on after a crash."""
        trial = self.ledger.unfinished[number]
        if not trial.history:
            return False
        epoch, value = len(trial.history), trial.history[-1][self.decisions.metric]
        if not is_better(value, None, "max"):
            self._end(number, "diverged", f"{self.decisions.metric} was {value} at epoch {epoch}")
            return True
        if trial.role == "search" and self.decisions.decide(number, epoch, value):
            self._end(number, "stopped", f"by the scheduler, at epoch {epoch}")
            return True
        return False

    def _pauses(self, number: int) -> bool:
        """Pause a trial whose turn is over; return whether it is."""
        if self.turns is None or self.ledger.unfinished[number].role != "search" or self.turns.goes_on(number):
            return False
        self.ledger.append("paused", {}, number)
        for other in self.turns.given_up():
            self._end(other, "stopped", "others promised more")
        return True

    def end_paused(self) -> None:
        """Stop the trials whose turn does not come again."""
        for number, trial in list(self.ledger.unfinished.items()):
            if trial.role == "search":
                self._end(number, "stopped", "others promised more")

    def _end(self, number: int, state: str, reason: str = "", traceback: str = "") -> None:
        trial = self.ledger.unfinished[number]
        reason, traceback = redacted(reason, self.secrets), redacted(traceback, self.secrets)
        folder = paths.trial_folder(self.ledger.folder, number)
        if state in ("failed", "diverged"):
            paths.write_text(paths.error_txt(paths.make_private(folder)), f"{reason}\n\n{traceback}".strip() + "\n")
        self.ledger.append("ended", {"state": state, "reason": reason, "num_epochs": len(trial.history)}, number)
        if state in ("finished", "stopped"):
            self.kept.consider(trial)
        else:
            delete_checkpoints(folder)
        if state == "failed" and not self.any_epoch:
            self.failures.append(reason)
            if len(self.failures) >= NUM_ALIKE and len(set(self.failures)) == 1:
                self.interrupted = f"the first {NUM_ALIKE} trials failed alike: {reason}"


class RayCallback(Callback):
    """Ray Tune's callback: hears of workers that died, and ends those that hang.

    Args:
        recorder: what is told.
        trial_timeout_s: a worker that gives no message for so long is killed; None is never.
    """

    def __init__(self, recorder: Recorder, trial_timeout_s: float | None) -> None:
        self.recorder, self.trial_timeout_s = recorder, trial_timeout_s
        self.last_sign: dict[Any, float] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker begins with a trial."""
        self.last_sign[trial] = time.monotonic()

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """A worker gave a message, which the scheduler has heard already."""
        self.last_sign[trial] = time.monotonic()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker is done with a trial."""
        self.last_sign.pop(trial, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker died: what a training loop raises comes as a message instead."""
        self.last_sign.pop(trial, None)
        if trial.config["trial"] in self.recorder.ledger.unfinished:
            text = Path(trial.error_file).read_text() if trial.error_file else "no reason known"
            self.recorder.lost(trial.config["trial"], text.strip(), out_of_memory="OutOfMemoryError" in text)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Kill the workers that are overdue; Ray then tells that they died."""
        for trial, since in self.last_sign.items() if self.trial_timeout_s else ():
            if time.monotonic() - since > (self.trial_timeout_s or 0) and trial.temporary_state.ray_actor is not None:
                ray.kill(trial.temporary_state.ray_actor)
                self.last_sign[trial] = time.monotonic()

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
