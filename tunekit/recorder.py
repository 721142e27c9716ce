"""What happened goes into the ledger here, before anything else hears of it, and what follows from it is decided."""

from functools import partial
from typing import Any, Protocol

from tunekit import paths
from tunekit.errors import StorageError
from tunekit.events import UNSCORED
from tunekit.kept import KeptCheckpoints
from tunekit.ledger import Ledger
from tunekit.remote import url_of
from tunekit.safe_text import redacted, secrets_of
from tunekit.schedulers import Decisions
from tunekit.scores import is_better
from tunekit.trial_files import having_checkpoints, trial_files

MAX_RETRIES = 3  # of a trial whose worker died, or whose memory ran out
SPLIT = 4  # into how many parts each batch goes after that: 4, 16, 64 with the retries there are
MOST_MOVES = 10  # machines that a trial loses without ending an epoch, before it counts against it
MOST_SAID = 2_000  # characters of a reason or a warning in the ledger; error.txt has all
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
        self.keep_best, folder = keep_best, ledger.folder
        trials = ledger.trials().values()
        self.any_epoch = any(trial.history for trial in trials)
        self.kept: KeptCheckpoints | None = None  # where the folder is a URL, a Follower sees to the checkpoints
        if url_of(folder) is None:
            files = partial(trial_files, folder)
            self.kept = KeptCheckpoints(files, keep_best, decisions.metric, decisions.mode)
            self.kept.begin(trials, having_checkpoints(folder))
        self.turns: Turns | None = None  # where trials may pause
        self.interrupted = ""  # why the search ends at the next opportunity
        self.signal = 0  # the number of the signal that said so
        self.note = ""  # what people should know of how the search ended
        self.error: Exception | None = None
        self.failures: list[str] = []
        self.node_ids: dict[int, str] = {}  # where each trial runs
        self.moves: dict[int, int] = {}  # how often each lost its worker or machine since its last epoch
        self.unfit: dict[str, str] = {}  # nodes that lack what a trial needs, and what that is
        for number in list(ledger.unfinished):
            self._settle(number)

    def record(self, number: int, message: dict[str, Any]) -> bool:
        """Write down one message of a trial; return whether the trial stops here.

        What goes wrong here (a full disk, say) ends the search: it is kept in `error`, as Ray would wrap it up.
        """
        try:
            with paths.writing(self.ledger.folder):
                return self._record(number, message)
        except Exception as error:
            self.fail(error)
            return True

    def fail(self, error: Exception) -> None:
        """End the search with an error."""
        self.error, self.interrupted = error, str(error)

    def _record(self, number: int, message: dict[str, Any]) -> bool:
        if message["kind"] == "started":
            self.node_ids[number] = message.get("node_id", "")
            self.ledger.append("started", {"node": message["node"], "node_id": self.node_ids[number]}, number)
            return False
        if message["kind"] == "epoch":
            self.any_epoch = True
            self.moves.pop(number, None)
            if message["epoch"] > len(self.ledger.unfinished[number].history):
                self.ledger.append("epoch", message["metrics"], number, message["epoch"])
                if self._settle(number) or (not message["last"] and self._pauses(number)):
                    return True
            # else it was trained again, as its checkpoint was lost or damaged: what was written down holds
            if message["last"]:
                self._end(number, "finished")
            return message["last"]
        if message["kind"] == "warned":
            self.ledger.append("warned", {"text": self._said(message["text"])}, number)
            return False
        if message["kind"] == "misplaced":
            self._leave_out(number, message["reason"])
            return True
        if message["kind"] == "unwritable":
            raise StorageError(message["reason"])
        if message["kind"] == "out_of_memory":
            self._retry(number, message["reason"], message["reason"], message["traceback"], SPLIT)
        else:
            self._end(number, message["state"], message.get("reason", ""), message.get("traceback", ""))
        return True

    def _leave_out(self, number: int, reason: str) -> None:
        """Have a trial tried on another node than the one that lacks what it needs."""
        node, node_id = self.ledger.unfinished[number].node, self.node_ids.get(number, "")
        if not node_id:  # there is no other: it trains in this process
            raise StorageError(reason)
        if node_id not in self.unfit:
            self.ledger.problems.append(f"{node} was left out: {reason}")
        self.unfit[node_id] = f"{node}: {reason}"
        self.ledger.append("retry", {"reason": self._said(reason), "counts": False}, number)

    def lost(self, number: int, reason: str, out_of_memory: bool = False, node_too: bool = False) -> None:
        """Write down that a trial's worker died: it is tried again, up to MAX_RETRIES times.

        Where its machine was lost too, that does not count; unless it seems to be the trial that ends machines.
        """
        last = (reason.strip().splitlines() or ["no reason known"])[-1]
        self.moves[number] = self.moves.get(number, 0) + 1
        if node_too and self.moves[number] <= MOST_MOVES:
            self.ledger.append("retry", {"reason": self._said(f"lost its node: {last}"), "counts": False}, number)
            return
        finally_ = f"its worker died {MAX_RETRIES + 1} times, at last: {last}"
        self._retry(number, last, finally_, reason, SPLIT if out_of_memory else 1)

    def _retry(self, number: int, reason: str, last_reason: str, traceback: str, split: int) -> None:
        """Try a trial again, its batches split into so many times more parts, unless it had its retries."""
        trial = self.ledger.unfinished[number]
        if trial.num_retries >= MAX_RETRIES:
            self._end(number, "failed", last_reason, traceback)
            return
        data = {"reason": self._said(reason), "counts": True, "micro_batches": trial.micro_batches * split}
        self.ledger.append("retry", data, number)

    def stop_reason(self) -> str:
        """Return why the search ends now, or nothing."""
        if self.time_budget_s is not None and self.ledger.now_s >= self.time_budget_s:
            return f"the time budget of {self.time_budget_s:g} s is used up"
        return self.interrupted

    def _said(self, text: str) -> str:
        """Return a text without secrets, and no longer than anybody reads: a training loop may raise what it likes."""
        text = redacted(text, self.secrets)
        return text if len(text) <= MOST_SAID else f"{text[:MOST_SAID]} ..."

    def _settle(self, number: int) -> bool:
        """End a trial whose newest value says so. Asked at each epoch, and again as a session begins."""
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
        reason, traceback = self._said(reason), redacted(traceback, self.secrets)
        folder = paths.trial_folder(self.ledger.folder, number)
        if state in UNSCORED:
            paths.write_text(paths.error_txt(paths.make_private(folder)), f"{reason}\n\n{traceback}".strip() + "\n")
        self.ledger.append("ended", {"state": state, "reason": reason, "num_epochs": len(trial.history)}, number)
        if self.kept is not None:
            self.kept.ended(trial)
        if state == "failed" and not self.any_epoch:
            self.failures.append(reason)
            if len(self.failures) >= NUM_ALIKE and len(set(self.failures)) == 1:
                self.interrupted = f"the first {NUM_ALIKE} trials failed alike: {reason}"
