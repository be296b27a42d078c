"""Layers of the style family against the formulas of the paper."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from facegan.generation.gans.networks.style import MinibatchStddev, ModulatedConv
from facegan.generation.gans.style import Style


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("up", [False, True])
def test_modulated_convolution_is_the_papers(up: bool) -> None:
    """Against per-sample weights, Karras et al. 2020, eq. 1 to 3."""
    layer = ModulatedConv(3, 5, 4, 12 if up else 6, up=up).double().eval()
    nn.init.normal_(layer.noise_strength), nn.init.normal_(layer.bias)
    x, style = torch.randn(2, 3, 6, 6, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    out = layer(x, style)
    s = layer.affine(style)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
    blur = (torch.outer(taps, taps) / 16).expand(5, 1, 4, 4)
    for i in range(2):
        modulated = s[i][None, :, None, None] * layer.weight * layer.scale
        weight = modulated / (modulated.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            y = torch.conv_transpose2d(x[i : i + 1], weight.transpose(0, 1), stride=2)
            y = torch.conv2d(y, blur, padding=1, groups=5)
        else:
            y = torch.conv2d(x[i : i + 1], weight, padding=1)
        y = y + layer.noise_strength * layer.noise + layer.bias[:, None, None]
        expected = torch.where(y > 0, y, 0.2 * y) * math.sqrt(2)
        torch.testing.assert_close(out[i : i + 1], expected)


def test_style_noise_is_fixed_in_eval_mode_only() -> None:
    G = Style().build_generator(2, 1, 16)
    for layer in G.modules():
        if isinstance(layer, ModulatedConv):
            nn.init.ones_(layer.noise_strength)
    w, z = torch.randn(2, G.code_dim), torch.randn(2, G.z_dim)
    assert not torch.equal(G(w, z), G(w, z))
    G.eval()
    assert torch.equal(G(w, z), G(w, z))
    torch.testing.assert_close(G(3 * w, 5 * z), G(w, z), rtol=1e-3, atol=1e-4)  # only directions count


def test_minibatch_stddev() -> None:
    x = torch.randn(6, 2, 3, 3)
    out = MinibatchStddev(4)(x)  # groups of three: {0, 2, 4} and {1, 3, 5}
    assert torch.equal(out[:, :2], x)
    for group in ([0, 2, 4], [1, 3, 5]):
        spread = x[group].double().std(dim=0, correction=0).mean()
        assert out[group, 2].flatten().tolist() == pytest.approx([float(spread)] * 27, rel=1e-4)
