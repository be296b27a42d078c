"""Lists of pairs to verify, in the forms in which they come: text, CSV, Parquet, insightface bin."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from facegan.core.errors import UserError
from facegan.data.separated import Form, find_form
from facegan.data.sources.lfw import has_head, lfw_lines
from facegan.metrics.verification import Bools, Ints

COLUMNS = ("first", "second", "same")
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".bmp", ".webp", ".tif", ".tiff", ".gif"}

FORMS = (
    "give LFW's text form (pairs.txt), lines of FIRST SECOND 1 (0: two people), a .csv or .parquet with the columns "
    "first, second, same (and fold), or an insightface .bin; all that is read is in docs/method/protocols.md"
)

_STEMS = ("image", "img", "imagepath", "imgpath", "path", "file", "filename", "filepath", "photo", "picture", "face")
_IMAGES = (
    *(("first", "second"), ("left", "right"), ("a", "b"), ("firstimage", "secondimage"), ("leftimage", "rightimage")),
    *((stem + one, stem + other) for stem in _STEMS for one, other in (("1", "2"), ("0", "1"), ("a", "b"))),
)
_SAME: tuple[str, ...] = ("same", "issame", "sameperson", "issameperson", "sameidentity", "actualissame", "label")
_SAME = (*_SAME, "match", "ismatch", "genuine", "isgenuine")
_TWO_LINES = "two lines a pair, an image and the answer on each"
_KAGGLE = ["name", "imagenum1", "imagenum2"]

_ANSWERS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("1", "true", "yes"), ("0", "false", "no")),
    (("1",), ("-1",)),
    (("t",), ("f",)),
    (("y",), ("n",)),
    (("same",), ("different", "diff")),
    (("genuine",), ("impostor", "imposter")),
    (("match", "matched"), ("mismatch", "mismatched", "nonmatch", "non-match")),
    (("positive", "pos"), ("negative", "neg")),
)
"""Words for (one person, two people), of which a list takes those of one line."""
_KNOWN = {word for words in _ANSWERS for word in itertools.chain(*words)}
_ANSWERS_FIX = "answer each pair by 1 (one person) or 0 (two); also read, for a whole list: " + "; ".join(
    f"{'/'.join(yes)} and {'/'.join(no)}" for yes, no in _ANSWERS[1:]
)


@dataclass(frozen=True)
class PairList:
    """P pairs: the names of both images, bool (P,) whether they are of one person, int32 (P,) the fold or None.

    how: in what form they were read.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    same: Bools
    fold: Ints | None = None
    how: str = field(default="", compare=False)

    def __len__(self) -> int:
        return len(self.first)

    def names(self) -> Iterator[str]:
        """Every name, as often as it occurs."""
        yield from self.first
        yield from self.second

    def taken(self) -> str:
        """What was taken for what: pairs of each kind, folds, the form, columns and answers."""
        genuine, folds = int(self.same.sum()), "no folds" if self.fold is None else f"{len(np.unique(self.fold))} folds"
        counts = f"{len(self)} pairs, {genuine} of one person and {len(self) - genuine} of two, {folds}"
        return f"{counts} ({self.how})" if self.how else counts

    def write(self, path: Path) -> None:
        """Write the list as Parquet; the same list gives the same bytes."""
        table: dict[str, Any] = {"first": self.first, "second": self.second, "same": self.same}
        pq.write_table(pa.table(table if self.fold is None else {**table, "fold": self.fold}), path)


def read_pairs(path: Path) -> PairList:
    """The list in a file; the extension says its form. Raises UserError for a file that is no such list."""
    readers = {".txt": _read_text, ".csv": _read_csv, ".parquet": _read_parquet, ".bin": _read_bin}
    if path.suffix.lower() not in readers:
        raise UserError(f"'{path}' is no list of pairs in a known form", fix=FORMS)
    try:
        pairs = readers[path.suffix.lower()](path)
    except FileNotFoundError as error:
        raise UserError(f"the pairs file '{path}' is not there", fix=FORMS) from error
    except (OSError, UnicodeDecodeError, pa.ArrowException, csv.Error) as error:
        raise UserError(f"the pairs file '{path}' cannot be read: {error}", fix=FORMS) from error
    if len(pairs) == 0:
        raise UserError(f"'{path}' lists no pair", fix=FORMS)
    return pairs


