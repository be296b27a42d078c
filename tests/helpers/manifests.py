"""Counts of a manifest, to compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from facegan.data.manifest import read


def summarise(path: Path) -> dict[str, Any]:
    """Counts of rows and identities by source and split, from the columns alone."""
    table = read(path, ["identity", "source", "split"])
    keys = pa.table({"key": pc.binary_join_element_wise(table["source"], table["split"], "/"),
                     "identity": table["identity"]})  # fmt: skip
    grouped = keys.group_by("key").aggregate([("identity", "count"), ("identity", "count_distinct")])
    groups = {
        item["key"]: {"images": item["identity_count"], "identities": item["identity_count_distinct"]}
        for item in sorted(grouped.to_pylist(), key=lambda item: str(item["key"]))
    }
    return {"images": table.num_rows, "identities": pc.count_distinct(table["identity"]).as_py(), "groups": groups}
