"""The benchmark `enrolled`: own people by held-out photos, strangers, and a threshold of val people."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from facegan.core.errors import ConfigError
from facegan.evaluation.embedded_faces import EmbeddedFaces, OwnPeople, embed_faces
from facegan.evaluation.protocols.enrolled import NO_OWN, Enrolled
from facegan.metrics import verification
from facegan.metrics.intervals import single_interval, weights_by_name
from facegan.recipe.load import load


def faces_of(
    seed: int = 0, trained: int = 3, held_out: int = 2, people: int = 20, others: int = 15, spread: float = 0.5
) -> EmbeddedFaces:
    """People are unit vectors in 16 dimensions, photos are them with noise; 10 val people with 6 photos."""
    rng = np.random.default_rng(seed)

    def photos(name: str, count: int, each: int) -> EmbeddedFaces:
        centre = rng.normal(size=(count, 16))
        centre /= np.linalg.norm(centre, axis=1, keepdims=True)
        rows = np.repeat(centre, each, axis=0)
        rows = rows + spread / 4 * rng.normal(size=rows.shape)
        return embed_faces(rows, [f"d/{name}{person:02d}" for person in range(count) for _ in range(each)])

    own = photos("own", people, trained + held_out)
    is_held = np.tile(np.arange(trained + held_out) >= trained, people)
    parts = [(own.only(~is_held), "trained"), (own.only(is_held), "held_out"), (photos("val", 10, 6), "val")]
    return replace(photos("other", others, 8), own=OwnPeople.joined(parts))


def values(faces: EmbeddedFaces, **options: Any) -> dict[str, Any]:
    return {metric.name.partition("/")[2]: metric for metric in Enrolled(**options).run(faces).metrics}


def test_by_hand() -> None:
    """Two people on the axes, one photo each held out, and a stranger; the same numbers with pencil and paper."""
    names = ["d/a", "d/a", "d/b", "d/b", "d/a", "d/b"]
    own = embed_faces([[1, 0.2], [1, -0.2], [0.3, 1], [-0.3, 1], [0.8, 0.6], [0.8, 0.6]], names)
    side = np.asarray(["trained"] * 4 + ["held_out"] * 2, dtype=object)
    stranger = embed_faces(np.tile([[0.6, 0.8], [-1.0, 0.0]], (10, 1)), ["d/s", "d/t"] * 10)
    found = values(replace(stranger, own=OwnPeople(own, side)), fpir=(0.5,), far=(0.3,))
    # Templates are the axes. b's photo is nearer to a. Strangers' best: 0.8 ten times, 0 ten times.
    assert found["rank-1"].value == 0.5
    assert found["fnir@fpir=0.5"].value == 0.5  # the threshold lies just above 0: a is found, b never
    # 40 comparisons: ten each of 0.8, 0.6, 0, -1; at a FAR of 0.3 those of 0.8 pass: own ones of 0.8 and 0.6.
    assert found["tar@far=0.3"].value == 0.5 and found["tar@far=0.3"].n_impostor == 40
    assert (
        found["fnmr@val-fmr=0.01"].value is None
        and "not resolvable with 0 impostor pairs of val people" in found["fnmr@val-fmr=0.01"].note
    )


def test_what_cannot_be_resolved_is_not_printed() -> None:
    found = values(faces_of(), far=(0.1, 1e-3, 1e-5), fpir=(0.1, 0.01), fmr=0.01)
    assert found["tar@far=0.1"].value is not None and found["fnir@fpir=0.1"].value is not None
    assert found["tar@far=1e-05"].value is None and "not resolvable with 2400" in found["tar@far=1e-05"].note
    assert found["tar@far=0.001"].value is None  # 2.4 comparisons
    assert found["fnir@fpir=0.01"].value is None and "not resolvable with 120 photos" in found["fnir@fpir=0.01"].note
    at_home = found["fnmr@val-fmr=0.01"]
    assert at_home.value is None and "not resolvable with 540 impostor pairs of val people" in at_home.note
    replicated = Enrolled(far=(0.1, 1e-5), fpir=(0.1, 0.01)).replicates(faces_of(), np.ones((3, 15), np.int32))
    assert sorted(replicated) == ["enrolled/fnir@fpir=0.1", "enrolled/rank-1", "enrolled/tar@far=0.1"]


def test_the_threshold_is_that_of_val_people_and_templates_as_large() -> None:
    faces = faces_of(spread=0.9)
    assert faces.own is not None
    val = faces.own.of("val")
    rows, person = verification.unit_rows(val.embedding), val.person
    templates = verification.unit_rows(np.stack([rows[person == code][:3].mean(axis=0) for code in range(10)]))
    impostors = (rows @ templates.T)[person[:, None] != np.arange(10)]
    threshold = verification.threshold_at_far(impostors, 0.1)
    found = values(faces, fmr=0.1)
    own, side = faces.own.faces, faces.own.side
    own_rows = verification.unit_rows(own.embedding)
    gallery = np.stack(
        [own_rows[(own.identity == name) & (side == "trained")].mean(axis=0) for name in names_of(faces)]
    )
    gallery = verification.unit_rows(gallery)
    searched = np.flatnonzero(side == "held_out")
    mate = np.einsum(
        "nd,nd->n", own_rows[searched], gallery[[names_of(faces).index(n) for n in own.identity[searched]]]
    )
    assert found["fnmr@val-fmr=0.1"].value == pytest.approx(np.mean(mate < threshold))
    others = verification.unit_rows(faces.embedding) @ gallery.T
    assert found["fmr@val-fmr=0.1"].value == pytest.approx(np.mean(others >= threshold), abs=1e-3)


def names_of(faces: EmbeddedFaces) -> list[str]:
    assert faces.own is not None
    side = faces.own.side
    return sorted(set(faces.own.faces.identity[(side == "trained") | (side == "held_out")].tolist()))


def test_who_has_no_photo_to_search_by_is_enrolled_and_counted() -> None:
    faces = faces_of()
    assert faces.own is not None
    own = faces.own
    gone = np.isin(own.faces.identity, ["d/own03", "d/own07"]) & (own.side == "held_out")
    fewer = replace(faces, own=OwnPeople(own.faces.only(~gone), own.side[~gone]))
    metric = values(fewer)["rank-1"]
    assert (metric.n_genuine, metric.n_identities, metric.n_resampled) == (36, 20, 18)
    assert "2 are enrolled and not searched, having no other photo" in metric.note
    assert "36 searches of 18 own people, 120 of 15 others; 20 enrolled by 60 trained photos" in metric.note


def test_photos_that_prepare_could_not_use_are_counted() -> None:
    faces = faces_of()
    assert faces.own is not None
    note = values(replace(faces, own=replace(faces.own, quarantined=3)))["rank-1"].note
    assert "3 photos of own people that could not be used are not among these" in note


def test_a_gallery_of_held_out_photos() -> None:
    metric = values(faces_of(held_out=3), gallery="held_out")["rank-1"]
    assert "40 searches of 20 own people" in metric.note and "20 enrolled by 20 held-out photos" in metric.note
    with pytest.raises(ValueError, match="nobody can be enrolled and searched by 'held_out' photos"):
        values(faces_of(held_out=1), gallery="held_out")


def test_a_gallery_photo_without_a_face() -> None:
    faces = faces_of(spread=0.1)
    assert faces.own is not None
    own = faces.own.faces
    acquired = own.acquired.copy()
    acquired[np.flatnonzero((own.identity == "d/own00") & (faces.own.side == "trained"))] = False  # all of them
    acquired[np.flatnonzero((own.identity == "d/own01") & (faces.own.side == "trained"))[0]] = False  # one
    blind = replace(faces, own=OwnPeople(replace(own, acquired=acquired), faces.own.side))
    metric = values(blind)["rank-1"]
    assert metric.value == 38 / 40 and "4 photos gave no embedding and count as errors" in metric.note


def test_without_held_out_photos_there_is_no_value_and_the_reason(tmp_path: Any) -> None:
    found = Enrolled().run(replace(faces_of(), own=None))
    assert [metric.name for metric in found.metrics] == Enrolled().names()
    assert {(metric.value, metric.note) for metric in found.metrics} == {(None, NO_OWN)}
    assert Enrolled().replicates(replace(faces_of(), own=None), np.ones((2, 15), np.int32)) == {}
    with pytest.raises(ConfigError, match="none are held out: set prepare"):
        load("orl-tiny", ["benchmark.benchmarks=[{kind: verification}, {kind: enrolled}]"])
    load("orl-tiny", ["benchmark.benchmarks=[{kind: verification}, {kind: enrolled}]", "prepare.held_out=2"])


def test_replicates_of_weight_one_are_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    from facegan.metrics import intervals

    monkeypatch.setattr(intervals, "weights_by_name", lambda names, n_boot: np.ones((n_boot, len(names)), np.int32))
    options: dict[str, Any] = {"fpir": (0.1,), "far": (0.1, 0.01), "fmr": 0.1}
    for seed in range(3):
        faces = faces_of(seed, spread=1.2)
        found = values(faces, **options)
        replicated = Enrolled(**options).replicates(faces, np.ones((2, 15), np.int32))
        assert len(replicated) == len(found)
        for name, value in replicated.items():
            assert value == pytest.approx(found[name.partition("/")[2]].value, abs=1e-12), name


def test_intervals_cover_what_other_people_would_give() -> None:
    """Of 40 draws of people the 95 % intervals of rank-1 miss the mean of many draws seldom."""
    many = np.mean([values(faces_of(seed, spread=1.3))["rank-1"].value for seed in range(1000, 1200)])
    missed = 0
    for seed in range(40):
        faces = faces_of(seed, spread=1.3)
        metric = values(faces)["rank-1"]
        replicated = Enrolled().replicates(faces, np.ones((400, 15), np.int32))["enrolled/rank-1"]
        interval = single_interval(replicated[None], [metric.value], metric.n_resampled)
        missed += not interval.ci_low <= many <= interval.ci_high
    assert missed <= 6  # binomial: more than 6 of 40 at 5 % has a chance of 1 %


def test_arms_are_paired_by_name() -> None:
    assert np.array_equal(weights_by_name(["d/x", "d/y"], 10)[:, 1:], weights_by_name(["d/y"], 10))


def test_no_error_has_a_bound() -> None:
    metric = values(faces_of(spread=0.01))["rank-1"]
    assert metric.value == 1 and metric.note.startswith(
        "no error: below 0.15 by the rule of three over 20 people; 40 s"
    )
