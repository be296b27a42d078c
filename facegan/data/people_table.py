"""A table of people that the user gives: the column identity, and others with what is known of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facegan.core.errors import UserError

OF_MANIFEST = ("group", "dataset")
"""The columns that a manifest has of each image."""


def read_column(path: Path, column: str, what: str) -> dict[str, str]:
    """{identity: value} of a .csv or .parquet, '' where a value is missing; `what` names the reader in errors.

    Raises UserError where the file is not there or no table, lacks a column, or gives one person two values.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    if not path.is_file():
        raise UserError(f"the table of {what} is not there: '{path}'", fix="set its `file`")
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(
            f"'{path}' cannot be read as a table: {error}", fix="give a .csv with a head, or a .parquet"
        ) from error
    for name in ("identity", column):
        if name not in table.column_names:
            raise UserError(
                f"'{path}', the table of {what}, has no column '{name}'; it has: {', '.join(table.column_names)}",
                fix="set `by` to one of its columns, and call the one with the people identity",
            )
    values: dict[str, str] = {}
    for identity, value in zip(table["identity"].to_pylist(), table[column].to_pylist(), strict=True):
        text = "" if value is None else str(value).strip()
        if values.setdefault(str(identity), text) != text:
            raise UserError(
                f"'{path}' gives {identity} two values of '{column}': '{values[str(identity)]}' and '{text}'",
                fix="give each person one",
            )
    return values


def write_column(path: Path, column: str, table: dict[str, str]) -> None:
    """Write what `read_column` gave as a .parquet that it reads again."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"identity": list(table), column: list(table.values())}), path)


def values_in_table(
    table: dict[str, str], identity: Sequence[str], file: str, who: str = "test people"
) -> NDArray[np.object_]:
    """What a table (`read_column`) says of each image's person, '' where nothing: (N,) str.

    People stand there with or without what is before the last /. Raises UserError where it names none of them.
    """
    names = [str(name) for name in identity]
    found = [table.get(name, table.get(name.rpartition("/")[2], "")) for name in names]
    if not any(found):
        raise UserError(
            f"'{file}' names none of the {len(set(names))} {who}, such as '{names[0]}'",
            fix="write their identities, with or without what stands before the last /, in its column identity",
        )
    return np.asarray(found, dtype=object)


def values_in_manifest(by: str, identity: Sequence[str], group: NDArray[np.object_]) -> NDArray[np.object_]:
    """One of OF_MANIFEST of each image: its `group`, or the dataset in front of its identity."""
    if by == "group":
        return group
    return np.asarray([str(name).partition("/")[0] for name in identity], dtype=object)
