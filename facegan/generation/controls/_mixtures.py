"""From the stored codes of new people back to the train people that they were mixed from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls

from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.latents import unpack
from facegan.generation.gans.networks.saved import load_generator

LEAST_SHARE = 1e-6


class Mixtures:
    """The mixture of each class: `mixtures(k)` as `NewPeople.mixture`; reads the generator when first called."""

    def __init__(self, generator: Path | None, synthetic: Path, classes: list[str], names: list[str]) -> None:
        self._generator, self._synthetic, self._classes = generator, synthetic, classes
        self._place = {name: place for place, name in enumerate(names)}
        self._codes: np.ndarray | None = None
        self._rows: list[tuple[str, list[str]]] = []

    def __call__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The train people of a class and their shares; raises UserError for a class that was made elsewhere."""
        codes = self._read()
        latent, parents = self._rows[number]
        spec = json.loads(latent)
        if "w" not in spec or not parents:
            raise UserError(
                f"'{self._classes[number]}' was made elsewhere, and nothing tells from whom it was mixed",
                fix="take another control, or set synthesize.external to null",
            )
        indices = np.asarray([self._place[name] for name in parents])
        shares = shares_of(unpack(spec["w"]), codes[indices], codes.mean(axis=0))
        return indices[shares > 0], shares[shares > 0]

    def _read(self) -> np.ndarray:
        """The codes of the train people (people, code_dim), in the order of the names."""
        if self._codes is None:
            if self._generator is None:
                raise ValueError("mixtures need the generator")
            G, spec = load_generator(self._generator, torch.device("cpu"))
            row = {name: index for index, name in enumerate(spec["identities"])}
            self._codes = G.codes().detach().numpy()[[row[name] for name in self._place]].astype(np.float64)
            first: dict[str, tuple[str, list[str]]] = {}
            for item in manifest.iterate(self._synthetic, columns=["identity", "latent", "parents"]):
                first.setdefault(item["identity"], (item["latent"], list(item["parents"] or ())))
            self._rows = [first[name] for name in self._classes]
        return self._codes


def shares_of(code: np.ndarray, parents: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The shares (n,) of `parents` (n, code_dim) in a code (code_dim,): not negative, with the sum 1.

    A sampler of identities moves a mixture away from the mean code, `mean` (code_dim,), to keep its length; the shares
    are the weights a of code - mean = sum_p a_p (parent_p - mean), by least squares (Lawson and Hanson 1974), over
    their sum. Raises ValueError where no such weights exist.
    """
    weights, _ = nnls((parents - mean).T.astype(np.float64), code.astype(np.float64) - mean)
    if not weights.sum() > 0:
        raise ValueError("a code that lies on the other side of all its parents")
    weights = np.where(weights < LEAST_SHARE * weights.sum(), 0, weights)
    return np.asarray(weights / weights.sum())
