"""Lists of pairs of images: LFW's text form, CSV, Parquet, and insightface's `.bin`; and their scores.

A list names its images by path. Two names are the same image where their paths are the same without the extension,
or, as far as that is unambiguous, the last two parts of them (`PERSON/IMAGE`): a list made for one layout of the
folders serves another.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from facegan.errors import UserError
from facegan.faces import Faces
from facegan.metrics import FAILED, Bools, Ints, PairScores, unit_rows

COLUMNS = ("first", "second", "same")
FORMS = (
    "give LFW's text form (pairs.txt), a .csv or .parquet with the columns first, second, same (and fold), "
    "or an insightface .bin"
)
_SAME = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class PairList:
    """P pairs: the names of both images, bool (P,) whether they are of one person, int32 (P,) the fold or None."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    same: Bools
    fold: Ints | None = None

    def __len__(self) -> int:
        return len(self.first)

    def names(self) -> Iterator[str]:
        """Every name, as often as it stands."""
        yield from self.first
        yield from self.second

    def write(self, path: Path) -> None:
        """Write the list as Parquet; the same list gives the same bytes."""
        table: dict[str, Any] = {"first": self.first, "second": self.second, "same": self.same}
        pq.write_table(pa.table(table if self.fold is None else {**table, "fold": self.fold}), path)


def read_pairs(path: Path) -> PairList:
    """The list in a file, whose form its extension tells; raises UserError for one that is none."""
    readers = {".txt": _read_text, ".csv": _read_csv, ".parquet": _read_parquet, ".bin": _read_bin}
    if path.suffix.lower() not in readers:
        raise UserError(f"'{path}' is no list of pairs in a known form", fix=FORMS)
    try:
        found = readers[path.suffix.lower()](path)
    except FileNotFoundError as error:
        raise UserError(f"the pairs file '{path}' is not there", fix=FORMS) from error
    except (OSError, UnicodeDecodeError, pa.ArrowException, csv.Error) as error:
        raise UserError(f"the pairs file '{path}' cannot be read: {error}", fix=FORMS) from error
    if len(found) == 0:
        raise UserError(f"'{path}' lists no pair", fix=FORMS)
    return found


def lfw_lines(path: Path) -> tuple[int, int, list[list[str]]]:
    """(folds, pairs of each kind in a fold, the pairs' fields) of a file in LFW's text form.

    A first line `N` (View 1: one fold) or `FOLDS N`; then, for each fold, N lines `name i j` of one person and N
    lines `name i other j` of two. Raises UserError for anything else. Source: Huang et al. 2007, README of LFW.
    """
    lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    head = lines[0].split() if lines else []
    numbers = [int(part) for part in head if part.isdecimal()]
    folds, count = (1, *numbers) if len(numbers) == 1 else numbers if len(numbers) == 2 else (0, 0)
    if len(numbers) != len(head) or folds * count == 0 or len(lines) != 2 * folds * count + 1:
        raise UserError(f"'{path}' is not a count N and 2 N pairs (of each fold): it has {len(lines)} lines", fix=FORMS)
    pairs = []
    for number, line in enumerate(lines[1:]):
        fields = line.split("\t") if "\t" in line else line.split()
        width = 3 if number % (2 * count) < count else 4
        if len(fields) != width or not (fields[1].isdecimal() and fields[-1].isdecimal()):
            raise UserError(f"'{path}', line {number + 2}: expected {width} fields, got {line[:80]!r}", fix=FORMS)
        pairs.append(fields)
    return folds, count, pairs


def _read_text(path: Path) -> PairList:
    folds, count, pairs = lfw_lines(path)

    def name(person: str, number: str) -> str:
        return f"{person}/{person}_{int(number):04d}"

    first = tuple(name(fields[0], fields[1]) for fields in pairs)
    second = tuple(name(fields[-2] if len(fields) == 4 else fields[0], fields[-1]) for fields in pairs)
    same = np.asarray([len(fields) == 3 for fields in pairs])
    fold = np.arange(len(pairs), dtype=np.int32) // (2 * count)
    return PairList(first, second, same, fold if folds > 1 else None)


def _read_csv(path: Path) -> PairList:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    columns = {name: [row.get(name) for row in rows] for name in (rows[0] if rows else [])}
    return _from_columns(path, columns)


def _read_parquet(path: Path) -> PairList:
    have = pq.read_schema(path).names
    return _from_columns(path, pq.read_table(path, columns=[c for c in (*COLUMNS, "fold") if c in have]).to_pydict())


def _read_bin(path: Path) -> PairList:
    from facegan.sources import insightface_bin

    images, same = insightface_bin.read_pairs(path)
    names = [f"{number:06d}" for number in range(len(images))]
    return PairList(tuple(names[::2]), tuple(names[1::2]), np.asarray(same, dtype=bool))


def _from_columns(path: Path, columns: dict[str, list[Any]]) -> PairList:
    if missing := [name for name in COLUMNS if name not in columns]:
        raise UserError(
            f"'{path}' has no column {', '.join(missing)}; it has {', '.join(columns) or 'none'}", fix=FORMS
        )
    same = []
    for number, (one, other, value) in enumerate(zip(*(columns[name] for name in COLUMNS), strict=True), start=1):
        said = _SAME.get(str(value).strip().lower())
        if said is None or not (one and other and isinstance(one, str) and isinstance(other, str)):
            raise UserError(f"'{path}', pair {number}: expected two paths and 1 or 0, got {one}, {other}, {value}")
        same.append(said)
    fold = _folds(path, columns["fold"]) if "fold" in columns else None
    return PairList(tuple(columns["first"]), tuple(columns["second"]), np.asarray(same, bool), fold)


def _folds(path: Path, values: Sequence[Any]) -> Ints:
    """The folds numbered from 0, in the order of their names (of their numbers, where they are numbers)."""
    texts = np.asarray([str(value) for value in values])
    if any(value in (None, "") for value in values):
        raise UserError(f"'{path}': some pairs have no fold", fix="give every pair a fold, or leave the column out")
    whole = all(text.isdecimal() for text in texts)
    return np.unique(texts.astype(int) if whole else texts, return_inverse=True)[1].astype(np.int32)


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


def score_pairs(listed: PairList, faces: Faces, only_test: bool, what: str) -> ScoredPairs:
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


def _owners(listed: PairList, place: NDArray[np.int64], faces: Faces) -> NDArray[np.str_]:
    """The identities (2, P) of the listed images; of one that is not here, by the folder in its name."""
    called = {PurePosixPath(who).name: who for who in np.unique(faces.identity.astype(str)).tolist()}

    def owner(name: str, at: int) -> str:
        folder = PurePosixPath(_key(name)).parent.name
        return str(faces.identity[at]) if at >= 0 else called.get(folder, folder)

    sides = zip((listed.first, listed.second), place.tolist(), strict=True)
    return np.asarray([[owner(name, at) for name, at in zip(side, at_side, strict=True)] for side, at_side in sides])


def _refuse_others(person: NDArray[np.str_], faces: Faces, what: str) -> None:
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
    faces: Faces,
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
