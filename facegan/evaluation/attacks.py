"""Attacks on the cosine between a photo and an enrolled one: FGSM, PGD and MIM, with the gradient of the network.

Pixels are float32 (N, C, H, W) in 0 .. 255; a perturbation is measured in the same unit, so that epsilon 1 is "1/255".
linf: the largest absolute change. l2: the Euclidean norm over the square root of the number of values, as RobFR
(Yang et al. 2020, arXiv 2007.04118), so that both norms have one unit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

Successful = Callable[[torch.Tensor], torch.Tensor]
"""Cosines (N,) -> bool (N,): whether the decision is now the attacker's."""


@dataclass(frozen=True)
class Attack:
    """method: fgsm, pgd or mim. norm: linf or l2. steps of each of `restarts` (FGSM takes one of either)."""

    method: str
    norm: str
    steps: int
    restarts: int


def cosine(net: nn.Module, pixels: torch.Tensor, enrolled: torch.Tensor) -> torch.Tensor:
    """Cosine (N,) of images in 0 .. 255 with embeddings of unit length (N, d)."""
    return (F.normalize(net(pixels / 127.5 - 1).float()) * enrolled).sum(dim=1)


def perturb(
    net: nn.Module,
    pixels: torch.Tensor,
    enrolled: torch.Tensor,
    sign: torch.Tensor,
    epsilon: torch.Tensor,
    attack: Attack,
    generator: torch.Generator,
) -> torch.Tensor:
    """Images (N, C, H, W) within `epsilon` (N,) of `pixels`, by one start of the attack.

    sign (N,): 1 raises the cosine (impersonation), -1 lowers it (dodging). Sources: Goodfellow et al. 2015 (FGSM);
    Madry et al. 2018 (PGD: random start, steps of 2.5 epsilon / steps); Dong et al. 2018 (MIM: momentum 1 over
    gradients of L1 norm one, no random start, steps of 1.5 epsilon / steps as in RobFR).
    """
    limit = epsilon[:, None, None, None]
    steps = 1 if attack.method == "fgsm" else attack.steps
    size = limit * {"fgsm": 1.0, "pgd": min(1.0, 2.5 / steps), "mim": min(1.0, 1.5 / steps)}[attack.method]
    delta = torch.zeros_like(pixels)
    if attack.method == "pgd":
        delta = projected(_start(pixels, limit, attack.norm, generator), limit, attack.norm)
    momentum = torch.zeros_like(pixels)
    for _ in range(steps):
        at = (pixels + delta).clamp(0, 255).requires_grad_(True)
        (gradient,) = torch.autograd.grad((sign * cosine(net, at, enrolled)).sum(), at)
        if attack.method == "mim":
            momentum = momentum + gradient / gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
            gradient = momentum
        delta = at.detach() - pixels + size * _direction(gradient, attack.norm)
        delta = projected((pixels + delta).clamp(0, 255) - pixels, limit, attack.norm)
    return (pixels + delta).clamp(0, 255)


def _rms(values: torch.Tensor) -> torch.Tensor:
    return values.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()


def _direction(gradient: torch.Tensor, norm: str) -> torch.Tensor:
    """The steepest ascent of norm one."""
    return gradient.sign() if norm == "linf" else gradient / _rms(gradient).clamp_min(1e-20)


def projected(delta: torch.Tensor, limit: torch.Tensor, norm: str) -> torch.Tensor:
    """The nearest perturbation whose norm is at most `limit` (N, 1, 1, 1)."""
    if norm == "linf":
        return torch.minimum(torch.maximum(delta, -limit), limit)
    return delta * torch.clamp(limit / _rms(delta).clamp_min(1e-20), max=1)


def _start(pixels: torch.Tensor, limit: torch.Tensor, norm: str, generator: torch.Generator) -> torch.Tensor:
    if norm == "linf":
        return limit * (2 * torch.rand(pixels.shape, generator=generator).to(pixels) - 1)
    noise = torch.randn(pixels.shape, generator=generator).to(pixels)
    return limit * torch.rand(len(pixels), 1, 1, 1, generator=generator).to(pixels) * noise / _rms(noise)


def falls(
    net: nn.Module,
    pixels: torch.Tensor,
    enrolled: torch.Tensor,
    sign: torch.Tensor,
    epsilon: torch.Tensor,
    threshold: float,
    attack: Attack,
    generator: torch.Generator,
    quantised: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether each pair is judged wrongly within `epsilon` (N,): bool (N,), and the images that were tried last.

    Each restart is for those that still stand. quantised: images are rounded to whole pixel values before they are
    judged: within a whole epsilon still in linf, up to 0.09 beyond it in l2. Sign as in `perturb`.
    """
    fallen, tried = torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device), pixels.clone()
    for _ in range(attack.restarts if attack.method == "pgd" else 1):
        left = torch.nonzero(~fallen)[:, 0]
        if not len(left):
            break
        image = perturb(net, pixels[left], enrolled[left], sign[left], epsilon[left], attack, generator)
        image = image.round() if quantised else image
        with torch.no_grad():
            accepted = cosine(net, image, enrolled[left]) >= threshold
        tried[left] = image
        fallen[left] = accepted == (sign[left] > 0)
    return fallen, tried
