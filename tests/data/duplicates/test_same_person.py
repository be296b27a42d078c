"""People who stand under two names: found, ranked, with the number of false alarms to expect."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from facegan.data.duplicates import same_person
from facegan.data.duplicates.same_person import find_pairs, fit_tail
from facegan.data.images import decode, to_square
from facegan.data.sources.orl import Orl


def random_people(seed: int, people: int = 40, size: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Different people in random directions, 1 to 5 photos each around their own."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(people, size))
    person = np.repeat(np.arange(people), rng.integers(1, 6, people))
    return centre[person] + 0.7 * rng.normal(size=(len(person), size)), np.asarray([f"d/q{p}" for p in person])


def test_tail_by_hand() -> None:
    """12 people: of 12 excesses over the 13th value the largest 3 count as the 4th does."""
    z = np.array([9, 8, 7, 1.4, 1.3, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
    tail = fit_tail(np.tanh(z), 12)
    assert tail is not None
    total = (z[3:12] - 0.5).sum() + 3 * 0.9
    scale = 2 * total / chi2.ppf(0.05, 18)
    assert tail.scale == pytest.approx(scale) and tail.start == pytest.approx(0.5)
    assert tail.expected(np.tanh(2.0)) == pytest.approx(12 * np.exp(-1.5 / scale))
    assert tail.expected(np.tanh([0.5, 0.1])) == pytest.approx([12, 12])
    assert fit_tail(np.tanh(z), 9) is None  # too few people


def test_tail_does_not_see_how_alike_the_doubted_are() -> None:
    rng = np.random.default_rng(0)
    z = np.sort(rng.exponential(0.1, 400))[::-1][:101]
    far = z.copy()
    far[:25] += np.linspace(5, 0, 25)
    assert fit_tail(np.tanh(z), 100) == fit_tail(np.tanh(far), 100)
    far[25] += 0.01
    assert fit_tail(np.tanh(z), 100) != fit_tail(np.tanh(far), 100)


def test_the_scale_is_an_upper_limit_in_95_of_100() -> None:
    """Of exponential excesses, whose scale is known; the expected number is then above the truth as well."""
    rng = np.random.default_rng(1)
    above = 0
    for _ in range(1000):
        tail = fit_tail(np.tanh(np.sort(rng.exponential(0.1, 500))[::-1]), 50)
        assert tail is not None
        above += tail.scale >= 0.1
    assert 930 <= above <= 970


def test_different_people_are_seldom_marked() -> None:
    """No person stands twice: fewer pairs than the bound are below it, in the mean over many sets."""
    counts = {0.1: 0, 1.0: 0}
    for seed in range(150):
        pairs = find_pairs(*random_people(seed), most=20)
        for bound in counts:
            counts[bound] += sum(pair.false_alarms is not None and pair.false_alarms < bound for pair in pairs)
    assert counts[0.1] <= 0.1 * 150 and counts[1.0] <= 150


def test_planted_people_are_found_first() -> None:
    for seed in range(10):
        rows, names = random_people(seed, size=64)
        names = names.astype("<U20")
        images = {name: np.flatnonzero(names == name) for name in sorted(set(names))}
        twice = [name for name, rows_of_name in images.items() if len(rows_of_name) >= 4][:3]
        for name in twice:
            names[images[name][::2]] = f"d/x{name[2:]}"
        pairs = find_pairs(rows, names, most=10)
        assert {frozenset((p.one, p.other)) for p in pairs[: len(twice)]} == {
            frozenset((name, f"d/x{name[2:]}")) for name in twice
        }


def test_one_photo_with_the_wrong_name_is_found_and_named() -> None:
    rows, names = random_people(3)
    names[np.flatnonzero(names == "d/q5")[0]] = "d/q7"
    rows[np.flatnonzero(names == "d/q7")[-1]] = rows[np.flatnonzero(names == "d/q9")[0]]  # the same picture
    first = find_pairs(rows, names, most=1)[0]
    assert {first.one, first.other} == {"d/q7", "d/q9"} and first.closest == pytest.approx(1)
    assert (names[list(first.photos)] == [first.one, first.other]).all()
    assert np.allclose(rows[first.photos[0]], rows[first.photos[1]])


def test_blocks_change_nothing_and_the_values_are_those_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, names = random_people(5, people=30)
    pairs = find_pairs(rows, names, most=400)
    monkeypatch.setattr(same_person, "_BLOCK", 7)
    assert [(p.one, p.other) for p in find_pairs(rows, names, most=400)[:30]] == [(p.one, p.other) for p in pairs[:30]]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    centred = unit - np.mean([unit[names == name].mean(axis=0) for name in sorted(set(names))], axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    assert len(pairs) >= 400
    for pair in pairs[:50]:
        one, other = centred[names == pair.one], centred[names == pair.other]
        centres = one.mean(axis=0) @ other.mean(axis=0)
        centres /= np.linalg.norm(one.mean(axis=0)) * np.linalg.norm(other.mean(axis=0))
        assert pair.closest == pytest.approx((one @ other.T).max(), abs=1e-5)
        assert pair.centres == pytest.approx(centres, abs=1e-5) and len(one) >= len(other)
        assert np.dot(centred[pair.photos[0]], centred[pair.photos[1]]) == pytest.approx(pair.closest, abs=1e-5)


def test_few_people_and_one() -> None:
    rows, names = random_people(2, people=5)
    assert [pair.false_alarms for pair in find_pairs(rows, names, most=3)] == [None] * 3
    assert find_pairs(rows[:1], names[:1], most=3) == []


def test_orl_with_a_person_under_two_names() -> None:
    """Whitened eigenfaces suffice: the planted pair comes first, and no other is marked."""
    sources = list(Orl().rows())
    identities = np.array([item.identity for item in sources])
    faces = np.stack([np.asarray(to_square(decode(i.read()), 32, "grey"), np.float32).ravel() for i in sources])
    faces = (faces - faces.mean(axis=1, keepdims=True)) / faces.std(axis=1, keepdims=True)
    rows = np.linalg.svd(faces - faces.mean(axis=0), full_matrices=False)[0][:, :50]
    for name in ("orl/s7", "orl/s12", "orl/s31"):
        names = identities.astype("<U20")
        names[np.flatnonzero(identities == name)[1::2]] = "orl/again"
        first, second = find_pairs(rows, names, most=2)
        assert {first.one, first.other} == {name, "orl/again"}
        assert first.false_alarms is not None and first.false_alarms < 0.1
        assert second.false_alarms is not None and second.false_alarms > 1


def test_names_alike_are_listed_whatever_they_look_like() -> None:
    rows, names = random_people(8, people=60)
    plain = find_pairs(rows, names, most=5)
    swapped = names.astype("<U20")
    swapped[names == "d/q3"], swapped[names == "d/q4"] = "d/Ann_Lee", "d/lee ann"
    pairs = find_pairs(rows, swapped, most=5)
    assert [(p.one, p.other) for p in pairs if p.spelled] in (
        [("d/Ann_Lee", "d/lee ann")],
        [("d/lee ann", "d/Ann_Lee")],
    )
    assert len(pairs) == 6 and len(plain) == 5
