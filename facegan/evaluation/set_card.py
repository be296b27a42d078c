"""The card of a synthetic set: what `card` measures, for four sets side by side.

`existing` (synthetic images of train people) stands beside `real train` (half of their photos), both held
against the other half of the photos; `new` (people who do not exist) beside `real val`, both against all train
photos. So each synthetic figure has its real counterpart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from facegan.data.dataset import ManifestImages
from facegan.data.duplicates.thumbnails import thumbnails
from facegan.metrics import set_statistics
from facegan.metrics.verification import pair_scores

LARGEST = 4000  # images of one set: distances between all of them must fit in memory
SHOWN = 6  # people listed as the most and the least consistent
SETS = ("existing", "real train", "new", "real val")


@dataclass(frozen=True)
class JudgedFaces:
    """One set under the judge: images, unit embeddings (N, d), the sorted names and each image's place in them."""

    images: ManifestImages
    embedding: np.ndarray
    names: list[str]
    person: np.ndarray

    def only(self, places: np.ndarray) -> JudgedFaces:
        """Some of the images, by place; people are numbered anew."""
        kept = self.images.only(places)
        names, person = kept.codes()
        return JudgedFaces(kept, self.embedding[places], names, person)

    def thinned(self) -> JudgedFaces:
        """Whole people, evenly chosen, of at most about LARGEST images."""
        wanted = max(2, round(len(self.names) * LARGEST / max(len(self), 1)))
        if wanted >= len(self.names):
            return self
        people = np.linspace(0, len(self.names) - 1, wanted).round().astype(int)
        return self.only(np.flatnonzero(np.isin(self.person, people)))

    def __len__(self) -> int:
        return len(self.person)


def describe(
    existing: JudgedFaces, new: JudgedFaces, train: JudgedFaces, val: JudgedFaces, limits: dict[str, Any], k: int
) -> dict[str, Any]:
    """The card: {sets: {set: {figure: value or None}}, people: the most and least consistent synthetic ones}.

    `limits` are `card.thresholds` on val people, `k` the neighbours of precision, recall, density and coverage. A
    figure is None where its set is empty or too small for it.
    """
    train = train.thinned()
    even, odd = (train.only(side) for side in set_statistics.halves(train.person))
    held = {"existing": (existing, even), "real train": (odd, even), "new": (new, train), "real val": (val, train)}
    sets = {name: figures(faces.thinned(), against, limits, k) for name, (faces, against) in held.items()}
    for name, (faces, against) in held.items():
        sets[name]["diversity"] = _diversity(faces.thinned(), against) if name in ("existing", "real train") else None
    return {"sets": sets, "people": {name: ranked(held[name][0], limits) for name in ("existing", "new")}}


def figures(faces: JudgedFaces, against: JudgedFaces, limits: dict[str, Any], k: int) -> dict[str, Any]:
    """One set alone (separability, uniqueness, consistency), then held against real photos."""
    found: dict[str, Any] = {"people": len(faces.names), "images": len(faces)}
    if len(faces) < 2:
        return found
    centre = set_statistics.centres(faces.embedding, faces.person)
    pairs = pair_scores(faces.embedding, faces.person)
    if 0 < pairs.n_genuine < len(pairs.score):
        found |= set_statistics.separability(pairs)
        found["within"] = float(pairs.score[pairs.genuine].mean())
    apart = set_statistics.distinguishable(centre, limits["centre"]["value"])
    found |= {"distinguishable": apart, "uniqueness": apart / len(centre)}
    found["consistency"] = set_statistics.consistency(
        faces.embedding, faces.person, limits["image to centre"]["value"]
    )[0]
    nearest = (faces.embedding @ against.embedding.T).max(axis=1)
    found["nearest photo"] = float(np.median(nearest))
    near_centre = (centre @ set_statistics.centres(against.embedding, against.person).T).max(axis=1)
    found["nearest person"] = float(np.median(near_centre))
    found["kid"] = set_statistics.kid(against.embedding, faces.embedding)
    return found | set_statistics.manifolds(against.embedding, faces.embedding, k)


def _diversity(faces: JudgedFaces, against: JudgedFaces) -> float | None:
    """DCFace's D in the space of 16 x 16 thumbnails; None for an empty set."""
    if len(faces) == 0:
        return None
    photo_person = np.asarray([_place(faces.names, name) for name in against.names])[against.person]
    looks = (thumbnails(faces.images.pixels), thumbnails(against.images.pixels))
    return set_statistics.diversity(looks[0], faces.person, looks[1], photo_person)


def _place(names: list[str], name: str) -> int:
    return names.index(name) if name in names else -1


def ranked(faces: JudgedFaces, limits: dict[str, Any]) -> list[dict[str, Any]]:
    """The SHOWN most and the SHOWN least consistent people, most consistent first: {identity, cosine}."""
    if len(faces) == 0:
        return []
    cosine = set_statistics.consistency(faces.embedding, faces.person, limits["image to centre"]["value"])[1]
    order = np.argsort(-cosine, kind="stable")
    if len(order) > 2 * SHOWN:
        order = np.concatenate([order[:SHOWN], order[-SHOWN:]])
    return [{"identity": faces.names[n], "cosine": float(cosine[n])} for n in order]
