"""What every generator and discriminator shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import register_parametrization

from facegan.core.errors import ConfigError
from facegan.generation.gans.networks.microbatches import WHOLE, Part


@dataclass
class Step:
    """What G did in one training step: images for D, loss terms of its own (weighted).

    `fake_label` (n,) are the people of `fake_img`, and `fakes` the rows of the batch that these people are; each term
    is the part's share.
    """

    fake_img: torch.Tensor
    fake_label: torch.Tensor
    terms: dict[str, torch.Tensor]
    fakes: Part = WHOLE


class Generator(nn.Module):
    """G(w, z): an image from an identity code w (who) and a variation code z (pose, expression, light).

    `num_identities`, `code_dim` and `z_dim` are plain attributes; `conditioned` (0..1) is the weight of the identity
    code in training, below 1 while a `ramp` rises.
    """

    num_identities: int
    code_dim: int
    z_dim: int
    conditioned: float = 1.0
    mode_seeking: float = 0.0  # weight of the term by which two z of one person give two images
    start_images: int = 4000  # more would not change the start, and would have to be held as float32

    def codes(self) -> torch.Tensor:
        """The training people's identity codes, (num_identities, code_dim)."""
        raise TypeError(f"{type(self).__name__} must define codes()")

    def forward(self, w: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """w (N, code_dim), z (N, z_dim) -> NCHW float32 in -1..1."""
        raise TypeError(f"{type(self).__name__} must define forward()")

    def leading(self, w: torch.Tensor, z: torch.Tensor, count: int) -> torch.Tensor:
        """The first `count` images of the batch, to the same bits as `forward`, which draws the others too."""
        img: torch.Tensor = self(w, z)[:count]
        return img

    def start(self, img: torch.Tensor, label: torch.Tensor) -> None:
        """Initialise from the train images, NCHW float32 in -1..1; by default this does nothing."""

    def encode(self, img: torch.Tensor, w: torch.Tensor) -> torch.Tensor | None:
        """Variation codes (N, z_dim) of real images of people w, or None where z is drawn from N(0, 1)."""
        return None

    def blend(self, parts: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """One variation code from one of each parent: (parents, N, z_dim) and (parents,) -> (N, z_dim).

        sum_p a_p z_p / |a|: as long as a real code, where the plain mean of several would be shorter and its
        face bland.
        """
        blended: np.ndarray = np.tensordot(weights / np.linalg.norm(weights), parts, axes=1)
        return blended

    def vary(
        self, own: np.ndarray, other: np.ndarray, borrowed: float, noise: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Variation codes (N, z_dim) turned from a person's own towards those of others' photos, with noise.

        sqrt(1 - b^2) own + b other + noise e, e ~ N(0, 1): the straight line between two codes is shorter than
        both.
        """
        turned = np.sqrt(1 - borrowed**2) * own + borrowed * other
        return turned + noise * rng.standard_normal(own.shape)

    def lent(self, borrowed: float) -> float:
        """The largest share of anything of another's photo that `vary` takes."""
        return borrowed

    def step(self, real_img: torch.Tensor, label: torch.Tensor, part: Part = WHOLE) -> Step:
        """What G does with a part of a batch; `real_img` and `label` are the whole batch's.

        By default: fake images of the part's people with variation drawn from N(0, 1), and, with `mode_seeking`, the
        term of that name, for which each person is drawn once more.
        """
        label = part.take(label)
        w, z = self.codes()[label], part.draw(torch.randn, len(label), self.z_dim, device=real_img.device)
        img, terms = self.train_forward(w, z, part), dict[str, torch.Tensor]()
        if self.mode_seeking:
            other_z = part.draw(torch.randn, len(label), self.z_dim, device=real_img.device)
            loss = mode_seeking_loss(img, self.train_forward(w, other_z, part), z, other_z)
            terms["mode_seeking"] = self.mode_seeking * part.mean(loss)
        return Step(img, label, terms, part)

    def train_forward(self, w: torch.Tensor, z: torch.Tensor, part: Part) -> torch.Tensor:
        """`forward` of rows of a batch, w times `conditioned`; for families that draw more than z in training."""
        img: torch.Tensor = self(w * self.conditioned, z)
        return img


def mode_seeking_loss(
    img: torch.Tensor, other_img: torch.Tensor, z: torch.Tensor, other_z: torch.Tensor
) -> torch.Tensor:
    """1 / (|G(w, z) - G(w, z')| / |z - z'| + epsilon), means of absolute values: images NCHW, codes (N, z_dim) -> (N,).

    Source: Mao et al. 2019 (Mode seeking generative adversarial networks, CVPR), equation 5, as its code has it. Here
    images are compared less their mean and over their standard deviation: brightness and contrast, which D is not shown
    where it sees images augmented in colour, cost G nothing and would be all that z does.
    """
    between = (_standardised(img) - _standardised(other_img)).abs().mean(dim=(1, 2, 3))
    return 1 / (between / (z - other_z).abs().mean(dim=1) + 1e-5)


def _standardised(img: torch.Tensor) -> torch.Tensor:
    """Each image of mean 0 and standard deviation 1; zeros where it is flat."""
    img = img.float() - img.float().mean(dim=(1, 2, 3), keepdim=True)
    return img / (img.square().mean(dim=(1, 2, 3), keepdim=True) + 1e-6).sqrt()


def grid(size_px: int) -> tuple[int, int]:
    """(base_px, levels) with size_px = base_px * 2**levels, base_px in 4..7 and at least two levels.

    Raises ConfigError where there is none: of the multiples of 16 up to 512 there is one for 16, 32, 48, 64,
    80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448 and 512.
    """
    base_px, levels = size_px, 0
    while base_px >= 8 and base_px % 2 == 0:
        base_px, levels = base_px // 2, levels + 1
    if not 4 <= base_px <= 7 or levels < 2:
        sizes = [base * 2**level for level in range(2, 8) for base in (4, 5, 6, 7)]
        nearest = sorted(sorted(sizes, key=lambda size: abs(size - size_px))[:2])
        raise ConfigError(
            f"a generator of {size_px} px: the side must be 4, 5, 6 or 7 times 4, 8, 16, ...",
            fix=f"set prepare.size_px={nearest[0]} or {nearest[1]}",
        )
    return base_px, levels


def widths(channels: int, max_channels: int, levels: int) -> list[int]:
    """Channels at half, quarter, ... resolution down to the base: doubled at each halving, up to a bound."""
    return [min(channels * 2**level, max_channels) for level in range(levels)]


def maybe_spectral(layer: nn.Module, spectral: bool) -> nn.Module:
    """The layer, divided by its largest singular value where `spectral` (Miyato et al. 2018)."""
    if spectral:
        register_parametrization(layer, "weight", SpectralNorm(layer.get_parameter("weight")))
    return layer


class SpectralNorm(_SpectralNorm):
    """torch's, in single precision whatever the layer's type: the power iteration consists of dot products."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight divided by its largest singular value, of the same shape."""
        with torch.autocast(weight.device.type, enabled=False):
            normalised: torch.Tensor = super().forward(weight)
        return normalised


class ProjectionDiscriminator(nn.Module):
    """D(img, label) = psi(h) + lambda <e_label, h>, with h the summed features (Miyato and Koyama 2018, eq. 3).

    `trunk` maps NCHW images to (N, features) or (N, features, H, W). lambda is `conditioned`, below 1
    while a `ramp` rises.
    """

    conditioned: float = 1.0

    def __init__(self, trunk: nn.Module, features: int, num_identities: int, spectral: bool) -> None:
        super().__init__()
        self.trunk = trunk
        self.psi = maybe_spectral(nn.Linear(features, 1), spectral)
        self.embed = maybe_spectral(nn.Embedding(num_identities, features), spectral)

    def forward(self, img: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """NCHW float32 in -1..1, (N,) int64 -> logits (N,)."""
        h = self.trunk(img)
        if h.ndim == 4:
            h = h.sum(dim=(2, 3))
        return self.psi(h).squeeze(1) + self.conditioned * (self.embed(label) * h).sum(dim=1)
