"""Networks of the BigGAN family (Brock et al. 2019, "Large scale GAN training for high fidelity natural image
synthesis") in a small form; figures and equations are those of that paper."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from facegan.generation.gans.networks.base import Generator, ProjectionDiscriminator, Step, grid, maybe_spectral
from facegan.generation.gans.networks.microbatches import WHOLE, Part
from facegan.generation.gans.networks.style import widths

INIT_STD = 0.02  # of D's last layer, as in DCGAN


def conv(inputs: int, outputs: int, size: int, spectral: bool = False) -> nn.Module:
    """A convolution that keeps height and width, begun orthogonal (Saxe et al. 2014), as are all of BigGAN's."""
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type] # there is one
    return maybe_spectral(layer, spectral)


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain and bias are linear in a condition (figure 15b): the person and a part of z."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Linear(condition, channels, bias=False)
        self.bias = nn.Linear(condition, channels, bias=False)
        for layer in (self.gain, self.bias):
            nn.init.normal_(layer.weight, 0.0, 0.5 / condition**0.5)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """NCHW, (N, condition) -> NCHW."""
        gain, bias = 1 + self.gain(condition), self.bias(condition)
        y: torch.Tensor = self.norm(x) * gain[:, :, None, None] + bias[:, :, None, None]
        return y


class UpBlock(nn.Module):
    """A residual block to twice the size (figure 15b)."""

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ConditionalBatchNorm(inputs, condition), ConditionalBatchNorm(outputs, condition)
        self.conv1, self.conv2 = conv(inputs, outputs, 3), conv(outputs, outputs, 3)
        self.shortcut = conv(inputs, outputs, 1)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """NCHW, (N, condition) -> NCHW of twice the height and width."""
        h = self.conv1(F.interpolate(F.relu(self.norm1(x, condition)), scale_factor=2.0))
        h = self.conv2(F.relu(self.norm2(h, condition)))
        out: torch.Tensor = h + F.interpolate(self.shortcut(x), scale_factor=2.0)
        return out


class BigganGenerator(Generator):
    """Residual blocks from the first part of z; each has the person's code, which all share, and a part of z of its
    own. Without self-attention.

    In eval mode batch norm uses its running moments, so that an image depends on its own w and z alone.
    """

    def __init__(
        self, num_identities: int, img_channels: int, size_px: int, *, channels: int, max_channels: int,
        code_dim: int, z_dim: int, orthogonal: float,
    ) -> None:  # fmt: skip
        super().__init__()
        base_px, levels = grid(size_px)
        self.num_identities, self.code_dim, self.z_dim = num_identities, code_dim, z_dim
        self.base_px, self.orthogonal = base_px, orthogonal
        up = widths(channels, max_channels, levels)[::-1]
        first, *rest = (len(part) for part in torch.tensor_split(torch.empty(z_dim), levels + 1))
        self.identity = nn.Embedding(num_identities, code_dim)
        self.begin = nn.Linear(first + code_dim, up[0] * base_px**2)
        nn.init.orthogonal_(self.begin.weight)
        self.blocks = nn.ModuleList(
            UpBlock(i, o, code_dim + part) for (i, o), part in zip(pairwise(up), rest, strict=True)
        )
        self.norm = nn.BatchNorm2d(up[-1])
        self.end = conv(up[-1], img_channels, 3)

    def codes(self) -> torch.Tensor:
        """See Generator."""
        return self.identity.weight

    def forward(self, w: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See Generator."""
        first, *rest = (torch.cat([w, part], dim=1) for part in z.tensor_split(len(self.blocks) + 1, dim=1))
        x = self.begin(first).view(len(w), -1, self.base_px, self.base_px)
        for block, condition in zip(self.blocks, rest, strict=True):
            x = block(x, condition)
        return torch.tanh(self.end(F.relu(self.norm(x))))

    def step(self, real_img: torch.Tensor, label: torch.Tensor, part: Part = WHOLE) -> Step:
        """See Generator; its own term keeps the filters apart."""
        step = super().step(real_img, label, part)
        if self.orthogonal:
            share = part.mean(torch.ones_like(part.take(label), dtype=torch.float32))
            step.terms["orthogonal"] = share * self.orthogonal * orthogonal_penalty(self)
        return step


def orthogonal_penalty(G: nn.Module) -> torch.Tensor:
    """sum over convolutions W of |W W^T * (1 - I)|_F^2, a row of W being a filter (eq. 3) -> scalar.

    Different filters are kept apart, and the length of none is bound.
    """
    weights = [layer.weight.flatten(1) for layer in G.modules() if isinstance(layer, nn.Conv2d)]
    with torch.autocast(weights[0].device.type, enabled=False):
        products = [weight @ weight.T for weight in weights]
        return torch.stack([(p - torch.diag(p.diagonal())).square().sum() for p in products]).sum()


class DownBlock(nn.Module):
    """A residual block to half the size (figure 15c); the first has no activation before it."""

    def __init__(self, inputs: int, outputs: int, spectral: bool, first: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(inputs, outputs, 3, spectral), conv(outputs, outputs, 3, spectral)
        self.shortcut = conv(inputs, outputs, 1, spectral)
        self.first = first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW -> NCHW of half the height and width."""
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        out: torch.Tensor = F.avg_pool2d(h, 2) + self.shortcut(F.avg_pool2d(x, 2))
        return out


def discriminator(
    num_identities: int, img_channels: int, size_px: int, *, channels: int, max_channels: int, spectral_norm: bool
) -> nn.Module:
    """Residual blocks, summed over the image, and a projection of the person (figure 15, table 4)."""
    levels = grid(size_px)[1]
    down = [img_channels, *widths(channels, max_channels, levels)[1:]]
    blocks = [DownBlock(i, o, spectral_norm, first=level == 0) for level, (i, o) in enumerate(pairwise(down))]
    D = ProjectionDiscriminator(nn.Sequential(*blocks, nn.ReLU()), down[-1], num_identities, spectral_norm)
    if not spectral_norm:  # logits near 0 at first
        for layer in (D.psi, D.embed):
            nn.init.normal_(layer.get_parameter("weight"), 0.0, INIT_STD)
    return D
