"""The card on planted sets: other real people, noise, blur, one warped photo a person; and against torch-fidelity."""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from drawn import draw_face
from facegan.evaluation.set_card import JudgedFaces, unseen_figures
from facegan.metrics import set_statistics
from facegan.metrics.verification import unit_rows

SHOTS, SIDE = 5, 32


class Drawn:
    """What the card reads of a ManifestImages."""

    def __init__(self, pixels: np.ndarray, person: np.ndarray) -> None:
        self.pixels, self.person = pixels, person

    def only(self, rows: np.ndarray) -> Drawn:
        return Drawn(self.pixels[rows], self.person[rows])

    def codes(self) -> tuple[list[str], np.ndarray]:
        names, codes = np.unique(self.person.astype(str), return_inverse=True)
        return names.tolist(), codes.astype(np.int64)


@cache
def faces(first: int, count: int) -> np.ndarray:
    """Drawn faces (count * SHOTS, SIDE, SIDE) uint8."""
    shots = [draw_face(person, shot) for person in range(first, first + count) for shot in range(SHOTS)]
    return np.stack([cv2.resize(shot, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for shot in shots])


@cache
def axes() -> tuple[np.ndarray, np.ndarray]:
    """Mean and the first axes of other drawn people."""
    rows = faces(500, 60).reshape(60 * SHOTS, -1) / 255
    return rows.mean(axis=0), np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)[2][:40].T


def judge(pixels: np.ndarray) -> np.ndarray:
    """A judge that learned from other people: unit rows (N, 40) float32."""
    mean, directions = axes()
    return unit_rows(((pixels.reshape(len(pixels), -1) / 255 - mean) @ directions).astype(np.float32))


def judged(pixels: np.ndarray) -> JudgedFaces:
    person = np.repeat(np.arange(len(pixels) // SHOTS), SHOTS)
    images: Any = Drawn(pixels, person)
    return JudgedFaces(images, judge(pixels), *images.codes())


def figures(pixels: np.ndarray, is_unseen: bool = False) -> dict[str, Any]:
    return unseen_figures(judged(pixels), judged(faces(0, 30)), is_unseen)


def test_real_people_are_not_told_from_others() -> None:
    floor, other = figures(faces(0, 30), is_unseen=True), figures(faces(100, 30))
    assert 0.35 < floor["auc"] < 0.65 and floor["spread"] == 1
    assert 0.35 < other["auc"] < 0.65 and 0.8 < other["spread"] < 1.25 and abs(other["kid unseen"]) < 0.1


@pytest.mark.parametrize("kind", ["noise", "blurred"])
def test_what_is_no_photo_is_told(kind: str) -> None:
    rng = np.random.default_rng(0)
    people = faces(100, 30)
    planted = {
        "noise": rng.integers(0, 256, people.shape).astype(np.uint8),
        "blurred": np.stack([cv2.GaussianBlur(face, (0, 0), 8) for face in people]),
    }[kind]
    found, real = figures(planted), figures(people)
    assert found["auc"] > 0.95 and found["kid unseen"] > real["kid unseen"]


def test_one_warped_photo_a_person_has_a_low_spread() -> None:
    photos = faces(100, 30)[::SHOTS]
    shifts = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)]
    warped = np.stack([np.roll(photo, shift, (0, 1)) for photo in photos for shift in shifts])
    assert figures(warped)["spread"] < 0.5 < figures(faces(100, 30))["spread"]
    assert figures(np.repeat(photos, SHOTS, axis=0))["spread"] == pytest.approx(0, abs=1e-6)


@pytest.mark.integration
def test_kid_precision_and_recall_are_those_of_torch_fidelity() -> None:
    import torch_fidelity as fidelity

    class Judge(fidelity.FeatureExtractorBase):  # type: ignore[misc, name-defined]
        """The judge, its rows of length sqrt(d): the kernel (x.y / d + 1)^3 is then that of unit rows."""

        def __init__(self, name: str, features: list[str], **options: Any) -> None:
            super().__init__(name, features)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("judge",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "judge"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, img: torch.Tensor) -> tuple[torch.Tensor]:
            rows = judge(img[:, 0].numpy())
            return (torch.from_numpy(rows * np.float32(np.sqrt(rows.shape[1]))),)

    fidelity.register_feature_extractor("judge", Judge)
    real, fake = faces(0, 30), faces(100, 30).copy()
    fake[::2] = np.random.default_rng(0).integers(0, 256, fake[::2].shape)  # half of it is noise

    class Images(torch.utils.data.Dataset[torch.Tensor]):
        def __init__(self, pixels: np.ndarray) -> None:
            self.pixels = torch.from_numpy(pixels[:, None]).repeat(1, 3, 1, 1)  # NHW uint8 -> N3HW uint8

        def __getitem__(self, index: int) -> torch.Tensor:
            return self.pixels[index]

        def __len__(self) -> int:
            return len(self.pixels)

    k = 3
    theirs = fidelity.calculate_metrics(
        input1=Images(fake), input2=Images(real), feature_extractor="judge", kid=True, prc=True, prc_neighborhood=k,
        kid_subsets=1, kid_subset_size=len(real), cuda=False, verbose=False,
        save_cpu_ram=True,  # no worker processes: they would have to import this test
    )  # fmt: skip
    ours = set_statistics.manifolds(judge(real), judge(fake), k)
    assert set_statistics.kid(judge(real), judge(fake)) == pytest.approx(
        theirs["kernel_inception_distance_mean"], abs=1e-5
    )
    assert ours["precision"] == pytest.approx(theirs["precision"]) and 0 < ours["precision"] < 1
    assert ours["recall"] == pytest.approx(theirs["recall"]) and 0 < ours["recall"] < 1
