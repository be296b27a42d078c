"""Generators that ask the guide: the identity term by hand, codes from its centres, and stages that wait for it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from drawn import RUNTIME, Lab, pick, tiny
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.dataset import ManifestImages
from facegan.generation.gans import GANS, AdversarialConfig, IdentityTerm
from facegan.generation.gans.cvae_gan import CvaeGan
from facegan.generation.gans.networks.guided import Guide, IdentityLoss, principal_codes
from facegan.generation.gans.networks.microbatches import Part
from facegan.generation.gans.networks.saved import load_generator
from facegan.generation.options import TrainGan
from facegan.generation.training import train_step
from facegan.metrics.set_statistics import robust_centres
from facegan.pipeline import graph
from facegan.pipeline.graph import GUIDE
from facegan.recipe.recipe import Recipe
from facegan.recognition.embedder import embed, load_embedder
from facegan.runtime.context import Context
from facegan.stages import synthesize, train_gan
from facegan.training.tensors import to_input
from gan_runs import CONDITIONAL, Stop, gan_node, small, stop_at
from ranked_gan import apart, gan_options, gan_trained

BOTH: dict[str, Any] = {"identity": {"weight": 0.5}, "codes": "guide"}
DEVICE = torch.device("cpu")


class Turned(nn.Module):
    """An embedding that is read off: the first two pixels, times a weight of 2."""

    def __init__(self) -> None:
        super().__init__()
        self.times = nn.Parameter(torch.tensor(2.0), requires_grad=False)

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return img.flatten(1)[:, :2] * self.times


def pixels_at(*degrees: float) -> torch.Tensor:
    """Images (N, 1, 2, 2) whose first two pixels lie at angles of the unit circle."""
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin(), *torch.zeros(2, len(degrees))], dim=1).view(-1, 1, 2, 2)


@pytest.fixture
def by_hand() -> IdentityLoss:
    """Three people at 0, 90 and 180 degrees; weight 0.5, m 0.25, s 4."""
    centres = np.asarray([[1, 0], [0, 1], [-1, 0]], np.float32)
    return IdentityLoss(IdentityTerm(weight=0.5, margin=0.25, scale=4.0), Guide(Turned(), centres))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def people(recipe: Recipe, shared: Lab) -> Path:
    """A prepared manifest."""
    return shared.stage(recipe, "prepare").path


@pytest.fixture(scope="module")
def guide(recipe: Recipe, shared: Lab) -> Path:
    """The guide's folder."""
    return shared.stage(recipe, "train_recognizer", GUIDE).path


def guide_on(people: Path, guide: Path) -> tuple[Guide, ManifestImages, np.ndarray]:
    images = ManifestImages(people, split="train")
    codes = images.codes()[1]
    return Guide.of(guide, images.pixels, codes, DEVICE), images, codes


# The term.


def test_the_term_by_hand(by_hand: IdentityLoss) -> None:
    """At 60 degrees the cosines are 0.5, 0.866 and -0.5; at 180 they are -1, 0 and 1."""
    half = math.sqrt(3) / 2
    first = 4 * 0.25 - math.log(math.exp(4 * 0.25) + math.exp(4 * half) + math.exp(-4 * 0.5))
    second = 4 * 0.75 - math.log(math.exp(-4) + math.exp(0) + math.exp(4 * 0.75))
    img, label = pixels_at(60, 180), torch.tensor([0, 2])
    assert by_hand(img, label).item() == pytest.approx(-0.5 * (first + second) / 2, rel=1e-5)
    assert by_hand(3 * img, label).item() == pytest.approx(
        -0.5 * (first + second) / 2, rel=1e-5
    )  # lengths do not count
    logits = torch.tensor([[0.5 - 0.25, half, -0.5], [-1, 0, 1 - 0.25]]) * 4
    torch.testing.assert_close(by_hand(img, label), 0.5 * nn.functional.cross_entropy(logits, label))


def test_shares_of_parts_add_up(by_hand: IdentityLoss) -> None:
    img, label = pixels_at(10, 80, 200, -30, 120), torch.tensor([0, 1, 2, 0, 1])
    parts = [Part(torch.tensor(rows, dtype=torch.int64), 5) for rows in ([0, 3], [1, 2, 4], [])]
    shares = [by_hand(part.take(img), part.take(label), part) for part in parts]
    torch.testing.assert_close(torch.stack(shares).sum(), by_hand(img, label))
    assert shares[2] == 0


def test_a_step_down_turns_an_image_towards_its_person(by_hand: IdentityLoss) -> None:
    img = pixels_at(60).requires_grad_(True)
    label = torch.tensor([0])
    before = by_hand(img, label)
    before.backward()
    assert img.grad is not None and img.grad[0, 0, 0, 0] < 0 < img.grad[0, 0, 0, 1]  # right, and down
    assert by_hand(img.detach() - 0.1 * img.grad, label) < before
    assert all(p.grad is None and not p.requires_grad for p in by_hand.parameters())