def _read_text(path: Path) -> PairList:
    lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not has_head(lines) and (pairs := _from_rows(path, _split(lines))) is not None:
        return pairs
    folds, count, fields = lfw_lines(path)
    fold = np.arange(len(fields), dtype=np.int32) // (2 * count)
    return _named_by_number(fields, fold if folds > 1 else None, "LFW's text form")


def _split(lines: list[str]) -> list[list[str]]:
    """The cells of each line: by tabs, by commas or semicolons that are as many in every line, or else by blanks."""
    if not any("\t" in line for line in lines):
        for separator in ",;":
            if len(counts := {line.count(separator) for line in lines}) == 1 and counts != {0}:
                return [[cell.strip() for cell in line.split(separator)] for line in lines]
    return [line.split("\t") if "\t" in line else line.split() for line in lines]


def _read_csv(path: Path) -> PairList:
    def rows(form: Form, strict: bool = True) -> Iterator[list[str]]:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.reader(file, delimiter=form.separator, skipinitialspace=form.blanks, strict=strict):
                if row:
                    yield [cell.strip() for cell in row] if form.blanks else row

    form = find_form(lambda form: next(rows(form, strict=False), []), ",", lambda names: _fits(path, names), path)
    table = list(rows(form))
    header = table[0] if table else []
    if not _fits(path, header) and (pairs := _from_rows(path, table)) is not None:
        return _with_form(pairs, form)
    if _keys(header)[:3] == _KAGGLE:
        fields = [_without_empty_end(row) for row in table[1:]]
        if (wrong := next((n for n, row in enumerate(fields, start=1) if not _is_by_number(row)), None)) is not None:
            raise UserError(
                f"'{path}', pair {wrong}: expected name, i, j or name, i, other, j, got {fields[wrong - 1]}", fix=FORMS
            )
        return _with_form(_named_by_number(fields, _folds_of_blocks(fields), "columns name, imagenum1, ..."), form)
    cells = [[row[column] if column < len(row) else None for row in table[1:]] for column in range(len(header))]
    return _with_form(_from_columns(path, dict(zip(header, cells, strict=True)) if table[1:] else {}), form)


def _fits(path: Path, names: list[str]) -> bool:
    return _keys(names)[:3] == _KAGGLE or len(_find_columns(path, names)) >= len(COLUMNS)


def _with_form(pairs: PairList, form: Form) -> PairList:
    how = "; ".join(filter(None, (pairs.how, form.remark(","))))
    return PairList(pairs.first, pairs.second, pairs.same, pairs.fold, how)


def _read_parquet(path: Path) -> PairList:
    names = pq.read_schema(path).names
    found = _find_columns(path, names)
    if len(found) < len(COLUMNS):
        return _from_columns(path, {name: [] for name in names})
    return _from_columns(path, pq.read_table(path, columns=list(found.values())).to_pydict())


def _read_bin(path: Path) -> PairList:
    from facegan.data.sources import insightface_bin

    images, same = insightface_bin.read_pairs(path)
    names = [f"{number:06d}" for number in range(len(images))]
    return PairList(tuple(names[::2]), tuple(names[1::2]), np.asarray(same, dtype=bool), how="insightface's .bin")


def _keys(names: Sequence[str]) -> list[str]:
    """What the names of columns are looked up by: small letters and digits; none of a name with blanks around it."""
    return [re.sub(r"[^a-z0-9]", "", name.lower()) if name == name.strip() else "" for name in names]


