"""Networks of the DCGAN family (Radford et al. 2016, "Unsupervised representation learning with deep
convolutional generative adversarial networks")."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from facegan.generation.gans.networks.base import Generator, ProjectionDiscriminator, grid, maybe_spectral, widths

LEAK = 0.2  # slope of D's leaky ReLU, section 4
INIT_STD = 0.02  # "a zero-centered Normal distribution with standard deviation 0.02", section 4


def _initialised(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Module:
    nn.init.normal_(layer.weight, 0.0, INIT_STD)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class DcganGenerator(Generator):
    """Transposed convolutions, batch norm and ReLU from [w, z] (Radford et al. 2016, figure 1).

    In eval mode batch norm uses its running moments, so that an image depends on its own w and z alone.
    """

    def __init__(
        self, num_identities: int, img_channels: int, size_px: int, *, channels: int, max_channels: int,
        code_dim: int, z_dim: int,
    ) -> None:  # fmt: skip
        super().__init__()
        base_px, levels = grid(size_px)
        self.num_identities = num_identities
        self.code_dim, self.z_dim = code_dim, z_dim
        up = widths(channels, max_channels, levels)[::-1]
        joint = code_dim + z_dim
        self.identity = nn.Embedding(num_identities, code_dim)
        layers = [_initialised(nn.ConvTranspose2d(joint, up[0], base_px, bias=False))]
        for i, o in pairwise(up):
            layers += [nn.BatchNorm2d(i), nn.ReLU(), _initialised(nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False))]
        layers += [nn.BatchNorm2d(up[-1]), nn.ReLU()]
        layers += [_initialised(nn.ConvTranspose2d(up[-1], img_channels, 4, 2, 1)), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def codes(self) -> torch.Tensor:
        """See Generator."""
        return self.identity.weight

    def forward(self, w: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See Generator."""
        img: torch.Tensor = self.layers(torch.cat([w, z], dim=1)[:, :, None, None])
        return img


def discriminator(
    num_identities: int, img_channels: int, size_px: int, *, channels: int, max_channels: int,
    spectral_norm: bool, batch_norm: bool,
) -> nn.Module:  # fmt: skip
    """Strided convolutions, batch norm after all but the first, leaky ReLU (Radford et al. 2016, section 3),
    and a projection of the person in place of the last convolution (see ProjectionDiscriminator).

    Without batch norm, which would keep up features of any size, weights begin as for leaky ReLU in He et al. 2015
    (equation 15): from N(0, 0.02^2) D's gradients would all but vanish.
    """
    levels = grid(size_px)[1]
    down = widths(channels, max_channels, levels)
    layers: list[nn.Module] = []
    for level, (i, o) in enumerate(zip([img_channels, *down], down, strict=False)):
        normed = batch_norm and level > 0
        conv = _initialised(nn.Conv2d(i, o, 4, 2, 1, bias=not normed))
        if not batch_norm:
            nn.init.kaiming_normal_(conv.get_parameter("weight"), LEAK)
        layers.append(maybe_spectral(conv, spectral_norm))
        layers += [nn.BatchNorm2d(o), nn.LeakyReLU(LEAK)] if normed else [nn.LeakyReLU(LEAK)]
    D = ProjectionDiscriminator(nn.Sequential(*layers), down[-1], num_identities, spectral_norm)
    if not spectral_norm:
        for layer in (D.psi, D.embed):
            nn.init.normal_(layer.get_parameter("weight"), 0.0, INIT_STD)
    return D
