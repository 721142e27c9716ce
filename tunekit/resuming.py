"""resume(): an experiment goes on from its folder alone."""

from pathlib import Path
from typing import Any

from tunekit.datasets import load_dataset
from tunekit.errors import ExperimentError
from tunekit.experiment import run, train
from tunekit.limits import LIMITS
from tunekit.results import Results, load_results
from tunekit.space_json import space_from_json
from tunekit.storage import as_place, parted


def resume(folder: str | Path, *, verbose: int = 1, address: str | None = None) -> Results:
    """Go on with an experiment where it stopped, from its folder alone.

    Args:
        folder: the experiment's folder, or its URL.
        verbose, address: as in `run`.

    Raises:
        SpaceError, ExperimentError: it holds functions that this process does not know, or a dataset that was made of
            arrays: then the same call that began it goes on with it.
    """
    results = load_results(folder)
    asked, limits = results.asked, results.limits
    if not results.dataset_source:
        raise ExperimentError(f"{folder} was run on a dataset made in memory: make the same call again")
    space, data = space_from_json(asked["space"]), load_dataset(**results.dataset_source)
    loop = space_from_json(asked["train"]) if asked["train"] else None
    place: dict[str, Any] = {**dict(zip(("folder", "name"), parted(as_place(folder)), strict=True)), "verbose": verbose}
    if asked["searcher"] == "given":
        return train(space, data, max_epochs=asked["max_epochs"], seed=asked["seed"], train=loop, **place)
    return run(
        space,
        data,
        **{key: asked[key] for key in ("metric", "mode", "max_epochs", "searcher", "scheduler", "seed")},
        start_from=asked["start_from"],
        train=loop,
        **{key: limits[key] for key in LIMITS if key in limits},  # none, where it was cut off as it began
        **place,
        address=address,
    )