def _find_columns(path: Path, names: Sequence[str]) -> dict[str, str]:
    """{first, second, same, fold where it is there: the column}; only what is found, so fewer where it is no list.

    Raises UserError where several columns may be meant.
    """
    if set(COLUMNS) <= set(names):
        return {name: name for name in (*COLUMNS, "fold") if name in names}
    keys = _keys(names)
    images = [
        (names[n], names[m])
        for one, other in _IMAGES
        for n, m in itertools.product(range(len(names)), repeat=2)
        if (keys[n], keys[m]) == (one, other)
    ]
    answers = [name for name, key in zip(names, keys, strict=True) if key in _SAME]
    if images and answers and len(images) + len(answers) > 2:
        several = images if len(images) > 1 else answers
        readings = " or ".join(", ".join(one) if isinstance(one, tuple) else one for one in several)
        kind = "images" if several is images else "answer"
        raise UserError(f"'{path}': which columns hold the {kind}, {readings}?", fix="call them first, second, same")
    found = dict(zip(COLUMNS, (*images[0], answers[0]), strict=True)) if images and answers else {}
    if not found:
        return {name: name for name in COLUMNS if name in names}
    folds = [name for name, key in zip(names, keys, strict=True) if key in ("fold", "folds")]
    if len(folds) > 1:
        raise UserError(f"'{path}': which column holds the fold, {' or '.join(folds)}?", fix="call it fold")
    return found | {"fold": folds[0]} if folds else found


def _from_columns(path: Path, columns: dict[str, list[Any]]) -> PairList:
    found = _find_columns(path, list(columns))
    if missing := [name for name in COLUMNS if name not in found]:
        raise UserError(
            f"'{path}' has no column {', '.join(missing)}; it has {', '.join(columns) or 'none'}", fix=FORMS
        )
    first, second, answers = (columns[found[name]] for name in COLUMNS)
    how = f"columns {', '.join(found[name] for name in COLUMNS)}"
    pairs = _from_cells(path, first, second, answers, how)
    fold = _folds(path, columns[found["fold"]]) if "fold" in found else None
    return PairList(pairs.first, pairs.second, pairs.same, fold, pairs.how)


def _from_cells(path: Path, first: Sequence[Any], second: Sequence[Any], answers: Sequence[Any], how: str) -> PairList:
    """Pairs of three columns; raises UserError for cells that are no two paths, and answers of no one vocabulary."""
    words = [_word(answer) for answer in answers]
    for number, (one, other, word) in enumerate(zip(first, second, words, strict=True), start=1):
        if word not in _KNOWN or not (one and other and isinstance(one, str) and isinstance(other, str)):
            got = f"{one}, {other}, {answers[number - 1]}"
            raise UserError(f"'{path}', pair {number}: expected two paths and 1 or 0, got {got}"[:500], _ANSWERS_FIX)
    yes = next((yes for yes, no in _ANSWERS if set(words) <= {*yes, *no}), None)
    if yes is None:
        got = ", ".join(sorted(set(words)))
        example = f"{first[0]}, {second[0]}, {answers[0]}"
        raise UserError(f"'{path}' answers by {got}: no one pair of words (pair 1: {example})"[:500], _ANSWERS_FIX)
    same = np.asarray([word in yes for word in words], dtype=bool)
    said = {kind: sorted({str(a) for a, s in zip(answers, same, strict=True) if s == kind}) for kind in (True, False)}
    meant = [f"{'/'.join(said[kind])} is {whom}" for kind, whom in ((True, "one person"), (False, "two")) if said[kind]]
    return PairList(tuple(first), tuple(second), same, how=f"{how}; {', '.join(meant)}")


def _word(answer: object) -> str:
    """An answer as it is looked up: in small letters, whole numbers without a point."""
    word = str(answer).strip().lower()
    return str(int(float(word))) if re.fullmatch(r"[+-]?\d{1,9}(\.0*)?", word) else word


