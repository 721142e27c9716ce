"""Configs that may be tried next: any, or near the best, but none of those that were."""

import itertools
import json
from collections.abc import Collection
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from torch.quasirandom import SobolEngine

from tunekit.encoding import Encoding
from tunekit.errors import SpaceError
from tunekit.grids import MOST_GRID_CONFIGS, grid_configs
from tunekit.space import params_of
from tunekit.training import derive_seed

NUM_DRAWN, NUM_NEAR = 500, 20  # any, and of each of the best
APART = 0.05  # how far from those tried a config has to be: their like would tell nothing, and looks as promising
NUM_SPREAD = 1024  # points, then they come again
NUM_DRAWS = 100  # until a space is gone through, or, where it holds ranges, counts as used up

in_order = json.JSONEncoder(sort_keys=True).encode

Candidate = tuple[dict[str, Any], np.ndarray]  # a config's draws, and its point


class Candidates:
    """Draws configs of a space. All that is drawn is a function of the seed and of what is asked.

    Args:
        encoding: of the space.
        seed: of the experiment.
    """

    def __init__(self, encoding: Encoding, seed: int) -> None:
        self.encoding, self.seed = encoding, seed
        self.tried: set[str] = set()  # identities
        self.drawn: tuple[int, dict[str, Candidate]] = -1, {}

    def spread(self, number: int) -> Candidate | None:
        """Return one of a row of configs that fill the space evenly, or None where it was tried."""
        rows = SobolEngine(len(self.encoding.axes), scramble=True, seed=self.seed).draw(number % NUM_SPREAD + 1)
        params = self.encoding.config(rows[-1].tolist())
        return None if identity(params) in self.tried else (params, self.encoding.point(params))

    def draw(self, number: int, best: list[dict[str, Any]], known: list[np.ndarray], since: int) -> list[Candidate]:
        """Return configs that were not tried, any and neighbours of the best; none where the space is used up.

        Args:
            number: how many there were, for other neighbours each time.
            best: the draws of those whose neighbours are wanted.
            known: the points that they are to stay away from, as far as they can.
            since: as long as this is the same, so are those drawn at random, which takes a while.
        """
        random = np.random.default_rng(derive_seed(self.seed, "near", number))
        near = [self.encoding.draw(random, params) for params in best for _ in range(NUM_NEAR)]
        found = {identity(params): (params, self.encoding.point(params)) for params in near} | self._any(since)
        new = [candidate for name, candidate in found.items() if name not in self.tried]
        if not new:
            last = untried(self.encoding, self.tried, random)
            return [(last, self.encoding.point(last))] if last else []
        apart = cdist([point for _, point in new], known).min(1)
        return [candidate for candidate, distance in zip(new, apart, strict=True) if distance >= APART] or new

    def _any(self, since: int) -> dict[str, Candidate]:
        if self.drawn[0] != since:
            random = np.random.default_rng(derive_seed(self.seed, "any", since))
            draws = [self.encoding.draw(random) for _ in range(NUM_DRAWN)]
            self.drawn = since, {identity(params): (params, self.encoding.point(params)) for params in draws}
        return self.drawn[1]


def untried(encoding: Encoding, tried: Collection[str], random: np.random.Generator) -> dict[str, Any] | None:
    """Return a config's draws that are not among those tried, by their `identity`; None when there seem to be none."""
    for _ in range(NUM_DRAWS):
        params = encoding.draw(random)
        if identity(params) not in tried:
            return params
    try:
        every = (params_of(encoding.space, config) for config in grid_configs(encoding.space))
        return next((p for p in itertools.islice(every, MOST_GRID_CONFIGS) if identity(p) not in tried), None)
    except SpaceError:  # it holds a range
        return None


def identity(params: dict[str, Any]) -> str:
    """Return what two configs share that are the same."""
    return in_order(params)
