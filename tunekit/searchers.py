"""Ray Tune's searcher: which trial runs next. New ones come from the Proposer, by way of the ledger."""

import json
from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from tunekit.events import Trial
from tunekit.forecaster import Forecaster
from tunekit.ledger import Ledger
from tunekit.places import Places
from tunekit.proposer import NEW, Proposer
from tunekit.space import draw_config, labels
from tunekit.training import derive_seed


class RaySearcher(Searcher):
    """Ray Tune's searcher: hands out the trials that wait, then those whose turn it is, or new ones, one for each slot.

    Args:
        ledger: where proposals are written, and read back from.
        proposer: where new configs come from.
        num_trials: of the search, in all.
        places: how many trials may run at once, asked anew each time, and where.
        confirm: called when the search is over: ends what is paused, and writes the trials that confirm its winner into
            the ledger.
    """

    def __init__(
        self,
        ledger: Ledger,
        proposer: Proposer | Forecaster,
        num_trials: int,
        places: Places,
        confirm: Callable[[], None],
    ) -> None:
        super().__init__()
        self.ledger, self.proposer, self.confirm = ledger, proposer, confirm
        self.num_trials, self.places = num_trials, places
        self.confirmed = False
        self.heard = 0
        self.handed_out: dict[int, str] = {}  # trials that run or are to, and the kind of machine

    def goes_on(self, number: int) -> bool:
        """Return whether a trial of the search that came to the end of an epoch trains the next, or pauses."""
        if not self.proposer.pauses:
            return True
        self._listen()
        return self._waiting() is None and self._turn(set(self.handed_out) - {number}) == number

    def given_up(self) -> list[int]:
        """Return the paused trials that are never to go on, as there are too many of them."""
        self._listen()
        return self.proposer.given_up(set(self.handed_out))

    def suggest(self, trial_id: str) -> Any:
        """Return what Ray is to run next, None to be asked again later, or FINISHED."""
        self._listen()
        if len(self.handed_out) >= self.places():
            return None
        waiting = self._waiting()
        turn = self._turn(set(self.handed_out)) if waiting is None else None
        if turn == NEW:
            return self._propose()
        if turn is not None:
            waiting = self.ledger.unfinished[turn]
        if waiting is None and not self.handed_out and not self.confirmed:
            self.confirm()
            self.confirmed = True
            waiting = self._waiting()
        if waiting is not None:
            return self._hand_out(waiting)
        return None if self.handed_out else Searcher.FINISHED

    def _waiting(self) -> Trial | None:
        """Return a trial that is to run whatever else there is: others that have not ended wait for their turn."""
        for number, trial in self.ledger.unfinished.items():
            if number not in self.handed_out and not self.proposer.takes_turns(number):
                return trial
        return None

    def _turn(self, busy: set[int]) -> int | None:
        return self.proposer.turn(self.num_trials, busy)

    def _propose(self) -> Any:
        number = self.ledger.next_number
        proposal = self.proposer.propose(number)
        if proposal is None:
            return self.suggest("")
        source, params = proposal
        config = draw_config(self.proposer.space, lambda name, _: params[name])
        seed = derive_seed(self.proposer.seed, "trial", number)
        described = {"config": labels(config), "params": params, "role": "search", "source": source, "seed": seed}
        self.ledger.append("proposed", described, number)
        self._listen()
        return self._hand_out(self.ledger.unfinished[number])

    def _hand_out(self, trial: Trial) -> dict[str, Any]:
        self.handed_out[trial.number], where = self.places.take(self.handed_out.values())
        return {"trial": trial.number, "request": json.dumps(trial.request), **where}

    def _listen(self) -> None:
        for event in self.ledger.events(after=self.heard):
            self.heard = event.number
            self.proposer.hear(event)
            if event.kind in ("paused", "ended", "retry"):
                self.handed_out.pop(event.trial or 0, None)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: what happened is heard from the ledger."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what a search goes on from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave nothing for Ray to save."""
        return {}