def _from_rows(path: Path, rows: list[list[str]]) -> PairList | None:
    """The pairs of a table without names of columns, None where it is in no known form; raises UserError.

    LFW's lines without the first; FIRST, SECOND and the answer, in whichever place; an image and the answer a line,
    two lines a pair.
    """
    if {len(row) for row in rows} == {3, 4} and all(map(_is_by_number, rows)):
        return _named_by_number(rows, _folds_of_blocks(rows), "LFW's text form without its first line")
    if len({len(row) for row in rows}) != 1:
        return None
    columns = list(zip(*rows, strict=True))
    others = [n for n, cells in enumerate(columns) if not all(map(_is_image, cells))]
    if len(columns) not in (2, 3) or len(others) != 1:
        return None
    answers = columns.pop(others[0])
    if len(columns) == 2:
        how = f"lines of two images, the answer in place {others[0] + 1}"
        return _from_cells(path, columns[0], columns[1], answers, how)
    first, second = columns[0][::2], columns[0][1::2]
    if answers[::2] == answers[1::2] and _names_agree(
        pairs := _from_cells(path, first, second, answers[::2], _TWO_LINES)
    ):
        return pairs
    raise UserError(
        f"'{path}' has one image a line, first {' '.join(rows[0])[:80]!r}: by the images' names and the answers it is "
        "not certain that each two lines are a pair",
        fix="write both images of a pair on one line: FIRST SECOND 1 (0: two people)",
    )


def _names_agree(pairs: PairList) -> bool:
    """Whether the images' names, by folder or without their number, say of each pair what its answer says."""

    def folder(name: str) -> str:
        return PurePosixPath(name.replace("\\", "/")).parent.as_posix()

    def person(name: str) -> str:
        return re.sub(r"[_-]?\d+$", "", PurePosixPath(name.replace("\\", "/")).stem)

    def agrees(of: Callable[[str], str]) -> bool:
        named = zip(pairs.first, pairs.second, pairs.same, strict=True)
        return all((of(one) == of(other)) == same for one, other, same in named)

    return agrees(folder) or agrees(person)


def _is_image(cell: str) -> bool:
    """Whether it can be nothing but the name of an image: a path, or with an image's extension."""
    return "/" in cell or "\\" in cell or PurePosixPath(cell).suffix.lower() in IMAGE_SUFFIXES


def _is_by_number(fields: list[str]) -> bool:
    """Whether it is `name i j` or `name i other j`."""
    return len(fields) in (3, 4) and bool(fields[0]) and fields[1].isdecimal() and fields[-1].isdecimal()


def _without_empty_end(row: list[str]) -> list[str]:
    return row[: max((n for n, cell in enumerate(row, start=1) if cell.strip()), default=0)]


def _named_by_number(pairs: list[list[str]], fold: Ints | None, how: str) -> PairList:
    """The pairs of lines `name i j` (one person) and `name i other j` (two)."""

    def name(person: str, number: str) -> str:
        return f"{person}/{person}_{int(number):04d}"

    first = tuple(name(fields[0], fields[1]) for fields in pairs)
    second = tuple(name(fields[-2] if len(fields) == 4 else fields[0], fields[-1]) for fields in pairs)
    return PairList(first, second, np.asarray([len(fields) == 3 for fields in pairs]), fold, how)


def _folds_of_blocks(pairs: list[list[str]]) -> Ints | None:
    """Folds of lines as LFW's View 2 has them, N of one person and N of two in each; None for any other order."""
    blocks = [(width, sum(1 for _ in group)) for width, group in itertools.groupby(pairs, len)]
    count = blocks[0][1] if blocks else 0
    if len(blocks) < 4 or count < 2 or blocks != [(3, count), (4, count)] * (len(blocks) // 2):
        return None
    return np.arange(len(pairs), dtype=np.int32) // (2 * count)


def _folds(path: Path, values: Sequence[Any]) -> Ints:
    """The folds numbered from 0, in the order of their names (of their numbers, where they are numbers)."""
    texts = np.asarray([str(value) for value in values])
    if any(value in (None, "") for value in values):
        raise UserError(f"'{path}': some pairs have no fold", fix="give every pair a fold, or leave the column out")
    numeric = all(text.isdecimal() for text in texts)
    return np.unique(texts.astype(int) if numeric else texts, return_inverse=True)[1].astype(np.int32)
