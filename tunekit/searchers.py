"""Ray Tune's searcher: which trial runs next. New ones come from the Proposer, by way of the ledger."""

import json
from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from tunekit.events import Trial
from tunekit.ledger import Ledger
from tunekit.proposer import Proposer
from tunekit.space import draw_config, labels
from tunekit.training import derive_seed


class RaySearcher(Searcher):
    """Ray Tune's searcher: hands out the trials that wait, then new ones, as many at once as there are slots.

    Args:
        ledger: where proposals are written, and read back from.
        proposer: where new configs come from.
        num_trials: of the search, in all.
        num_slots: how many trials may run at once, asked anew each time.
        confirm: called when the search is over; writes the trials that confirm its winner into the ledger.
    """

    def __init__(
        self,
        ledger: Ledger,
        proposer: Proposer,
        num_trials: int,
        num_slots: Callable[[], int],
        confirm: Callable[[], None],
    ) -> None:
        super().__init__()
        self.ledger, self.proposer, self.confirm = ledger, proposer, confirm
        self.num_trials, self.num_slots = num_trials, num_slots
        self.confirmed = False
        self.heard = 0
        self.handed_out: set[int] = set()
        self.used_up = False

    def suggest(self, trial_id: str) -> Any:
        """Return what Ray is to run next, None to be asked again later, or FINISHED."""
        self._listen()
        if len(self.handed_out) >= self.num_slots():
            return None
        waiting = self._waiting()
        if waiting is None and not self.used_up and self.proposer.num_proposed < self.num_trials:
            return self._propose()
        if waiting is None and not self.handed_out and not self.confirmed:
            self.confirm()
            self.confirmed = True
            waiting = self._waiting()
        if waiting is not None:
            return self._hand_out(waiting)
        return None if self.handed_out else Searcher.FINISHED

    def _waiting(self) -> Trial | None:
        waiting = (trial for number, trial in self.ledger.unfinished.items() if number not in self.handed_out)
        return next(waiting, None)

    def _propose(self) -> Any:
        number = self.ledger.next_number
        proposal = self.proposer.propose(number)
        if proposal is None:
            self.used_up = True
            return self.suggest("")
        source, params = proposal
        config = draw_config(self.proposer.space, lambda name, _: params[name])
        seed = derive_seed(self.proposer.seed, "trial", number)
        described = {"config": labels(config), "params": params, "role": "search", "source": source, "seed": seed}
        self.ledger.append("proposed", described, number)
        self._listen()
        return self._hand_out(self.ledger.unfinished[number])

    def _hand_out(self, trial: Trial) -> dict[str, Any]:
        self.handed_out.add(trial.number)
        return {"trial": trial.number, "request": json.dumps(trial.request)}

    def _listen(self) -> None:
        for event in self.ledger.events(after=self.heard):
            self.heard = event.number
            self.proposer.hear(event)
            if event.kind in ("ended", "retry"):
                self.handed_out.discard(event.trial or 0)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: what happened is heard from the ledger."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what a search goes on from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave nothing for Ray to save."""
        return {}
