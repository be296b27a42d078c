"""Soft particles that push each other apart, as arrays: see langevin.py, which has the source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist

BLOCK = 256  # points whose distances to all others are held at once
MEASURED = 2000  # training people whose distances from each other are looked at
STEP = 0.5  # a pair that overlaps with nobody else is just apart after it, each having gone half of the way


@dataclass(frozen=True)
class Repulsion:
    """`energy` of the whole; for each of n points its `force` (n, d) and with how many it overlaps, `count` (n,)."""

    energy: float
    force: np.ndarray
    count: np.ndarray


def repulsion(moving: np.ndarray, fixed: np.ndarray, reach: float) -> Repulsion:
    """Of points `moving` (n, d) float64, from each other and from `fixed` (m, d).

    A pair at distance r < reach has the energy (reach - r)^2 / 2 and pushes the one away from the other with the force
    reach - r; pairs farther apart do not feel each other, nor do two at the same place, where no way leads apart.
    Memory is of the order of BLOCK (n + m).
    """
    others = np.concatenate([moving, fixed])
    squares = np.einsum("nd,nd->n", others, others)
    energy, force, count = 0.0, np.empty_like(moving), np.empty(len(moving))
    for start in range(0, len(moving), BLOCK):
        place = np.arange(start, min(start + BLOCK, len(moving)))
        squared = squares[place, None] + squares - 2 * moving[place] @ others.T
        squared[place - start, place] = np.inf  # nobody pushes itself
        far = np.sqrt(np.maximum(squared, 0))
        overlap = np.maximum(reach - far, 0)
        squared = overlap**2
        energy += float(squared[:, : len(moving)].sum()) / 4 + float(squared[:, len(moving) :].sum()) / 2
        share = np.divide(overlap, far, out=np.zeros_like(far), where=far > 1e-6 * reach)  # of the way between the two
        force[place] = share.sum(axis=1)[:, None] * moving[place] - share @ others
        count[place] = (overlap > 0).sum(axis=1)
    return Repulsion(energy, force, count)


@dataclass(frozen=True)
class Dynamics:
    """The energy of a population, and steps down it, in the plane that the training people's codes span.

    A place x (n, r) float64 is a code's deviation from `mean` (code_dim,) along `axes` (r, code_dim), which are
    orthonormal; f = x look, with `look` (r, d), is where the guide would see it, in units in which `look` lengthens
    nothing. `people` (people, r) are the training people's places, `reach` the distance below which f repel.
    """

    mean: np.ndarray
    axes: np.ndarray
    people: np.ndarray
    look: np.ndarray
    reach: float
    pull: float

    @classmethod
    def of(cls, codes: np.ndarray, centres: np.ndarray, nearest: float, pull: float) -> Dynamics:
        """For training people with `codes` (people, code_dim) and `centres` (people, d) under the guide.

        `look` is the least-squares map from places to centres; it meets them where code_dim >= people - 1. Axes along
        which people hardly differ are left out.
        """
        wide = codes.astype(np.float64)
        mean = wide.mean(axis=0)
        _, singular, axes = np.linalg.svd(wide - mean, full_matrices=False)
        axes = axes[: max(1, int((singular > 1e-3 * singular[0]).sum()))]
        people = (wide - mean) @ axes.T
        look = np.linalg.lstsq(people, centres - centres.mean(axis=0), rcond=None)[0]
        look /= max(float(np.linalg.norm(look, 2)), 1e-12)
        some = np.unique(np.linspace(0, len(people) - 1, MEASURED).round().astype(int))
        return cls(mean, axes, people, look, float(np.quantile(pdist(people[some] @ look), nearest)), pull)

    def places(self, codes: np.ndarray) -> np.ndarray:
        """Codes (n, code_dim) as places (n, r) float64."""
        found: np.ndarray = (codes.astype(np.float64) - self.mean) @ self.axes.T
        return found

    def codes(self, places: np.ndarray) -> np.ndarray:
        """Places (n, r) as codes (n, code_dim) float32."""
        return (self.mean + places @ self.axes).astype(np.float32)

    def energy(self, places: np.ndarray, lengths: np.ndarray) -> float:
        """Of the repulsion, and of the pull of each place to its length (n,)."""
        away = np.linalg.norm(places, axis=1) - lengths
        return repulsion(places @ self.look, self.people @ self.look, self.reach).energy + self.pull * away @ away / 2

    def step(self, places: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """A step down the energy: along the forces, each divided by how many act, then the pull solved for the length.

        Divided so, overlaps of many lead no farther than those of two: the steps are those of a walk on the graph of
        overlaps, whose eigenvalues are at most 2.
        """
        found = repulsion(places @ self.look, self.people @ self.look, self.reach)
        count = np.maximum(found.count, 1)[:, None]
        moved = places + STEP * (found.force @ self.look.T) / count
        length = np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
        stiff = count / STEP
        scaled: np.ndarray = moved * ((stiff * length + self.pull * lengths[:, None]) / (stiff + self.pull)) / length
        return scaled
