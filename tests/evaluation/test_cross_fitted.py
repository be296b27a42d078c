"""Likeness of few people to each other: the features against loops, the rule on drawn faces."""

from __future__ import annotations

import numpy as np
import pytest

from drawn import draw_face
from facegan.evaluation import cross_fitted
from facegan.evaluation.cross_fitted import CrossFitted, Fitted, few_each, match_level, normed, set_likeness

TRAIN, VAL, SHOTS = 12, 6, 6


def faces(people: range, shots: range) -> tuple[np.ndarray, np.ndarray]:
    """Photos (N, 64, 64, 1) uint8 of drawn people, and their codes from 0."""
    pixels = np.stack([draw_face(person, shot, 64, 64) for person in people for shot in shots])[..., None]
    return pixels, np.repeat(np.arange(len(people)), len(shots))


def test_local_binary_patterns_by_loops() -> None:
    photo = draw_face(3, 1, 64, 64).astype(np.float32)[None]
    rows = cross_fitted.lbp(photo).reshape(8, 8, 2, 59)
    around = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
    for radius in (1, 2):
        counts = np.zeros(59)
        for y in range(24, 32):
            for x in range(8, 16):
                bits = [photo[0, y + radius * dy, x + radius * dx] >= photo[0, y, x] for dy, dx in around]
                changes = sum(a != b for a, b in zip(bits, bits[1:] + bits[:1], strict=True))
                code = sum(int(bit) << n for n, bit in enumerate(bits))
                uniform = [c for c in range(256) if bin(c ^ (c >> 1 | (c & 1) << 7)).count("1") <= 2]
                counts[uniform.index(code) if changes <= 2 else 58] += 1
        assert rows[3, 1, radius - 1] == pytest.approx(np.sqrt(counts), abs=1e-5)


def test_set_likeness_and_its_norm_by_hand() -> None:
    cosine = np.array([[0.9, 0.1, 0.5], [0.3, 0.2, 0.4]], np.float32)  # a person of two, people of two and of one
    found = set_likeness(cosine, np.array([0, 0]), np.array([0, 0, 1]))
    one_way, back = (np.mean([0.9, 0.1]) + np.mean([0.3, 0.2])) / 2, (0.6 + 0.15) / 2
    assert found == pytest.approx(np.array([[(one_way + back) / 2, 0.45]]))
    first, second = np.array([[0.0, 2.0]]), np.array([[1.0], [3.0]])
    assert normed(np.array([[4.0]]), first, second) == pytest.approx(np.array([[((4 - 1) / 1 + (4 - 2) / 1) / 2]]))
    assert few_each(np.repeat([1, 0], 12)).tolist() == [*range(10), *range(12, 22)]
    pairs = np.array([1.0, 3.0, 1.0, 2.0])  # with two train people the chance is 5 % for each: 1.645 deviations
    level = match_level(np.array([[-np.inf, 1.0], [3.0, -np.inf], [1.0, 2.0]]))
    assert level == pytest.approx(pairs.mean() + 1.6449 * pairs.std(), abs=1e-4)


def test_within_people_everything_is_white() -> None:
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(40), 10)
    rows = (rng.normal(size=(40, 6))[person] * 3 + rng.normal(size=(400, 6)) * [1, 2, 3, 4, 5, 6]).astype(np.float32)
    mean, axes = Fitted._fit(rows, person)
    z = (rows - mean) @ axes
    z -= np.stack([z[person == code].mean(0) for code in range(40)])[person]
    variances = np.linalg.eigvalsh(z.T @ z / (400 - 40))
    plain = rows - np.stack([rows[person == code].mean(0) for code in range(40)])[person]
    before = np.linalg.eigvalsh(plain.T @ plain / (400 - 40))
    shrunk = before + cross_fitted.SHRINKAGE * before.mean()
    assert variances[variances > 1e-6] == pytest.approx(before / shrunk, rel=1e-2)


def test_train_people_are_found_under_a_new_name_and_strangers_are_not() -> None:
    pixels, person = faces(range(TRAIN + VAL), range(SHOTS))
    people = CrossFitted(pixels, person, TRAIN)
    real, own = people.real()
    assert real.shape == (TRAIN + VAL, TRAIN) and np.isinf(np.diag(real)).all()
    level = match_level(real)
    fresh = people.likeness(*faces(range(TRAIN), range(50, 54)))
    assert (np.diag(fresh) >= level).mean() >= 0.6 and (fresh.argmax(axis=1) == np.arange(TRAIN)).mean() >= 0.9
    assert (own >= level).mean() >= 0.5  # by three photos against three
    assert (people.likeness(*faces(range(300, 320), range(4))).max(axis=1) >= level).mean() <= 0.15
    assert people.likeness(pixels[:0], person[:0]).shape == (0, TRAIN)
