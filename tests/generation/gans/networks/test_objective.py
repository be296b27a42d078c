"""The adversarial objectives, their penalties, DiffAugment and its adaptive probability, against formulas by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from facegan.generation.gans import Ada
from facegan.generation.gans.networks.microbatches import Part
from facegan.generation.gans.networks.objective import (
    Adaptive,
    accuracy,
    d_loss,
    diffaugment,
    g_loss,
    gradient_penalty,
    zero_centred_penalty,
)

POLICY = ["color", "translation", "cutout"]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def test_losses_against_formulas() -> None:
    real = torch.tensor([-3.0, -0.4, 0.2, 1.7, 30.0], dtype=torch.float64)
    gen = torch.tensor([-2.0, 0.3, 0.9, 2.5, -30.0], dtype=torch.float64)

    def log_sigmoid(x: float) -> float:
        return -math.log1p(math.exp(-x))

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    r, g = real.tolist(), gen.tolist()
    assert g_loss("nonsaturating", gen).item() == pytest.approx(mean([-log_sigmoid(x) for x in g]), rel=1e-12)
    expected = mean([-log_sigmoid(x) for x in r]) + mean([-log_sigmoid(-x) for x in g])
    assert d_loss("nonsaturating", real, gen).item() == pytest.approx(expected, rel=1e-12)
    expected = mean([max(0.0, 1 - x) for x in r]) + mean([max(0.0, 1 + x) for x in g])
    assert d_loss("hinge", real, gen).item() == pytest.approx(expected, rel=1e-12)
    assert d_loss("wasserstein", real, gen).item() == pytest.approx(mean(g) - mean(r), rel=1e-12)
    expected = mean([-log_sigmoid(x - y) for x, y in zip(r, g, strict=True)])
    assert d_loss("relativistic", real, gen).item() == pytest.approx(expected, rel=1e-12)
    expected = mean([-log_sigmoid(y - x) for x, y in zip(r, g, strict=True)])
    assert g_loss("relativistic", gen, real_logits=real).item() == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="logits of photos"):
        g_loss("relativistic", gen)
    for kind in ("hinge", "wasserstein"):
        assert g_loss(kind, gen).item() == pytest.approx(-mean(g), rel=1e-12)


class Linear(nn.Module):
    """D(x) = <a, x> + its label's offset: the gradient is a everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(2, 4, 4, dtype=torch.float64))

    def forward(self, img: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return (img * self.a).sum(dim=(1, 2, 3)) + 7.0 * label


class Quadratic(nn.Module):
    """D(x) = b / 2 |x|^2: the gradient is b x."""

    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, img: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return self.b / 2 * img.square().sum(dim=(1, 2, 3))


def test_how_often_d_is_right() -> None:
    real, gen = torch.tensor([0.5, -0.1, 0.0, 2.0]), torch.tensor([0.4, -0.2, 1.0])
    apart = accuracy(False, real, gen)
    assert {name: value.item() for name, value in apart.items()} == {
        "real_accuracy": 0.5,
        "gen_accuracy": pytest.approx(1 / 3),
    }
    assert accuracy(True, real[:3], gen)["pair_accuracy"].item() == pytest.approx(2 / 3)  # whatever is added to both
    assert accuracy(True, real[:3] - 9, gen - 9)["pair_accuracy"].item() == pytest.approx(2 / 3)


class Curved(nn.Module):
    """D(x) = sum_k tanh(<a_k, x>) + label, whose derivatives can be written out."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(3, 32, dtype=torch.float64) / 6)

    def forward(self, img: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return torch.tanh(img.flatten(1) @ self.a.T).sum(dim=1) + label


def penalised(kind: str, D: nn.Module, img: torch.Tensor, label: torch.Tensor, gamma: float) -> torch.Tensor:
    img = img.detach().requires_grad_(True)
    return zero_centred_penalty(kind, D, img, label, D(img, label), gamma)


def test_exact_penalty_against_analytic_gradients() -> None:
    img, label, gamma = torch.randn(3, 2, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 2]), 0.3
    linear = Linear()
    penalty = penalised("exact", linear, img, label, gamma)
    assert penalty.item() == pytest.approx(gamma / 2 * linear.a.square().sum().item())
    penalty.backward()
    torch.testing.assert_close(linear.a.grad, gamma * linear.a.detach())
    quadratic = Quadratic()
    penalty = penalised("exact", quadratic, img, label, gamma)
    squares = img.square().sum(dim=(1, 2, 3)).mean().item()
    assert penalty.item() == pytest.approx(gamma / 2 * 0.7**2 * squares)
    penalty.backward()
    assert quadratic.b.grad is not None and quadratic.b.grad.item() == pytest.approx(gamma * 0.7 * squares)


def test_exact_penalty_against_one_written_out() -> None:
    """|sum_k (1 - tanh^2(a_k x)) a_k|^2 by matrix products, and its gradient, against double backward."""
    D, img, label = Curved(), torch.randn(5, 2, 4, 4, dtype=torch.float64), torch.arange(5)
    penalised("exact", D, img, label, 0.7).backward()
    a = D.a.detach().clone().requires_grad_(True)
    slopes = (1 - torch.tanh(img.flatten(1) @ a.T).square()) @ a
    written_out = 0.7 / 2 * slopes.square().sum(dim=1).mean()
    assert penalised("exact", D, img, label, 0.7).item() == pytest.approx(written_out.item(), rel=1e-12)
    written_out.backward()
    torch.testing.assert_close(D.a.grad, a.grad, rtol=1e-12, atol=1e-12)

    def of_weights(a: torch.Tensor) -> torch.Tensor:
        def functional(img: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(D, {"a": a}, (img, label))

        return penalised("exact", functional, img, label, 0.7)  # type: ignore[arg-type] # what is called

    assert torch.autograd.gradcheck(of_weights, (D.a.detach().clone().requires_grad_(True),))


def test_finite_differences_expect_the_exact_penalty() -> None:
    """For a linear D it is gamma / 2 (n . a)^2 of the n drawn; the mean over many n, and its gradient, is the exact."""
    img, label = torch.randn(4, 2, 4, 4, dtype=torch.float64), torch.arange(4)
    linear = Linear()
    torch.manual_seed(7)
    penalty = penalised("finite", linear, img, label, 0.4)
    torch.manual_seed(7)
    noise = torch.randn(4, 2, 4, 4, dtype=torch.float64)
    expected = 0.4 / 2 * (noise * linear.a.detach()).sum(dim=(1, 2, 3)).square().mean()
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-9)

    D, many = Curved(), 40_000
    exact = penalised("exact", D, img[:1], label[:1], 0.4)
    (exact_gradient,) = torch.autograd.grad(exact, D.a)
    finite = penalised("finite", D, img[:1].expand(many, -1, -1, -1), label[:1].expand(many), 0.4)
    (finite_gradient,) = torch.autograd.grad(finite, D.a)
    assert finite.item() == pytest.approx(exact.item(), rel=0.03)  # four standard errors of a squared normal
    assert (finite_gradient - exact_gradient).norm() < 0.06 * exact_gradient.norm()


@pytest.mark.parametrize("kind", ["exact", "finite"])
def test_a_penalty_of_parts_adds_up(kind: str) -> None:
    D, img, label = Curved(), torch.randn(7, 2, 4, 4, dtype=torch.float64), torch.arange(7)
    torch.manual_seed(3)
    (whole,) = torch.autograd.grad(penalised(kind, D, img, label, 1.0), D.a)
    shares = []
    for rows in (torch.tensor([0, 3, 6]), torch.tensor([1, 2, 4, 5])):
        torch.manual_seed(3)
        own = img[rows].requires_grad_(True)
        share = zero_centred_penalty(kind, D, own, label[rows], D(own, label[rows]), 1.0, Part(rows, 7))
        shares.append(torch.autograd.grad(share, D.a)[0])
    torch.testing.assert_close(shares[0] + shares[1], whole)


def test_gradient_penalty_against_analytic_gradients() -> None:
    real, fake, label = *torch.randn(2, 5, 2, 4, 4), torch.zeros(5, dtype=torch.int64)
    linear = Linear().float()
    norm = linear.a.square().sum().sqrt().item()
    assert gradient_penalty(linear, real, fake, label, 10.0).item() == pytest.approx(10 * (norm - 1) ** 2)
    quadratic = Quadratic().float()
    penalty = gradient_penalty(quadratic, real, real, label, 10.0)  # nothing lies between real and real
    norms = 0.7 * real.square().sum(dim=(1, 2, 3)).sqrt()
    assert penalty.item() == pytest.approx(10 * (norms - 1).square().mean().item())


@pytest.mark.parametrize("name", POLICY)
@pytest.mark.parametrize("channels", [1, 3])
def test_diffaugment_is_differentiable_and_repeatable(name: str, channels: int) -> None:
    def augment(img: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return diffaugment(img, [name])

    img = torch.randn(2, channels, 8, 8, dtype=torch.float64, requires_grad=True)
    out = augment(img)
    assert out.shape == img.shape and not torch.equal(out, img)
    assert torch.equal(out, augment(img))
    assert not torch.equal(out, diffaugment(img, [name]))
    assert torch.autograd.gradcheck(augment, (img,), fast_mode=True)


def test_diffaugment_runs_its_policy_in_order() -> None:
    img = torch.randn(4, 1, 16, 16)
    assert torch.equal(diffaugment(img, []), img)
    torch.manual_seed(1)
    expected = diffaugment(diffaugment(img, ["translation"]), ["cutout"])
    torch.manual_seed(1)
    assert torch.equal(diffaugment(img, ["translation", "cutout"]), expected)


def _shifted(img: torch.Tensor, dy: int, dx: int) -> torch.Tensor:
    """CHW moved by (dy, dx), zeros coming in."""
    out = torch.zeros_like(img)
    height, width = img.shape[1:]
    for row in range(height):
        for col in range(width):
            if 0 <= row - dy < height and 0 <= col - dx < width:
                out[:, row, col] = img[:, row - dy, col - dx]
    return out


def test_translation_is_a_pure_shift() -> None:
    img = torch.randn(1, 2, 16, 16)
    reach = range(-2, 3)  # an eighth of 16
    shifts = {(dy, dx): _shifted(img[0], dy, dx) for dy in reach for dx in reach}
    seen = set()
    for moved in diffaugment(img.expand(300, -1, -1, -1), ["translation"]):
        hits = [shift for shift, expected in shifts.items() if torch.equal(moved, expected)]
        assert len(hits) == 1
        seen.add(hits[0])
    assert seen == set(shifts)


def test_cutout_zeroes_a_rectangle() -> None:
    img = torch.rand(200, 2, 16, 16) + 1
    sides = []
    for before, after in zip(img, diffaugment(img, ["cutout"]), strict=True):
        hole = after[0] == 0
        rows, cols = hole.any(dim=1), hole.any(dim=0)
        assert torch.equal(hole, rows[:, None] & cols[None, :])
        for side in (rows, cols):
            ends = side.nonzero().flatten()
            assert len(ends) == 0 or len(ends) == ends[-1] - ends[0] + 1  # without gaps
        assert torch.equal(after, before * ~hole)
        sides += [int(rows.sum()), int(cols.sum())]
    assert max(sides) in (7, 8)  # half the side


def test_color_changes_brightness_and_contrast_alone() -> None:
    img = torch.randn(50, 1, 8, 8, dtype=torch.float64)
    out = diffaugment(img, ["color"])
    shift = out.mean(dim=(1, 2, 3)) - img.mean(dim=(1, 2, 3))
    assert shift.abs().max() <= 0.5
    centred_in, centred_out = (x - x.mean(dim=(1, 2, 3), keepdim=True) for x in (img, out))
    factor = (centred_out / centred_in).flatten(1)
    torch.testing.assert_close(factor, factor[:, :1].expand(-1, 64), rtol=1e-6, atol=1e-6)
    assert factor.min() >= 0.5 - 1e-6 and factor.max() <= 1.5 + 1e-6


def test_diffaugment_with_a_probability() -> None:
    """At 1 what it is without, to the bit and with as many draws; at 0 nothing; else each image by itself."""
    img = torch.rand(2000, 3, 8, 8) + 0.1  # nowhere 0, so that a hole or a shift is a change
    torch.manual_seed(1)
    expected, after = diffaugment(img, POLICY), torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(diffaugment(img, POLICY, p=1.0), expected) and torch.equal(torch.rand(1), after)
    assert torch.equal(diffaugment(img, POLICY, p=0.0), img)
    changed = {}
    for name in POLICY:
        always = (diffaugment(img, [name]) != img).flatten(1).any(dim=1).float().mean()
        changed[name] = (diffaugment(img, [name], p=0.3) != img).flatten(1).any(dim=1)
        assert changed[name].float().mean() == pytest.approx(0.3 * float(always), abs=0.04)  # 4 standard errors
    unchanged = (diffaugment(img, ["color", "cutout"], p=0.5) == img).flatten(1).all(dim=1).float().mean()
    assert unchanged == pytest.approx(0.25, abs=0.04)  # the two are chosen independently


def test_where_p_moves() -> None:
    ada, state = Ada(target=0.5, interval=3, kimg=0.1), Adaptive()
    sign_sums = [8, 8, 8, 8, 4, 0, 8, 6, 0, -8, -8, -8]  # sums of signs of 8 images: r = 1, 0.5, 14 / 24 and -1
    p_after = []
    for signs in sign_sums:
        state.see(ada, signs, 8)
        p_after.append(state.p)
    step = 3 * 8 / 100
    up, back = step, 0.0
    assert p_after == pytest.approx([0, 0, up, up, up, back, back, back, step, step, step, 0])
    for _ in range(5 * 3):
        state.see(ada, 8, 8)
    assert state.p == 1  # four steps would be 0.96, five are no more than 1
    for _ in range(3):
        state.see(ada, 8, 8)
        assert state.p == 1
    fresh, state = Adaptive(), Adaptive(0.5)
    state.see(ada, 8, 8)
    fresh.load_state_dict(state.state_dict())
    assert fresh == state == Adaptive(0.5, 8, 1)
