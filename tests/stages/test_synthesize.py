"""synthesize: thresholds and filters counted by hand, rows made again bit for bit, parents of new people."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from drawn import RUNTIME, Lab, draw_face, pick, tiny, with_gan
from facegan.core.errors import UserError
from facegan.core.seeds import subseed
from facegan.data import manifest
from facegan.data.latents import latent_json, pack, unpack
from facegan.generation import thresholds
from facegan.generation.draw import draw, redraw, regenerate
from facegan.generation.gans import GANS
from facegan.generation.gans.networks.base import Generator
from facegan.generation.gans.networks.saved import load_generator
from facegan.generation.identities import Proposal
from facegan.generation.identities.mixture import Mixture
from facegan.generation.options import Synthesize
from facegan.generation.people import SyntheticPeople
from facegan.generation.shard_worker import is_whole, make_people
from facegan.generation.synthesizer import PersonRequest, PersonResult, Synthesizer
from facegan.generation.thresholds import among_many, between_strangers_and_train, calibrate
from facegan.metrics import leakage
from facegan.metrics.set_statistics import robust_centre
from facegan.pipeline import graph
from facegan.recipe.recipe import Recipe
from facegan.runtime.context import Context
from facegan.runtime.engines.local import Local
from facegan.runtime.options import Runtime
from facegan.runtime.shards import ShardQueue
from facegan.stages import synthesize
from facegan.store.local import Artifact, Store

KINDS = sorted(GANS.load())


def report_of(artifact: Artifact) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((artifact.path / "filters.json").read_text())
    return data


def rows_of(artifact: Artifact) -> list[dict[str, Any]]:
    return manifest.read(artifact.path).to_pylist()


def limits(image: float = -1.1, person: float = 1.1) -> dict[str, dict[str, Any]]:
    """Thresholds, by default such that everything passes."""
    values = {"image": image, "person": person}
    return {name: {"value": value, "how": "set"} for name, value in values.items()}


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


# Thresholds.


@pytest.mark.parametrize("max_fmr", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("shuffled", [False, True])
def test_thresholds_against_a_count(max_fmr: float, shuffled: bool) -> None:
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(9), [2, 3, 4, 5, 6, 2, 7, 5, 3])
    if shuffled:
        codes = rng.permutation(codes)
    embedding = unit(rng.normal(size=(9, 8))[codes] + 0.8 * rng.normal(size=(len(codes), 8)))
    calibrated = calibrate(embedding, codes, max_fmr)

    images = [
        float(np.dot(embedding[i], embedding[j])) for i in range(len(codes)) for j in range(i) if codes[i] != codes[j]
    ]
    centres = []
    for a in range(9):
        for b in range(9):
            if a != b:
                one = robust_centre(embedding[np.flatnonzero(codes == a)[::2]])
                other = robust_centre(embedding[np.flatnonzero(codes == b)[1::2]])
                centres.append(float(one @ other))
    for kind, scores in (("image", images), ("person", centres)):
        limit, allowed = calibrated[kind]["value"], int(max_fmr * len(scores) + 1e-9)
        assert sum(score > limit + 1e-6 for score in scores) <= allowed
        assert sum(score > limit - 1e-4 for score in scores) >= allowed or limit >= max(scores)
        ranked = sorted(scores, reverse=True)
        assert ranked[allowed] - 1e-6 <= limit <= ranked[max(allowed - 1, 0)] + 1e-6
        assert f"{len(scores)} comparisons" in calibrated[kind]["how"]


def test_thresholds_need_two_people() -> None:
    rng = np.random.default_rng(0)
    for codes in ([0, 0, 0, 0], [0, 0, 0, 1]):
        with pytest.raises(UserError, match="two val people"):
            calibrate(unit(rng.normal(size=(4, 8))), np.asarray(codes), 0.1)


def test_a_person_with_one_image_does_not_spoil_the_thresholds() -> None:
    rng = np.random.default_rng(0)
    calibrated = calibrate(unit(rng.normal(size=(7, 8))), np.asarray([0, 1, 1, 2, 2, 3, 3]), 0.2)
    assert np.isfinite(calibrated["person"]["value"]) and "6 comparisons" in calibrated["person"]["how"]


def test_a_robust_centre_leans_away_from_outliers() -> None:
    rng = np.random.default_rng(0)
    axis = unit(np.eye(1, 16)[0])
    embedding = unit(np.concatenate([axis + 0.1 * rng.normal(size=(8, 16)), -axis + rng.normal(size=(2, 16))]))
    plain = unit(embedding.mean(axis=0))
    assert robust_centre(embedding) @ axis > plain @ axis
    assert np.linalg.norm(robust_centre(embedding)) == pytest.approx(1, abs=1e-5)


# Filters, with a generator and a guide whose answers are known.


class ScriptedIdentities(Mixture):
    """Proposes the codes of its script, one after the other."""

    kind: Any = "scripted"
    script: tuple[tuple[float, ...], ...] = ()
    ends: bool = False  # or it begins again

    def proposals(self, codes: np.ndarray, rng: np.random.Generator) -> Iterator[Proposal]:
        for code in self.script if self.ends else cycle(self.script):
            PROPOSED["count"] += 1
            yield Proposal(np.asarray(code, np.float32), (0, 1), np.full(2, 0.5))
        raise ValueError("that was the last")


PROPOSED = Counter[str]()


class FakeSynthesizer(Synthesizer):
    """Draws nothing: embeddings are the code itself, turned a little by the variation."""

    def render(self, code: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.arange(len(z), dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
        return pixels, unit(code[None] + 0.01 * np.pad(z, ((0, 0), (0, len(code) - z.shape[1]))))


class FakeGenerator(Generator):
    def __init__(self, codes: np.ndarray, z_dim: int) -> None:
        super().__init__()
        self.fixed_codes, self.z_dim = torch.from_numpy(codes), z_dim

    def codes(self) -> torch.Tensor:
        return self.fixed_codes


TRAIN = np.eye(6, dtype=np.float32)[:2]  # two train people, at right angles


def fake_synthesizer(image: float = -1.1, person: float = 1.1, **options: Any) -> FakeSynthesizer:
    PROPOSED.clear()
    defaults = Synthesize(images_per_existing=3, new_identities=3, images_per_new=2, oversample=2, batch_size=4)
    donors = np.random.default_rng(0).normal(size=(10, 2)).astype(np.float32)
    G: Any = FakeGenerator(TRAIN, 2)
    photos = leakage.grey(np.stack([draw_face(n // 5, n % 5, 64, 64)[:, :, None] for n in range(10)]))
    return FakeSynthesizer(
        G=G,
        guide=G,
        donors=donors,
        donor_person=np.repeat([0, 1], 5),
        photos=photos,
        centres=TRAIN,
        options=defaults.model_copy(update=options),
        device=torch.device("cpu"),
        copy_threshold=0.95,
        person_threshold=person,
        image_threshold=image,
    )


def synthesized(
    synthesizer: Synthesizer, folder: Path, runtime: Runtime = RUNTIME, strangers: Any = None
) -> tuple[list[dict[str, Any]], dict[str, int], dict[str, tuple[int, int]]]:
    """The rows, how many were made, and what each filter saw and removed."""
    with Local().open(print) as engine:
        queue = ShardQueue(folder / "shards" / "1", engine, partial(make_people, synthesizer, 1), is_whole)
        people = SyntheticPeople(queue, synthesizer, ["d/a", "d/b"], "g", Context(runtime), strangers)
        rows = list(people.rows())
    return rows, people.made, {name: (e["seen"], e["removed"]) for name, e in people.filter_counts.counts.items()}


def axis(*parts: float) -> tuple[float, ...]:
    return (*parts, *[0.0] * (6 - len(parts)))


SCRIPT = (
    axis(1, 0, 0.1),  # the first train person
    axis(0, 0, 1),  # new
    axis(0, 0, 1, 0.1),  # the same again
    axis(0, 1, 0.2),  # the second train person
    axis(0, 0, 0, 1),  # new
    axis(0, 0, 0, 0, 1),  # new
    axis(0, 0, 0, 0, 0, 1),  # never asked for
)


SIZES = [1, 8, 12, 10_000]  # candidates of a shard: one attempt, two, three, all


@pytest.mark.parametrize("size", SIZES)
def test_filters_are_counted_right(tmp_path: Path, size: int) -> None:
    synthesizer = fake_synthesizer(
        person=0.7, identities=ScriptedIdentities(script=SCRIPT), max_attempts=5, images_per_existing=0
    )
    rows, made, counts = synthesized(synthesizer, tmp_path, RUNTIME.model_copy(update={"shard_images": size}))
    assert made["new people"] == 3 and PROPOSED["count"] == 6 and len(rows) == made["images of new people"] == 3 * 2
    assert counts == {
        "new people too close to a train person": (6, 2),
        "new people too close to each other": (4, 1),
        "near-copies of a train photo": (3 * 4, 0),
        "images that left their new person": (3 * 4, 0),
        "surplus images of new people": (3 * 4, 3 * 2),
    }
    assert Counter(row["identity"] for row in rows) == {f"synthetic/new-00000{n}": 2 for n in range(3)}
    codes = {row["identity"][-1]: json.loads(row["latent"])["w"] for row in rows}
    assert [unpack(codes[n]).tolist() for n in "012"] == [np.asarray(SCRIPT[k], np.float32).tolist() for k in (1, 4, 5)]
    assert all(row["parents"][:2] == ["d/a", "d/b"] and row["split"] == "train" for row in rows)
    assert all(row["parent_weights"] == pytest.approx([0.5, 0.5, 0.4]) for row in rows)  # the last one lent variation


class SecondLook:
    """Takes those who lie along the fourth axis for a train person; counts whom it was asked about."""

    asked = 0

    def judged(self, result: PersonResult) -> PersonResult:
        self.asked += 1
        is_like = bool(result.centre[3] > 0.9)
        count = ("second look", 1, int(is_like), "why")
        left = [count] if is_like else [count, *result.removed]
        return replace(result, images=[] if is_like else result.images, removed=left)


@pytest.mark.parametrize("size", SIZES)
def test_a_second_look_at_who_resembles_a_train_person(tmp_path: Path, size: int) -> None:
    script = (*SCRIPT[:4], axis(0, 0, 0, 1), axis(0, 0, 0, 0, 1), axis(0, 0, 0, 0, 0, 1))
    runtime = RUNTIME.model_copy(update={"shard_images": size})
    outcomes = []
    for asked in (4, 3):  # after a stop nobody who was rejected is looked at again
        synthesizer = fake_synthesizer(
            person=0.7, identities=ScriptedIdentities(script=script), max_attempts=5, images_per_existing=0
        )
        look = SecondLook()
        rows, made, counts = synthesized(synthesizer, tmp_path, runtime, look)
        assert look.asked == asked
        outcomes.append(([{**row} for row in rows], made, counts))
    assert outcomes[0] == outcomes[1]
    rows, made, counts = outcomes[0]
    assert made["new people"] == 3 and len(rows) == 3 * 2
    assert counts["new people too close to each other"] == (5, 1) and counts["second look"] == (4, 1)
    assert counts["images that left their new person"] == (3 * 4, 0)


def test_who_resembles_somebody_is_rejected_before_images_are_kept(tmp_path: Path) -> None:
    options: dict[str, Any] = {"images_per_existing": 0, "max_attempts": 5}
    row_lists = []
    for size in (1, 10_000):  # each attempt knows the new people before it, or none does
        synthesizer = fake_synthesizer(person=0.7, identities=ScriptedIdentities(script=SCRIPT), **options)
        row_lists.append(
            synthesized(synthesizer, tmp_path / str(size), RUNTIME.model_copy(update={"shard_images": size}))[0]
        )
    assert row_lists[0] == row_lists[1] and len(row_lists[0]) == 3 * 2
    request, close, far = (
        PersonRequest(np.asarray(SCRIPT[1], np.float32), (0, 1), np.full(2, 0.5), 0),
        SCRIPT[2],
        SCRIPT[4],
    )
    assert len(synthesizer.make_person(request, unit(np.asarray([far]))).images) == 2
    rejected = synthesizer.make_person(request, unit(np.asarray([far, close])))
    assert rejected.images == [] and not rejected.near and len(rejected.centre)
    # Within the margin: left to SyntheticPeople.
    synthesizer.person_threshold = float(unit(np.asarray(close)) @ rejected.centre) - 1e-4
    assert len(synthesizer.make_person(request, unit(np.asarray([close]))).images) == 2


def test_proposals_are_bounded(tmp_path: Path) -> None:
    options: dict[str, Any] = {"new_identities": 4, "max_attempts": 3, "images_per_existing": 0}
    nobody_passes = -1.0
    synthesizer = fake_synthesizer(person=nobody_passes, identities=ScriptedIdentities(script=SCRIPT), **options)
    rows, made, counts = synthesized(synthesizer, tmp_path)
    assert (rows, made["new people"], PROPOSED["count"]) == ([], 0, 12)
    assert counts == {"new people too close to a train person": (12, 12)}


def test_new_people_without_an_image_are_none(tmp_path: Path) -> None:
    options: dict[str, Any] = {"new_identities": 2, "max_attempts": 3, "images_per_existing": 0}
    synthesizer = fake_synthesizer(
        image=1.1, person=0.7, identities=ScriptedIdentities(script=SCRIPT[4:6]), **options
    )  # no image is close enough
    rows, made, counts = synthesized(synthesizer, tmp_path)
    assert (rows, made["new people"], PROPOSED["count"]) == ([], 0, 6)
    assert counts["images that left their new person"] == (24, 24)


@pytest.mark.parametrize("last", [0, 4])
def test_nobody_more_can_be_proposed(tmp_path: Path, last: int) -> None:
    synthesizer = fake_synthesizer(
        person=0.7, identities=ScriptedIdentities(script=SCRIPT[:last], ends=True), images_per_existing=0
    )
    with pytest.raises(UserError, match="no new person can be proposed: that was the last"):
        synthesized(synthesizer, tmp_path)
    assert PROPOSED["count"] == last
    few = fake_synthesizer(
        person=0.7, identities=ScriptedIdentities(script=SCRIPT[:2], ends=True), images_per_existing=0, new_identities=1
    )
    assert synthesized(few, tmp_path / "few")[1]["new people"] == 1  # nobody more was needed


@pytest.mark.parametrize("size", SIZES)
def test_the_best_images_of_a_train_person_are_kept(tmp_path: Path, size: int) -> None:
    synthesizer = fake_synthesizer(oversample=4, new_identities=0)
    synthesizer.centres = centres = unit(TRAIN + np.asarray([[0, 0.01, 0, 0, 0, 0], [0.01, 0, 0, 0, 0, 0]]))
    names = ["d/a", "d/b"]
    score, z = {}, {}
    for index, name in enumerate(names):
        rng = np.random.default_rng(subseed("existing", 0, name))
        z[name], _ = synthesizer.variation(12, [index], np.ones(1), rng)
        score[name] = synthesizer.render(TRAIN[index], z[name])[1] @ centres[index]
    synthesizer.image_threshold = stranger = float(np.sort(score["d/a"])[-3])  # leaves two of the first person
    rows, made, counts = synthesized(synthesizer, tmp_path, RUNTIME.model_copy(update={"shard_images": size}))
    expected = {name: [k for k in np.argsort(-score[name])[:3].tolist() if score[name][k] > stranger] for name in names}
    assert Counter(row["identity"] for row in rows) == {name: len(expected[name]) for name in names if expected[name]}
    assert len(expected["d/a"]) == 2 and made["images of train people"] == len(rows)
    too_far = sum(int((score[name] <= stranger).sum()) for name in names)
    assert counts == {
        "near-copies of a train photo": (24, 0),
        "images that left their train person": (24, too_far),
        "surplus images of train people": (24 - too_far, 24 - too_far - len(rows)),
    }
    for name in names:
        latents = [json.loads(row["latent"]) for row in rows if row["identity"] == name]
        kept_codes = {tuple(unpack(latent["z"]).tolist()) for latent in latents}
        assert kept_codes == {tuple(z[name][k].tolist()) for k in expected[name]}
        assert sorted(latent["index"] for latent in latents) == sorted(k % 4 for k in expected[name])
    assert all(
        row["parents"][0] == row["identity"] != row["parents"][1]  # who lends is another
        and row["parent_weights"] == pytest.approx([1, 0.4])
        and row["seed"] == subseed("existing", 0, row["identity"])
        for row in rows
    )


def test_near_copies_of_their_own_people_are_left_out() -> None:
    synthesizer = fake_synthesizer()
    photo, another, of_stranger = (
        draw_face(person, shot, 64, 64)[:, :, None] for person, shot in ((0, 2), (0, 7), (1, 3))
    )
    lighter = np.clip(photo.astype(int) + 10, 0, 255).astype(np.uint8)
    images = np.stack([photo, photo[:, ::-1], lighter, another, of_stranger])
    assert synthesizer.fresh(images, [0]).tolist() == [False, False, False, True, True]
    assert synthesizer.fresh(images[4:], [0, 1]).tolist() == [False]  # where person 1 is a parent too
    synthesizer.render = lambda code, z: (images[[0, 1, 2, 3, 4, 4]], unit(np.repeat(code[None], 6, 0)))  # type: ignore[method-assign]
    result = synthesizer.make_person(PersonRequest(TRAIN[0], (0,), np.ones(1), 0, train=0))
    assert (
        result.removed[0] == ("near-copies of a train photo", 6, 3, "similarity from 0.950") and len(result.images) == 3
    )


def test_the_bound_on_new_people_lies_between_strangers_and_train_people() -> None:
    angle = np.deg2rad([0, 10, 20, 60])  # photos of one person, whose centre lies at 0 degrees
    embedding = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    begin = np.quantile(np.cos(angle), 0.05)
    bound = between_strangers_and_train(
        {"value": 0.2, "how": "x"}, embedding, np.zeros(4, int), np.asarray([[1, 0]], np.float32)
    )
    assert bound["value"] == pytest.approx((0.2 + begin) / 2) and "0.200, x" in bound["how"]
    loose = {"value": 0.9, "how": "x"}  # a guide that knows train people no better than strangers
    assert between_strangers_and_train(loose, embedding, np.zeros(4, int), np.asarray([[1, 0]], np.float32)) == loose


def test_among_many_people_half_of_real_strangers_would_pass() -> None:
    rng = np.random.default_rng(0)
    train, strangers = unit(rng.normal(size=(2000, 16))), unit(rng.normal(size=(51, 16)))
    tight = {"value": 0.5, "how": "x"}  # one pair in forty is as close
    few = among_many(tight, strangers, train[:2])
    assert few == tight
    many = among_many(tight, strangers, train)
    nearest = np.sort((strangers @ train.T).max(axis=1))
    assert many["value"] == nearest[25] > 0.7 and (nearest > tight["value"]).all()  # nobody at all passed before
    assert "half of 51 val people" in many["how"] and "0.500, x" in many["how"]


def test_variation_is_borrowed_from_others() -> None:
    def drawn(count: int, people: tuple[int, ...], **options: float) -> np.ndarray:
        weights = np.full(len(people), 1 / len(people))
        return fake_synthesizer(**options).variation(count, people, weights, np.random.default_rng(1))[0]

    def rounded(codes: np.ndarray) -> set[tuple[float, ...]]:
        return {tuple(row) for row in np.round(codes.astype(float), 4).tolist()}

    donors, person = fake_synthesizer().donors, fake_synthesizer().donor_person
    assert donors is not None
    for who in (0, 1):
        own, others = (rounded(donors[person == p]) for p in (who, 1 - who))
        assert rounded(drawn(60, (who,), variation_noise=0.0, borrowed=1.0)) == others
        assert rounded(drawn(60, (who,), variation_noise=0.0, borrowed=0.0)) == own
        for z in drawn(20, (who,), variation_noise=0.0, borrowed=0.6):  # 0.8 of an own, 0.6 of another's
            turned = [0.8 * np.asarray(a) + 0.6 * np.asarray(b) for a in own for b in others]
            assert np.abs(np.asarray(turned) - z).sum(axis=1).min() < 1e-3
    both = [(a + b) / np.sqrt(2) for a in donors[person == 0] for b in donors[person == 1]]
    for z in drawn(20, (0, 1), variation_noise=0.0, borrowed=0.0):  # a photo of each parent
        assert np.abs(np.asarray(both) - z).sum(axis=1).min() < 1e-5
    everyone = drawn(60, (0, 1), variation_noise=0.0, borrowed=1.0)  # no others: one's own
    assert rounded(everyone) == rounded(donors)
    noisy = drawn(5000, (0,), variation_noise=0.5, borrowed=1.0)
    spread = np.sqrt(donors[5:].var(axis=0) + 0.5**2)
    assert noisy.dtype == np.float32 and np.allclose(noisy.std(axis=0), spread, rtol=0.1)
    synthesizer = fake_synthesizer()
    synthesizer.donors = None  # a generator without an encoder: N(0, 1)
    z, lenders = synthesizer.variation(5000, (0,), np.ones(1), np.random.default_rng(1))
    assert np.allclose(z.std(axis=0), 1, rtol=0.1) and set(lenders.tolist()) == {-1}


def test_codes_are_packed_and_unpacked_exactly() -> None:
    rng = np.random.default_rng(0)
    dense, sparse = rng.normal(size=9).astype(np.float32), np.zeros(900, np.float32)
    sparse[[3, 899]] = 0.1, -1e-30
    halves = np.asarray([0, 0, 1 / 3, 1], np.float32)  # half of it is zero: no shorter as places
    for code in (dense, sparse, halves, np.zeros(3, np.float32), np.zeros(0, np.float32)):
        again = unpack(json.loads(json.dumps(pack(code))))
        assert again.dtype == np.float32 and np.array_equal(again, code)
    assert pack(sparse) == {"length": 900, "at": [3, 899], "value": [0.1, -1e-30]}
    assert pack(halves) == [0.0, 0.0, 0.33333334, 1.0]  # float32's shortest digits
    assert json.loads(latent_json(pack(dense), pack(sparse), 70, 64)) == {
        "w": pack(dense), "z": pack(sparse), "index": 6, "batch_size": 64,
    }  # fmt: skip


# The stage.


def generously(lab: Lab, recipe: Recipe, stage: str, arm: str | None = None) -> Artifact:
    """A stage of a recipe in which every candidate passes the filters, however little G has learned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thresholds, "calibrate", lambda *_: limits())
        patch.setattr(thresholds, "between_strangers_and_train", lambda strangers, *_: strangers)
        patch.setattr(thresholds, "among_many", lambda bound, *_: bound)
        patch.setattr(thresholds, "copy_limit", lambda *_: 2.0)
        return lab.stage(recipe, stage, arm)


