"""The scores of listed pairs: images that gave no embedding, and lists that do not fit the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from facegan.core.errors import UserError
from facegan.data.pair_lists import PairList, read_pairs
from facegan.evaluation.embedded_faces import embed_faces
from facegan.evaluation.pair_scores import score_pairs
from facegan.evaluation.protocols.pairs import Pairs
from facegan.metrics import verification
from view2 import drawn_faces, view2


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.txt"
    path.write_text(view2())
    return path


def test_failed_images_count_as_errors() -> None:
    """By hand: FRR = FTA + FNMR (1 - FTA), FAR = FMR (1 - FTA), and an accuracy in which they are wrong."""
    angle = np.radians([0, 10, 90, 100, 200, 260])
    named = embed_faces(
        np.stack([np.cos(angle), np.sin(angle)], axis=1),
        [f"d/{who}" for who in "aabbcc"],
        [f"{who}/{n % 2}.png" for n, who in enumerate("aabbcc")],
        failed=[("d/a", "a/2.png")],
    )
    first = ("a/0", "b/0", "c/0", "a/0", "a/0", "a/0", "b/0", "a/2", "b/0")
    second = ("a/1", "b/1", "c/1", "a/2", "b/0", "c/0", "c/0", "b/0", "gone/1")
    scored = score_pairs(PairList(first, second, np.arange(9) < 4), named, False, "it")
    assert (scored.images, scored.failed, scored.listed) == (8, 2, 9)
    pairs = scored.pairs
    assert_array_equal(pairs.score == verification.FAILED, [False] * 3 + [True] + [False] * 3 + [True, True])
    compared = verification.compared(pairs)
    for threshold in (0.9, 0.4, -0.5):
        frr = np.mean(pairs.score[pairs.genuine] < threshold)
        fnmr, fta = np.mean(compared.score[compared.genuine] < threshold), 1 / 4
        assert frr == pytest.approx(fta + fnmr * (1 - fta))
        far = np.mean(pairs.score[~pairs.genuine] >= threshold)
        assert far == pytest.approx(np.mean(compared.score[~compared.genuine] >= threshold) * (1 - 2 / 5))
    fold = np.array([0, 1, 0, 1, 0, 1, 0, 1, 1], np.int32)
    accuracy = verification.accuracy_of_folds(pairs, np.arange(9), fold)
    assert not accuracy.correct[pairs.score == verification.FAILED].any() and accuracy.correct[:2].all()


def test_lists_that_do_not_fit_the_images(tmp_path: Path, listed: Path) -> None:
    embedded = drawn_faces()
    with pytest.raises(UserError, match="pairs file of benchmark 'view2' is not there"):
        Pairs(name="view2", file=str(tmp_path / "none.txt")).fingerprint()
    stranger = PairList(("x/1", "x/2"), ("x/2", "y/1"), np.array([True, False]))
    with pytest.raises(
        UserError, match=r"none of the images .* such as 'x/1', is here; they are called such as 'P0_0/"
    ):
        score_pairs(stranger, embedded, False, "the list")
    text = read_pairs(listed)
    with pytest.raises(UserError, match="two people, their identities say otherwise"):
        score_pairs(PairList(text.first, text.second, ~text.same), embedded, False, "the list")
    twice = embed_faces(np.eye(2), ["a", "a"], ["x/a/1.png", "y/a/1.png"])
    with pytest.raises(UserError, match="several images are called"):
        score_pairs(PairList(("a/1",), ("a/1",), np.array([True])), twice, False, "the list")
