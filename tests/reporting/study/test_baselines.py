"""Baselines of a study: pooled over the splits as arms are, by variant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from drawn import RUNTIME
from facegan.metrics import intervals
from facegan.recipe.comparison import Report
from facegan.reporting.summary import advice, sentence
from facegan.runtime.context import Context
from facegan.stages import study
from study_inputs import BOOT, PEOPLE, StudyInputs


def written(world: StudyInputs, out: Path) -> dict[str, Any]:
    out.mkdir()
    study.run(Report(bootstrap=BOOT), {"recipe": world.dump()}, dict(world.inputs), out, Context(RUNTIME))
    return dict(json.loads((out / "results.json").read_text()))


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyInputs, Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("lost")
    world = StudyInputs(root / "in", {"plain": 0.0, "tight": 0.7}, spread={"classical": 0.3})
    return world, root / "out", written(world, root / "out")


def test_each_variant_is_pooled_over_its_splits(lost: tuple[StudyInputs, Path, dict[str, Any]]) -> None:
    world, out, answer = lost
    findings = world.numbers.variants[0]
    values, points = findings.stacks["eer", "classical"]
    assert values.shape == (3, BOOT) and points.shape == (3,)
    folders = [world.inputs[f"plain:{split}:benchmark:classical"] for split in range(3)]
    judged = [json.loads((folder / "results.json").read_text())["verification"]["metrics"] for folder in folders]
    of_splits = [next(metric["value"] for metric in metrics if metric["name"] == "eer") for metrics in judged]
    entry = answer["baselines"]["classical"]["eer"]
    assert entry["per_split"] == pytest.approx(of_splits) and entry["value"] == pytest.approx(np.mean(of_splits))
    assert answer["baselines"] == answer["variants"]["plain"]["baselines"]
    arm = findings.stacks["eer", "real"]
    expected = intervals.paired_difference(arm[0], values, arm[1], points, PEOPLE, overlap=findings.overlap)
    assert findings.overlap > 0
    found = entry["differences"]["real"]
    assert found["delta"] == pytest.approx(expected.delta) and found["ci_low"] == pytest.approx(expected.ci_low)
    rows = [row for row in pq.read_table(out / "results.parquet").to_pylist() if row["arm"] == "classical"]
    assert {row["seed"] for row in rows} == {None} and {row["split"] for row in rows} == {0, 1, 2}
    differences = pq.read_table(out / "differences.parquet").to_pylist()
    against = [row for row in differences if row["baseline"] == "classical" and row["metric"] == "eer"]
    assert len(against) == 4 and not any(row["decides"] or row["verdict"] for row in against)


def test_the_variant_that_decides_says_first_that_its_arms_lose(
    lost: tuple[StudyInputs, Path, dict[str, Any]],
) -> None:
    _, out, answer = lost
    assert answer["beaten_by"] == answer["variants"]["plain"]["beaten_by"] and answer["beaten_by"]["excludes_zero"]
    assert answer["variants"]["tight"]["beaten_by"] is None, "there the arm real+synthetic is better"
    assert sentence(out).startswith("Every arm is worse than the baseline “classical”")
    lines = advice(out)
    assert "Take none of the arms as it is: “classical” is better." in lines[0] and "Take none" not in lines[1]
    assert "| baseline classical |" in (out / "report.md").read_text()
    assert "every arm is worse than “classical”" in (out / "index.html").read_text()


def test_with_one_split_the_arms_seeds_are_the_units(tmp_path: Path) -> None:
    world = StudyInputs(tmp_path / "in", {"plain": 0.0}, splits=(0,), spread={"classical": 2.0})
    answer = written(world, tmp_path / "out")
    findings = world.numbers.variants[0]
    arm, (values, points) = findings.stacks["eer", "real"], findings.stacks["eer", "classical"]
    assert arm[0].shape == (3, BOOT) and values.shape == (1, BOOT)
    repeated = np.repeat(values, 3, axis=0), np.repeat(points, 3)
    expected = intervals.paired_difference(arm[0], repeated[0], arm[1], repeated[1], findings.n_identities)
    found = answer["baselines"]["classical"]["eer"]["differences"]["real"]
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((expected.ci_low, expected.ci_high))
    assert answer["beaten_by"] is None and "Every arm is worse" not in (tmp_path / "out" / "report.md").read_text()
