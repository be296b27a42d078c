"""Registration: fields against formulas, and known warps of a drawn face undone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from drawn import draw_face
from facegan.generation.gans.networks.registration import (
    GRID,
    blur,
    dense,
    inverse,
    mirrored,
    register,
    resample,
    unit_grid,
    warp,
)


def faces(people: int, shots: int, size_px: int) -> torch.Tensor:
    """NCHW float32 in -1..1."""
    images = [draw_face(person, shot, size_px, size_px) for person in range(people) for shot in range(shots)]
    return torch.from_numpy(np.stack(images)).float().div(127.5).sub(1)[:, None]


def some_controls(count: int, grid: int, halves: float, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return halves * torch.randn(count, 2, grid, grid, generator=rng)


def in_px(field: torch.Tensor) -> torch.Tensor:
    """Root mean square length of displacements (N, side, side, 2), in pixels, over the middle of the image."""
    side = field.shape[1]
    middle = field[:, side // 6 : -side // 6, side // 6 : -side // 6]
    return middle.square().sum(dim=-1).mean().sqrt() * side / 2


# Fields.


@pytest.mark.parametrize(("grid", "side"), [(3, 5), (13, 13), (13, 64), (5, 112)])
def test_resampling_is_bicubic(grid: int, side: int) -> None:
    controls = some_controls(2, grid, 1.0)
    expected = F.interpolate(controls, size=(side, side), mode="bicubic", align_corners=True)
    torch.testing.assert_close(resample(controls, side), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(dense(controls, side)[1, 2, 3], resample(controls, side)[1, :, 2, 3])


def test_a_warp_reads_at_the_displaced_place() -> None:
    img = torch.rand(1, 3, 8, 8)
    right, down = torch.zeros(2, 1, 8, 8, 2)
    right[..., 0], down[..., 1] = 2 * 2 / 8, 3 * 2 / 8  # two pixels along x, three along y
    assert torch.allclose(warp(img, right)[..., :-2], img[..., 2:], atol=1e-5)
    assert torch.allclose(warp(img, down)[..., :-3, :], img[..., 3:, :], atol=1e-5)
    assert torch.allclose(warp(img, right)[..., -2:], img[..., -1:].expand(-1, -1, -1, 2), atol=1e-5)


def test_a_mirrored_field_does_the_same_in_the_mirror() -> None:
    img, controls = torch.rand(2, 1, 32, 32), some_controls(2, 5, 0.1)
    there = warp(img.flip(3), dense(mirrored(controls), 32))
    torch.testing.assert_close(there, warp(img, dense(controls, 32)).flip(3), rtol=0, atol=1e-4)
    assert torch.equal(mirrored(mirrored(controls)), controls)


def test_the_inverse_undoes_a_known_field() -> None:
    """d(x, y) = (0.12 sin(2y) + 0.05 x, 0.1 cos(2x) - 0.03): y + e(y) + d(y + e(y)) is y, d by its formula."""

    def d(at: torch.Tensor) -> torch.Tensor:
        x, y = at.unbind(-1)
        return torch.stack([0.12 * torch.sin(2 * y) + 0.05 * x, 0.1 * torch.cos(2 * x) - 0.03], dim=-1)

    at = unit_grid(64)
    back = inverse(d(at))
    residual = (back + d(at + back))[:, 8:-8, 8:-8] * 32  # in pixels; farther out, d is not known
    assert float((d(at)[:, 8:-8, 8:-8] * 32).abs().max()) > 3
    assert float(residual.abs().max()) < 0.1


def test_blur_is_the_gaussian() -> None:
    img = torch.zeros(1, 2, 33, 33)
    img[0, 0, 16, 16] = img[0, 1, 16, 0] = 1
    out = blur(img, 2.0)
    at = torch.arange(33) - 16.0
    expected = torch.exp(-0.5 * (at[:, None] ** 2 + at**2) / 4)
    torch.testing.assert_close(out[0, 0], expected / expected.sum(), rtol=0, atol=1e-3)
    assert torch.allclose(blur(torch.ones(1, 1, 9, 9), 3.0), torch.ones(1, 1, 9, 9), atol=1e-5)
    assert float(out[0, 1].sum()) > 1.3  # at the edge the edge's pixels go on


# Registration.


def test_known_warps_of_a_face_are_undone() -> None:
    """Photo k is face(x + a_k(x)), so what registration found, d_k(x) + a_k(x + d_k(x)), is the same for all k."""
    torch.manual_seed(0)
    known_warps = dense(some_controls(12, 3, 0.07), 48)
    known_warps = known_warps - known_warps.mean(dim=0)
    img = warp(faces(1, 1, 48).expand(12, -1, -1, -1), known_warps)
    controls = register(img)
    registered = dense(controls, 48)
    residual = registered + warp(known_warps.permute(0, 3, 1, 2), registered).permute(0, 2, 3, 1)
    before, after = float(in_px(known_warps)), float(in_px(residual - residual.mean(dim=0)))
    assert before > 1.5
    assert after < 0.5 * before
    in_the_mirror = dense(mirrored(register(img.flip(3))), 48)  # the mirrored fields, up to random starts
    assert float(in_px(in_the_mirror - registered)) < 0.5 * before


def test_the_frame_is_symmetric_and_the_same_bits_again() -> None:
    img = faces(2, 4, 32)
    torch.manual_seed(0)
    controls = register(img)
    assert controls.shape == (8, 2, GRID, GRID) and controls.dtype == torch.float32 and not controls.requires_grad
    middle = controls.mean(dim=0, keepdim=True)
    assert float((middle + mirrored(middle)).abs().max()) < 1e-5  # over the faces and their mirror images: none
    torch.manual_seed(0)
    assert torch.equal(controls, register(img))
