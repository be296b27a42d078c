"""The calibration scripts themselves: copies give no verdict, a better arm does, and the bound is the known one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "calibration"))

import copies
import designs
import false_gain
import published
import study_coverage
from designs import Case, Design, Parts

from facegan.data.options import Prepare
from facegan.recipe.recipe import Recipe


def test_a_better_arm_is_found_and_an_equal_one_is_not() -> None:
    for world, effect, count in ((Parts(), -0.09, 20), (false_gain.AS_TRAINED, -0.8, 6)):
        case = Case("14 x 5", "copies", world)
        found = np.array([false_gain.trial(n, case, (effect,), 100, 100) for n in range(count)])
        gains = (found[..., 0] + found[..., 1] < 0).sum(axis=0)
        assert gains[0] <= 3 and gains[1] >= 0.8 * count, gains


def test_splits_of_a_pooled_study_share_people_and_weights() -> None:
    design = designs.DESIGNS["pooled"]
    drawn = designs.draw(design, 0, 50, np.random.default_rng(0))
    assert drawn.tested.shape == (5, 14) and drawn.trained.shape == (5, 20)
    assert not any(set(a) & set(b) for a, b in zip(drawn.tested, drawn.trained, strict=True))
    assert drawn.weights.shape == (50, len(drawn.everyone)) and (drawn.weights.sum(axis=1) == len(drawn.everyone)).all()
    for split in (0, 1):
        for column, person in enumerate(drawn.tested[split]):
            place = list(drawn.everyone).index(person)
            assert np.array_equal(drawn.drawn(split)[:, column], drawn.weights[:, place])


def test_the_split_effect_is_common_to_its_seeds_and_partly_to_other_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(designs.DESIGNS, "many", Design(40, 14, 6, 400, 2, trained=20))
    rng = np.random.default_rng(0)
    trained = designs.draw(designs.DESIGNS["many"], 0, 2, rng).trained
    case = Case("many", "useless", Parts(), 0.02)
    draws = {s: np.array([designs.split_effects(case._replace(shared=s), trained, rng) for _ in range(300)])
             for s in (0.0, 1.0)}  # fmt: skip
    for shared, overlap in ((0.0, 0.0), (1.0, 0.5)):  # 20 of 40 people twice: half of them are the same
        effects = draws[shared]
        assert np.std(effects) == pytest.approx(0.02 / 2**0.5, rel=0.1)  # of one of two arms
        common = np.mean(effects.mean(axis=1) ** 2) / np.mean(effects**2)
        assert common == pytest.approx(overlap, abs=0.1)


def test_bound_is_that_of_the_binomial() -> None:
    assert false_gain.upper_bound(0, 59) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert false_gain.upper_bound(12, 400) == pytest.approx(0.0481, abs=2e-4)
    assert false_gain.upper_bound(3, 3) == 1


def test_real_copies_are_trained_and_scored(recipe: Recipe, tmp_path: Path) -> None:
    options: Prepare = recipe.prepare
    path = copies.make(tmp_path, options, recipe.train_recognizer, 0, range(3))
    (baseline, arm), n_people = false_gain.real_scores(path, 60)
    assert n_people == 3 and baseline.points.shape == (1, 3) and arm.values.shape == (1, 3, 60)
    assert not np.array_equal(np.load(path)["embedding"][0], np.load(path)["embedding"][1])  # another order
    gain, loss, count = false_gain.real_rates([([baseline, arm], n_people)], 3)
    assert count == 1 and gain + loss in (0.0, 1.0)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
def test_simulated_splits_share_what_is_said_and_err_together(overlap: float) -> None:
    rng = np.random.default_rng(0)
    drawn = [study_coverage.train_effects(4, overlap, 2.0, 0.0, rng) for _ in range(1500)]
    effects = np.array([effect for effect, _ in drawn])
    assert np.mean([shared for _, shared in drawn]) == pytest.approx(overlap, abs=0.02)
    assert effects.std() == pytest.approx(2, rel=0.05)
    assert np.mean(effects.mean(axis=1) ** 2) / 4 == pytest.approx(1 / 4 + 3 / 4 * overlap, rel=0.15)


def test_published_intervals_are_rebuilt_from_what_is_stored(capsys: pytest.CaptureFixture[str]) -> None:
    assert published.overlap("orl-study", [0]) == 0 and 0.4 < published.overlap("orl-study", [0, 1, 2]) < 0.7
    published.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 2 and all(line.count("|") == 10 for line in lines)
