"""The numbers of a study: people resampled once for all splits, paired differences, verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from facegan.metrics import intervals
from facegan.metrics.identification import search_ranks
from facegan.recognition import trial_choice
from facegan.reporting import results, words
from facegan.reporting.study import pooled
from study_inputs import BOOT, PEOPLE, StudyInputs, three_variants


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> StudyInputs:
    return three_variants(tmp_path_factory.mktemp("study"))


def test_people_are_drawn_once_for_all_splits_by_name(world: StudyInputs) -> None:
    """rank-1 by hand: each split's found and searched photos, weighted by the draws of the people named in it."""
    findings = world.numbers.variants[0]
    weights = intervals.person_weights(len(world.names), BOOT, 0)
    assert set(world.names) == {n for s in range(3) for n in _tested(world, s)}, "else the union is smaller"
    expected = []
    for split in range(3):
        of_seeds = []
        for seed in range(3):
            run = pooled.benchmark_runs.load(pooled.cell_inputs(world.inputs, "few", split), "real", seed)
            ranks = search_ranks(run.faces.embedding, run.faces.person, 10)
            hit, searched = np.zeros(PEOPLE), np.zeros(PEOPLE)
            for person, rank in zip(ranks.person, ranks.rank, strict=True):
                row = list(world.names).index(run.names[person])
                hit[row] += rank <= 1
                searched[row] += 1
            of_seeds.append((weights @ hit) / (weights @ searched))
        expected.append(np.mean(of_seeds, axis=0))
    np.testing.assert_allclose(findings.stacks["rank-1", "real"][0], expected)
    assert findings.n_identities == PEOPLE


def _tested(world: StudyInputs, split: int) -> list[str]:
    rows = pq.read_table(world.inputs[f"few:{split}:benchmark:real:0"] / "rows.parquet")
    return list(rows["identity"].to_pylist())


def test_the_difference_is_that_of_splits_paired(world: StudyInputs) -> None:
    findings = next(v for v in world.numbers.variants if v.name == "many")
    arm, base = findings.points["eer", "real+synthetic"], findings.points["eer", "real"]
    assert arm.shape == (3, 3)
    comparison = world.compared("many")
    assert comparison["delta"] == pytest.approx((arm - base).mean())
    assert comparison["per_split"] == pytest.approx((arm - base).mean(axis=1).tolist())
    assert comparison["relative_percent"] == pytest.approx(100 * comparison["delta"] / base.mean())
    pair = findings.stacks["eer", "real+synthetic"], findings.stacks["eer", "real"]
    assert findings.overlap == comparison["train_overlap"] == pytest.approx((3 / 6 + 3 / 6 + 0) / 3)
    sides = pair[0][0], pair[1][0], pair[0][1], pair[1][1], PEOPLE
    expected, independent = (intervals.paired_difference(*sides, overlap=r) for r in (findings.overlap, 0.0))
    assert (comparison["ci_low"], comparison["ci_high"]) == (expected.ci_low, expected.ci_high)
    assert expected.ci_high - expected.ci_low > independent.ci_high - independent.ci_low
    arm_alone = intervals.single_interval(*pair[0], PEOPLE, overlap=findings.overlap)
    assert findings.measure("eer").arms["real+synthetic"].low == arm_alone.ci_low
    assert (comparison["n_splits"], comparison["n_seeds"], comparison["n_identities"]) == (3, 3, PEOPLE)
    assert comparison["ci_high"] < 0 and world.compared("few")["verdict"] == "no gain shown"


def test_only_the_claim_can_be_a_gain(tmp_path: Path, world: StudyInputs) -> None:
    study = {"variants": {"few": {"x": 3}, "many": {"x": 10}}, "claim": "many"}
    claimed = StudyInputs(tmp_path, {"few": 0.35, "many": 0.35}, study=study)
    assert claimed.compared("many")["verdict"] == "gain"
    assert claimed.compared("few")["verdict"] == world.compared("many")["verdict"] == "exploratory"
    words = {
        (variant.name, measure.name): measure.differences["real+synthetic"].verdict
        for variant in claimed.numbers.variants
        for measure in variant.measures
    }
    assert words.pop(("many", "eer")) == "gain" and set(words.values()) == {"exploratory"}


