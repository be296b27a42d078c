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
from facegan.data.names import normal
from facegan.data.pair_lists import FORMS, IMAGE_SUFFIXES, PairList
from facegan.evaluation.embedded_faces import EmbeddedFaces
from facegan.metrics.verification import FAILED, Bools, Ints, PairScores, unit_rows


@dataclass(frozen=True)
class ScoredPairs:
    """The scored pairs of a list.

    pairs: PairScores, FAILED where an image has no embedding; its people are numbered 0 .. n - 1, and `people` int64
    (n,) holds their codes among the faces (-1: not among them). fold: int32 or None. listed: how many pairs the list
    has. images, failed: how many images the pairs name, and how many of those gave no embedding.
    """

    pairs: PairScores
    people: NDArray[np.int64]
    fold: Ints | None
    listed: int
    images: int
    failed: int

    def weights(self, weights: NDArray[Any]) -> NDArray[Any]:
        """From the weights of all test people (n_boot, n_people) the columns of `people`; 1 for who is not there."""
        with_absent = np.concatenate([weights, np.ones((len(weights), 1), weights.dtype)], axis=1)
        return np.ascontiguousarray(with_absent[:, self.people])


class ImageIndex:
    """Finds an image by its name, as described in the module's docstring."""

    def __init__(self, files: Iterable[str]) -> None:
        self.by_path: dict[str, int] = {}
        self.by_short_path: dict[str, int] = {}
        for row, file in enumerate(files):
            if file:
                for table, key in ((self.by_path, _without_suffix(file)), (self.by_short_path, _short_path(file))):
                    table[key] = -2 if key in table else row  # -2: ambiguous

    def find(self, name: str) -> int:
        """The row of an image, -1 where there is none; raises UserError where several fit."""
        row = self.by_path.get(_without_suffix(name), self.by_short_path.get(_short_path(name), -1))
        if row == -2:
            raise UserError(
                f"the pairs name '{name}', which several images are called", fix="name them by longer paths"
            )
        return row


def named_in(lists: Iterable[PairList]) -> Callable[[str], bool]:
    """A predicate of file names: whether the image may be one that the lists name."""
    names = {name for listed in lists for name in listed.names()}
    paths, short_paths = {_without_suffix(name) for name in names}, {_short_path(name) for name in names}
    return lambda file: _without_suffix(file) in paths or _short_path(file) in short_paths


def _without_suffix(name: str) -> str:
    """`sub/.../PERSON/IMAGE.jpg` without the extension, in one form of Unicode."""
    path = PurePosixPath(normal(name).replace("\\", "/"))
    return str(path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path)


def _short_path(name: str) -> str:
    """The last two parts of a name without the extension."""
    return "/".join(PurePosixPath(_without_suffix(name)).parts[-2:])


def score_pairs(listed: PairList, faces: EmbeddedFaces, only_test: bool, what: str) -> ScoredPairs:
    """Cosine similarities of the listed pairs; FAILED where an image is not among the faces or has no embedding.

    only_test: leave out pairs with a person who is not among the faces. `what` names the list in errors. Raises
    UserError where the list does not fit the images: none of its names is known, it names people that the recognizer
    was developed on, or it contradicts the identities.
    """
    index = ImageIndex(faces.file.tolist())
    rows = np.asarray([[index.find(name) for name in side] for side in (listed.first, listed.second)])
    if (rows < 0).all():
        example = next((str(file) for file in faces.file if file), None)
        hint = f"they are called such as '{example}'" if example else "they have no names (image.path)"
        raise UserError(f"none of the images in {what}, such as '{listed.first[0]}', is here; {hint}", fix=FORMS)
    person = _owners(listed, rows, faces)
    if only_test:
        keep = np.asarray(np.isin(person, np.unique(faces.identity.astype(str))).all(axis=0))
    else:
        _refuse_developed_on(person, faces, what)
        keep = np.ones(len(listed), bool)
    if not (listed.same[keep].any() and (~listed.same[keep]).any()):
        raise UserError(f"of the {len(listed)} pairs in {what} no genuine or no impostor pair is of the people here")
    rows, person, same = rows[:, keep], person[:, keep], listed.same[keep]
    has_folder = np.asarray(["/" in name for name in listed.first])[keep]  # a name without one says nothing of whom
    identified = (rows >= 0).all(axis=0) & (person != "").all(axis=0) & has_folder
    if (contradicting := np.flatnonzero(identified & ((person[0] == person[1]) != same))).size:
        pair = np.flatnonzero(keep)[contradicting[0]]
        claim = "one person" if same[contradicting[0]] else "two people"
        raise UserError(
            f"{what} calls {listed.first[pair]} and {listed.second[pair]} {claim}, their identities say otherwise "
            f"({contradicting.size} such pairs)",
            fix="give the list that belongs to these images",
        )
    return _scored(faces, rows, person, same, None if listed.fold is None else listed.fold[keep], listed, keep)


