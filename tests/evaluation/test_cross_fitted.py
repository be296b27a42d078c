"""Likeness of few people to each other: the rule by hand and on drawn faces."""

from __future__ import annotations

import numpy as np
import pytest

from drawn import draw_face
from facegan.evaluation.cross_fitted import CrossFitted, Fitted, few_each, match_level, normed, set_likeness
from facegan.recognition.fitted.methods.features import FEATURES, measure
from facegan.recognition.fitted.methods.linear_maps import measured

TRAIN, VAL, SHOTS = 12, 6, 6


def faces(people: range, shots: range) -> tuple[np.ndarray, np.ndarray]:
    """Photos (N, 64, 64, 1) uint8 of drawn people, and their codes from 0."""
    pixels = np.stack([draw_face(person, shot, 64, 64) for person in people for shot in shots])[..., None]
    return pixels, np.repeat(np.arange(len(people)), len(shots))


def test_set_likeness_and_its_norm_by_hand() -> None:
    cosine = np.array([[0.9, 0.1, 0.5], [0.3, 0.2, 0.4]], np.float32)  # a person of two, people of two and of one
    found = set_likeness(cosine, np.array([0, 0]), np.array([0, 0, 1]))
    one_way, back = (0.9 + 0.3) / 2, (0.9 + 0.2) / 2
    assert found == pytest.approx(np.array([[(one_way + back) / 2, (0.45 + 0.5) / 2]]))
    first, second = np.array([[0.0, 2.0]]), np.array([[1.0], [3.0]])
    assert normed(np.array([[4.0]]), first, second) == pytest.approx(np.array([[((4 - 1) / 1 + (4 - 2) / 1) / 2]]))
    assert few_each(np.repeat([1, 0], 12)).tolist() == [*range(10), *range(12, 22)]
    pairs = np.array([1.0, 3.0, 1.0, 2.0])  # with two train people the chance is 2.5 % for each: 1.96 deviations
    level = match_level(np.array([[-np.inf, 1.0], [3.0, -np.inf], [1.0, 2.0]]))
    assert level == pytest.approx(pairs.mean() + 1.95996 * pairs.std(), abs=1e-4)


def test_each_fit_knows_nobody_of_its_two_folds_and_nothing_is_lost_in_the_span() -> None:
    pixels, person = faces(range(8), range(SHOTS))
    people = CrossFitted(pixels, person, 6)
    assert len(people._fits) == 6 and all(len(fit.known) == 4 for fit in people._fits)
    known, _, photos = people._fits[0]
    rows = np.isin(person, known)
    direct = Fitted([measured(measure, pixels[rows], name) for name in FEATURES], person[rows])
    fresh = faces(range(300, 302), range(2))[0]
    expected = direct([measured(measure, fresh, name) for name in FEATURES])
    got = people._fits[0].embed(people._prepared(fresh))
    known_direct = direct([measured(measure, pixels, name) for name in FEATURES])
    np.testing.assert_allclose(got @ photos.T, expected @ known_direct.T, atol=2e-3)


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
