"""Who is too like a train person, by maps that have learned neither: on drawn faces, and as a filter of new people."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from drawn import draw_face
from facegan.core.errors import ConfigError, UserError
from facegan.data.images import encode_png
from facegan.generation.strangers import NAME, Strangers
from facegan.generation.synthesizer import PersonResult
from facegan.recipe.load import load
from facegan.recognition.embedder import Embedder
from facegan.recognition.options import TrainRecognizer
from facegan.runtime.options import Runtime

TRAIN, VAL, SHOTS, SIDE = 12, 12, 4, 32
CPU, RUNTIME = torch.device("cpu"), Runtime()


def faces(people: range, shots: range) -> np.ndarray:
    pixels = [draw_face(person, shot, SIDE, SIDE) for person in people for shot in shots]
    return np.repeat(np.stack(pixels)[..., None], 3, axis=3) if pixels[0].ndim == 2 else np.stack(pixels)


def images(people: range) -> Any:
    names, person = [str(n) for n in people], np.repeat(np.arange(len(people)), SHOTS)
    return SimpleNamespace(pixels=faces(people, range(SHOTS)), codes=lambda: (names, person))


def guide(**options: Any) -> Embedder:
    """A network of random weights, whose map is to be fitted."""
    torch.manual_seed(0)
    start = {"kind": "imagenet", "size_px": SIDE, "stages": [2, 4]}
    made: dict[str, Any] = {"start": start, "tune": "whitened", "steps": 0, "embedding_dim": 24, **options}
    return Embedder(TrainRecognizer(**made), 3, SIDE).eval()


def person(number: int, shots: range) -> PersonResult:
    pixels = faces(range(number, number + 1), shots)
    return PersonResult([(encode_png(one), "{}", -1) for one in pixels], [("surplus", 4, 0, "why")])


def test_train_people_are_found_and_strangers_mostly_pass() -> None:
    train, val = images(range(TRAIN)), images(range(TRAIN, TRAIN + VAL))
    strangers = Strangers(guide(), train, val, CPU, RUNTIME)
    own = [strangers.judged(person(number, range(20, 24))) for number in range(TRAIN)]
    assert sum(not result.images for result in own) >= TRAIN - 1
    new = [strangers.judged(person(number, range(4))) for number in range(100, 140)]
    passed = [result for result in new if result.images]
    assert 0.1 < len(passed) / len(new) < 0.6  # a third of the val people do
    assert {result.removed[0][:3] for result in passed} == {(NAME, 1, 0)}
    assert all(result.removed[1:] == [("surplus", 4, 0, "why")] for result in passed)
    rejected = next(result for result in own if not result.images)
    assert [count[:3] for count in rejected.removed] == [(NAME, 1, 1)]


def test_what_it_cannot_be_asked_of_is_said() -> None:
    train, few = images(range(TRAIN)), images(range(TRAIN, TRAIN + 9))
    with pytest.raises(UserError, match="there are 9: at least 10 are needed"):
        Strangers(guide(), train, few, CPU, RUNTIME)
    trained = Embedder(TrainRecognizer(backbone="resnet10t", embedding_dim=16), 3, SIDE)
    with pytest.raises(UserError, match="whose map is fitted") as error:
        Strangers(trained, train, few, CPU, RUNTIME)
    assert "train_recognizer.tune=whitened" in error.value.fix


def test_a_recipe_whose_guide_is_trained_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a guide whose network is frozen and whose map is fitted"):
        load("orl-quick", ["synthesize.unlike=cross_fitted"])
