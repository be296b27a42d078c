"""Large test sets: the same figures and replicates as from pairs held one by one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from facegan.evaluation.embedded_faces import embed_faces
from facegan.evaluation.protocols.verification import Verification
from facegan.metrics import all_pairs, intervals, verification
from facegan.metrics.all_pairs import LargeSet, SmallSet
from facegan.metrics.groups import count_errors

FARS = (0.3, 0.1, 0.01)


def uneven(people: int, dim: int, tied: bool = False, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (N, dim) of people with one to nine images; tied: +-1 entries, whose cosines often are equal."""
    rng = np.random.default_rng(seed)
    images = np.minimum(rng.geometric(0.45, people), 9)
    who = rng.permutation(np.repeat(rng.permutation(3 * people)[:people], images))
    centre = rng.normal(size=(3 * people, dim))
    rows = centre[who] + rng.uniform(0.5, 1.6, 3 * people)[who, None] * rng.normal(size=(len(who), dim))
    return (np.sign(rows) if tied else rows).astype(np.float32), who


def both(embedding: np.ndarray, who: np.ndarray) -> tuple[SmallSet, LargeSet]:
    return SmallSet(embedding, who), LargeSet(embedding, who)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("people", [9, 60])
def test_large_sets_have_the_figures_of_small_ones(people: int, tied: bool) -> None:
    small, large = both(*uneven(people, 16, tied, seed=people))
    assert (large.n_genuine, large.n_impostor, large.n_people) == (small.n_genuine, small.n_impostor, small.n_people)
    assert large.eer() == pytest.approx(small.eer(), abs=1e-12)
    assert [large.tar_at_far(far) for far in FARS] == [small.tar_at_far(far) for far in FARS]
    of_large, of_small = large.accuracy(10), small.accuracy(10)
    assert (of_large.mean, of_large.std_error, of_large.n_pairs) == (
        of_small.mean,
        of_small.std_error,
        of_small.n_pairs,
    )
    assert_array_equal(of_large.correct, of_small.correct)


