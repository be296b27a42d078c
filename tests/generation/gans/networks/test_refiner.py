"""The refiner: it begins as its draft, learns from new people, and draws an image to the same bits in any batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from facegan.core.errors import UserError
from facegan.generation.gans.networks.microbatches import Part
from facegan.generation.gans.networks.refiner import PatchDiscriminator, RefinerGenerator
from facegan.generation.gans.refiner import Refiner

PEOPLE, SHOTS, SIDE = 6, 2, 32


def begun(**options: object) -> RefinerGenerator:
    torch.manual_seed(0)
    G = Refiner.model_validate(options).build_generator(PEOPLE, 1, SIDE)
    G.start(torch.rand(PEOPLE * SHOTS, 1, SIDE, SIDE) * 2 - 1, torch.arange(PEOPLE).repeat_interleave(SHOTS))
    assert isinstance(G, RefinerGenerator)
    return G


@pytest.fixture(scope="module")
def G() -> RefinerGenerator:
    return begun()


def codes_of(G: RefinerGenerator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    w, z, _ = G.new_codes(count, 5)
    return torch.from_numpy(w), torch.from_numpy(z)


def trained_on(G: RefinerGenerator) -> RefinerGenerator:
    """With weights as after some steps: nothing is zero."""
    for parameter in G.parameters():
        nn.init.normal_(parameter, std=0.05)
    return G


@pytest.mark.parametrize("draft", ["part_based", "morphable"])
def test_it_begins_as_its_draft(draft: str) -> None:
    G = begun(draft={"kind": draft})
    w, z = codes_of(G, 3)
    torch.testing.assert_close(G(w, z), G.draft(w, z), rtol=0, atol=0)
    assert (trained_on(G)(w, z) - G.draft(w, z)).detach().abs().max() > 0.01


def test_an_image_has_the_same_bits_in_any_batch() -> None:
    G = trained_on(begun()).eval().requires_grad_(False)
    w, z = codes_of(G, 19)
    whole = G(w, z)
    for count in (1, 8, 11):
        assert torch.equal(G.leading(w, z, count), whole[:count])


def test_what_is_changed_is_paid_for() -> None:
    G = trained_on(begun(transport=3.0))
    label = torch.zeros(5, dtype=torch.int64)
    torch.manual_seed(1)
    step = G.step(torch.zeros(5, 1, SIDE, SIDE), label)
    torch.manual_seed(1)
    w, z, mirrored = (torch.from_numpy(value) for value in G.new_codes(5, int(torch.randint(2**62, ()))))
    drafts = torch.stack(
        [draft.flip(2) if flip else draft for draft, flip in zip(G.draft(w, z), mirrored, strict=True)]
    )
    torch.testing.assert_close(step.fake_img, G.refined(drafts))
    torch.testing.assert_close(step.terms["transport"], 3 * (step.fake_img - drafts).square().mean())
    assert 0 < int(mirrored.sum()) < 5


def test_the_draft_is_not_trained(G: RefinerGenerator) -> None:
    assert {name.split(".")[0] for name, _ in G.named_parameters()} == {"change"}


def test_new_people_are_mixtures_with_photos_of_their_parents(G: RefinerGenerator) -> None:
    w, z, _ = G.new_codes(40, 3)
    np.testing.assert_allclose(w.sum(axis=1), 1, atol=1e-5)  # mean + scale (mix - mean): weights of everybody
    texture = z.reshape(40, 3, -1)[:, 1]
    np.testing.assert_allclose(np.linalg.norm(texture, axis=1), 1, rtol=1e-5)  # one photo of each parent
    assert ((texture > 0).sum(axis=1) == PEOPLE).all()  # fewer people than parents: all of them
    again = G.new_codes(40, 3)
    assert all(np.array_equal(a, b) for a, b in zip((w, z), again, strict=False))
    assert not np.array_equal(w, G.new_codes(40, 4)[0])


def test_somebody_of_whom_no_photo_is_held_is_in_no_mixture() -> None:
    """More photos than `max_photos`: the draft may hold none of a person."""
    G = Refiner().build_generator(PEOPLE, 1, SIDE)
    torch.manual_seed(0)
    label = torch.tensor([0, 0, 1, 1, 3, 3, 4, 5])
    G.start(torch.rand(len(label), 1, SIDE, SIDE) * 2 - 1, label)
    assert isinstance(G, RefinerGenerator)
    w, z, _ = G.new_codes(20, 3)
    assert (w[:, 2] == 0).all() and (np.abs(np.delete(w, 2, axis=1)) > 0).all()
    texture = z.reshape(20, 3, -1)[:, 1]
    assert ((texture > 0).sum(axis=1) == PEOPLE - 1).all()


def test_a_part_of_a_batch_is_of_the_whole(G: RefinerGenerator) -> None:
    real, label = torch.zeros(5, 1, SIDE, SIDE), torch.zeros(5, dtype=torch.int64)
    torch.manual_seed(2)
    whole = G.step(real, label).fake_img
    for rows in ([0, 3], [1, 2, 4]):
        torch.manual_seed(2)
        part = G.step(real, label, Part(torch.tensor(rows), 5)).fake_img
        torch.testing.assert_close(part, whole[rows])


def test_d_looks_at_patches_and_at_the_whole() -> None:
    torch.manual_seed(0)
    D = PatchDiscriminator(1, channels=8, spectral_norm=False)
    img, label = torch.randn(2, 1, SIDE, SIDE), torch.tensor([0, 1])
    by_hand = D.patches(D.trunk(img)).flatten(1).mean(dim=1)
    inner = nn.functional.leaky_relu(D.narrow(D.trunk(img)), 0.2).mean(dim=(2, 3)) @ D.face.weight.T
    torch.testing.assert_close(D(img, label), by_hand + inner[:, 0] + D.face.bias)


def test_what_it_cannot_do() -> None:
    alone = Refiner().build_generator(1, 1, 32)
    with pytest.raises(UserError, match="of whom there is one"):
        alone.start(torch.zeros(2, 1, 32, 32), torch.zeros(2, dtype=torch.int64))
    for option in ({"codes": "guide"}, {"identity": {}}, {"ramp": {"start_kimg": 1, "end_kimg": 2}}):
        with pytest.raises(ValidationError, match="whom D and the guide do not know"):
            Refiner.model_validate(option)
