"""What keeps an experiment's storage as far as its ledger is: a thread beside the search, for which no trial waits."""

import json
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from tunekit.errors import ExperimentError, StorageError
from tunekit.events import ENDED, Trial, trials_from
from tunekit.kept import KeptCheckpoints
from tunekit.ledger import Ledger
from tunekit.locks import who_am_i
from tunekit.remote import SESSION, TRIAL, openings, read_session
from tunekit.storage import Storage

RENEW_S = 5.0  # how often a session says that it lives
LOOK_S = 0.2  # how often the ledger is read for what is new


class Follower:
    """A thread that reads the ledger and keeps the storage as far as it goes.

    Args:
        ledger: of this machine, just opened, with this session in it.
        url: of the experiment.
        kept: which trials keep their checkpoints; the others' are deleted once the storage knows how they ended.
        failed: called with the error that ends the thread: the storage is gone, or another machine has taken over.
    """

    def __init__(self, ledger: Ledger, url: str, kept: KeptCheckpoints, failed: Callable[[Exception], None]) -> None:
        self.folder, self.storage, self.kept, self.failed = ledger.folder, Storage(url), kept, failed
        opened = openings(ledger.folder)[-1]
        self.session: dict[str, Any] = {**who_am_i(), "id": opened["session"], "opened": opened, "closed": False}
        self.now_s = lambda: ledger.now_s
        self.trials: dict[int, Trial] = {}
        self.heard, self.renewed_s = 0, 0.0
        self.error: Exception | None = None
        self.ending = threading.Event()
        self._renew(first=True)
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
                before = list(ledger.events())  # of earlier sessions: only what became of each trial is told
                trials_from(before, self.trials)
                self.heard = len(before)
                for trial in self.trials.values():
                    self._tell(trial)
                while True:
                    last = self.ending.is_set()  # asked before what is new is read: nothing comes after it
                    for event in ledger.events(after=self.heard):
                        self.heard = event.number
                        trials_from([event], self.trials)
                        if event.trial is not None and event.kind in ("proposed", "ended"):
                            self._tell(self.trials[event.trial])
                    if last:
                        break
                    self._renew_if_due()
                    self.ending.wait(LOOK_S)
            finally:
                ledger.close()
            self.session["closed"] = True
            self._renew()
        except Exception as error:  # this thread's end must end the search, whatever it was
            known = isinstance(error, ExperimentError)
            self.error = error if known else StorageError(f"{self.storage.url} cannot be used: {error!r}")
            self.failed(self.error)

    def _renew(self, first: bool = False) -> None:
        """Say that this session lives, unless another has begun."""
        now = None if first else read_session(self.storage)
        if now is not None and now["id"] != self.session["id"]:
            raise ExperimentError(f"{self.storage.url} was taken over by process {now['pid']} on {now['host']}")
        self.session |= {"renewed": uuid.uuid4().hex, "at_s": self.now_s()}
        self.storage.write(SESSION, json.dumps(self.session).encode())
        self.renewed_s = time.monotonic()

    def _renew_if_due(self) -> None:
        if time.monotonic() - self.renewed_s > RENEW_S:
            self._renew()

    def _tell(self, trial: Trial) -> None:
        """Write down what a trial is, or what became of it; whether another session has begun is looked at first."""
        self._renew_if_due()
        name = f"trials/{trial.number:04d}/{TRIAL}"
        told: dict[str, Any] = {"trial": trial.number, **trial.proposal}
        if trial.state in ENDED:
            told |= {"history": trial.history, "state": trial.state, "reason": trial.reason, "node": trial.node}
        if self.storage.read(name) != (text := json.dumps(told).encode()):
            self.storage.write(name, text)
        if trial.state in ENDED:
            self.kept.ended(trial)
