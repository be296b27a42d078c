"""The efficiency curve: x by hand, and the arm's worth at the measured points."""

from __future__ import annotations

import numpy as np
import pytest

from facegan.reporting.study import efficiency
from facegan.reporting.study import words as study_words
from facegan.reporting.study.efficiency import reach
from study_inputs import StudyInputs, three_variants


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> StudyInputs:
    return three_variants(tmp_path_factory.mktemp("study"))


def test_reach_by_hand() -> None:
    x = np.array([2.0, 4.0, 10.0])
    falling = np.array([[0.3], [0.2], [0.1]])
    for target, expected in ((0.25, 3.0), (0.2, 4.0), (0.15, 7.0), (0.1, 10.0), (0.05, np.inf), (0.3, 2.0), (0.9, 2.0)):
        assert reach(x, falling, np.array([target]), "lower")[0] == pytest.approx(expected)
        assert reach(x, 1 - falling, np.array([1 - target]), "higher")[0] == pytest.approx(expected)
    bumpy = np.array([[0.3], [0.35], [0.1]])  # worse before it gets better: the first place that is good enough
    assert reach(x, bumpy, np.array([0.25]), "lower")[0] == pytest.approx(4 + 6 * 0.1 / 0.25)
    both = reach(x, np.hstack([falling, falling]), np.array([0.25, 0.05]), "lower")
    assert both.tolist() == [3.0, np.inf]


def test_what_the_arm_is_worth_at_the_measured_points(world: StudyInputs) -> None:
    curve = efficiency.measure(world.dump(), world.numbers)
    assert curve is not None and [w.x for w in curve.worth] == [3, 10]
    last = curve.worth[1]  # a large gain at the largest x: beyond all that was measured
    assert np.isinf(last.equals) and study_words.x_text(last.equals, curve) == "more than 10"
    assert study_words.x_interval(last, curve) == "more than 10"
    for worth in curve.worth:
        assert worth.low is not None and worth.high is not None and worth.low <= worth.equals <= worth.high


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_a_draw_of_units_varies_as_the_interval_says(overlap: float) -> None:
    values = np.random.default_rng(0).normal(size=5)
    replicates = np.tile(values[None, :, None], (2, 1, 20_000))  # nothing hangs on the people
    means, _ = efficiency._resampled([replicates, replicates], 0, [overlap, 0.0])
    expected = [values.var(ddof=1) * (1 / 5 + r / (1 - r)) for r in (overlap, 0.0)]
    assert means.var(axis=1) == pytest.approx(expected, rel=0.03)
    assert means.mean(axis=1) == pytest.approx(values.mean(), abs=0.03)
