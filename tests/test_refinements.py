"""Refinements of variation codes: as a family, and what each of them promises, on nets whose answers are known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from drawn import Lab, draw_folder, tiny, with_gan
from pydantic import ValidationError
from torch import nn

from facegan import manifest
from facegan.config import Recipe, Synthesize
from facegan.gans.networks.base import Generator
from facegan.gans.networks.io import load_generator
from facegan.refinements import REFINEMENTS, RefinementConfig
from facegan.refinements._light import grey, light
from facegan.refinements.attributes import Attributes
from facegan.refinements.boundary import Boundary
from facegan.studio import Order, Studio
from facegan.synthesis import redraw

KINDS = sorted(REFINEMENTS.load())
SIDE, Z = 16, 6


class Lamp(Generator):
    """Draws a face of one grey, as bright as z[0] says, with a light from the right as strong as z[1]; the rest of z
    is seen by the guide alone (in a pixel of the border, each)."""

    num_identities, code_dim, z_dim = 2, 1, Z

    def codes(self) -> torch.Tensor:
        return torch.tensor([[0.0], [1.0]])

    def forward(self, w: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        across = torch.linspace(-1, 1, SIDE)
        img = (z[:, 0, None] + z[:, 1, None] * across)[:, None, None, :].expand(-1, 1, SIDE, SIDE)
        border = F.pad(z[:, 2:, None, None].permute(0, 2, 3, 1), (0, SIDE - Z + 2, 0, SIDE - 1))
        return (0.2 * img + border).clamp(-1, 1)


class Eye(nn.Module):
    """Sees in the border how far somebody has left their person: the cosine with (1, 0, 0, 0) falls with |z[2:]|."""

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        seen = img[:, 0, 0, : Z - 2] - img[:, 0, 1, : Z - 2]  # without the light
        return torch.cat([torch.ones(len(img), 1), 4 * seen], dim=1)


def studio(refinement: RefinementConfig | None = None, **changes: Any) -> Studio:
    rng = np.random.default_rng(0)
    ramp = np.linspace(-1, 1, 64)
    photos = np.stack([128 + 25 * (a + b * ramp) * np.ones((64, 1)) for a, b in rng.normal(size=(40, 2))])
    options: dict[str, Any] = {"images_per_new": 8, "oversample": 2, "batch_size": 4, "refinement": refinement}
    return Studio(
        G=Lamp(),
        guide=Eye(),
        donors=rng.normal(0, 0.1, (40, Z)).astype(np.float32),
        donor_person=np.arange(40) % 2,
        photos=photos.astype(np.float32),
        centres=np.eye(2, Z - 1, dtype=np.float32),
        options=Synthesize.model_validate(options | changes),
        device=torch.device("cpu"),
        copy=2.0,
        person=2.0,
        image=-2.0,
        axes=np.diag([1.0] * 2 + [0.1] * (Z - 2)).astype(np.float32),
    )


def drawn(count: int, scale: float = 0.1) -> np.ndarray:
    return np.random.default_rng(1).normal(0, scale, (count, Z)).astype(np.float32)


ORDER = Order(np.zeros(1, np.float32), (0, 1), np.full(2, 0.5), seed=3, train=0)


@pytest.mark.parametrize("kind", KINDS)
def test_each_refinement_gives_other_codes_and_the_same_ones_again(kind: str) -> None:
    given = drawn(10)
    before = given.copy()
    one, again = (REFINEMENTS.get(kind)().refined(studio(), ORDER, given, np.random.default_rng(5)) for _ in range(2))
    assert one.shape == given.shape and one.dtype == np.float32 and np.isfinite(one).all()
    assert np.array_equal(one, again) and not np.array_equal(one, given)
    assert np.array_equal(given, before), "what was drawn is not changed in its place"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2])
def test_few_candidates_are_no_error(kind: str, count: int) -> None:
    found = REFINEMENTS.get(kind)().refined(studio(), ORDER, drawn(count), np.random.default_rng(5))
    assert found.shape == (count, Z) and np.isfinite(found).all()


def test_attributes_draw_no_more_at_once_than_is_asked_for() -> None:
    given, seen = drawn(10), []
    place = studio(batch_size=4)
    plain = place.G.forward

    def watched(w: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        seen.append(len(w))
        return plain(w, z)

    place.G.forward = watched  # type: ignore[method-assign]
    parts = Attributes().refined(place, ORDER, given, np.random.default_rng(5))
    assert set(seen) == {4, 2}
    whole = Attributes().refined(studio(batch_size=10), ORDER, given, np.random.default_rng(5))
    assert np.allclose(parts, whole, atol=1e-5)


def test_listing_the_family_imports_no_torch() -> None:
    code = "import sys; from facegan.refinements import REFINEMENTS; REFINEMENTS.load(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_a_studio_without_a_refinement_draws_as_ever_and_with_one_stores_what_it_gave() -> None:
    plain, moved = studio().take(ORDER), studio(Attributes()).take(ORDER)
    rng = np.random.default_rng(ORDER.seed)
    z = studio().variation(20, ORDER.parents, ORDER.weights, rng)
    refined = Attributes().refined(studio(), ORDER, z, rng)
    for shot, codes in ((plain, z), (moved, refined)):
        stored = {tuple(json.loads(latent)["z"]) for _, latent in shot.images}
        assert len(stored) == 10 and stored <= {tuple(float(str(x)) for x in row) for row in codes}


# Light.


def test_light_by_hand() -> None:
    img = torch.full((1, 8, 8), 100.0)
    img[:, :, 4:] += 10  # the right half
    img[:, 4:] += 4  # the lower half
    img[:, 0] = img[:, -1] = img[:, :, 0] = img[:, :, -1] = 255  # the outer eighth plays no part
    found = light(img)[0].tolist()
    assert found == pytest.approx([107, np.std([100, 104, 110, 114] * 9, ddof=1), 10, 4])


def test_grey_of_one_and_of_three_channels() -> None:
    assert grey(torch.tensor([-1.0, 0, 1, 1]).view(1, 1, 2, 2), 2)[0].tolist() == [[0, 127.5], [255, 255]]
    assert grey(torch.tensor([-1.0, 0, 1, 1]).view(1, 1, 2, 2), 1).item() == pytest.approx(255 * 5 / 8)  # by area
    red = torch.full((1, 3, 1, 1), -1.0)
    red[:, 0] = 1
    assert grey(red, 1).item() == pytest.approx(0.299 * 255)


def test_attributes_bring_light_to_the_targets_and_keep_the_person() -> None:
    given, place = drawn(30, 0.3), studio()
    chosen = np.random.default_rng(5).integers(len(place.photos), size=30)
    targets = light(torch.from_numpy(place.photos))
    spread = targets.std(dim=0).clamp(min=1e-6)

    def off(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        img = place.G(torch.zeros(len(z), 1), torch.from_numpy(z))
        wrong = ((light(grey(img, 64)) - targets[chosen]) / spread).square().sum(dim=1)
        return wrong.numpy(), place.shoot(ORDER.code, z)[1] @ place.centres[0]

    moved = Attributes(steps=30, rate=0.3).refined(place, ORDER, given, np.random.default_rng(5))
    (before, far), (after, near) = off(given), off(moved)
    assert (after < before + 1e-3).mean() > 0.9 and np.median(after) < 0.1 * np.median(before)
    assert near.mean() > far.mean() + 0.05
    alone = Attributes(steps=30, rate=0.3, identity=0).refined(place, ORDER, given, np.random.default_rng(5))
    assert off(alone)[1].mean() < near.mean()


def test_no_more_steps_than_asked_and_none_that_makes_it_worse() -> None:
    given = drawn(12, 0.3)
    far = []
    for steps in (1, 3):
        moved = Attributes(steps=steps, rate=0.1).refined(studio(), ORDER, given, np.random.default_rng(5))
        along = (moved - given) / np.diag(studio().axes)  # type: ignore[arg-type]
        far.append(np.linalg.norm(along, axis=1))
    assert far[0].max() <= 0.1 + 1e-5 and far[1].max() <= 0.3 + 1e-5 and (far[1] > far[0] - 1e-6).mean() > 0.9


# The boundary.


def test_codes_beyond_the_boundary_are_mirrored() -> None:
    """The guide sees z[2] alone: whoever has less of it is nearer, so the boundary cuts z[2] in two."""
    place, given = studio(), np.zeros((20, Z), np.float32)
    given[:, 2] = np.linspace(0.05, 0.24, 20)
    given[:, 3] = np.random.default_rng(0).normal(0, 1e-3, 20)
    found = Boundary(widen=1).refined(place, ORDER, given, np.random.default_rng(5))
    cut = 0.145
    assert found[:10, 2] == pytest.approx(given[:10, 2], abs=1e-5)
    assert found[10:, 2] == pytest.approx(2 * cut - given[10:, 2], abs=5e-3)
    assert place.shoot(ORDER.code, found)[1][10:] @ place.centres[0] == pytest.approx(
        (place.shoot(ORDER.code, given)[1] @ place.centres[0])[9::-1], abs=0.03
    )


def test_widening_scales_what_is_on_the_near_side() -> None:
    given = drawn(40, 0.05)
    plain, wide = (Boundary(widen=by).refined(studio(), ORDER, given, np.random.default_rng(5)) for by in (1, 2))
    mean = given.mean(axis=0)
    kept = np.isclose(plain, given, atol=1e-6).all(axis=1)
    assert 15 <= kept.sum() <= 25
    twice = np.isclose(wide, mean + 2 * (given - mean), atol=1e-5).all(axis=1)
    assert twice.sum() >= 12
    assert np.linalg.norm(wide - mean, axis=1).mean() > 1.5 * np.linalg.norm(plain - mean, axis=1).mean()


# In a run.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gan", ["morphable", "cvae_gan"])
def test_a_run_draws_refined_images_that_can_be_drawn_again(tmp_path: Path, kind: str, gan: str) -> None:
    root = draw_folder(tmp_path / "faces")
    given: list[Any] = [None, {"kind": kind}]
    plain, refined = (with_gan(root, gan, synthesize={"refinement": one}) for one in given)
    lab = Lab(tmp_path / "store")
    made, other = lab.stage(refined, "synthesize"), lab.stage(plain, "synthesize")
    rows = manifest.read(made.path).to_pylist()
    G, _ = load_generator(lab.stage(refined, "train_gan").path)
    assert rows and all(redraw(G, row["latent"]) == row["image"]["bytes"] for row in rows)
    before = {row["image_id"] for row in manifest.read(other.path).to_pylist()}
    assert sum(row["image_id"] in before for row in rows) < len(rows) / 2


def test_attributes_need_an_encoder(tmp_path: Path) -> None:
    data = tiny(tmp_path).model_dump(mode="json")
    data["train_gan"]["gan"] = {"kind": "dcgan"}
    data["synthesize"]["refinement"] = {"kind": "boundary"}
    Recipe.model_validate(data)
    data["synthesize"]["refinement"] = {"kind": "attributes"}
    with pytest.raises(ValidationError, match=r"synthesize\.refinement needs variation codes"):
        Recipe.model_validate(data)


def test_variation_has_one_set_of_axes(tmp_path: Path) -> None:
    both: dict[str, Any] = {"principal": {"axes": 3}, "refinement": {"kind": "attributes", "axes": 3}}
    assert tiny(tmp_path, synthesize=both).synthesize.refinement == Attributes(axes=3)
    both["refinement"] = {"kind": "boundary"}
    tiny(tmp_path, synthesize=both)
    both["refinement"] = {"kind": "attributes"}
    with pytest.raises(ValidationError, match=r"refinement\.axes is 24, synthesize\.principal\.axes 3"):
        tiny(tmp_path, synthesize=both)
