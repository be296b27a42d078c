"""Three strikes of `benchmarks/reliability/chaos.py`, which makes twenty: in the end nothing shows of them."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

import pytest

from drawn import Lab, tiny

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "reliability"))

import chaos

from facegan.pipeline import graph

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
TORN, FULL, KILLED = "kill -9, and the newest checkpoint torn", "the disk is full", "kill -9 of a stage's process"


@pytest.mark.integration
def test_three_strikes_then_the_same_bytes_and_nothing_left(faces: Path, tmp_path: Path) -> None:
    arms = {"real": {}, "real+synthetic": {"existing": True, "new": True}}
    recipe = tiny(faces, arms=arms, audit={"enforce": False}, report={"bootstrap": 200})
    lab = Lab(tmp_path / "undisturbed" / "data" / "store")
    for item in graph.build(recipe):
        lab.make(item)
    file, rng = tmp_path / "recipe.json", random.Random(os.urandom(8))
    file.write_text(json.dumps(recipe.model_dump(mode="json")))
    with chaos.small_disk(tmp_path / "w" / "work") as small:
        world = chaos.World(tmp_path / "w", str(file), sets=())
        strikes = [(TORN, 0.0), (FULL, rng.uniform(0, 8)), (KILLED, rng.uniform(0, 8))]
        results = [chaos.struck(world, kind, at, rng) for kind, at in strikes if small or kind != FULL]
        last = chaos.finished(world, chaos.Result("none", 0), chaos.outputs(tmp_path / "undisturbed"))
        log = (tmp_path / "w" / "log").read_text()
    assert [one.faults for one in [*results, last]] == [[]] * (len(results) + 1), log
    assert results[0].ended in ("by SIGKILL", "0"), log  # 0: it was over before a checkpoint was seen
