"""Networks of the CVAE-GAN family (Bao et al. 2017, "CVAE-GAN: fine-grained image generation")."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

from facegan.generation.gans.networks.base import Generator, ProjectionDiscriminator, Step, grid, maybe_spectral, widths
from facegan.generation.gans.networks.microbatches import ALL, WHOLE, Part

OVERSAMPLING = 8


class Modulated(nn.Module):
    """A convolution, each pixel normalised, then each channel scaled and shifted by the code.

    Pixel norm (Karras et al. 2018, section 4.2) keeps what instance norm removes, and makes no droplet artifacts.
    """

    def __init__(self, conv: nn.Conv2d, code_dim: int) -> None:
        super().__init__()
        self.conv = conv
        self.affine = nn.Linear(code_dim, 2 * conv.out_channels)
        nn.init.normal_(self.affine.weight, std=0.1 / math.sqrt(code_dim))

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        x = x * x.square().mean(dim=1, keepdim=True).add(1e-8).rsqrt()
        scale, shift = self.affine(code)[:, :, None, None].chunk(2, dim=1)
        return F.leaky_relu(x * (1 + scale) + shift, 0.2)


class CvaeGenerator(Generator):
    """Identity codes, the decoder G(w, z), and the encoder of variation codes q(z | image, w).

    Decoder and encoder each begin with a linear map, solved in closed form by `start` and then fixed.
    G draws the eigenface of both codes, rough and ghostly, and a U-net (Ronneberger et al. 2015), modulated
    by the codes, turns it into a face: it begins near a face and not at noise, and learns from a tenth of the images.
    It always gets the whole identity code, whatever `conditioned` is, since it rebuilds photos of known people.
    """

    mean: torch.Tensor
    person_axes: torch.Tensor
    variation_axes: torch.Tensor

    def __init__(
        self, num_identities: int, img_channels: int, size_px: int, *, channels: int, max_channels: int,
        code_dim: int, z_dim: int, reconstruction: float, kl: float, guide_codes: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.reconstruction, self.kl, self.guide_codes = reconstruction, kl, guide_codes
        self.num_identities = num_identities
        self.code_dim, self.z_dim = code_dim, z_dim
        smallest_px, levels = grid(size_px)
        down = widths(channels, max_channels, levels)
        self.img_shape = (img_channels, size_px, size_px)
        joint = code_dim + z_dim
        self.identity = nn.Embedding(num_identities, code_dim)
        self.register_buffer("mean", torch.zeros(math.prod(self.img_shape)))
        self.register_buffer("person_axes", torch.zeros(code_dim, math.prod(self.img_shape)))
        self.register_buffer("variation_axes", torch.zeros(z_dim, math.prod(self.img_shape)))
        self.down = nn.ModuleList(
            Modulated(nn.Conv2d(i, o, 4, 2, 1), joint) for i, o in itertools.pairwise([img_channels, *down])
        )
        self.up = nn.ModuleList(Modulated(nn.Conv2d(i, o, 1), joint) for i, o in itertools.pairwise(down[::-1]))
        self.refine = nn.ModuleList(Modulated(nn.Conv2d(o, o, 3, 1, 1), joint) for o in down[-2::-1])
        self.to_img = nn.Conv2d(down[0], img_channels, 3, padding=1)
        layers: list[nn.Module] = []
        for i, o in zip([img_channels, *down], down, strict=False):
            layers += [nn.Conv2d(i, o, 4, 2, 1), nn.GroupNorm(8, o), nn.LeakyReLU(0.2)]
        self.encoder = nn.Sequential(*layers, nn.Flatten())
        self.moments = nn.Linear(down[-1] * smallest_px**2 + code_dim, 2 * z_dim)
        for layer in (self.to_img, self.moments):  # begin close to the linear maps
            nn.init.normal_(layer.weight, std=0.1 / math.sqrt(layer.weight[0].numel()))

    @torch.no_grad()
    def start(self, img: torch.Tensor, label: torch.Tensor) -> None:
        """Eigenfaces of the people's means, and of the images' deviations from them, scaled to unit codes.

        (Turk and Pentland 1991 for the axes; split between and within people as in Fisherfaces, Belhumeur et
        al. 1997, section 2.4.) Where the codes are the guide's, and so fixed, the people's axes are the least-squares
        linear map of minimal norm from the codes to the means of the people in `img`.
        """
        flat = torch.cat([img, img.flip(3)]).flatten(1)
        person = torch.cat([label, label])
        counts = torch.bincount(person, minlength=self.num_identities).clamp(min=1).to(flat)
        means = torch.zeros(self.num_identities, flat.shape[1]).to(flat).index_add_(0, person, flat)
        means /= counts[:, None]
        self.mean.copy_(flat.mean(dim=0))
        if self.guide_codes:
            has_images = torch.bincount(person, minlength=self.num_identities) > 0
            to_codes = torch.linalg.pinv(self.identity.weight[has_images].double()).to(flat)
            self.person_axes.copy_(to_codes @ (means[has_images] - self.mean))
        else:
            axes, codes = principal_axes(means - self.mean, self.code_dim)
            self.person_axes[: len(axes)] = axes
            self.identity.weight.normal_(0, 0.1)
            self.identity.weight[:, : len(axes)] = codes
        axes, _ = principal_axes(flat - means[person], self.z_dim)
        self.variation_axes[: len(axes)] = axes

    def codes(self) -> torch.Tensor:
        """See Generator."""
        return self.identity.weight

    def forward(self, w: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See Generator."""
        code = torch.cat([w, z], dim=1)
        eigenface = (self.mean + w @ self.person_axes + z @ self.variation_axes).view(-1, *self.img_shape)
        x, skips = eigenface, []
        for down in self.down:
            x = down(x, code)
            skips.append(x)
        for up, refine, skip in zip(self.up, self.refine, skips[-2::-1], strict=True):
            x = up(F.interpolate(x, scale_factor=2.0), code) + skip  # transposed convolutions draw checkerboards
            x = x + refine(x, code)
        return (eigenface + self.to_img(F.interpolate(x, scale_factor=2.0))).clamp(-1, 1)

    def encode(self, img: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """The mean of the variation code of images of people w, (N, z_dim)."""
        return self._moments(img, w)[0]

    def _moments(self, img: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        learned, log_var = self.moments(torch.cat([self.encoder(img), w], dim=1)).chunk(2, dim=1)
        residual = img.flatten(1) - self.mean - w @ self.person_axes  # not explained by person and mean
        scale = self.variation_axes.square().sum(dim=1).clamp(min=1e-8)
        return residual @ self.variation_axes.T / scale + learned, (log_var - 4).clamp(-8, 4)

    def step(self, real_img: torch.Tensor, label: torch.Tensor, part: Part = WHOLE) -> Step:
        """Rebuild each image, and draw half of the people with the variation of another one of the batch."""
        batch_w, real_img = self.identity(label), part.take(real_img)
        w = part.take(batch_w)
        mean, log_var = (moment.float() for moment in self._moments(real_img, w))
        z = mean + part.draw(torch.randn, *mean.shape, device=mean.device) * (log_var / 2).exp()
        fakes, lenders = borrowers(part, len(label))
        img = self(torch.cat([w, batch_w[fakes.rows]]), torch.cat([z, z[lenders]])).float()
        rebuilt, recombined = img[: len(w)], img[len(w) :]
        smaller = F.avg_pool2d(rebuilt, 4) - F.avg_pool2d(real_img, 4)
        terms = {
            "reconstruction": self.reconstruction * (part.mean((rebuilt - real_img).abs()) + part.mean(smaller.abs())),
            # KL(N(mean, var) || N(0, 1)), Kingma and Welling 2014, appendix B
            "kl": self.kl * 0.5 * part.mean((mean.square() + log_var.exp() - 1 - log_var).sum(dim=1)),
        }
        return Step(recombined, label[fakes.rows], terms, fakes)


def borrowers(part: Part, count: int) -> tuple[Part, torch.Tensor]:
    """Which of the first half of a batch of `count` borrow from rows of `part`, and from which of these, (n,) int64.

    Image i borrows the code of row i - 1, the first one that of the last row: a part has the codes that it lends.
    """
    half = (count + 1) // 2
    borrower = (torch.arange(count)[part.rows] + 1) % count
    lenders = borrower.argsort()[: int((borrower < half).sum())]
    is_whole = part.rows is ALL
    return Part(slice(half) if is_whole else borrower[lenders], None if is_whole else half), lenders


def principal_axes(centred: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Up to `count` principal axes (k, features), each as long as its standard deviation, and unit codes (N, k).

    By randomised range finding (Halko et al. 2011, algorithm 4.4): it draws from torch's global generator.
    """
    _, singular, axes = torch.svd_lowrank(centred, q=min(count + OVERSAMPLING, *centred.shape), niter=4)
    keep = min(count, int((singular > 1e-4 * singular[0].clamp(min=1e-8)).sum()))
    sigma = singular[:keep] / math.sqrt(len(centred))
    axes = axes.T[:keep] * sigma[:, None]
    return axes, centred @ axes.T / sigma.square()


def discriminator(
    num_identities: int, img_channels: int, size_px: int, *, channels: int, max_channels: int, spectral_norm: bool
) -> nn.Module:
    """Strided convolutions with leaky ReLU and a projection of the person (see ProjectionDiscriminator)."""
    down = widths(channels, max_channels, grid(size_px)[1])
    layers: list[nn.Module] = []
    for i, o in zip([img_channels, *down], down, strict=False):
        layers += [maybe_spectral(nn.Conv2d(i, o, 4, 2, 1), spectral_norm), nn.LeakyReLU(0.2)]
    return ProjectionDiscriminator(nn.Sequential(*layers), down[-1], num_identities, spectral_norm)
