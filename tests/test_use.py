"""New people as shares of their parents (identity mixup), and batch norms of their own for synthetic images."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from drawn import BACKBONE_ARGS, RUNTIME, Lab, tiny
from pydantic import ValidationError
from ranked import distance, options, rows_of, trained
from torch import nn

from facegan import manifest
from facegan.config import Recipe, TrainRecognizer, Use
from facegan.embedder import Embedder, load_embedder
from facegan.errors import UserError
from facegan.events import Context, Event
from facegan.gans.networks.io import load_generator
from facegan.heads import HEADS
from facegan.identity_mixup import Targets, targets_of
from facegan.images import ManifestImages, encode_png
from facegan.mixing import Batches, Heads
from facegan.own_norm import PartedNorm, by_source, of_real, parted
from facegan.stages import train_recognizer
from facegan.training import Sampler

MIXUP = {"new": 0.5, "identity_mixup": True}
BOTH = {**MIXUP, "own_norm": True}
CURRICULUM = {"new": 0.0, "new_at_end": 1.0, "own_head": True}  # each head is once without an image
BLENDED = {"new": 0.5, "own_head": True, "domain_mixup": 1.0}


@pytest.fixture(scope="module")
def shared_out(faces: Path) -> Recipe:
    """The tiny recipe, whose new people say how much of each parent is in them."""
    return tiny(faces, synthesize={"shares": True})


@pytest.fixture(scope="module")
def rows(shared_out: Recipe, shared: Lab) -> dict[str, Path]:
    """What a recognizer is trained on: real and synthetic rows, and the val people."""
    return rows_of(shared_out, shared)


# Shares in the manifest.


def test_rows_tell_their_shares_and_are_else_the_same(recipe: Recipe, shared_out: Recipe, shared: Lab) -> None:
    plain, told = (list(manifest.iterate(shared.stage(one, "synthesize").path)) for one in (recipe, shared_out))
    G, spec = load_generator(shared.stage(recipe, "train_gan").path)
    code_of = dict(zip(spec["identities"], G.codes().detach().numpy(), strict=True))
    mean = np.mean(list(code_of.values()), axis=0)
    for before, after in zip(plain, told, strict=True):
        latent = json.loads(after.pop("latent"))
        shares = latent.pop("shares")
        assert latent == json.loads(before.pop("latent")) and after == before  # the image above all
        mixed = sum(share * (code_of[name] - mean) for name, share in zip(after["parents"], shares, strict=True))
        own = np.asarray(latent["w"]) - mean
        assert np.dot(mixed, own) == pytest.approx(np.linalg.norm(mixed) * np.linalg.norm(own), rel=1e-5)
        assert sum(shares) == pytest.approx(1, abs=1e-6)
    assert {len(row["parents"]) for row in told} == {1, 4}  # existing people, and mixtures of all


def small_manifest(folder: Path, people: list[tuple[str, list[str] | None, Any]]) -> Path:
    """A merged manifest of one image a person: (identity, parents, shares), labelled in the order given."""
    rows = []
    for label, (identity, parents, shares) in enumerate(people):
        latent = None if parents is None else json.dumps({"w": [0.0]} | ({} if shares is None else {"shares": shares}))
        image = encode_png(np.full((4, 4, 1), label, np.uint8))
        who: dict[str, Any] = {"identity": identity, "label": label, "parents": parents, "latent": latent}
        source = "real" if parents is None else "synthetic"
        rows.append(manifest.row(image, source=source, dataset="d", split="train", height=4, width=4, **who))
    manifest.write(folder, rows, "merge", {})
    return folder


def test_targets_are_the_parents_also_those_without_a_photo(tmp_path: Path) -> None:
    new = ("synthetic/new-0", ["d/c", "d/gone", "d/a"], [0.5, 0.125, 0.375])
    folder = small_manifest(tmp_path, [("d/a", None, None), ("d/b", ["d/b"], [1.0]), ("d/c", None, None), new])
    targets = targets_of(folder, ManifestImages(folder))
    assert targets is not None and targets.classes == 4  # a, b, c, gone
    image, own, share = targets.of(np.asarray([2, 3, 0, 1, 3]))
    assert image.tolist() == [0, 1, 1, 1, 2, 3, 4, 4, 4]
    assert own.tolist() == [2, 2, 3, 0, 0, 1, 2, 3, 0]
    assert share.tolist() == [1, 0.5, 0.125, 0.375, 1, 1, 0.5, 0.125, 0.375]


def test_targets_need_new_people_and_their_shares(tmp_path: Path) -> None:
    photos = small_manifest(tmp_path / "photos", [("d/a", None, None), ("d/b", None, None)])
    assert targets_of(photos, ManifestImages(photos)) is None
    untold = small_manifest(tmp_path / "untold", [("d/a", None, None), ("synthetic/new-0", ["d/a"], None)])
    with pytest.raises(UserError, match="rows of synthetic/new-0 do not say") as error:
        targets_of(untold, ManifestImages(untold))
    assert "synthesize.shares" in error.value.fix


# The loss.


@pytest.mark.parametrize("kind", list(HEADS.load()))
def test_the_loss_is_the_weighted_sum_over_the_parents(kind: str) -> None:
    targets = Targets(np.asarray([0, 1, 2, 3, 6]), np.asarray([0, 1, 2, 2, 0, 1]),
                      np.asarray([1, 1, 1, 0.5, 0.25, 0.25]), 3)  # fmt: skip
    label, group = np.asarray([0, 1, 2, 3, 3]), np.asarray([0, 0, 0, 2, 2])
    chosen = TrainRecognizer(embedding_dim=16, head={"kind": kind}, use=MIXUP)  # type: ignore[arg-type]
    heads = Heads(chosen, label, group, targets)
    (head,) = heads.heads
    assert head.weight.shape == (3, 16)  # new people are no classes
    embedding = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 6)[:, None]
    rows = np.asarray([4, 0, 1, 3, 2])
    found = heads(embedding, rows)  # a step, of which AdaFace takes the lengths of five embeddings
    if kind == "adaface":
        length = embedding.norm(dim=1)
        torch.testing.assert_close(head.norm_mean, length.mean())
        torch.testing.assert_close(head.norm_std, length.std())
    heads.eval()

    def loss(place: int, person: int) -> torch.Tensor:
        return F.cross_entropy(head(embedding[place : place + 1], torch.tensor([person])), torch.tensor([person]))

    mixed = [0.5 * loss(place, 2) + 0.25 * loss(place, 0) + 0.25 * loss(place, 1) for place in (0, 3)]
    expected = (loss(1, 0) + loss(2, 1) + loss(4, 2) + mixed[0] + mixed[1]) / 5
    torch.testing.assert_close(found, expected)
    parts = heads(embedding[:2], rows, slice(0, 2)) + heads(embedding[2:], rows, slice(2, 5))
    torch.testing.assert_close(parts, expected)


# Norms of their own.


def test_parted_images_are_normalised_as_two_batches() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3), nn.BatchNorm1d(3))
    real, synthetic = copy.deepcopy(net), copy.deepcopy(net)
    both = parted(copy.deepcopy(net)).train()
    apart = np.asarray([True, False, True, True, False, False, True])
    for _ in range(3):
        img = torch.randn(7, 4)
        found = by_source(both, img, apart)
        torch.testing.assert_close(found[~apart], real(img[~apart]))
        torch.testing.assert_close(found[apart], synthetic(img[apart]))
    state = of_real(both)
    assert sorted(state) == sorted(net.state_dict())
    for name, value in real.state_dict().items():
        torch.testing.assert_close(state[name], value)
    img = torch.randn(5, 4)
    torch.testing.assert_close(both.eval()(img), real.eval()(img))


def test_each_source_learns_its_own_scale_and_shift() -> None:
    net = parted(Embedder(TrainRecognizer(backbone_args=BACKBONE_ARGS, embedding_dim=16), 1, 32)).train()
    norms = [module for module in net.modules() if isinstance(module, PartedNorm)]
    for norm in norms:  # some begin at 0, so that nothing before them would be felt
        nn.init.ones_(norm.real.weight)
    assert len(norms) == 16 and not of_real(net).keys() & {name for name in net.state_dict() if ".real." in name}
    found = by_source(net, torch.randn(6, 1, 32, 32), np.asarray([False] * 3 + [True] * 3))
    (found[:3] * torch.randn(3, 16)).sum().backward()
    assert all(norm.real.bias.grad is not None and norm.real.bias.grad.abs().sum() > 0 for norm in norms)
    assert all(not norm.synthetic.bias.grad.any() for norm in norms)


def test_a_batch_has_the_same_number_of_each_source() -> None:
    group = np.repeat([0, 1, 2], [12, 6, 20])
    batches = Batches(group, Use(own_norm=True), 20, 9, seed=0)
    assert batches.own_norm
    assert {int((group[batches.rows(step)] == 0).sum()) for step in range(20)} == {3}
    for lonely, use in (("real", Use(own_norm=True, new=0.89)), ("synthetic", Use(own_norm=True, new=0.1, existing=0))):
        with pytest.raises(UserError, match=f"one {lonely} image in a batch of 9") as error:
            Batches(group, use, 20, 9, seed=0)
        assert "batch_size" in error.value.fix


@pytest.mark.parametrize("source", [0, 2])
def test_rows_of_one_source_are_not_parted(source: int) -> None:
    batches = Batches(np.full(9, source), Use(own_norm=True), 9, 4, seed=0)
    assert not batches.own_norm
    assert np.array_equal(batches.rows(5), Sampler(9, 0).batch(20, 4))  # and drawn as without the option
    none = Batches(np.repeat([0, 2], [5, 5]), Use(own_norm=True, new=1.0), 9, 4, seed=0)
    assert not none.own_norm  # no step has a photo


# Trainings.


@pytest.mark.parametrize("use", [MIXUP, {"new": 0.5, "own_norm": True, "own_head": True}, BOTH, CURRICULUM, BLENDED])
def test_a_stopped_training_goes_on_to_the_same_bytes(
    rows: dict[str, Path], tmp_path: Path, use: dict[str, Any]
) -> None:
    chosen = options(steps=9, batch_size=8, evaluations=3, use=use)

    class Stop(Exception):
        pass

    def run(out: Path, stop_at: int = 0) -> bytes:
        def on_event(event: Event) -> None:
            if event.kind == "progress" and event.done == stop_at:
                raise Stop

        (out / "work").mkdir(parents=True, exist_ok=True)
        train_recognizer.run(chosen, {"seed": 0}, rows, out, Context(RUNTIME, on_event))
        names = ("embedder.safetensors", "embedder.json", "curve.jsonl", "summary.json")
        return b"".join((out / name).read_bytes() for name in names)

    whole = run(tmp_path / "whole")
    for step in (5, 8):
        with pytest.raises(Stop):
            run(tmp_path / "torn", step)
    assert run(tmp_path / "torn") == whole
    net, spec = load_embedder(tmp_path / "whole")  # in the form that all recognizers have
    assert spec["options"]["use"].items() >= use.items()
    assert net.state_dict().keys() == Embedder(chosen, 1, 32).state_dict().keys()


def test_each_option_changes_the_training(rows: dict[str, Path], tmp_path: Path) -> None:
    found = [
        trained(options(steps=6, use=use), rows, tmp_path / str(number), 1)
        for number, use in enumerate([{"new": 0.5}, MIXUP, {"new": 0.5, "own_norm": True}])
    ]
    assert min(distance(found[0], found[1]), distance(found[0], found[2])) > 1e-3


# What is refused, and what stays.


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"use": {"identity_mixup": True, "own_head": True}}, "leaves no classes to use.own_head"),
        ({"use": {"own_norm": True, "pretrain": 0.5}}, "use.pretrain has none to part"),
        ({"use": {"identity_mixup": True}, "sharded": {}}, "leave out sharded"),
        ({"use": {"own_norm": True}, "compile": True}, "set compile to false"),
    ],
)
def test_options_that_do_not_go_together(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        TrainRecognizer.model_validate(changes)


def test_a_recipe_must_make_what_it_uses(faces: Path) -> None:
    use = {"train_recognizer": {"use": MIXUP}}
    with pytest.raises(ValidationError, match=r"arm 'real\+synthetic' uses identity_mixup: set synthesize.shares"):
        tiny(faces, **use)
    with pytest.raises(ValidationError, match="new people by 'gaussian' are no mixtures"):
        tiny(faces, **use, synthesize={"shares": True, "identities": {"kind": "gaussian"}})
    tiny(faces, **use, synthesize={"shares": True})
    photos = {"real": {}, "more": {"existing": True}}
    tiny(faces, **use, arms=photos, comparison={"arm": "more"})  # no new people in any arm


def test_results_from_before_stay_valid(recipe: Recipe) -> None:
    assert set(Use().model_dump(mode="json")) == {"existing", "new", "own_head", "pretrain"}
    assert "shares" not in recipe.synthesize.model_dump(mode="json")
