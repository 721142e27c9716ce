"""A search that another process runs, read without a trace: from copies of its ledger, or from what its storage knows.

SQLite writes beside a file that it reads, and into it where its writer died: so the file is copied, and the copy read.
"""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tunekit import paths
from tunekit.claims import RENEW_S, SILENT_S, read_session
from tunekit.errors import ExperimentError
from tunekit.events import Event
from tunekit.ledger import Ledger, read_experiment
from tunekit.live import ViewState
from tunekit.locks import take_lock
from tunekit.remote import on_this_machine, sessions_of
from tunekit.storage import Storage

EVERY_S = 0.5
SHARE = 0.1  # of the time, at most, goes into looking
NUM_TRIES = 10  # of reading a copy: what is copied while it is written may be of no use


class Watched:
    """A search that another process may be running.

    Args:
        place: the experiment's folder or URL.
        copy: an empty folder, for copies of its ledger.

    Raises:
        ExperimentError: it is no experiment.
    """

    def __init__(self, place: Path | str, copy: Path) -> None:
        self.place, self.copy = place, copy
        self.folder = on_this_machine(place)
        # What is known of a search on another machine is a ledger made anew each time, and numbered anew.
        whole = isinstance(place, Path) or self._is_going_here() or self._was_had_here(place)
        self.state = ViewState(read_experiment(self.folder)["asked"], whole)
        self.heard: set[tuple[Any, ...]] = set()
        self.renewed, self.renewed_at = "", time.monotonic()
        self.took_s = 0.0

    def look(self) -> list[str]:
        """Take in what happened since the last look, and whether the search is over; return it in lines."""
        began = time.monotonic()
        going = self._is_going_here() or (not self.state.whole and self._is_going_elsewhere(str(self.place)))
        events = self._read(patient=going)  # after it was asked whether it goes on: nothing comes after its end
        if not self.state.whole:
            events = [event for event in events if (event.kind, event.trial, event.epoch) not in self.heard]
            self.heard.update((event.kind, event.trial, event.epoch) for event in events)
        lines = self.state.hear(events)
        self.state.over = not going
        self.took_s = time.monotonic() - began
        return lines

    def wait(self) -> None:
        """Wait for the next look."""
        time.sleep(max(EVERY_S if self.state.whole else RENEW_S, self.took_s * (1 / SHARE - 1)))

    def was_closed(self) -> bool:
        """Return whether the last session said that it ended, whatever of the search was left to do."""
        if self.state.whole:
            return self.state.last is not None and self.state.last.kind == "closed"
        session = read_session(Storage(str(self.place)))
        return session is not None and bool(session["closed"])

    def _is_going_here(self) -> bool:
        """Return whether a process has the experiment's lock on this machine, or in a folder that machines share."""
        lock = take_lock(paths.experiment_json(self.folder))
        if lock is not None:
            os.close(lock)
        return lock is None

    def _was_had_here(self, url: str) -> bool:
        session = read_session(Storage(url))
        return session is not None and session["id"] in sessions_of(self.folder)

    def _is_going_elsewhere(self, url: str) -> bool:
        """Return whether something new was heard of another machine; what it told is in the ledger then."""
        session = read_session(Storage(url))
        on_this_machine(url)
        if session is not None and session["renewed"] != self.renewed:
            self.renewed, self.renewed_at = session["renewed"], time.monotonic()
            self.state.hear_time(session["at_s"])
        return session is not None and not session["closed"] and time.monotonic() - self.renewed_at < SILENT_S

    def _read(self, patient: bool) -> list[Event]:
        for left in reversed(range(NUM_TRIES)):
            try:
                self._copy_ledger()
                ledger = Ledger(self.copy)
                try:
                    last = self.state.last if self.state.whole else None
                    return list(ledger.events(after=last.number if last else 0))
                finally:
                    ledger.close()
            except (ExperimentError, OSError) as error:
                if not left or not patient:
                    raise ExperimentError(str(error).replace(str(self.copy), str(self.place))) from None
                time.sleep(EVERY_S)
        return []

    def _copy_ledger(self) -> None:
        """Copy the ledger's file and SQLite's log of it, between two moments at which the log is brought into it."""
        source, copy = paths.ledger_db(self.folder), paths.ledger_db(self.copy)
        for _ in range(NUM_TRIES):
            before = source.stat() if source.exists() else None
            for part in ("", "-wal", "-shm"):
                Path(f"{copy}{part}").unlink(missing_ok=True)
            for part in ("", "-wal"):
                with suppress(FileNotFoundError):
                    shutil.copyfile(f"{source}{part}", f"{copy}{part}")
            if before is None or before.st_mtime_ns == source.stat().st_mtime_ns:
                return
