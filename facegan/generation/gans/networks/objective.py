"""The adversarial objectives, their penalties, and DiffAugment: each line with its formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from facegan.generation.gans import Ada
from facegan.generation.gans.networks.microbatches import WHOLE, Part

NEAR = 0.01  # standard deviation of what is added to an image in -1..1 for a finite difference


def g_loss(
    kind: str, gen_logits: torch.Tensor, fakes: Part = WHOLE, real_logits: torch.Tensor | None = None
) -> torch.Tensor:
    """What G minimises; logits (N,), those of photos where it is relativistic alone -> scalar.

    Raises ValueError for a relativistic loss without them.
    """
    if kind == "relativistic":  # -log sigmoid(D(G(z)) - D(x)), Huang et al. 2024 (arXiv 2501.05441), section 2
        if real_logits is None:
            raise ValueError("a relativistic loss of G needs D's logits of photos")
        return fakes.mean(F.softplus(real_logits - gen_logits))
    if kind == "nonsaturating":  # -log sigmoid(D(G(z))), Goodfellow et al. 2014, section 3
        return fakes.mean(F.softplus(-gen_logits))
    return -fakes.mean(gen_logits)  # hinge (Lim and Ye 2017) and Wasserstein (Arjovsky et al. 2017): -D(G(z))


def d_loss(
    kind: str, real_logits: torch.Tensor, gen_logits: torch.Tensor, reals: Part = WHOLE, fakes: Part = WHOLE
) -> torch.Tensor:
    """What D minimises; logits (N,) -> scalar."""
    if kind == "relativistic":  # -log sigmoid(D(x) - D(G(z))): photo and fake of the same row
        return fakes.mean(F.softplus(gen_logits - real_logits))
    if kind == "nonsaturating":  # -log sigmoid(D(x)) - log(1 - sigmoid(D(G(z))))
        return reals.mean(F.softplus(-real_logits)) + fakes.mean(F.softplus(gen_logits))
    if kind == "hinge":  # max(0, 1 - D(x)) + max(0, 1 + D(G(z)))
        return reals.mean(F.relu(1 - real_logits)) + fakes.mean(F.relu(1 + gen_logits))
    return fakes.mean(gen_logits) - reals.mean(real_logits)  # Wasserstein: D(G(z)) - D(x)


def accuracy(
    pairs: bool, real_logits: torch.Tensor, gen_logits: torch.Tensor, reals: Part = WHOLE, fakes: Part = WHOLE
) -> dict[str, torch.Tensor]:
    """How often D is right, 0..1: of photos and of fakes, or of pairs, whose logits (N,) have no zero of their own."""
    if pairs:
        return {"pair_accuracy": fakes.mean((real_logits > gen_logits).to(gen_logits))}
    return {
        "real_accuracy": reals.mean((real_logits > 0).to(real_logits)),
        "gen_accuracy": fakes.mean((gen_logits < 0).to(gen_logits)),
    }


def zero_centred_penalty(
    kind: str, D: nn.Module, img: torch.Tensor, label: torch.Tensor, logits: torch.Tensor, gamma: float,
    part: Part = WHOLE,
) -> torch.Tensor:  # fmt: skip
    """gamma / 2 * E |grad_x D(x)|^2 (Mescheder et al. 2018, eq. 9: at photos R1, at fakes R2) -> scalar.

    `img` NCHW are the images as D saw them, augmented, and `logits` (N,) what it said of them; where it is exact, they
    need a gradient. With finite differences the expectation over n ~ N(0, 1) differs from it by a term in NEAR^2:
    E_n (n . g)^2 = |g|^2.
    """
    if kind == "exact":
        (grad,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
        return gamma / 2 * part.mean(grad.square().sum(dim=(1, 2, 3)))
    # ((D(x + e n) - D(x)) / e)^2, Adversarial Flow Models (Lin et al. 2025, arXiv 2511.22475)
    noise = part.draw(torch.randn, *img.shape, device=img.device, dtype=img.dtype)
    return gamma / 2 * part.mean(((D(img + NEAR * noise, label) - logits) / NEAR).square())


def gradient_penalty(
    D: nn.Module,
    real_img: torch.Tensor,
    fake_img: torch.Tensor,
    label: torch.Tensor,
    weight: float,
    fakes: Part = WHOLE,
) -> torch.Tensor:
    """weight * E (|grad_x D(x)| - 1)^2 between photos and fakes, as augmented for D (Gulrajani et al. 2017, eq. 3)."""
    t = fakes.draw(torch.rand, len(label), 1, 1, 1, device=real_img.device, dtype=real_img.dtype)
    img = torch.lerp(real_img.detach(), fake_img.detach(), t).requires_grad_(True)
    (grad,) = torch.autograd.grad(D(img, label).sum(), img, create_graph=True)
    return weight * fakes.mean((grad.square().sum(dim=(1, 2, 3)).add(1e-12).sqrt() - 1).square())


@dataclass
class Adaptive:
    """The probability `p` of an augmentation, controlled by how sure D is of real images; part of a checkpoint.

    r_t = E[sign(D(x))] of real x, over `interval` steps, is near 1 where D knows them by heart (Karras et al. 2020,
    "Training Generative Adversarial Networks with Limited Data", eq. 1): above `target` p goes up, else down, by the
    images of these steps over 1000 `kimg`. Where D looks at pairs it is E[sign(D(x) - D(G(z)))] instead.
    """

    p: float = 0.0
    signs: float = 0.0  # sum over the steps since p last moved: whole numbers, the same in any order
    steps: int = 0

    def see(self, ada: Ada, signs: float, count: int) -> None:
        """After a step of D: `signs` is the sum of the signs over all `count` real images of it."""
        self.signs, self.steps = self.signs + signs, self.steps + 1
        if self.steps < ada.interval:
            return
        images = self.steps * count
        step = images / (ada.kimg * 1000)
        self.p = min(max(self.p + (step if self.signs / images > ada.target else -step), 0.0), 1.0)
        self.signs, self.steps = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds: plain numbers."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.p, self.signs, self.steps = state["p"], state["signs"], state["steps"]


def diffaugment(img: torch.Tensor, policy: Sequence[str], part: Part = WHOLE, p: float = 1.0) -> torch.Tensor:
    """Differentiable augmentation of NCHW images in -1..1 (Zhao et al. 2020, section 3.2, its three parts).

    Each member of the policy is applied to each image with probability `p`, independently of the others.
    """
    for name in policy:
        changed = {"color": _color, "translation": _translation, "cutout": _cutout}[name](img, part)
        if p < 1:  # at 1 nothing more is drawn, as before there was a p
            chosen = part.draw(torch.rand, len(img), 1, 1, 1, device=img.device) < p
            changed = torch.where(chosen, changed, img)
        img = changed
    return img


def _color(img: torch.Tensor, part: Part) -> torch.Tensor:
    n = len(img)
    img = img + part.draw(torch.rand, n, 1, 1, 1, device=img.device) - 0.5  # brightness
    if img.shape[1] == 3:  # saturation
        mean = img.mean(dim=1, keepdim=True)
        img = mean + (img - mean) * (part.draw(torch.rand, n, 1, 1, 1, device=img.device) * 2)
    mean = img.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (img - mean) * (part.draw(torch.rand, n, 1, 1, 1, device=img.device) + 0.5)  # contrast


def _translation(img: torch.Tensor, part: Part, ratio: float = 0.125) -> torch.Tensor:
    n, _, height, width = img.shape
    reach = int(height * ratio + 0.5)
    padded = F.pad(img, (reach, reach, reach, reach))
    dy = part.draw(partial(torch.randint, 0, 2 * reach + 1), n, 1, 1, device=img.device)
    dx = part.draw(partial(torch.randint, 0, 2 * reach + 1), n, 1, 1, device=img.device)
    rows = torch.arange(height, device=img.device)[None, :, None] + dy
    cols = torch.arange(width, device=img.device)[None, None, :] + dx
    batch = torch.arange(n, device=img.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows, cols].permute(0, 3, 1, 2)


def _cutout(img: torch.Tensor, part: Part, ratio: float = 0.5) -> torch.Tensor:
    n, _, height, width = img.shape
    cut_h, cut_w = int(height * ratio + 0.5), int(width * ratio + 0.5)
    cy = part.draw(partial(torch.randint, 0, height + 1), n, 1, 1, device=img.device)
    cx = part.draw(partial(torch.randint, 0, width + 1), n, 1, 1, device=img.device)
    rows = torch.arange(height, device=img.device)[None, :, None]
    cols = torch.arange(width, device=img.device)[None, None, :]
    top, left = cy - cut_h // 2, cx - cut_w // 2
    inside = (rows >= top) & (rows < top + cut_h) & (cols >= left) & (cols < left + cut_w)
    return img * ~inside[:, None]