def test_splits_that_all_learned_from_the_same_people_give_no_verdict(tmp_path: Path) -> None:
    world = StudyInputs(tmp_path, {"a": 0.5})
    one = world.inputs["a:0:prepare"]
    world.inputs |= {f"a:{split}:prepare": one for split in (1, 2)}
    comparison = world.compared("a")
    assert comparison["train_overlap"] == 1 and comparison["ci_low"] is None
    assert comparison["verdict"] == "no gain shown" and "learned from the same people" in comparison["reason"]


@pytest.mark.parametrize(
    ("splits", "seeds", "reason"), [((0, 1), (0, 1, 2), "three splits"), ((0, 1, 2), (0, 1), "three seeds")]
)
def test_too_few_splits_or_seeds_give_no_verdict(
    tmp_path: Path, splits: tuple[int, ...], seeds: tuple[int, ...], reason: str
) -> None:
    comparison = StudyInputs(tmp_path, {"a": 0.5}, splits, seeds).compared("a")
    assert comparison["verdict"] == "no gain shown" and reason in comparison["reason"]


def test_of_fitted_maps_no_seeds_are_asked_for(tmp_path: Path) -> None:
    fitted = {"start": {"kind": "imagenet"}, "tune": "whitened", "steps": 0}
    for number, (splits, tune, expected) in enumerate(
        [((0, 1, 2), fitted, "gain"), ((0, 1), fitted, "no gain shown"), ((0, 1, 2), {}, "no gain shown")]
    ):
        audit = (
            {"judge": {"kind": "recognizer", "options": {"start": "random", "tune": "all", "steps": 300}}}
            if tune
            else {}
        )
        world = StudyInputs(tmp_path / str(number), {"a": 0.5}, splits, (0,), train_recognizer=tune, audit=audit)
        assert world.compared("a")["verdict"] == expected
    tried = {"arms": {"real": {"trials": {"last": {"tune": "last_stage"}}}}, "train_recognizer": fitted}
    assert words.is_fitted({"train_recognizer": fitted}) and not words.is_fitted(tried)
    searched = {"search": {"space": {"tune": ["whitened", "all"]}}, "train_recognizer": fitted}
    assert not words.is_fitted(searched)


def test_a_study_of_one_split_says_what_a_report_says(tmp_path: Path) -> None:
    world = StudyInputs(tmp_path, {"a": 0.3}, splits=(5,))
    inputs = pooled.cell_inputs(world.inputs, "a", 5)
    report = results.measure(world.dump(), inputs, BOOT, 0, lambda done, total: None)
    comparison = world.compared("a")
    assert world.numbers.unit == "seed"
    assert {k: comparison[k] for k in report.comparison} == report.comparison


def test_a_variant_like_the_first_differs_from_it_by_nothing(world: StudyInputs) -> None:
    few, many, off = world.numbers.variants
    same, other = pooled.from_first(world.dump(), few, off), pooled.from_first(world.dump(), few, many)
    assert same is not None and (same.delta, same.low, same.high) == (0, 0, 0)
    assert other is not None and other.high is not None and other.high < 0
    assert other.delta == pytest.approx(world.compared("many")["delta"] - world.compared("few")["delta"])


def test_each_arm_is_told_what_its_own_val_people_chose(tmp_path: Path) -> None:
    cells = []
    for split, picked in enumerate([("a", "b"), ("a", "a"), ("b", "b")]):
        inputs = {}
        for arm, trial in zip(("real", "other"), picked, strict=True):
            inputs[f"select:{arm}"] = tmp_path / f"{split}{arm}"
            inputs[f"select:{arm}"].mkdir()
            trial_choice.write(inputs[f"select:{arm}"], trial, {})
        cells.append(inputs)
    chosen = pooled._chosen_trials({"arms": {"real": {}, "other": {}, "plain": {}}}, cells)
    assert chosen == {"real": {"a": 2, "b": 1}, "other": {"a": 1, "b": 2}, "plain": {}}
