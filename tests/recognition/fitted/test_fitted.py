"""Fitted recognizers as a family: each fits, embeds, and gives the same arrays again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from drawn import RUNTIME, draw_face
from facegan.core.errors import UserError
from facegan.metrics.all_pairs import all_pairs
from facegan.recognition.augment import Augmenter
from facegan.recognition.augment_options import Augment
from facegan.recognition.fitted import FITTED, load_fitted
from facegan.recognition.fitted.classical import Classical
from facegan.recognition.fitted.methods.linear_maps import views_of, whole_people
from facegan.runtime.context import Context, Event
from facegan.stages import fit_recognizer

KINDS = sorted(FITTED.load())
CONTEXT = Context(RUNTIME)


@dataclass
class Faces:
    """What a fit reads of a ManifestImages."""

    pixels: np.ndarray
    label: np.ndarray
    source: np.ndarray

    @property
    def identity(self) -> np.ndarray:
        return np.array([f"d/p{person}" for person in self.label], object)

    def __len__(self) -> int:
        return len(self.label)

    def codes(self) -> tuple[list[str], np.ndarray]:
        names, codes = np.unique(self.identity.astype(str), return_inverse=True)
        return names.tolist(), codes.astype(np.int64)


def faces(people: range, shots: int = 4, size_px: int = 64) -> Any:
    images = [cv2.resize(draw_face(p, s), (size_px, size_px), interpolation=cv2.INTER_AREA) for p in people
              for s in range(shots)]  # fmt: skip
    label = np.repeat(np.asarray(people), shots)
    return Faces(np.stack(images)[..., None], label, np.full(len(label), "real", object))


@cache
def fitted(kind: str) -> Any:
    """What a kind of default options fits to six people, and four val people choose."""
    return FITTED.get(kind)().fit(faces(range(6)), faces(range(6, 10)), CONTEXT)


@pytest.mark.parametrize("kind", KINDS)
def test_it_tells_people_apart_whom_it_has_not_seen(kind: str) -> None:
    train, val, test = faces(range(12)), faces(range(12, 16), 3), faces(range(18, 26), 3)
    config = FITTED.get(kind)()
    fit = config.fit(train, val, CONTEXT)
    embed = config.embedder(fit.arrays)
    embedding = embed(test.pixels)
    assert embedding.dtype == np.float32 and len(embedding) == len(test)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-5)
    assert all_pairs(embedding, test.label).eer() < 0.3  # chance: 0.5
    json.dumps(fit.summary, allow_nan=False)
    assert all_pairs(embed(val.pixels), val.label).eer() == pytest.approx(fit.summary["val_eer"], abs=0.005)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_stored_embeds_as_what_was_fitted(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, val, test = faces(range(6)), faces(range(6, 10)), faces(range(10, 13))
    sides = {"train": train, "val": val}
    monkeypatch.setattr(fit_recognizer, "ManifestImages", lambda folder, **rest: sides[folder.name])
    monkeypatch.setattr(fit_recognizer.licences, "of", lambda folder: [])
    config = FITTED.get(kind)()
    fit_recognizer.run(config, {}, {name: Path(name) for name in sides}, tmp_path, CONTEXT)
    expected = config.embedder(fitted(kind).arrays)(test.pixels)
    np.testing.assert_allclose(load_fitted(tmp_path)(test.pixels), expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rows_give_the_same_arrays(kind: str) -> None:
    first, second = fitted(kind), FITTED.get(kind)().fit(faces(range(6)), faces(range(6, 10)), CONTEXT)
    assert first.arrays.keys() == second.arrays.keys() and first.summary == second.summary
    for name, array in first.arrays.items():
        assert array.tobytes() == second.arrays[name].tobytes()


def test_a_face_and_its_mirror_image_are_one() -> None:
    embed = Classical().embedder(fitted("classical").arrays)
    images = faces(range(10, 13)).pixels
    np.testing.assert_allclose(embed(images), embed(images[:, :, ::-1]), atol=1e-6)
    np.testing.assert_allclose(embed(images[2:4]), embed(images)[2:4], atol=1e-5)


def test_val_people_choose_for_each_feature_and_components_are_capped_by_the_rows() -> None:
    train, val = faces(range(6)), faces(range(6, 10))  # 24 photos and their mirror images: 47 directions
    fit = Classical(components=(5, 50, 300)).fit(train, val, CONTEXT)
    assert list(fit.summary["features"]) == ["pixels", "hog", "lbp"]
    for name, chosen in fit.summary["features"].items():
        assert chosen["components"] in (5, 47) and fit.arrays[f"{name}.map"].shape[1] == chosen["components"]
        only = Classical(features=(name,), components=(5, 50, 300)).fit(train, val, CONTEXT)
        settings = [
            Classical(features=(name,), components=(n,), shrinkage=(s,)).fit(train, val, CONTEXT).summary["val_eer"]
            for n in (5, 50) for s in (0.1, 0.3, 1.0)
        ]  # fmt: skip
        assert only.summary["val_eer"] == pytest.approx(min(settings))


def test_more_images_than_it_may_hold_are_left_out_by_whole_people_and_counted() -> None:
    train = faces(range(8))
    train.source[:] = np.where(train.label < 4, "synthetic", "real")
    rows = whole_people(train, 21)
    assert len(rows) == 20 and set(range(4, 8)) < set(train.label[rows])  # real ones first, then one more
    assert len(whole_people(train, 32)) == 32
    fit = Classical(max_images=21).fit(train, faces(range(8, 12)), CONTEXT)
    assert (fit.summary["people"], fit.summary["images"], fit.summary["left_out"]["images"]) == (5, 20, 12)


@pytest.mark.parametrize(
    ("images", "to", "views"), [(100, 2000, [0, 4, 19]), (500, 2000, [0, 3]), (1001, 2000, [0]), (100, 0, [0])]
)
def test_whoever_has_fewer_images_has_more_views_of_each(images: int, to: int, views: list[int]) -> None:
    assert views_of(images, to) == views


def test_views_are_as_more_photos_where_val_people_choose_them() -> None:
    train, val = faces(range(6)), faces(range(6, 10))
    config = Classical(augmented_to=4 * len(train), components=(20,), augment=Augment(shift=0.2, rotate_deg=30))
    fit, augment = config.fit(train, val, CONTEXT), Augmenter(config.augment)
    views = [augment(train.pixels, number) for number in (1, 2, 3)]
    more = Faces(np.concatenate([train.pixels, *views]), np.tile(train.label, 4), np.tile(train.source, 4))
    alone, beside = (Classical(components=(20,)).fit(rows, val, CONTEXT) for rows in (train, more))
    chosen = {name: told["views"] for name, told in fit.summary["features"].items()}
    for name, number in chosen.items():
        eers = [found.summary["features"][name]["val_eer"] for found in (alone, beside)]
        assert number == (3 if eers[1] < eers[0] else 0)
        assert np.array_equal(fit.arrays[f"{name}.map"], (beside if number else alone).arrays[f"{name}.map"])
    assert set(chosen.values()) == {0, 3}, "here both are chosen, so that both were compared"


def test_too_many_images_for_views_is_said() -> None:
    events: list[Event] = []
    Classical(augmented_to=47).fit(faces(range(6)), faces(range(6, 10)), Context(RUNTIME, events.append))
    assert any("augmented_to, 47, is too few" in event.text for event in events)


def test_images_that_are_all_the_same_are_refused() -> None:
    train = faces(range(4))
    train.pixels[:] = 100
    with pytest.raises(UserError, match="16 train images are all the same"):
        Classical().fit(train, faces(range(4, 8)), CONTEXT)


@pytest.mark.parametrize("bad", [{"components": [0]}, {"shrinkage": [-1]}, {"features": []}, {"features": ["hog"] * 2}])
def test_options_that_make_no_sense(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Classical.model_validate(bad)