def _owners(listed: PairList, rows: NDArray[np.int64], faces: EmbeddedFaces) -> NDArray[np.str_]:
    """The identities (2, P) of the listed images; where an image has no row, that of the folder in its name."""
    identities = np.unique(faces.identity.astype(str)).tolist()
    identity_of_folder = {PurePosixPath(identity).name: identity for identity in identities}

    def owner(name: str, row: int) -> str:
        folder = PurePosixPath(_without_suffix(name)).parent.name
        return str(faces.identity[row]) if row >= 0 else identity_of_folder.get(folder, folder)

    return np.asarray(
        [list(map(owner, *side)) for side in zip((listed.first, listed.second), rows.tolist(), strict=True)]
    )


def _refuse_developed_on(person: NDArray[np.str_], faces: EmbeddedFaces, what: str) -> None:
    """Raise UserError where pairs name people on whom the recognizer was developed: they are no test."""
    developed_on = faces.developed_on | {PurePosixPath(name).name for name in faces.developed_on}
    if not developed_on:
        return
    affected = np.isin(person, sorted(developed_on)).any(axis=0)
    if affected.any():
        raise UserError(
            f"{int(affected.sum())} of the {affected.size} pairs in {what} are of people who trained the recognizer",
            fix="set the benchmark's people to `test`: then only pairs of test people are judged",
        )


def _scored(
    faces: EmbeddedFaces,
    rows: NDArray[np.int64],
    person: NDArray[np.str_],
    same: Bools,
    fold: Ints | None,
    listed: PairList,
    keep: Bools,
) -> ScoredPairs:
    embeddings = unit_rows(faces.embedding)
    acquired = (rows >= 0) & faces.acquired[rows]
    similarity = np.einsum("pd,pd->p", embeddings[rows[0]], embeddings[rows[1]], dtype=np.float32)
    score = np.where(acquired.all(axis=0), np.clip(similarity, -1, 1), np.float32(FAILED)).astype(np.float32)
    code_of_identity = {identity: code for code, identity in enumerate(np.unique(faces.identity).astype(str).tolist())}
    names, codes = np.unique(person, return_inverse=True)
    codes = codes.reshape(person.shape).astype(np.int32)
    people = np.asarray([code_of_identity.get(str(identity), -1) for identity in names], dtype=np.int64)
    sides = (listed.first, listed.second)
    listed_names = np.concatenate([np.asarray([_without_suffix(name) for name in side])[keep] for side in sides])
    flat_rows = rows.reshape(-1)
    image_keys = np.where(flat_rows >= 0, flat_rows.astype(str), listed_names)  # one image may have two names
    _, first_of_image = np.unique(image_keys, return_index=True)
    missing = int(np.count_nonzero(~acquired.reshape(-1)[first_of_image]))
    return ScoredPairs(PairScores(score, same, *codes), people, fold, len(listed), len(first_of_image), missing)
