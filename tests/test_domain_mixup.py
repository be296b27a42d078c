"""Photos blended into images of new people, which then count as both."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from drawn import RUNTIME, Lab, pick, tiny
from ranked import options, rows_of

from facegan import graph
from facegan.augment import Augmenter
from facegan.config import Recipe, TrainRecognizer, Use
from facegan.domain_mixup import Blend, blended
from facegan.embedder import to_input
from facegan.events import Context
from facegan.heads import HEADS
from facegan.images import ManifestImages
from facegan.mixing import Batches, Heads
from facegan.reporting.pooled import Variant
from facegan.reporting.study_words import schedule
from facegan.seeds import subseed
from facegan.stages import train_recognizer

GROUP = np.repeat([0, 1, 2], [12, 6, 20])


def batches(**changes: Any) -> Batches:
    return Batches(GROUP, Use(**{"new": 0.5, "domain_mixup": 0.5, **changes}), 60, 8, seed=3)


def blend_of(made: Batches, step: int) -> Blend:
    blend = made.blend(step, made.rows(step))
    assert blend is not None
    return blend


# The draws.


@pytest.mark.parametrize("use", [{}, {"new": None}, {"new": 0.0, "new_at_end": 1.0}])
def test_photos_are_blended_into_new_people_alone(use: dict[str, Any]) -> None:
    made, photos = batches(**use), []
    for step in range(60):
        rows, blend = made.rows(step), blend_of(made, step)
        new = GROUP[rows] == 2
        assert (GROUP[blend.partner[new]] == 0).all() and (blend.share[new] < 1).all()
        assert np.array_equal(blend.partner[~new], rows[~new]) and (blend.share[~new] == 1).all()
        photos += blend.partner[new].tolist()
    assert set(photos) == set(range(12))
    again = batches(**use)
    for step in (41, 7):  # a resume needs no history
        assert np.array_equal(blend_of(again, step).partner, blend_of(made, step).partner)
        assert np.array_equal(blend_of(again, step).share, blend_of(made, step).share)


def test_the_rows_are_those_without_it() -> None:
    without = batches(domain_mixup=None)
    assert all(np.array_equal(batches().rows(step), without.rows(step)) for step in range(5))
    assert without.blend(0, without.rows(0)) is None


@pytest.mark.parametrize("shape", [0.2, 1.0, 4.0])
def test_shares_have_the_moments_of_their_distribution(shape: float) -> None:
    made = Batches(GROUP, Use(new=1.0, domain_mixup=shape), 200, 50, seed=0)
    share = np.concatenate([blend_of(made, step).share for step in range(200)])
    assert share.dtype == np.float32 and share.mean() == pytest.approx(0.5, abs=0.015)
    assert share.var() == pytest.approx(1 / (4 * (2 * shape + 1)), rel=0.05)


@pytest.mark.parametrize("group", [[0, 1], [1, 2]])
def test_an_arm_without_photos_or_new_people_takes_no_notice(group: list[int]) -> None:
    made = Batches(np.repeat(group, 9), Use(domain_mixup=1.0), 9, 4, seed=0)
    assert made.blend(3, made.rows(3)) is None


# The pixels.


def test_half_a_share_is_the_mean_of_the_pixels() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 256, (2, 3, 4, 4, 1), np.uint8)
    mixed = blended(one, other, np.asarray([0.5, 1, 0], np.float32))
    assert mixed.dtype == np.uint8
    assert np.abs(mixed[0] - (one[0].astype(float) + other[0]) / 2).max() <= 0.5
    assert np.array_equal(mixed[1], one[1]) and np.array_equal(mixed[2], other[2])
    white = np.full((1000, 1, 1, 1), 255, np.uint8)
    assert (blended(white, white, rng.random(1000, np.float32)) == 255).all()  # none runs over


def test_parts_of_a_batch_are_blended_as_the_whole() -> None:
    made = batches()
    blend, pixels = blend_of(made, 4), np.random.default_rng(0).integers(0, 256, (8, 4, 4, 1), np.uint8)

    def photos(rows: np.ndarray, before: int) -> np.ndarray:
        """Each of its row's grey level, made lighter by its place among the batch's photos."""
        return (5 * rows + before + np.arange(len(rows))).astype(np.uint8)[:, None, None, None] * np.ones_like(
            pixels[0]
        )

    whole = pixels.copy()
    blend.into(whole, slice(0, 8), photos)
    assert (whole != pixels).any(axis=(1, 2, 3)).tolist() == (blend.share < 1).tolist()
    for cuts in ([0, 4, 8], [0, 1, 7, 8]):
        parts = [slice(*cut) for cut in itertools.pairwise(cuts)]
        found = [pixels[part].copy() for part in parts]
        for some, part in zip(found, parts, strict=True):
            blend.into(some, part, photos)
        assert np.array_equal(np.concatenate(found), whole)


# The loss.

LABEL, OF = np.asarray([0, 1, 2, 3, 4, 3]), np.asarray([0, 0, 1, 2, 2, 2])


@pytest.mark.parametrize("own_head", [False, True])
@pytest.mark.parametrize("kind", list(HEADS.load()))
def test_the_loss_is_shared_out_over_both_people(kind: str, own_head: bool) -> None:
    chosen = TrainRecognizer(embedding_dim=16, head={"kind": kind}, use={"own_head": own_head})  # type: ignore[arg-type]
    heads = Heads(chosen, LABEL, OF)
    embedding = torch.randn(6, 16, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7)[:, None]
    rows = np.asarray([0, 3, 2, 5, 1, 4])  # the photos of persons 0, 2 and 1; new people at places 1, 3 and 5
    share = np.asarray([1, 0.25, 1, 0.5, 1, 0.875], np.float32)
    blend = Blend(np.asarray([0, 1, 2, 0, 1, 1]), share)
    found = heads(embedding, rows, blend=blend)  # a step, of which AdaFace takes the lengths
    if kind == "adaface":  # those of the images that it is asked about, each once
        length = embedding.norm(dim=1)
        torch.testing.assert_close(heads.heads[0].norm_mean, length.mean())
        torch.testing.assert_close(heads.heads[-1].norm_std, length[[1, 3, 5]].std() if own_head else length.std())
    heads.eval()

    def loss(place: int, person: int) -> torch.Tensor:
        apart = own_head and person > 2
        label = torch.tensor([person - 3 if apart else person])
        return F.cross_entropy(heads.heads[1 if apart else 0](embedding[place : place + 1], label), label)

    expected = loss(0, 0) + loss(2, 2) + loss(4, 1)
    expected = expected + 0.25 * loss(1, 3) + 0.75 * loss(1, 1) + 0.5 * loss(3, 3) + 0.5 * loss(3, 0)
    expected = (expected + 0.875 * loss(5, 4) + 0.125 * loss(5, 1)) / 6
    torch.testing.assert_close(found, expected)
    parts = [heads(embedding[part], rows, part, blend=blend) for part in (slice(0, 1), slice(1, 4), slice(4, 6))]
    torch.testing.assert_close(torch.stack(parts).sum(), expected)
    whole = Blend(rows, np.ones(6, np.float32))
    torch.testing.assert_close(heads(embedding, rows, blend=whole), heads(embedding, rows))


# Trainings.


@pytest.fixture(scope="module")
def rows(recipe: Recipe, shared: Lab) -> dict[str, Path]:
    """What a recognizer is trained on: real and synthetic rows, and the val people."""
    return rows_of(recipe, shared)


def test_it_changes_the_training_but_not_that_on_photos_alone(
    recipe: Recipe, shared: Lab, rows: dict[str, Path], tmp_path: Path
) -> None:
    node = pick(graph.build(recipe), "train_recognizer", "real", 0)
    photos = {name: shared.make(needed).path for name, needed in node.needs.items()}
    for inputs in (rows, photos):
        both = []
        for number, use in enumerate([{"new": 0.5}, {"new": 0.5, "domain_mixup": 1.0}]):
            out = tmp_path / f"{inputs is rows}-{number}"
            (out / "work").mkdir(parents=True)
            chosen = options(steps=6, use=use)
            train_recognizer.run(chosen, {"seed": 0}, inputs, out, Context(RUNTIME))
            both.append((out / "embedder.safetensors").read_bytes())
        assert (both[0] == both[1]) is (inputs is photos)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"use": {"identity_mixup": True, "domain_mixup": 1}}, "use.identity_mixup has none"),
        ({"use": {"own_norm": True, "domain_mixup": 1}}, "use.own_norm parts them"),
        ({"use": {"pretrain": 0.5, "domain_mixup": 1}}, "use.pretrain begins without any"),
        ({"use": {"domain_mixup": 1}, "sharded": {}}, "leave out sharded"),
        ({"use": {"domain_mixup": 1, "new": 0}}, "raise use.new"),
        ({"use": {"domain_mixup": 0}}, "greater than or equal to 0.05"),
    ],
)
def test_options_that_do_not_go_with_it(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        TrainRecognizer.model_validate(changes)


@pytest.mark.parametrize("readers", [0, 2])
def test_the_network_sees_augmented_images_blended(
    recipe: Recipe, rows: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readers: int
) -> None:
    seen: list[tuple[torch.Tensor, np.ndarray, Blend]] = []
    forward = train_recognizer.Classifier.forward

    def spy(self: train_recognizer.Classifier, img: torch.Tensor, rows: np.ndarray, *rest: Any) -> torch.Tensor:
        seen.append((img, rows, rest[-1]))
        return forward(self, img, rows, *rest)

    monkeypatch.setattr(train_recognizer.Classifier, "forward", spy)
    (tmp_path / "work").mkdir()
    chosen = options(steps=2, use={"new": 0.5, "domain_mixup": 1.0})
    runtime = RUNTIME.model_copy(update={"readers": readers})
    train_recognizer.run(chosen, {"seed": 0}, rows, tmp_path, Context(runtime))
    pixels, augment = ManifestImages(rows["train"]).pixels, Augmenter(chosen.augment)
    assert len(seen) == 2
    for step, (img, used, blend) in enumerate(seen):
        nimg, places = step * chosen.batch_size, np.flatnonzero(blend.share < 1)
        expected = augment(pixels[used], subseed("augment", 0, nimg))
        photos = augment(pixels[blend.partner[places]], subseed("augment", 0, nimg, "partners"))
        share = blend.share[places, None, None, None]
        expected[places] = np.rint(share * expected[places] + (1 - share) * photos)
        assert len(places) == 4 and torch.equal(img, to_input(expected, torch.device("cpu")))


def test_a_study_says_how_synthetic_images_take_part(faces: Path) -> None:
    use = {"new": 0.25, "new_at_end": 0.75, "domain_mixup": 1.0}
    recipe = tiny(faces, study={"splits": [0], "variants": {"all": {}}}, train_recognizer={"use": use})
    one = Variant("all", None, 0, (), {}, {}, {"real+synthetic": Counter()}, {})
    said = schedule(graph.build(recipe)[-1].extra["recipe"], one, "real+synthetic")
    assert "25\u00a0% of the first batch and evenly on to 75\u00a0% of the last" in said
    assert "photos blended into images of new people" in said
    few = tiny(
        faces,
        study={"splits": [0], "variants": {"all": {}}},
        train_recognizer={"use": use},
        synthesize={"new_identities": 0},
    )
    assert "blended" not in schedule(graph.build(few)[-1].extra["recipe"], one, "real+synthetic")
