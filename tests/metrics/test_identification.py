"""Open-set and closed-set searches by hand and by a loop, templates by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from facegan.evaluation.embedded_faces import embed_faces
from facegan.evaluation.protocols.open_set import OpenSet
from facegan.metrics import intervals, verification
from facegan.metrics.identification import cmc, open_searches, rank_k, search_ranks, unknown_people


def test_searches_by_hand() -> None:
    """Two people enrolled (0 and 1), one not (2)."""
    angle = np.radians([0, 10, 90, 50, 30, 95])
    rows = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    person, acquired = np.array([0, 0, 1, 1, 2, 2]), np.ones(6, bool)
    searches = open_searches(rows, person, np.array([False, False, True]), acquired, rotations=1)
    # enrolled: 0 and 90 degrees. 10 finds 0 (10 apart); 50 finds 90 (40 apart, 0 is 50); 30 scores cos 30, 95 cos 5.
    cosines = np.cos(np.radians([10, 40, 30, 5]))
    assert_allclose(searches.pairs.score, cosines, atol=1e-6)
    assert_array_equal(searches.pairs.genuine, [True, True, False, False])
    assert (searches.n_enrolled, searches.n_unknown, searches.unknown_images) == (2, 1, 2)
    assert verification.operating_curve(searches.pairs.score, searches.pairs.genuine).far.tolist() == [
        0,
        0.5,
        0.5,
        1,
        1,
    ]
    twice = open_searches(rows, person, np.array([False, False, True]), acquired)
    assert twice.pairs.n_genuine == 4 and twice.pairs.n_impostor == 4
    # then 10 and 50 are enrolled: 0 finds 10, but 90 finds 50; nobody finds what was not acquired
    lost = open_searches(rows, person, np.array([False, False, True]), np.arange(6) != 2, rotations=1)
    assert_allclose(lost.pairs.score, [cosines[0], verification.FAILED, cosines[2], np.cos(np.radians(95))], atol=1e-6)


def drawn(seed: int = 0, people: int = 30, each: int = 5, spread: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), each)
    return rng.normal(size=(people, 12))[who] + spread * rng.normal(size=(len(who), 12)), who


def test_rates_are_those_of_a_loop() -> None:
    rows, who = drawn()
    embedded = embed_faces(rows, [f"d/{p:02d}" for p in who])
    benchmark = OpenSet(fpir=(0.2, 0.5), rotations=2, seed=3)
    unknown = unknown_people(np.unique(embedded.identity), 0.5, 3)
    unit = verification.unit_rows(rows)
    genuine, impostor = [], []
    for r in range(2):
        gallery = {p: np.flatnonzero(who == p)[r] for p in range(30) if not unknown[p]}
        for n in np.setdiff1d(np.arange(len(who)), list(gallery.values())):
            scores = {p: float(unit[n] @ unit[g]) for p, g in gallery.items()}
            best = max(scores, key=lambda p: scores[p])
            if unknown[who[n]]:
                impostor.append(scores[best])
            else:
                genuine.append(scores[best] if best == who[n] else -9)
    values = {m.name: m for m in benchmark.run(embedded).metrics}
    for fpir in (0.2, 0.5):
        threshold = sorted(impostor, reverse=True)[int(fpir * len(impostor) + 1e-9)]
        expected = np.mean([score > threshold + 1e-9 for score in genuine])
        assert values[f"dir@fpir={fpir}"].value == pytest.approx(expected)
        assert f"of {int((~unknown).sum())} enrolled people" in values[f"dir@fpir={fpir}"].note


def test_who_is_enrolled_depends_on_names_alone() -> None:
    names = [f"d/{n}" for n in range(100)]
    unknown = unknown_people(names, 0.3, 0)
    assert unknown.sum() == 30
    order = np.random.default_rng(0).permutation(100)
    assert_array_equal(unknown_people(np.asarray(names)[order], 0.3, 0), unknown[order])
    assert not np.array_equal(unknown_people(names, 0.3, 1), unknown)
    with pytest.raises(ValueError, match="an unknown person and a known one with two images"):
        OpenSet().run(embed_faces(np.eye(4), ["a", "b", "c", "d"]))


def test_few_searches_resolve_nothing() -> None:
    rows, who = drawn(people=8)
    metric = OpenSet(fpir=(0.1,)).run(embed_faces(rows, who)).metrics[0]
    assert metric.value is None and metric.note == "not resolvable with 20 images of people who are not enrolled"


def test_replicates_weigh_who_is_searched_for() -> None:
    """Weights of whole numbers give what as many searches give."""
    rows, who = drawn(2)
    embedded, benchmark = embed_faces(rows, who), OpenSet(fpir=(0.3,))
    weights = intervals.person_weights(30, 6, seed=0)
    values = benchmark.replicates(embedded, weights)["dir@fpir=0.3"]
    unknown = unknown_people(np.unique(who), 0.5, 0)
    pairs = open_searches(rows, who, unknown, np.ones(len(who), bool)).pairs
    for weight_row, value in zip(weights, values, strict=True):
        times = weight_row[pairs.first]
        score, genuine = np.repeat(pairs.score, times), np.repeat(pairs.genuine, times)
        assert value == pytest.approx(verification.tar_at_far(score, genuine, 0.3))


def test_templates_by_hand() -> None:
    rows = [[2, 0], [0, 5], [0, 1], [1, 0], [3, 4]]
    who, group = ["d/a", "d/a", "d/a", "d/b", "d/b"], ["v1", "v1", "", "v1", ""]
    pooled = embed_faces(rows, who, [f"x/{n}" for n in range(5)], group, failed=[("d/b", "b/lost")]).pooled()
    rows_of = {file: (row.tolist(), acquired) for file, row, acquired in zip(
        pooled.file, pooled.embedding.round(4), pooled.acquired, strict=True)}  # fmt: skip
    half = pytest.approx([0.7071, 0.7071])
    assert rows_of["a/v1"] == (half, True) and rows_of["x/2"] == ([0, 1], True) and rows_of["b/v1"] == ([1, 0], True)
    assert rows_of["x/4"] == (pytest.approx([0.6, 0.8]), True) and rows_of["b/lost"] == ([0, 0], False)
    assert pooled.remarks == ("5 templates of 6 images, pooled by group",)


def test_ranks_by_hand() -> None:
    angle = np.radians([0, 10, 20, 90, 40, 200])  # two people of two and three images, one single
    embedding = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    ranks = search_ranks(embedding, [0, 0, 0, 1, 1, 2])
    # rotation 0 enrols 0, 90, 200: probes 10 -> 1, 20 -> 1, 40 -> 2
    # rotation 1 enrols 10, 40, 200: probes 0 -> 1, 20 -> 1, 90 -> 1
    # rotation 2 enrols 20, 90, 200: probes 0 -> 1, 10 -> 1, 40 -> 2
    assert_array_equal(ranks.rank, [1, 1, 2, 1, 1, 1, 1, 1, 2])
    assert_array_equal(ranks.person, [0, 0, 1, 0, 0, 1, 0, 0, 1])
    assert_allclose(cmc(ranks), [7 / 9, 1, 1])
    assert rank_k(ranks) == 7 / 9 and rank_k(ranks, 2) == 1
    assert len(search_ranks(embedding, [0, 0, 0, 1, 1, 2], rotations=1).rank) == 3


def test_ranks_are_those_of_a_loop() -> None:
    embedding, who = drawn(people=7, each=4, spread=1.2)
    shuffled = np.random.default_rng(1).permutation(len(who))[:23]  # unequal numbers of images, any order
    embedding, who = embedding[shuffled], who[shuffled]
    unit = verification.unit_rows(embedding)
    expected = []
    for r in range(int(np.bincount(who).max())):
        gallery = {p: np.flatnonzero(who == p)[r % np.sum(who == p)] for p in np.unique(who)}
        for probe in np.setdiff1d(np.arange(23), list(gallery.values())):
            mates = {p: unit[probe] @ unit[g] for p, g in gallery.items()}
            expected.append(1 + sum(s >= mates[who[probe]] for p, s in mates.items() if p != who[probe]))
    assert_array_equal(search_ranks(embedding, who).rank, expected)
    assert cmc(search_ranks(embedding, who))[-1] == 1


def test_ties_count_against_a_search() -> None:
    assert rank_k(search_ranks(np.ones((6, 2)), [0, 0, 1, 1, 2, 2])) == 0
    for identity in ([0, 0], [0, 1]):
        with pytest.raises(ValueError, match="two people and one with two images"):
            search_ranks(np.ones((2, 2)), identity)