@pytest.fixture(scope="module")
def generous(faces: Path) -> Recipe:
    return tiny(faces, synthesize={"seed": 7})


@pytest.fixture(scope="module")
def made(generous: Recipe, shared: Lab) -> Artifact:
    return generously(shared, generous, "synthesize")


def check_rows(artifact: Artifact, recipe: Recipe, lab: Lab) -> None:
    """What holds for synthetic rows whatever the filters left."""
    rows, report = rows_of(artifact), report_of(artifact)
    assert manifest.validate(artifact.path) == []
    new = [row for row in rows if row["identity"].startswith("synthetic/")]
    existing = [row for row in rows if row not in new]
    assert report["requested"] == {"images of train people": 12, "new people": 3, "images of new people": 9}
    assert report["made"] == {
        "images of train people": len(existing),
        "new people": len({row["identity"] for row in new}),
        "images of new people": len(new),
    }
    counts = {entry["filter"]: (entry["seen"], entry["removed"]) for entry in report["counts"]}
    seen, copies = counts["near-copies of a train photo"]
    drawn, too_far = counts["images that left their train person"]
    stayed, surplus = counts["surplus images of train people"]
    assert seen >= 4 * 6 and 4 * 6 - copies <= drawn <= 4 * 6  # some new people's images are looked at too
    assert stayed == drawn - too_far and stayed - surplus == len(existing)
    proposed, near_real = counts["new people too close to a train person"]
    passed, near_new = counts["new people too close to each other"]
    assert passed == proposed - near_real and proposed <= 3 * 20
    assert report["made"]["new people"] <= passed - near_new
    prepare = lab.done[pick(graph.build(recipe), "prepare").key]
    train = set(manifest.read(prepare.path, ["identity"], split="train")["identity"].to_pylist())
    assert {row["identity"] for row in existing} <= train
    for row in rows:
        assert row["split"] == "train" and row["source_sha256"] is None and set(row["parents"]) <= train
        assert row["generator"] == artifact.record["inputs"]["generator"]["fingerprint"]
        assert (row["height"], row["width"], row["label"]) == (32, 32, None)
    names = sorted(train)
    for row in new:  # the signed weights give the code back: here a code is what each person weighs
        code = np.zeros(len(names))
        np.add.at(code, [names.index(parent) for parent in row["parents"][:-1]], row["parent_weights"][:-1])
        stored = unpack(json.loads(row["latent"])["w"])
        if len(stored) == len(names):
            assert code == pytest.approx(stored, abs=2e-3)
        assert code.sum() == pytest.approx(1, abs=2e-3 * len(names)) and len(row["parents"]) > min(8, len(train))


