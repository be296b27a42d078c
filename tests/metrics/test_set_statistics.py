"""The card's figures against hand-worked cases and slow definitions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import polynomial_kernel

from facegan.metrics import set_statistics
from facegan.metrics.verification import pair_scores, unit_rows


def line(*values: float) -> np.ndarray:
    return np.asarray(values, np.float64)[:, None]


def test_precision_recall_density_coverage_by_hand() -> None:
    real, fake = line(0, 1, 2, 10), line(0.5, 1.5, 30)
    # k = 1: balls of real [-1, 1], [0, 2], [1, 3], [2, 18]; of fake [-0.5, 1.5], [0.5, 2.5], [1.5, 58.5].
    values = set_statistics.manifolds(real, fake, 1)
    assert values["precision"] == pytest.approx(2 / 3)  # 30 lies in no ball
    assert values["recall"] == 1.0  # 0, 1 in the first, 2 in the second, 10 in the third
    assert values["density"] == pytest.approx((2 + 2) / 3)  # 0.5: two balls; 1.5: two balls
    assert values["coverage"] == pytest.approx(3 / 4)  # the ball of 10 holds nothing
    assert set_statistics.manifolds(real, real, 3)["density"] > 0  # k is lowered where sets are small
    with pytest.raises(ValueError, match="two rows"):
        set_statistics.manifolds(real, fake[:1], 1)


def test_kid_is_the_unbiased_estimate() -> None:
    rng = np.random.default_rng(0)
    a, b = unit_rows(rng.normal(size=(30, 6))), unit_rows(rng.normal(size=(20, 6)) + 0.7)
    kernel = [polynomial_kernel(x, y, degree=3, gamma=1, coef0=1) for x, y in ((a, a), (b, b), (a, b))]
    off = [k[~np.eye(len(k), dtype=bool)].mean() for k in kernel[:2]]
    assert set_statistics.kid(a, b) == pytest.approx(off[0] + off[1] - 2 * kernel[2].mean(), rel=1e-5)
    same = unit_rows(rng.normal(size=(400, 6)))
    assert abs(set_statistics.kid(same[:200], same[200:])) < 0.05 < set_statistics.kid(a, b)


def test_distinguishable_is_a_greedy_packing() -> None:
    angle = np.radians([0, 10, 40, 45, 90])
    centre = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert set_statistics.distinguishable(centre, float(np.cos(np.radians(20)))) == 3  # 0, 40, 90
    assert set_statistics.distinguishable(centre, 1.1) == 5


def test_consistency_and_centres_by_hand() -> None:
    rows = unit_rows([[1, 0], [1, 0], [0, 1], [0, 1], [1, 1]])
    person = np.array([0, 0, 1, 1, 1])
    assert set_statistics.centres(rows, person)[0] == pytest.approx([1, 0])
    share, cosine = set_statistics.consistency(rows, person, 0.95)
    middle = rows[2:].mean(axis=0) / np.linalg.norm(rows[2:].mean(axis=0))
    own = rows[2:] @ middle
    assert share == pytest.approx((1 + (own >= 0.95).mean()) / 2) and cosine == pytest.approx([1, own.mean()])


def test_separability_of_known_normals() -> None:
    rng = np.random.default_rng(1)
    rows = unit_rows(rng.normal(size=(6, 8)).repeat(4, axis=0) + 0.2 * rng.normal(size=(24, 8)))
    pairs = pair_scores(rows, np.arange(24) // 4)
    genuine, impostor = pairs.score[pairs.genuine], pairs.score[~pairs.genuine]
    expected = (genuine.mean() - impostor.mean()) ** 2 / (genuine.var() + impostor.var())
    values = set_statistics.separability(pairs)
    assert values["fisher"] == pytest.approx(expected, rel=1e-4)
    assert values["d_prime"] == pytest.approx(np.sqrt(2 * expected), rel=1e-4) and values["eer"] < 0.05


def test_thresholds_let_through_no_more_than_asked() -> None:
    rng = np.random.default_rng(2)
    person = np.repeat(np.arange(8), 6)
    rows = unit_rows(rng.normal(size=(8, 5))[person] + rng.normal(size=(48, 5)))
    limits = set_statistics.thresholds(rows, person, 0.05)
    assert {kind: entry["n"] for kind, entry in limits.items()} == {"image": 8 * 7 // 2 * 36, "image to centre": 48 * 7,
                                                                  "centre": 56}  # fmt: skip
    pairs = pair_scores(rows, person)
    assert 0.04 < (pairs.score[~pairs.genuine] >= limits["image"]["value"]).mean() <= 0.05
    is_stranger = person[:, None] != np.arange(8)
    assert (
        0.04
        < ((rows @ set_statistics.centres(rows, person).T)[is_stranger] >= limits["image to centre"]["value"]).mean()
        <= 0.05
    )
    with pytest.raises(ValueError, match="two people or more with two images"):
        set_statistics.thresholds(rows[:3], np.array([0, 0, 1]), 0.01)


def test_halves_part_every_person() -> None:
    person = np.array([1, 0, 1, 1, 0, 0, 1])
    even, odd = set_statistics.halves(person)
    assert sorted([*even, *odd]) == list(range(7))
    assert np.bincount(person[even]).tolist() == [2, 2] and np.bincount(person[odd]).tolist() == [1, 2]


def test_diversity_is_recall_within_a_person() -> None:
    photos, who = line(0, 1, 2, 3, 10, 11), np.array([0, 0, 0, 0, 1, 1])
    same = line(0, 1, 2, 3, 10, 10.1, 10.2, 10.3), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert set_statistics.diversity(*same, photos, who) == pytest.approx(
        (1 + 1 / 2) / 2
    )  # nothing of person 1 reaches 11
    assert np.isnan(set_statistics.diversity(line(0, 1), np.zeros(2, int), photos, who))
