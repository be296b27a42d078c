"""From the stored weights of new people to the shares of the train people that they were mixed from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.latents import LENT

LEAST_SHARE = 1e-6
Row = tuple[str, list[str], list[float]]
"""What is read of a row: its latent, parents and parent_weights."""


class Mixtures:
    """The mixture of each class: `mixtures(k)` as `NewPeople.mixture`; reads the rows when first called."""

    def __init__(self, synthetic: Path, classes: list[str], names: list[str]) -> None:
        self._synthetic, self._classes = synthetic, classes
        self._place = {name: place for place, name in enumerate(names)}
        self._rows: list[Row] | None = None

    def __call__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The train people of a class and their shares; raises UserError for a class that was made elsewhere."""
        latent, parents, weights = self._read()[number]
        if not parents or len(weights) != len(parents):
            raise UserError(
                f"'{self._classes[number]}' was made elsewhere, and nothing tells from whom it was mixed",
                fix="take another control, or set synthesize.external to null",
            )
        if json.loads(latent).get(LENT):
            parents, weights = parents[:-1], weights[:-1]
        indices = np.asarray([self._place[name] for name in parents])
        shares = shares_of(weights, everybody=len(parents) == len(self._place))
        return indices[shares > 0], shares[shares > 0]

    def _read(self) -> list[Row]:
        if self._rows is None:
            first: dict[str, Row] = {}
            for item in manifest.iterate(self._synthetic, columns=["identity", "latent", "parents", "parent_weights"]):
                row = item["latent"], list(item["parents"] or ()), list(item["parent_weights"] or ())
                first.setdefault(item["identity"], row)
            self._rows = [first[name] for name in self._classes]
        return self._rows


def shares_of(weights: Sequence[float], everybody: bool) -> np.ndarray:
    """The shares (n,) behind the signed weights (n,) of people in a code: not negative, with the sum 1.

    A sampler of identities moves a mixture away from the mean code, to keep its length: mean + k (mix - mean), in which
    each of n people has the weight k a_p + (1 - k) / n. With `everybody` named the part that all have is the least
    weight; of fewer it is what was too small to be named. Raises ValueError where no share is left.
    """
    named = np.asarray(weights, np.float64)
    shares = np.maximum(named - (named.min() if everybody else 0), 0)
    if not shares.sum() > 0:
        raise ValueError("a code that lies on the other side of all its parents")
    shares = np.where(shares < LEAST_SHARE * shares.sum(), 0, shares)
    return np.asarray(shares / shares.sum())
