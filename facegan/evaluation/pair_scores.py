"""Lists of pairs of images: LFW's text form, CSV, Parquet, and insightface's `.bin`; and their scores.

A list names its images by path. Two names are the same image where their paths are the same without the extension,
or, as far as that is unambiguous, the last two parts of them (`PERSON/IMAGE`): a list made for one layout of the
folders serves another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegan.core.errors import UserError
from facegan.data.pair_lists import FORMS, PairList
from facegan.evaluation.embedded_faces import EmbeddedFaces
from facegan.metrics.verification import FAILED, Bools, Ints, PairScores, unit_rows


@dataclass(frozen=True)
class ScoredPairs:
    """The pairs of a list that were asked for, with their scores.

    pairs: PairScores, FAILED where an image has no embedding; its people are numbered among themselves, and `people`
    int64 (n,) holds their codes among the faces (-1: not there). fold: int32 or None. listed: how many pairs the list
    has. images, failed: how many images the pairs name, and how many of those gave no embedding.
    """

    pairs: PairScores
    people: NDArray[np.int64]
    fold: Ints | None
    listed: int
    images: int
    failed: int

    def weights(self, weights: NDArray[Any]) -> NDArray[Any]:
        """Of the columns of all test people (n_boot, n_people) those of these; people who are not there count once."""
        known = np.concatenate([weights, np.ones((len(weights), 1), weights.dtype)], axis=1)
        return np.ascontiguousarray(known[:, self.people])


class Index:
    """Finds an image by its name: see the module."""

    def __init__(self, files: Iterable[str]) -> None:
        self.whole: dict[str, int] = {}
        self.short: dict[str, int] = {}
        for place, file in enumerate(files):
            if file:
                for table, key in ((self.whole, _key(file)), (self.short, _short(file))):
                    table[key] = -2 if key in table else place  # -2: ambiguous

    def find(self, name: str) -> int:
        """The place of an image, -1 where there is none; raises UserError where several fit."""
        place = self.whole.get(_key(name), self.short.get(_short(name), -1))
        if place == -2:
            raise UserError(
                f"the pairs name '{name}', which several images are called", fix="name them by longer paths"
            )
        return place


def naming(lists: Iterable[PairList]) -> Callable[[str], bool]:
    """Whether an image may be one that the lists name."""
    names = {name for one in lists for name in one.names()}
    whole, short = {_key(name) for name in names}, {_short(name) for name in names}
    return lambda file: _key(file) in whole or _short(file) in short


def _key(name: str) -> str:
    """`sub/.../PERSON/IMAGE.jpg` without the extension."""
    path = PurePosixPath(name.replace("\\", "/"))
    return str(path.with_suffix("") if path.suffix.lower() in _IMAGES else path)


def _short(name: str) -> str:
    """The last two parts of a name without the extension."""
    return "/".join(PurePosixPath(_key(name)).parts[-2:])


_IMAGES = {".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".bmp", ".webp", ".tif", ".tiff", ".gif"}


def score_pairs(listed: PairList, faces: EmbeddedFaces, only_test: bool, what: str) -> ScoredPairs:
    """Cosines of the listed pairs; an image that is not among the faces, or has no embedding, makes its pairs FAILED.

    only_test: leave out the pairs of which a person is not among the faces. Raises UserError where the list does not
    fit the images: no name is known, it names people that the recognizer was developed on, or calls two identities one.
    """
    index = Index(faces.file.tolist())
    place = np.asarray([[index.find(name) for name in side] for side in (listed.first, listed.second)])
    if (place < 0).all():
        have = next((str(file) for file in faces.file if file), None)
        called = f"they are called such as '{have}'" if have else "they have no names (image.path)"
        raise UserError(f"none of the images in {what}, such as '{listed.first[0]}', is here; {called}", fix=FORMS)
    person = _owners(listed, place, faces)
    if only_test:
        keep = np.asarray(np.isin(person, np.unique(faces.identity.astype(str))).all(axis=0))
    else:
        _refuse_others(person, faces, what)
        keep = np.ones(len(listed), bool)
    if not (listed.same[keep].any() and (~listed.same[keep]).any()):
        raise UserError(f"of the {len(listed)} pairs in {what} no genuine or no impostor pair is of the people here")
    place, person, same = place[:, keep], person[:, keep], listed.same[keep]
    folders = np.asarray(["/" in name for name in listed.first])[keep]  # a name without one says nothing of whom
    known = (place >= 0).all(axis=0) & (person != "").all(axis=0) & folders
    if (wrong := np.flatnonzero(known & ((person[0] == person[1]) != same))).size:
        one, other = (side[np.flatnonzero(keep)[wrong[0]]] for side in (listed.first, listed.second))
        said = "one person" if same[wrong[0]] else "two people"
        raise UserError(
            f"{what} calls {one} and {other} {said}, their identities say otherwise ({wrong.size} such pairs)",
            fix="give the list that belongs to these images",
        )
    return _scored(faces, place, person, same, None if listed.fold is None else listed.fold[keep], listed, keep)


def _owners(listed: PairList, place: NDArray[np.int64], faces: EmbeddedFaces) -> NDArray[np.str_]:
    """The identities (2, P) of the listed images; of one that is not here, by the folder in its name."""
    called = {PurePosixPath(who).name: who for who in np.unique(faces.identity.astype(str)).tolist()}

    def owner(name: str, at: int) -> str:
        folder = PurePosixPath(_key(name)).parent.name
        return str(faces.identity[at]) if at >= 0 else called.get(folder, folder)

    sides = zip((listed.first, listed.second), place.tolist(), strict=True)
    return np.asarray([[owner(name, at) for name, at in zip(side, at_side, strict=True)] for side, at_side in sides])


def _refuse_others(person: NDArray[np.str_], faces: EmbeddedFaces, what: str) -> None:
    """Raise UserError where pairs name people on whom the recognizer was developed: they are no test."""
    others = faces.others | {PurePosixPath(name).name for name in faces.others}
    if not others:
        return
    taken = np.isin(person, sorted(others)).any(axis=0)
    if taken.any():
        raise UserError(
            f"{int(taken.sum())} of the {taken.size} pairs in {what} are of people who trained the recognizer",
            fix="set the benchmark's people to `test`: then only pairs of test people are judged",
        )


def _scored(
    faces: EmbeddedFaces,
    place: NDArray[np.int64],
    person: NDArray[np.str_],
    same: Bools,
    fold: Ints | None,
    listed: PairList,
    keep: Bools,
) -> ScoredPairs:
    rows = unit_rows(faces.embedding)
    there = (place >= 0) & faces.acquired[place]
    cosine = np.einsum("pd,pd->p", rows[place[0]], rows[place[1]], dtype=np.float32)
    score = np.where(there.all(axis=0), np.clip(cosine, -1, 1), np.float32(FAILED)).astype(np.float32)
    codes = {who: code for code, who in enumerate(np.unique(faces.identity).astype(str).tolist())}
    named, dense = np.unique(person, return_inverse=True)
    dense = dense.reshape(person.shape).astype(np.int32)
    people = np.asarray([codes.get(str(who), -1) for who in named], dtype=np.int64)
    called = np.concatenate([np.asarray([_key(name) for name in side])[keep] for side in (listed.first, listed.second)])
    which = np.where(place.reshape(-1) >= 0, place.reshape(-1).astype(str), called)  # one image may have two names
    _, at = np.unique(which, return_index=True)
    missing = int(np.count_nonzero(~there.reshape(-1)[at]))
    return ScoredPairs(PairScores(score, same, *dense), people, fold, len(listed), len(at), missing)