def test_the_stage_adds_up(made: Artifact, generous: Recipe, recipe: Recipe, shared: Lab) -> None:
    check_rows(made, generous, shared)
    assert report_of(made)["made"] == report_of(made)["requested"]
    check_rows(shared.stage(recipe, "synthesize"), recipe, shared)  # with real filters


def test_the_same_again_and_another_seed(recipe: Recipe, shared: Lab, tmp_path: Path) -> None:
    artifact = shared.stage(recipe, "synthesize")
    node = pick(graph.build(recipe), "synthesize")
    folders = {name: shared.done[needed.key].path for name, needed in node.needs.items()}
    for name, seed in (("same.incomplete", 0), ("other", 1)):
        out = tmp_path / artifact.fingerprint / name
        out.mkdir(parents=True)
        options = recipe.synthesize.model_copy(update={"seed": seed})
        synthesize.run(options, {}, folders, out, Context(RUNTIME))
    assert rows_of(artifact) == manifest.read(tmp_path / artifact.fingerprint / "same.incomplete").to_pylist()
    other = manifest.read(tmp_path / artifact.fingerprint / "other").to_pylist()
    assert not {row["image_id"] for row in other} & {row["image_id"] for row in rows_of(artifact)}
    shutil.copytree(shared.store.root, tmp_path / "copy", ignore=shutil.ignore_patterns(f"{artifact.fingerprint}*"))
    lab = Lab(tmp_path / "copy")
    again = lab.make(node)
    assert again.state == "ran" and again.record["outputs"] == artifact.record["outputs"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_is_made_again_bit_for_bit(faces: Path, shared: Lab, tmp_path: Path, kind: str) -> None:
    recipe = with_gan(faces, kind)
    artifact = generously(shared, recipe, "synthesize")
    arm = generously(shared, recipe, "merge", "synthetic")
    G, _ = load_generator(shared.store.folder("train_gan", rows_of(artifact)[0]["generator"]))
    rows = rows_of(artifact)
    assert len(rows) == 12 + 9 and max(json.loads(row["latent"])["index"] for row in rows) == 3
    for row in rows:
        assert redraw(G, row["latent"]) == row["image"]["bytes"]
    # By the command's way, from a manifest whose rows stand in another order, and from an arm's.
    table = manifest.read(artifact.path)
    order = np.random.default_rng(0).permutation(len(rows))
    (tmp_path / "manifest").mkdir()
    part = pq.read_table(manifest.parts(artifact.path)[0]).take(order)
    pq.write_table(part, tmp_path / "manifest" / "part-00000.parquet")
    assert manifest.read(tmp_path)["image_id"].to_pylist() != table["image_id"].to_pylist()
    for number, row in enumerate(rows[::3]):  # of train people and of new ones
        source = tmp_path if number % 2 else arm.path
        out = tmp_path / f"{number}.png"
        assert regenerate(source, row["image_id"], out, shared.store)
        assert out.read_bytes() == row["image"]["bytes"]


def test_neighbours_in_a_batch_do_not_matter(made: Artifact, shared: Lab) -> None:
    G, _ = load_generator(shared.store.folder("train_gan", rows_of(made)[0]["generator"]))
    rng = np.random.default_rng(0)
    w, z = rng.normal(size=(7, 8)).astype(np.float32), rng.normal(size=(7, 4)).astype(np.float32)
    images = draw(G, w, z, 4)
    assert images.shape == (7, 32, 32, 1) and images.dtype == np.uint8
    w[[0, 1, 3]], z[[0, 1, 3]] = 9, -9
    assert np.array_equal(draw(G, w, z, 4)[[2, 4, 5, 6]], images[[2, 4, 5, 6]])


def test_what_cannot_be_made_again(made: Artifact, recipe: Recipe, shared: Lab, tmp_path: Path) -> None:
    out, rows = tmp_path / "x.png", rows_of(made)
    with pytest.raises(UserError, match="no row of"):
        regenerate(made.path, "zzz", out, shared.store)
    with pytest.raises(UserError, match="several rows"):
        regenerate(made.path, "", out, shared.store)
    arm = shared.stage(recipe, "merge", "real")
    real = manifest.read(arm.path, ["image_id"])["image_id"].to_pylist()[0]
    with pytest.raises(UserError, match="is a real photo"):
        regenerate(arm.path, real, out, shared.store)
    with pytest.raises(UserError, match=r"not whole in .*never made") as error:
        regenerate(made.path, rows[0]["image_id"], out, Store(tmp_path / "empty"))
    assert "--workdir" in error.value.fix
    generator = shared.store.folder("train_gan", rows[0]["generator"])
    damaged = shutil.copytree(generator, tmp_path / "damaged" / "train_gan" / generator.name)
    (damaged / "generator.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match=r"generator.safetensors was changed"):
        regenerate(made.path, rows[0]["image_id"], out, Store(tmp_path / "damaged"))
    assert not out.exists()
    assert regenerate(made.path, rows[0]["image_id"][:20], out, shared.store)


def test_impossible_thresholds_are_reported(
    faces: Path, shared: Lab, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thresholds, "calibrate", lambda *_: limits(person=-1.0))
    monkeypatch.setattr(thresholds, "among_many", lambda bound, *_: bound)
    node = pick(graph.build(tiny(faces, synthesize={"max_attempts": 2})), "synthesize")
    artifact = lab.make(node)
    report = report_of(artifact)
    assert report["made"] == {"images of train people": 12, "new people": 0, "images of new people": 0}
    assert {e["filter"]: (e["seen"], e["removed"]) for e in report["counts"]}[
        "new people too close to a train person"
    ] == (6, 6)
    messages = [event.text for event in lab.events if event.kind == "message"]
    assert any("made 0 of 3 new people" in text for text in messages)
    bare = tiny(faces, synthesize={"max_attempts": 2, "images_per_existing": 0})
    with pytest.raises(UserError, match="no synthetic image was left") as error:
        lab.stage(bare, "synthesize")
    assert "max_fmr" in error.value.fix


def test_a_generator_without_encoder(faces: Path, shared: Lab) -> None:
    artifact = generously(shared, with_gan(faces, "dcgan"), "synthesize")
    z = np.asarray([json.loads(row["latent"])["z"] for row in rows_of(artifact)])
    assert np.abs(z.mean()) < 0.5 and 0.5 < z.std() < 1.5


def test_truncated_codes_are_those_of_the_rows(faces: Path, shared: Lab, lab: Lab) -> None:
    """z within its bound, the code half as far from the mean code, and parents whose weights make it."""
    made = {}
    for name, options in (("whole", {}), ("half", {"truncate_z": 0.5, "truncate_identity": 0.5})):
        recipe = with_gan(faces, "dcgan", synthesize={"images_per_existing": 0})
        recipe = recipe.model_copy(update={"synthesize": recipe.synthesize.model_copy(update=options)})
        made[name] = rows_of(generously(shared if name == "whole" else lab, recipe, "synthesize"))
    assert np.abs([json.loads(row["latent"])["z"] for row in made["half"]]).max() <= 0.5
    generator = pick(graph.build(with_gan(faces, "dcgan")), "train_gan")
    mean = load_generator(shared.make(generator).path)[0].codes().detach().numpy().mean(axis=0)
    whole, half = (np.asarray(json.loads(made[name][0]["latent"])["w"]) for name in ("whole", "half"))
    np.testing.assert_allclose(half - mean, (whole - mean) / 2, atol=1e-5)
    assert sum(made["half"][0]["parent_weights"]) == pytest.approx(1, abs=1e-3)
