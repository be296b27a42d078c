"""Likeness of few people to each other: the rule by hand and on drawn faces."""

from __future__ import annotations

import numpy as np
import pytest

from drawn import draw_face
from facegan.recognition.fitted.methods.cross_fitted import (
    CrossFitted,
    Fitted,
    few_each,
    match_level,
    normed,
    set_likeness,
)
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


def test_a_match_is_no_more_frequent_than_one_in_twenty_of_the_next_strangers() -> None:
    """Also where likenesses have long tails (Student's t, 3 degrees of freedom), of which a normal knows nothing."""
    rng, train = np.random.default_rng(0), 20
    taken: dict[int, list[bool]] = {6: [], 100: []}  # six are too few for a rank
    for unseen, matches in taken.items():
        for _ in range(300):
            likeness = rng.standard_t(3, (train + unseen + 1, train))
            likeness[:train][np.eye(train, dtype=bool)] = -np.inf
            matches.append(likeness[-1].max() > match_level(likeness[:-1]))
    assert np.mean(taken[100]) <= 0.06 < 0.12 < np.mean(taken[6])
    highest = np.arange(40.0) ** 4  # ceil(41 * 0.95) = 39: the 39th lowest of 40
    two_trained = np.array([[-np.inf, 0.0], [0.0, -np.inf]])
    assert match_level(np.concatenate([two_trained, np.stack([highest, highest - 1], axis=1)])) == 38.0**4


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
