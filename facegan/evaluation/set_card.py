"""The card of a synthetic set: the figures of `facegan.metrics.set_statistics` for four sets side by side.

`existing` (synthetic images of train people) stands beside `real train` (half of their photos), both held
against the other half of the photos; `new` (people who do not exist) beside `real val`, both against all train
photos. So each synthetic figure has its real counterpart. `KID unseen`, `AUC` and `spread` hold every set against the
val photos, of people whom no generator has seen; val people themselves are halved by person for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from facegan.data.dataset import ManifestImages
from facegan.data.duplicates.thumbnails import thumbnails
from facegan.metrics import set_statistics
from facegan.metrics.two_sample import halves_auc, spread, two_sample_auc
from facegan.metrics.verification import pair_scores

LARGEST = 4000  # images of one set: distances between all of them must fit in memory
SHOWN = 6  # people listed as the most and the least consistent
SETS = ("existing", "real train", "new", "real val")


@dataclass(frozen=True)
class JudgedFaces:
    """One set as the judge embeds it: images, unit embeddings (N, d), sorted names, each image's index in them."""

    images: ManifestImages
    embedding: np.ndarray
    names: list[str]
    person: np.ndarray

    def only(self, rows: np.ndarray) -> JudgedFaces:
        """Some of the images, by row; people are numbered anew."""
        images = self.images.only(rows)
        names, person = images.codes()
        return JudgedFaces(images, self.embedding[rows], names, person)

    def thinned(self) -> JudgedFaces:
        """Whole people, evenly chosen, of at most about LARGEST images."""
        n_people = max(2, round(len(self.names) * LARGEST / max(len(self), 1)))
        if n_people >= len(self.names):
            return self
        people = np.linspace(0, len(self.names) - 1, n_people).round().astype(int)
        return self.only(np.flatnonzero(np.isin(self.person, people)))

    def __len__(self) -> int:
        return len(self.person)


def describe(
    existing: JudgedFaces, new: JudgedFaces, train: JudgedFaces, val: JudgedFaces, thresholds: dict[str, Any], k: int
) -> dict[str, Any]:
    """The card: {sets: {set: {figure: value or None}}, people: the most and least consistent synthetic ones}.

    `thresholds` are those of `set_statistics.thresholds` on val people, `k` the neighbours of precision, recall,
    density and coverage. A figure is None where its set is empty or too small for it.
    """
    train = train.thinned()
    even, odd = (train.only(rows) for rows in set_statistics.halves(train.person))
    compared = {"existing": (existing, even), "real train": (odd, even), "new": (new, train), "real val": (val, train)}
    sets = {name: figures(faces.thinned(), reference, thresholds, k) for name, (faces, reference) in compared.items()}
    unseen = val.thinned()
    for name, (faces, reference) in compared.items():
        sets[name] |= unseen_figures(faces.thinned(), unseen, is_unseen=name == "real val")
        sets[name]["diversity"] = _diversity(faces.thinned(), reference) if name in ("existing", "real train") else None
    return {"sets": sets, "people": {name: ranked(compared[name][0], thresholds) for name in ("existing", "new")}}


def figures(faces: JudgedFaces, reference: JudgedFaces, thresholds: dict[str, Any], k: int) -> dict[str, Any]:
    """Figures of one set alone (separability, uniqueness, consistency), then of the set against real photos."""
    values: dict[str, Any] = {"people": len(faces.names), "images": len(faces)}
    if len(faces) < 2:
        return values
    centre = set_statistics.centres(faces.embedding, faces.person)
    pairs = pair_scores(faces.embedding, faces.person)
    if 0 < pairs.n_genuine < len(pairs.score):
        values |= set_statistics.separability(pairs)
        values["within"] = float(pairs.score[pairs.genuine].mean())
    n_distinguishable = set_statistics.distinguishable(centre, thresholds["centre"]["value"])
    values |= {"distinguishable": n_distinguishable, "uniqueness": n_distinguishable / len(centre)}
    values["consistency"] = set_statistics.consistency(
        faces.embedding, faces.person, thresholds["image to centre"]["value"]
    )[0]
    nearest_photo = (faces.embedding @ reference.embedding.T).max(axis=1)
    values["nearest photo"] = float(np.median(nearest_photo))
    nearest_centre = (centre @ set_statistics.centres(reference.embedding, reference.person).T).max(axis=1)
    values["nearest person"] = float(np.median(nearest_centre))
    values["kid"] = set_statistics.kid(reference.embedding, faces.embedding)
    return values | set_statistics.manifolds(reference.embedding, faces.embedding, k)


def unseen_figures(faces: JudgedFaces, unseen: JudgedFaces, is_unseen: bool) -> dict[str, float | None]:
    """A set against photos of people whom the generator has not seen; `is_unseen`: it is these, by halves of people."""
    if len(faces) < 2:
        return {}
    real = spread(unseen.embedding, unseen.person)
    ratio = spread(faces.embedding, faces.person) / real if real > 0 else float("nan")
    if is_unseen:
        half = unseen.person % 2 == 1
        sides = unseen.embedding[half], unseen.embedding[~half]
        told = halves_auc(unseen.embedding, unseen.person)
    else:
        sides = unseen.embedding, faces.embedding
        told = two_sample_auc(faces.embedding, faces.person, unseen.embedding, unseen.person)
    distance = set_statistics.kid(*sides) if min(map(len, sides)) > 1 else float("nan")
    return {"kid unseen": distance, "auc": told, "spread": ratio}


def _diversity(faces: JudgedFaces, reference: JudgedFaces) -> float | None:
    """DCFace's D in the space of 16 x 16 thumbnails; None for an empty set."""
    if len(faces) == 0:
        return None
    photo_person = np.asarray([_index(faces.names, name) for name in reference.names])[reference.person]
    thumbs = (thumbnails(faces.images.pixels), thumbnails(reference.images.pixels))
    return set_statistics.diversity(thumbs[0], faces.person, thumbs[1], photo_person)


def _index(names: list[str], name: str) -> int:
    return names.index(name) if name in names else -1


def ranked(faces: JudgedFaces, thresholds: dict[str, Any]) -> list[dict[str, Any]]:
    """The SHOWN most and the SHOWN least consistent people, most consistent first: {identity, cosine}."""
    if len(faces) == 0:
        return []
    cosine = set_statistics.consistency(faces.embedding, faces.person, thresholds["image to centre"]["value"])[1]
    order = np.argsort(-cosine, kind="stable")
    if len(order) > 2 * SHOWN:
        order = np.concatenate([order[:SHOWN], order[-SHOWN:]])
    return [{"identity": faces.names[n], "cosine": float(cosine[n])} for n in order]
