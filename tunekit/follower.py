"""What keeps an experiment's storage as far as its ledger is: a thread beside the search, for which no trial waits."""

import json
import threading
from functools import partial
from typing import Any

from tunekit.claims import Claim
from tunekit.errors import ExperimentError, StorageError
from tunekit.events import ENDED, Event, Trial, trials_from
from tunekit.kept import KeptCheckpoints
from tunekit.ledger import Ledger
from tunekit.locks import who_am_i
from tunekit.recorder import Recorder
from tunekit.remote import TRIAL, openings, sessions_of
from tunekit.storage import Storage
from tunekit.trial_files import having_checkpoints, trial_files

LOOK_S = 0.2  # how often the ledger is read for what is new
TOLD = ("proposed", "retry", "ended")  # events that change what is known of a trial beside its checkpoints


class Follower:
    """A thread that reads the ledger and keeps the storage as far as it goes.

    Before each try of each request it looks whether the session is still its own.

    Args:
        recorder: of this session, with its ledger just opened; `fail` is called with the error that ends the thread:
            the storage is gone, or another machine has taken over.
        url: of the experiment.
    """

    def __init__(self, recorder: Recorder, url: str) -> None:
        ledger, self.fail = recorder.ledger, recorder.fail
        self.folder, self.now_s = ledger.folder, lambda: ledger.now_s
        opened = openings(ledger.folder)[-1]
        session = {**who_am_i(), "id": opened["session"], "opened": opened, "closed": False}
        self.told: list[float] | None = None  # number and time of the last event that was told
        self.claim = Claim(Storage(url), session, sessions_of(ledger.folder), self._now_known)
        self.told = self.claim.session.get("told")
        self.storage = Storage(url, fence=self.claim.look)
        self.kept = KeptCheckpoints(
            partial(trial_files, url, fence=self.claim.look),
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
                    self.claim.renew_if_due()
                    self.ending.wait(LOOK_S)
            finally:
                ledger.close()
            self.claim.renew(closed=True)
        except Exception as error:  # this thread's end must end the search, whatever it was
            known = isinstance(error, ExperimentError)
            self.error = error if known else StorageError(f"{self.storage.url} cannot be used: {error!r}")
            self.fail(self.error)

    def _begin(self, events: list[Event]) -> None:
        """Tell what earlier sessions did not come to tell: of each trial, what became of it since."""
        known = self.told is not None and self.told in [[event.number, event.time] for event in events]
        last = int(self.told[0]) if known and self.told else 0  # it is not known after a repair
        trials_from(events, self.trials)
        for number in sorted({e.trial for e in events if e.number > last and e.trial is not None and e.kind in TOLD}):
            self._write(self.trials[number])
        self.kept.begin(self.trials.values(), having_checkpoints(self.storage.url))
        self._heard(events[-1])

    def _hear(self, event: Event) -> None:
        trials_from([event], self.trials)
        if event.trial is not None and event.kind in TOLD:
            trial = self.trials[event.trial]
            self._write(trial)
            if trial.state in ENDED:
                self.kept.ended(trial)
        self._heard(event)

    def _heard(self, event: Event) -> None:
        self.heard, self.told = event.number, [event.number, event.time]

    def _write(self, trial: Trial) -> None:
        """Write down what a trial is, or what became of it."""
        told: dict[str, Any] = {
            "trial": trial.number, **trial.proposal, "num_retries": trial.num_retries,
            "micro_batches": trial.micro_batches,
        }  # fmt: skip
        if trial.state in ENDED:
            told |= {"history": trial.history, "state": trial.state, "reason": trial.reason, "node": trial.node,
                     "duration_s": trial.duration_s}  # fmt: skip
        self.storage.write(f"trials/{trial.number:04d}/{TRIAL}", json.dumps(told).encode())

    def _now_known(self) -> dict[str, Any]:
        return {"at_s": self.now_s(), **({} if self.told is None else {"told": self.told})}
