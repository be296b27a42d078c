"""Which licences the rows of a manifest stand under, and what descends from them inherits.

Licences are free text and have no general order of strictness, so none is dropped: what was made from several stands
under all of them. A row that states none counts as unknown, which never means free.
"""

from __future__ import annotations

from pathlib import Path

from facegan.data import manifest

UNKNOWN = "licence unknown"
AND = " AND "  # as in SPDX expressions: all of them hold


def names(licenses: list[str | None]) -> list[str]:
    """Every licence of some rows once, sorted; those that are joined are taken apart, and none is `UNKNOWN`."""
    return sorted({name for stated in licenses for name in (stated or UNKNOWN).split(AND)})


def of(path: Path, split: str | None = None) -> list[str]:
    """The licences of a manifest, of one split where given."""
    return names(manifest.read(path, ["license"], split)["license"].unique().to_pylist())


def inherited(licenses: list[str]) -> str | None:
    """What a row made from all these states; None where no licence was known."""
    return None if licenses == [UNKNOWN] else AND.join(licenses)
