"""What was predicted of searches on this machine, and how long they took: the next plan says how far off they were."""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunekit import paths
from tunekit.asked import Asked
from tunekit.datasets.store import cache_folder, locked, read_json
from tunekit.ledger import Ledger
from tunekit.recorder import Recorder

MOST_KEPT = 50  # plans whose search has not ended, and searches that have
WHAT = ("num_trials", "time_budget_s", "confirm", "cpus_per_trial", "gpus_per_trial")  # of the limits; another plan


def predict(place: Path | str, asked: Asked, limits: Mapping[str, Any], search_s: float) -> None:
    """Write down how long a search is expected to take, until it has ended.

    Args:
        place: of the experiment, as the search would have it.
        asked, limits: of the search.
        search_s: from the opening of its ledger to its end.
    """
    with locked("plans"):
        known = _known()
        known["plans"][_key(place, asked, limits)] = {"search_s": search_s, "time": time.time()}
        _write(known)


def compare(place: Path | str, asked: Asked, limits: Mapping[str, Any], recorder: Recorder) -> None:
    """Where a search that has ended was planned, write prediction and outcome into its ledger, and remember them.

    A search that was interrupted has not ended, and one that had begun before it was planned tells nothing.
    """
    ledger, key = recorder.ledger, _key(place, asked, limits)
    if recorder.interrupted or recorder.error or (ledger.unfinished and not recorder.stop_reason()):
        return
    with locked("plans"):
        known = _known()
        plan = known["plans"].pop(key, None)
        if plan is None:
            return
        if _begun(ledger) >= plan["time"]:
            outcome = {"predicted_s": plan["search_s"], "actual_s": ledger.now_s}
            ledger.append("compared", outcome)
            known["searches"].append(outcome)
        _write(known)


def past_errors() -> list[float]:
    """Return by how much earlier plans on this machine were off, each a fraction of the prediction; the newest last."""
    pairs = [(past["predicted_s"], past["actual_s"]) for past in _known()["searches"]]
    return [abs(actual / predicted - 1) for predicted, actual in pairs if predicted > 0]


def _known() -> dict[str, Any]:
    """Return what the cache folder has, of the form that is written; what is of another form counts for nothing."""
    found = read_json(_path()) or {}
    plans, searches = found.get("plans"), found.get("searches")
    good_plans = (
        {key: plan for key, plan in plans.items() if _numbers(plan, "search_s", "time")}
        if isinstance(plans, dict)
        else {}
    )
    good = (
        [past for past in searches if _numbers(past, "predicted_s", "actual_s")] if isinstance(searches, list) else []
    )
    return {"plans": good_plans, "searches": good}


def _numbers(entry: Any, *names: str) -> bool:
    values = [entry.get(name) for name in names] if isinstance(entry, dict) else [None]
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def _write(known: dict[str, Any]) -> None:
    newest = sorted(known["plans"].items(), key=lambda item: item[1]["time"])[-MOST_KEPT:]
    paths.write_json(_path(), {"plans": dict(newest), "searches": known["searches"][-MOST_KEPT:]})


def _path() -> Path:
    return cache_folder() / "plans.json"


def _key(place: Path | str, asked: Asked, limits: Mapping[str, Any]) -> str:
    where = place if isinstance(place, str) else str(place.absolute())
    about = [where, asked.as_json(), {name: limits[name] for name in WHAT}]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def _begun(ledger: Ledger) -> float:
    """Return when anything happened first in an experiment, in seconds since 1970."""
    return next(event.time for event in ledger.events())
