"""The ORL faces."""

from __future__ import annotations

from collections import Counter

from PIL import Image

from facegan.data.sources.orl import Orl


def test_orl_is_forty_people_by_ten() -> None:
    rows = list(Orl().rows())
    counts = Counter(row.identity for row in rows)
    assert len(counts) == 40 and set(counts.values()) == {10}
    assert counts.keys() == {f"orl/s{number}" for number in range(1, 41)}
    assert Image.open(rows[0].path).size == (92, 112)
    assert all(row.license for row in rows)
