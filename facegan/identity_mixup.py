"""Which classes an image is trained towards: its own person's, or those of the people whom a new person is made of.

Identity mixup (Qiu et al. 2021, SynFace): a face that is a mixture of people is given to each of them in
proportion to its share, not to a class of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facegan import manifest
from facegan.errors import UserError
from facegan.images import ManifestImages
from facegan.manifest import NEW
from facegan.synthesis import unpacked


@dataclass(frozen=True)
class Targets:
    """For each label its classes and their shares: entries `start[label]` to `start[label + 1]` of `own` and `share`.

    `own` are dense classes, 0 .. classes - 1, int64; `share` float64, which sums to 1 for each label.
    """

    start: np.ndarray
    own: np.ndarray
    share: np.ndarray
    classes: int

    def of(self, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(image, own, share), each (T,): what is asked of images with `label` (N,), image by image from 0 on."""
        counts = self.start[label + 1] - self.start[label]
        image = np.repeat(np.arange(len(label)), counts)
        entry = np.arange(len(image)) - np.repeat(np.cumsum(counts) - counts, counts) + self.start[label][image]
        return image, self.own[entry], self.share[entry]


def targets_of(path: Path, train: ManifestImages) -> Targets | None:
    """The targets of the people of a merged manifest; None where nobody in it is new.

    Classes are the people who are not new and the parents of those who are, in the order of their names. Raises
    UserError where a new person's rows do not tell the shares of its parents.
    """
    mixed = shares_of(path)
    if not mixed:
        return None
    name_of = dict(zip(train.label.tolist(), train.identity.tolist(), strict=True))
    told = [mixed.get(name_of[label]) or {name_of[label]: 1.0} for label in range(len(name_of))]
    names = sorted({name for shares in told for name in shares})
    place = {name: number for number, name in enumerate(names)}
    start = np.cumsum([0, *(len(shares) for shares in told)])
    own = np.asarray([place[name] for shares in told for name in shares], np.int64)
    share = np.asarray([value / sum(shares.values()) for shares in told for value in shares.values()])
    return Targets(start, own, share, len(names))


def shares_of(path: Path) -> dict[str, dict[str, float]]:
    """{new person: {parent: share}} of the manifest at `path`, from each new person's first row."""
    found: dict[str, dict[str, float]] = {}
    for row in manifest.iterate(path, columns=["identity", "parents", "latent"]):
        if row["identity"].startswith(NEW) and row["identity"] not in found:
            shares = json.loads(row["latent"]).get("shares")
            if shares is None:
                raise UserError(
                    f"use.identity_mixup: the rows of {row['identity']} do not say how much of each parent is in them",
                    fix="make the synthetic images with synthesize.shares=true",
                )
            found[row["identity"]] = dict(zip(row["parents"], unpacked(shares).tolist(), strict=True))
    return found
