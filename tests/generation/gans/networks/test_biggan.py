"""BigGAN's own: the split of z, the shared code, and the penalty that keeps filters apart."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from facegan.generation.gans.biggan import Biggan
from facegan.generation.gans.networks.biggan import BigganGenerator, orthogonal_penalty
from facegan.generation.gans.networks.microbatches import WHOLE, Part


def generator(**options: float) -> BigganGenerator:
    torch.manual_seed(0)
    G = Biggan.model_validate({"kind": "biggan", "z_dim": 10, **options}).build_generator(4, 1, 32)
    assert isinstance(G, BigganGenerator)
    return G.eval()


def test_the_penalty_is_that_of_the_paper_written_out() -> None:
    """sum over pairs of different filters of the square of their product."""
    net = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.Linear(3, 3), nn.Conv2d(3, 2, 1, bias=False)).double()
    written_out = 0.0
    for layer in (net[0], net[2]):
        filters = [filter_.flatten().tolist() for filter_ in layer.weight]
        for i, one in enumerate(filters):
            for j, other in enumerate(filters):
                if i != j:
                    written_out += sum(a * b for a, b in zip(one, other, strict=True)) ** 2
    assert orthogonal_penalty(net).item() == pytest.approx(written_out, rel=1e-12)


def test_orthogonal_filters_cost_nothing_and_parts_add_up() -> None:
    G = generator(orthogonal=0.5)
    assert orthogonal_penalty(G).item() == pytest.approx(0, abs=1e-6)  # as they begin
    with torch.no_grad():
        G.blocks[0].conv1.weight.add_(0.1)
    img, label = torch.zeros(6, 1, 32, 32), torch.arange(6) % 4
    whole = G.step(img, label, WHOLE).terms["orthogonal"]
    parts = [Part(slice(0, 4), 6), Part(slice(4, 6), 6)]
    assert whole.item() == pytest.approx(0.5 * orthogonal_penalty(G).item(), rel=1e-6)
    assert sum(G.step(img, label, part).terms["orthogonal"].item() for part in parts) == pytest.approx(whole.item())
    assert "orthogonal" not in generator(orthogonal=0).step(img, label).terms


def test_each_part_of_z_steers_one_block_and_the_person_all() -> None:
    """10 numbers for the base and three blocks: 3, 3, 2 and 2, as numpy's array_split has them."""
    G = generator()
    seen: dict[int, torch.Tensor] = {}
    for number, block in enumerate(G.blocks):
        block.register_forward_pre_hook(lambda _, given, number=number: seen.__setitem__(number, given[1]))
    w, z = torch.randn(1, G.code_dim), torch.arange(10.0)[None]
    G(w, z)
    assert [part[0, G.code_dim :].tolist() for part in seen.values()] == [[3, 4, 5], [6, 7], [8, 9]]
    assert all(torch.equal(part[:, : G.code_dim], w) for part in seen.values())