@pytest.mark.parametrize(("images", "at_once"), [(1, 1), (3, 100), (1000, 10**6)])
@pytest.mark.parametrize("tied", [False, True])
def test_impostors_are_scored_in_blocks(monkeypatch: pytest.MonkeyPatch, tied: bool, images: int, at_once: int) -> None:
    """In blocks of `images`, `at_once` sorted at once, some not acquired: ranks and rates as of one array."""
    embedding, who = uneven(30, 8, tied)
    acquired = np.random.default_rng(0).random(len(who)) < 0.8
    monkeypatch.setattr(verification, "_BLOCK", images * len(who))
    monkeypatch.setattr(all_pairs, "_SORTED_AT_ONCE", at_once)
    small, large = SmallSet(embedding, who, acquired), LargeSet(embedding, who, acquired)
    impostors = large.sorted_impostors[0]
    assert_allclose(impostors, np.sort(small.pairs.score[~small.pairs.genuine]), atol=1e-6)
    ranks = [np.searchsorted(impostors, large.levels, side) for side in ("left", "right")]
    assert_array_equal([large.rank_at[:-1], large.rank_above[:-1]], ranks)
    assert large.lowest == verification.FAILED
    for far in FARS:
        assert large.tar_at_far(far) == np.mean(large.genuine >= verification.threshold_at_far(impostors, far))


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("people", [9, 60])
def test_replicates_are_exact(people: int, tied: bool, dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of weighing pairs, by gathering and by BLAS, against every pair weighed on its own."""
    monkeypatch.setattr(all_pairs, "_DENSE", 0 if dense else 1e9)
    small, large = both(*uneven(people, 16, tied, seed=people))
    weights = intervals.person_weights(people, 60, seed=1)
    weights[0] = 1
    assert_allclose(large.bootstrap_eer(weights), small.bootstrap_eer(weights), atol=1e-12)
    for far in FARS:
        expected = small.bootstrap_tar_at_far(far, weights)
        assert_allclose(large.bootstrap_tar_at_far(far, weights), expected, atol=1e-12)
    assert large.bootstrap_eer(weights)[0] == pytest.approx(large.eer(), abs=1e-12)
    assert_allclose(large.bootstrap_accuracy(10, weights), small.bootstrap_accuracy(10, weights), atol=1e-12)


def test_weights_by_hand() -> None:
    """Four people, two of them with two images; one replicate counts a pair twice, one has no genuine pair."""
    angle = np.deg2rad([0, 30, 100, 140, 50, 200])
    embedding, who = np.stack([np.cos(angle), np.sin(angle)], axis=1), np.array([0, 0, 1, 1, 2, 3])
    weights = np.array([[2, 1, 1, 0], [0, 0, 2, 2], [4, 0, 0, 0], [1, 1, 1, 1]], dtype=np.int32)
    large = LargeSet(embedding, who)
    # Genuine cosines: cos 30 of person 0, cos 40 of person 1. Impostors >= cos 40: the pair (30, 50) of
    # persons 0 and 2, weight 2 x 1; the others of the first replicate: 0-1 four pairs x 2, 0-2 one more x 2,
    # 1-2 two x 1, person 3 none. Above cos 30 there is (30, 50) alone. FRR is 0 up to cos 40, 1/3 up to cos 30.
    far = 2 / (4 * 2 + 2 * 2 + 2)
    assert_allclose(large.bootstrap_eer(weights)[0], far)
    assert np.isnan(large.bootstrap_eer(weights)[1:3]).all() and np.isfinite(large.bootstrap_eer(weights)[3])
    assert_allclose(large.bootstrap_tar_at_far(0.15, weights)[0], 1)
    assert_allclose(large.bootstrap_tar_at_far(0.1, weights)[0], 0)  # not even the highest impostor may pass
    assert np.isnan(large.bootstrap_tar_at_far(0.1, weights)[1:3]).all()


def test_curve_is_of_true_operating_points() -> None:
    small, large = both(*uneven(60, 16))
    pairs, curve = small.pairs, large.det_curve()
    assert curve.far[[0, -1]].tolist() == [0, 1] and curve.frr[[0, -1]].tolist() == [1, 0]
    assert (np.diff(curve.far) >= 0).all() and (np.diff(curve.frr) <= 0).all() and curve.far.size <= 500
    for threshold, far, frr in zip(curve.thresholds, curve.far, curve.frr, strict=True):
        assert far == pytest.approx(np.mean(pairs.score[~pairs.genuine] >= threshold - 1e-6), abs=2e-4)
        assert frr == pytest.approx(np.mean(pairs.score[pairs.genuine] < threshold - 1e-6), abs=2e-3)


def test_size_alone_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding, who = uneven(300, 32)
    assert isinstance(all_pairs.all_pairs(embedding, who), SmallSet)
    benchmark, weights = Verification(), intervals.person_weights(300, 20, seed=0)
    small = benchmark.run(embed_faces(embedding, who)), benchmark.replicates(embed_faces(embedding, who), weights)
    monkeypatch.setattr(all_pairs, "LARGE", len(who) * (len(who) - 1) // 2)
    assert isinstance(all_pairs.all_pairs(embedding, who), LargeSet)
    large = benchmark.run(embed_faces(embedding, who)), benchmark.replicates(embed_faces(embedding, who), weights)
    for of_large, of_small in zip(large[0].metrics, small[0].metrics, strict=True):
        assert of_large.value == pytest.approx(of_small.value, rel=1e-6)
        assert (of_large.name, of_large.note, of_large.n_impostor) == (
            of_small.name,
            of_small.note,
            of_small.n_impostor,
        )
    assert large[1].keys() == small[1].keys() >= {"eer", "tar@far=0.001", "accuracy"}
    for name in small[1]:
        assert_allclose(large[1][name], small[1][name], rtol=1e-6)


def test_what_large_sets_refuse() -> None:
    with pytest.raises(ValueError, match="no genuine pair"):
        LargeSet(np.eye(5), np.arange(5))
    with pytest.raises(ValueError, match="no impostor pair"):
        LargeSet(np.eye(5), np.zeros(5))
    with pytest.raises(ValueError, match="NaN"):
        LargeSet(np.full((4, 2), np.nan), [0, 0, 1, 1])
    with pytest.raises(ValueError, match="weights must be"):
        LargeSet(np.eye(4), [0, 0, 1, 1]).bootstrap_eer(intervals.person_weights(3, 10, seed=0))


def test_thousands_of_images() -> None:
    """2.4 million pairs: each replicate is the weighted EER of metrics, and they spread about the point."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(1000), np.where(np.arange(1000) < 400, 4, 1))
    rows = rng.normal(size=(1000, 32))[who] + 1.2 * rng.normal(size=(len(who), 32))
    large = all_pairs.all_pairs(rows, who)
    assert isinstance(large, LargeSet) and large.n_impostor + large.n_genuine == 2200 * 2199 // 2
    weights = intervals.person_weights(1000, 60, seed=0)
    values = large.bootstrap_eer(weights)
    exact = [verification.eer(*weighed(large, drawn)) for drawn in weights[:2]]
    assert_allclose(values[:2], exact, atol=1e-12)
    assert abs(values.mean() - large.eer()) < 0.2 * values.std() + 0.003 and values.std() > 0


def weighed(large: LargeSet, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All scores, which are genuine, and what each weighs in one replicate."""
    score, couple = large.sorted_impostors[0], large.sorted_impostors[1].astype(np.int64)
    impostor = drawn[couple // large.n_people] * drawn[couple % large.n_people]
    genuine = np.repeat([True, False], [large.n_genuine, large.n_impostor])
    return (
        np.concatenate([large.genuine, score]),
        genuine,
        np.concatenate([drawn[large.genuine_person], impostor]),
    )


@pytest.mark.parametrize("images", [7, 10**6])
def test_groups_count_what_is_sorted_here(monkeypatch: pytest.MonkeyPatch, images: int) -> None:
    """At thresholds that are scores themselves, in blocks or at once: to the last bit."""
    embedding, who = uneven(30, 8, False)
    monkeypatch.setattr(verification, "_BLOCK", images * len(who))
    large = LargeSet(embedding, who)
    impostors, couples = large.sorted_impostors
    for rank in (0, len(impostors) // 2, len(impostors) - 1):
        errors = count_errors(embedding, large.person, large.n_people, impostors[rank])
        assert errors.false_matches == len(impostors) - rank
        first, second = np.divmod(couples[rank:].astype(np.int64), large.n_people)
        expected = np.unique(np.stack([np.minimum(first, second), np.maximum(first, second)]), axis=1)
        assert_array_equal(np.stack([errors.first, errors.second]), expected)
        assert errors.false_non_matches == np.count_nonzero(large.genuine < impostors[rank])
