"""Seeds from names: their range, and a value that must never change."""

from __future__ import annotations

from facegan.core.seeds import subseed


def test_subseeds_fit_an_int64_and_differ() -> None:
    seeds = [subseed("a", i, j) for i in range(30) for j in range(30)]
    assert len(set(seeds)) == 900 and all(0 <= seed < 2**63 for seed in seeds)
    assert subseed("existing", 0, "orl/s1") == 7905368770576488696  # for ever: rows in the world hold it
    assert subseed(1, 23) != subseed(12, 3)
