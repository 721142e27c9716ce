"""What keeps an experiment's storage as far as its ledger is: a thread beside the search, for which no trial waits."""

import json
import threading
import time
import uuid
from functools import partial
from typing import Any

from tunekit.errors import ExperimentError, StorageError
from tunekit.events import ENDED, Event, Trial, trials_from
from tunekit.kept import KeptCheckpoints
from tunekit.ledger import Ledger
from tunekit.locks import who_am_i
from tunekit.recorder import Recorder
from tunekit.remote import RENEW_S, SESSION, TRIAL, having_checkpoints, openings, read_session, sessions_of
from tunekit.storage import PATIENCE_S, Storage
from tunekit.trial_files import trial_files

LOOK_S = 0.2  # how often the ledger is read for what is new
TOLD = ("proposed", "retry", "ended")  # events that change what is known of a trial beside its checkpoints


class Follower:
    """A thread that reads the ledger and keeps the storage as far as it goes.

    Before each try of each request it looks whether the session is due to be renewed, and whether it is still its own.

    Args:
        recorder: of this session, with its ledger just opened; `fail` is called with the error that ends the thread:
            the storage is gone, or another machine has taken over.
        url: of the experiment.
    """

    def __init__(self, recorder: Recorder, url: str) -> None:
        ledger, self.fail = recorder.ledger, recorder.fail
        self.folder, self.now_s = ledger.folder, lambda: ledger.now_s
        opened = openings(ledger.folder)[-1]
        self.session: dict[str, Any] = {**who_am_i(), "id": opened["session"], "opened": opened, "closed": False}
        self.plain, self.renewed_s = Storage(url), 0.0
        self.told: list[float] | None = None  # number and time of the last event that was told
        self.told = self._renew(sessions_of(ledger.folder))["told"]
        self.storage = Storage(url, fence=self._renew_if_due)
        self.kept = KeptCheckpoints(
            partial(trial_files, url, fence=self._renew_if_due),
            recorder.keep_best, recorder.decisions.metric, recorder.decisions.mode,
        )  # fmt: skip
        self.trials: dict[int, Trial] = {}
        self.heard = 0
        self.error: Exception | None = None
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._follow, name="tunekit-storage", daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Tell the storage all that is left to tell, and that the session is over.

        Raises:
            StorageError, ExperimentError: the thread ended with it.
        """
        self.ending.set()
        self.thread.join()
        if self.error is not None:
            raise self.error

    def _follow(self) -> None:
        try:
            ledger = Ledger(self.folder)
            try:
                self._begin(list(ledger.events()))
                while True:
                    last = self.ending.is_set()  # asked before what is new is read: nothing comes after it
                    for event in ledger.events(after=self.heard):
                        self._hear(event)
                    if last:
                        break
                    self._renew_if_due()
                    self.ending.wait(LOOK_S)
            finally:
                ledger.close()
            self.session["closed"] = True
            self._renew({self.session["id"]})
        except Exception as error:  # this thread's end must end the search, whatever it was
            known = isinstance(error, ExperimentError)
            self.error = error if known else StorageError(f"{self.storage.url} cannot be used: {error!r}")
            self.fail(self.error)

    def _begin(self, events: list[Event]) -> None:
        """Take in what earlier sessions have told the storage, and do what they did not come to."""
        known = self.told and self.told in [[event.number, event.time] for event in events]  # not so after a repair
        told = [event for event in events if known and self.told and event.number <= self.told[0]]
        trials_from(told, self.trials)
        self.heard = len(told)
        self.kept.begin(self.trials.values(), having_checkpoints(self.storage))

    def _hear(self, event: Event) -> None:
        trials_from([event], self.trials)
        if event.trial is not None and event.kind in TOLD:
            self._tell(self.trials[event.trial])
        self.heard, self.told = event.number, [event.number, event.time]

    def _tell(self, trial: Trial) -> None:
        """Write down what a trial is, or what became of it."""
        told: dict[str, Any] = {
            "trial": trial.number, **trial.proposal, "num_retries": trial.num_retries,
            "micro_batches": trial.micro_batches,
        }  # fmt: skip
        if trial.state in ENDED:
            told |= {"history": trial.history, "state": trial.state, "reason": trial.reason, "node": trial.node,
                     "duration_s": trial.duration_s}  # fmt: skip
        self.storage.write(f"trials/{trial.number:04d}/{TRIAL}", json.dumps(told).encode())
        if trial.state in ENDED:
            self.kept.ended(trial)

    def _renew_if_due(self) -> None:
        if time.monotonic() - self.renewed_s > RENEW_S:
            self._renew({self.session["id"]})

    def _renew(self, ours: set[str]) -> dict[str, Any]:
        """Say that this session lives, if the last one was one of ours; return what was said."""
        until = time.monotonic() + PATIENCE_S
        while True:
            now = read_session(self.plain)
            if now is not None and now["id"] not in ours:
                raise ExperimentError(f"{self.plain.url} was taken over by process {now['pid']} on {now['host']}")
            told = self.told or (now and now.get("told"))
            self.session |= {"renewed": uuid.uuid4().hex, "at_s": self.now_s(), "told": told}
            try:  # once: a try that came late could take back what another has taken over meanwhile
                self.plain.write(SESSION, json.dumps(self.session).encode(), once=True)
            except StorageError:
                if time.monotonic() > until:
                    raise
                time.sleep(1)
            else:
                self.renewed_s = time.monotonic()
                return self.session
