"""A table of people that the user gives: the column identity, and others with what is known of each."""

from __future__ import annotations

from pathlib import Path

from facegan.core.errors import UserError


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