def test_it_sees_photos_as_the_filters_do(people: Path, guide: Path) -> None:
    """Against cosines of `embed`, which the filters work with, to centres that are worked out as theirs."""
    seen, images, codes = guide_on(people, guide)
    embedding = embed(load_embedder(guide)[0], images.pixels, 64)
    centres = robust_centres(embedding, codes)
    np.testing.assert_array_equal(seen.centres, centres)
    cos = torch.from_numpy(embedding @ centres.T)
    label = torch.from_numpy(codes)
    expected = nn.functional.cross_entropy(10 * (cos - 0.3 * nn.functional.one_hot(label, len(centres))), label)
    term = IdentityLoss(IdentityTerm(weight=2.0, margin=0.3, scale=10.0), seen)
    torch.testing.assert_close(term(to_input(images.pixels).contiguous(), label), 2 * expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", CONDITIONAL)
def test_its_gradient_reaches_the_generator_alone(people: Path, guide: Path, kind: str) -> None:
    seen, images, codes = guide_on(people, guide)
    before = {name: value.clone() for name, value in seen.net.state_dict().items()}
    gan = GANS.get(kind).model_validate({"kind": kind, **small(kind)})
    assert isinstance(gan, AdversarialConfig)
    gradients, losses = [], []
    for weight in (None, 0.5):
        torch.manual_seed(0)
        G, D = gan.build_generator(4, 1, 32), gan.build_discriminator(4, 1, 32)
        img, label = to_input(images.pixels[:8]).contiguous(), torch.from_numpy(codes[:8])
        G.start(img, label)
        opt_g, opt_d = (torch.optim.SGD(net.parameters(), 1e-3) for net in (G, D))
        term = IdentityLoss(IdentityTerm(weight=weight), seen) if weight else None
        losses.append(train_step(gan, G, D, opt_g, opt_d, img, label, 0, identity=term))
        gradients.append([{name: p.grad for name, p in net.named_parameters()} for net in (G, D)])
    assert losses[1].keys() - losses[0].keys() == {"identity"} and losses[1]["identity"] > 0
    (G_without, D_without), (G_with, D_with) = gradients
    for name, one in G_with.items():
        assert one is not None and not torch.equal(one, G_without[name]), name  # type: ignore[arg-type]
    assert all(torch.equal(one, D_without[name]) for name, one in D_with.items())  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in seen.net.state_dict().items())
    assert all(p.grad is None for p in seen.net.parameters()) and not seen.net.training


# The codes.


