"""Whose session an experiment in a storage has: one at a time, over all machines.

Who has it writes session.json, every few seconds anew, and looks before its requests whether it is still their own, at
most a second before each. Who wants to go on after them waits until nothing was heard for a while, writes down that the
next is their own, and waits until no request of the other can be on its way any more; only then it reads what is there.
"""

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from tunekit.errors import ExperimentError, StorageError
from tunekit.locks import who_am_i
from tunekit.storage import LONGEST_READ_S, LONGEST_TRY_S, PATIENCE_S, Storage

SESSION = "session.json"
RENEW_S = 5.0  # how often a session says that it lives
LOOK_HOLDS_S = 1.0  # before the next request looks again
# A session of which nothing was heard for so long is over: a request may last, and then the look and the renewal.
SILENT_S = RENEW_S + LONGEST_TRY_S + LONGEST_READ_S + LONGEST_TRY_S
RACE_S = RENEW_S + 1.0  # in which two machines that begin at once see each other


class Claim:
    """A session that is written down in an experiment's storage, as this process's.

    Args:
        storage: the experiment's.
        session: id, pid, host, opened, closed, and whatever else is known of it.
        follows: the ids of those that it may come after, if there was any.
        now_known: what of it changes; asked each time that it is written.

    Raises:
        ExperimentError: another has it.
    """

    def __init__(
        self, storage: Storage, session: dict[str, Any], follows: set[str], now_known: Callable[[], dict[str, Any]]
    ) -> None:
        self.storage, self.session, self.now_known = storage, session, now_known
        self._write(follows)

    def look(self) -> None:
        """Write it down anew, if that is due.

        Raises:
            ExperimentError: it is another one's now.
        """
        if clock_s() - self.looked_s > LOOK_HOLDS_S:
            self._read({self.session["id"]})
        self.renew_if_due()

    def renew_if_due(self) -> None:
        """As `look`, but only if it is due."""
        if clock_s() - self.written_s > RENEW_S:
            self.renew()

    def renew(self, **changed: Any) -> None:
        """Write it down anew; as `look`."""
        self.session |= changed
        self._write({self.session["id"]})

    def _write(self, follows: set[str]) -> None:
        """Each try looks first, and is made once: one that came late could take back what another has by then."""
        until = time.monotonic() + PATIENCE_S
        while True:
            now = self._read({*follows, self.session["id"]})
            before = {"told": now.get("told")} if now is not None else {}
            self.session = before | self.session | self.now_known() | {"renewed": uuid.uuid4().hex}
            try:
                self.storage.write(SESSION, json.dumps(self.session).encode(), once=True)
            except StorageError:
                if time.monotonic() > until:
                    raise
                time.sleep(1)
            else:
                self.written_s = clock_s()
                return

    def _read(self, ids: set[str]) -> dict[str, Any] | None:
        """Return whose session it is, if it is of one of these ids."""
        began = clock_s()
        now = read_session(self.storage)
        if now is not None and now["id"] not in ids:
            raise in_use(self.storage, now)
        self.looked_s = began
        return now


def take_over(storage: Storage, last: dict[str, Any], silent_s: float, say: Callable[[str], object]) -> Claim:
    """Return a claim of one's own after the last session, once that is over.

    Args:
        storage: the experiment's.
        last: what the last session wrote.
        silent_s: for how long to see whether it lives, if it did not end.
        say: told what is waited for.

    Raises:
        ExperimentError: it lives, or another machine was faster.
    """
    if not last["closed"]:
        say(f"{last['host']} did not end its session with {storage.url}: looking for {silent_s:g} s whether it lives")
        last = _wait_for_silence(storage, last, silent_s)
    mine = last | {**who_am_i(), "id": uuid.uuid4().hex, "closed": False}
    claim = Claim(storage, mine, {last["id"]}, dict)
    until = time.monotonic() + (RACE_S if last["closed"] else LOOK_HOLDS_S + LONGEST_TRY_S)
    while time.monotonic() < until:
        time.sleep(1)
        claim.look()
    return claim


def _wait_for_silence(storage: Storage, last: dict[str, Any], silent_s: float) -> dict[str, Any]:
    for _ in range(round(silent_s)):  # so many looks: time in which nobody could have heard of it does not count
        time.sleep(1)
        now = read_session(storage) or last
        if now["closed"]:
            return now
        if now["renewed"] != last["renewed"]:
            raise in_use(storage, now)
    return last


def in_use(storage: Storage, session: dict[str, Any]) -> ExperimentError:
    """Return the error of who wants to work on what is another one's."""
    return ExperimentError(
        f"{storage.url} is in use by process {session['pid']} on {session['host']}: wait for it, or choose another name"
    )


def read_session(storage: Storage) -> dict[str, Any] | None:
    """Return what is known of the last session with an experiment in a storage; None if there was none."""
    found: dict[str, Any] | None = storage.read_json(SESSION)
    return found


def clock_s() -> float:
    """Return seconds that go on while the machine sleeps, where the system knows them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()
