"""Lists of pairs to verify, in the forms in which they come: text, CSV, Parquet, insightface bin."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from facegan.core.errors import UserError
from facegan.data.sources.lfw import lfw_lines
from facegan.metrics.verification import Bools, Ints

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
        """Every name, as often as it occurs."""
        yield from self.first
        yield from self.second

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
    names = pq.read_schema(path).names
    return _from_columns(path, pq.read_table(path, columns=[c for c in (*COLUMNS, "fold") if c in names]).to_pydict())


def _read_bin(path: Path) -> PairList:
    from facegan.data.sources import insightface_bin

    images, same = insightface_bin.read_pairs(path)
    names = [f"{number:06d}" for number in range(len(images))]
    return PairList(tuple(names[::2]), tuple(names[1::2]), np.asarray(same, dtype=bool))


def _from_columns(path: Path, columns: dict[str, list[Any]]) -> PairList:
    if missing := [name for name in COLUMNS if name not in columns]:
        raise UserError(
            f"'{path}' has no column {', '.join(missing)}; it has {', '.join(columns) or 'none'}", fix=FORMS
        )
    same = []
    for number, (first, second, value) in enumerate(zip(*(columns[name] for name in COLUMNS), strict=True), start=1):
        is_same = _SAME.get(str(value).strip().lower())
        if is_same is None or not (first and second and isinstance(first, str) and isinstance(second, str)):
            raise UserError(f"'{path}', pair {number}: expected two paths and 1 or 0, got {first}, {second}, {value}")
        same.append(is_same)
    fold = _folds(path, columns["fold"]) if "fold" in columns else None
    return PairList(tuple(columns["first"]), tuple(columns["second"]), np.asarray(same, bool), fold)


def _folds(path: Path, values: Sequence[Any]) -> Ints:
    """The folds numbered from 0, in the order of their names (of their numbers, where they are numbers)."""
    texts = np.asarray([str(value) for value in values])
    if any(value in (None, "") for value in values):
        raise UserError(f"'{path}': some pairs have no fold", fix="give every pair a fold, or leave the column out")
    numeric = all(text.isdecimal() for text in texts)
    return np.unique(texts.astype(int) if numeric else texts, return_inverse=True)[1].astype(np.int32)