@pytest.mark.parametrize("code_dim", [4, 12])
def test_codes_are_whitened_principal_components(code_dim: int) -> None:
    """Against scikit-learn's PCA, up to sign and its n - 1; ten people have nine axes and no more."""
    centres = np.random.default_rng(0).normal(size=(10, 16)).astype(np.float32)
    codes = principal_codes(centres, code_dim)
    assert codes.shape == (10, code_dim) and codes.dtype == np.float32
    count = min(code_dim, 9)
    expected = PCA(count, whiten=True, svd_solver="full").fit_transform(centres) * math.sqrt(10 / 9)
    np.testing.assert_allclose(np.abs(codes[:, :count]), np.abs(expected), atol=1e-4)
    np.testing.assert_allclose(codes.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(codes.std(axis=0), [1] * count + [0] * (code_dim - count), atol=1e-5)


@pytest.mark.parametrize("code_dim", [4, 16])
def test_people_axes_are_least_squares(code_dim: int) -> None:
    """From codes to people's mean faces; with an axis for each person but one they are met exactly."""
    torch.manual_seed(0)
    label = torch.arange(27) % 9
    img = torch.randn(27, 1, 16, 16).tanh()
    G = CvaeGan(code_dim=code_dim, codes="guide").build_generator(10, 1, 16)  # the last one has no photo here
    centres = np.random.default_rng(1).normal(size=(10, 32)).astype(np.float32)
    Guide(nn.Identity(), centres).give_codes(G)  # type: ignore[arg-type]
    G.start(img, label)
    assert torch.equal(G.codes(), torch.from_numpy(principal_codes(centres, code_dim)))
    both = (img + img.flip(3)) / 2  # what is begun from has mirror images
    means = torch.stack([both[label == person].mean(dim=0).flatten() for person in range(9)]).numpy()
    target, codes = means - both.mean(dim=0).flatten().numpy(), G.codes()[:9].numpy()
    expected = np.linalg.lstsq(codes, target, rcond=1e-5)[0]
    np.testing.assert_allclose(codes @ G.person_axes.numpy(), codes @ expected, atol=1e-4)
    off = float(np.abs(codes @ G.person_axes.numpy() - target).max())
    assert off < 1e-4 if code_dim == 16 else off > 0.05


@pytest.mark.parametrize("kind", CONDITIONAL)
def test_codes_stay_as_the_guide_gave_them(faces: Path, people: Path, guide: Path, shared: Lab, kind: str) -> None:
    artifact = shared.make(gan_node(faces, kind, gan={"codes": "guide"}))
    G, spec = load_generator(artifact.path)
    expected = principal_codes(guide_on(people, guide)[0].centres, 8)
    assert np.array_equal(G.codes().numpy(), expected) and np.any(expected[:, :3] != 0) and not expected[:, 3:].any()
    assert spec["gan"]["codes"] == "guide" and "identity" not in spec["gan"]
    assert "identity" not in json.loads((artifact.path / "curve.jsonl").read_text().splitlines()[0])


# The training.


@pytest.mark.parametrize("kind", ["cvae_gan", "dcgan"])
def test_a_stopped_run_ends_with_the_same_bytes(faces: Path, shared: Lab, lab: Lab, kind: str) -> None:
    node = gan_node(faces, kind, gan=BOTH)
    undisturbed = shared.make(node)
    for nimg in (24, 40):  # checkpoints are written at 16 and 32
        with pytest.raises(Stop):
            lab.make(node, stop_at(nimg))
    resumed = lab.make(node)
    assert resumed.state == "resumed" and resumed.record["outputs"] == undisturbed.record["outputs"]
    assert all("identity" in json.loads(line) for line in (resumed.path / "curve.jsonl").read_text().splitlines())


def test_a_few_images_at_once_and_two_ranks(people: Path, guide: Path, tmp_path: Path) -> None:
    chosen = gan_options("cvae_gan", steps=5, **BOTH)
    whole = gan_trained(chosen, people, tmp_path / "whole", guide=guide)
    for name, split in {"parts": {"batch_gpu": 1}, "ranks": {"ranks": 2}}.items():
        assert apart(whole, gan_trained(chosen, people, tmp_path / name, guide=guide, **split)) < 1e-7
    less = gan_options("cvae_gan", steps=5, **{**BOTH, "identity": {"weight": 0.499}})
    assert apart(whole, gan_trained(less, people, tmp_path / "less", guide=guide)) > 1e-6


def test_bfloat16(people: Path, guide: Path, tmp_path: Path) -> None:
    lines = []
    for precision in ("float32", "bfloat16"):
        out = tmp_path / precision
        (out / "work").mkdir(parents=True)
        chosen = TrainGan.model_validate({**gan_options("style", 3, **BOTH).model_dump(), "precision": precision})
        train_gan.run(chosen, {}, {"manifest": people, "guide": guide}, out, Context(RUNTIME))
        lines.append([json.loads(line)["identity"] for line in (out / "curve.jsonl").read_text().splitlines()])
    assert lines[0] != lines[1] and lines[0] == pytest.approx(lines[1], rel=0.05, abs=0.02)


# The graph.


def test_only_those_who_ask_wait_for_the_guide(faces: Path) -> None:
    plain = gan_node(faces)
    assert set(plain.needs) == {"manifest"} and not {"identity", "codes"} & plain.hashed["gan"].keys()
    for asking in ({"identity": {}}, {"codes": "guide"}):
        node = gan_node(faces, gan=asking)
        assert set(node.needs) == {"manifest", "guide"} and node.needs["guide"].arm == GUIDE
        assert node.key != plain.key
    data = tiny(faces).model_dump(mode="json")
    data["train_gan"]["gan"] |= BOTH
    before, data["guide_seed"] = pick(graph.build(Recipe.model_validate(data)), "train_gan"), 1001
    assert pick(graph.build(Recipe.model_validate(data)), "train_gan").key != before.key  # another guide


def test_from_faces_to_synthetic_people(faces: Path, shared: Lab) -> None:
    data = tiny(faces).model_dump(mode="json")
    data["train_gan"]["gan"] |= BOTH
    recipe = Recipe.model_validate(data)
    artifact = shared.stage(recipe, "synthesize")
    rows = manifest.read(artifact.path).to_pylist()
    assert manifest.validate(artifact.path) == [] and {row["split"] for row in rows} == {"train"}
    _, spec = load_generator(shared.store.folder("train_gan", rows[0]["generator"]))
    assert spec["gan"]["codes"] == "guide" and spec["gan"]["identity"]


def test_licences_of_the_guide_reach_generator_and_rows(
    people: Path, guide: Path, recipe: Recipe, tmp_path: Path
) -> None:
    """A guide that began with somebody else's weights teaches G: what comes of it says so."""
    other = tmp_path / "guide"
    shutil.copytree(guide, other)
    spec = json.loads((other / "embedder.json").read_text())
    (other / "embedder.json").write_text(json.dumps(spec | {"licenses": [*spec["licenses"], "weights (c) them"]}))
    context, generator = Context(RUNTIME), tmp_path / "generator"
    generator.mkdir()
    inputs = {"manifest": people, "guide": other}
    train_gan.run(gan_options("cvae_gan", 2, **BOTH), {}, inputs, generator, context)
    assert "weights (c) them" in json.loads((generator / "generator.json").read_text())["licenses"]
    out = tmp_path / "made"
    synthesize.run(recipe.synthesize, {}, {**inputs, "generator": generator}, out, context)
    assert {row["license"] for row in manifest.read(out).to_pylist()} == {"licence unknown AND weights (c) them"}


def test_a_guide_that_is_not_there(people: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no recognizer in"):
        gan_trained(gan_options("cvae_gan", **BOTH), people, tmp_path / "out", guide=tmp_path)
