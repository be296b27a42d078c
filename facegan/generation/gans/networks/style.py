"""Networks of the style family: StyleGAN2 (Karras et al. 2020, "Analyzing and improving the image quality of
StyleGAN") in a small form that is quick on a CPU. Equation numbers are those of that paper."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from facegan.generation.gans.networks.base import Generator, ProjectionDiscriminator, grid, maybe_spectral
from facegan.generation.gans.networks.microbatches import WHOLE, Grouped, Part

MAPPING_LR = 0.01  # rate of the mapping network relative to the rest (Karras et al. 2019, appendix C)
EPS = 1e-8


def widths(channels: int, max_channels: int, levels: int) -> list[int]:
    """Channels at full, half, ... resolution down to the base: doubled at each halving, up to a bound."""
    return [min(channels * 2**level, max_channels) for level in range(levels + 1)]


def normalize(x: torch.Tensor) -> torch.Tensor:
    """x (N, features) with mean square 1 in each row (Karras et al. 2018, section 4.2)."""
    return x * (x.square().mean(dim=1, keepdim=True) + EPS).rsqrt()


def lrelu(x: torch.Tensor) -> torch.Tensor:
    """Leaky ReLU that keeps the variance."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def fir(x: torch.Tensor, padding: int, stride: int = 1, gain: float = 1.0) -> torch.Tensor:
    """NCHW filtered with [1, 3, 3, 1] along both axes, the filter's sum being `gain`."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device, dtype=x.dtype) / 8
    kernel = (torch.outer(taps, taps) * gain).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, kernel, stride=stride, padding=padding, groups=x.shape[1])


def upsample(x: torch.Tensor) -> torch.Tensor:
    """NCHW at twice the size: zeros put in between, then the filter (section 4.1)."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device, dtype=x.dtype) / 4
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)
    return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


class EqualLinear(nn.Module):
    """A linear layer with equalised learning rate: weights are N(0, 1), scaled by 1 / sqrt(inputs) when used
    (Karras et al. 2018, section 4.1). Not scaled where the weight is to be divided by its spectral norm."""

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, lr: float = 1.0, scaled: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr))
        self.scale, self.lr = lr / math.sqrt(inputs) if scaled else 1.0, lr

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs) -> (N, outputs)."""
        return F.linear(x, self.weight * self.scale, self.bias * self.lr)


class EqualConv(nn.Module):
    """A convolution with equalised learning rate; `down` halves the size behind the low-pass filter."""

    def __init__(
        self, inputs: int, outputs: int, size: int, down: bool = False, bias: bool = True, scaled: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale, self.size, self.down = 1 / math.sqrt(inputs * size**2) if scaled else 1.0, size, down

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW -> NCHW."""
        weight = self.weight * self.scale
        if not self.down:
            return F.conv2d(x, weight, self.bias, padding=self.size // 2)
        if self.size == 1:
            return F.conv2d(fir(x, 1, stride=2), weight, self.bias)
        return F.conv2d(fir(x, 2), weight, self.bias, stride=2)


class ModulatedConv(nn.Module):
    """Modulated and demodulated 3 x 3 convolution, then noise, bias and leaky ReLU.

    Scaling an input channel by s is scaling its weights by s (eq. 1), and dividing the weights of an output
    channel by their norm (eq. 2 and 3) is dividing that channel: so the batch shares one plain convolution.

    Noise is drawn anew in training; in eval mode it is the registered `noise`, so that a picture can be made
    again from w and z.
    """

    noise: torch.Tensor

    def __init__(self, inputs: int, outputs: int, style_dim: int, size_px: int, up: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.affine = EqualLinear(style_dim, inputs, bias=1.0)
        self.scale, self.up = 1 / math.sqrt(inputs * 9), up
        self.register_buffer("noise", torch.randn(1, 1, size_px, size_px))

    def forward(self, x: torch.Tensor, style: torch.Tensor, part: Part = WHOLE) -> torch.Tensor:
        """NCHW, (N, style_dim) -> NCHW, at twice the size where `up`; `part`: which rows of a batch these are."""
        s = self.affine(style)
        weight = self.weight * self.scale
        x = x * s[:, :, None, None]  # eq. 1
        if self.up:
            x = fir(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), padding=1, gain=4.0)
        else:
            x = F.conv2d(x, weight, padding=1)
        norm = s.square() @ weight.square().sum(dim=(2, 3)).T + EPS
        x = x * norm.rsqrt()[:, :, None, None]  # eq. 3
        noise = self.noise
        if self.training:
            noise = part.draw(torch.randn, len(x), 1, *x.shape[2:], device=x.device, dtype=x.dtype)
        return lrelu(x + self.noise_strength * noise + self.bias[:, None, None])


class ToImage(nn.Module):
    """Modulated 1 x 1 convolution to pixels, without demodulation."""

    def __init__(self, inputs: int, img_channels: int, style_dim: int) -> None:
        super().__init__()
        self.affine = EqualLinear(style_dim, inputs, bias=1.0)
        self.conv = EqualConv(inputs, img_channels, 1)

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """NCHW, (N, style_dim) -> an image NCHW of the same size."""
        img: torch.Tensor = self.conv(x * self.affine(style)[:, :, None, None])
        return img


class StyleGenerator(Generator):
    """Mapping network, learned constant, modulated convolutions, and the sum of the images of all sizes."""

    def __init__(
        self, num_identities: int, img_channels: int, size_px: int, *, channels: int, max_channels: int,
        code_dim: int, z_dim: int, style_dim: int, mapping_layers: int,
    ) -> None:  # fmt: skip
        super().__init__()
        base_px, levels = grid(size_px)
        self.num_identities = num_identities
        self.code_dim, self.z_dim = code_dim, z_dim
        dim, up = style_dim, widths(channels, max_channels, levels)[::-1]
        self.identity = nn.Embedding(num_identities, code_dim)
        ins = [code_dim + z_dim] + [dim] * (mapping_layers - 1)
        self.mapping = nn.ModuleList(EqualLinear(i, dim, lr=MAPPING_LR) for i in ins)
        self.constant = nn.Parameter(torch.randn(1, up[0], base_px, base_px))
        self.first = ModulatedConv(up[0], up[0], dim, base_px, up=False)
        self.ups, self.convs = nn.ModuleList(), nn.ModuleList()
        self.to_img = nn.ModuleList([ToImage(up[0], img_channels, dim)])
        for level, (i, o) in enumerate(pairwise(up), start=1):
            self.ups.append(ModulatedConv(i, o, dim, base_px * 2**level, up=True))
            self.convs.append(ModulatedConv(o, o, dim, base_px * 2**level, up=False))
            self.to_img.append(ToImage(o, img_channels, dim))

    def codes(self) -> torch.Tensor:
        """See Generator."""
        return self.identity.weight

    def forward(self, w: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See Generator. The lengths of w and of z play no part."""
        return self.train_forward(w, z, WHOLE)

    def train_forward(self, w: torch.Tensor, z: torch.Tensor, part: Part) -> torch.Tensor:
        """See Generator: each convolution draws its noise."""
        style = torch.cat([normalize(w) * self.conditioned, normalize(z)], dim=1)  # before, it would be normalised away
        for layer in self.mapping:
            style = lrelu(layer(style))
        x = self.first(self.constant.expand(len(style), -1, -1, -1), style, part)
        img = self.to_img[0](x, style)
        for up, conv, to_img in zip(self.ups, self.convs, self.to_img[1:], strict=True):
            x = conv(up(x, style, part), style, part)
            img = upsample(img) + to_img(x, style)
        return torch.tanh(img)


def _conv(inputs: int, outputs: int, size: int, spectral: bool, down: bool = False, bias: bool = True) -> nn.Module:
    return maybe_spectral(EqualConv(inputs, outputs, size, down, bias, scaled=not spectral), spectral)


class ResidualBlock(nn.Module):
    """Two convolutions to half the size beside a 1 x 1 shortcut (figure 7c)."""

    def __init__(self, inputs: int, outputs: int, spectral: bool) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, inputs, 3, spectral)
        self.conv2 = _conv(inputs, outputs, 3, spectral, down=True)
        self.shortcut = _conv(inputs, outputs, 1, spectral, down=True, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW -> NCHW at half the size."""
        out: torch.Tensor = (lrelu(self.conv2(lrelu(self.conv1(x)))) + self.shortcut(x)) / math.sqrt(2)
        return out


class MinibatchStddev(Grouped):
    """One more channel: the mean standard deviation within a group of images (Karras et al. 2018, section 3)."""

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW -> N(C + 1)HW."""
        n, _, height, width = x.shape
        group = self.size(n)
        grouped = x.float().reshape(group, n // group, -1)
        spread = (grouped.var(dim=0, unbiased=False) + EPS).sqrt().mean(dim=1)
        spread = spread.to(x.dtype).repeat(group).view(n, 1, 1, 1)
        return torch.cat([x, spread.expand(n, 1, height, width)], dim=1)


class Scaled(nn.Module):
    """Leaky ReLU divided by the root of the number of features, so that a projection has variance 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, features) -> (N, features)."""
        return lrelu(x) / math.sqrt(x.shape[1])


class Activation(nn.Module):
    """`lrelu` as a module."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape."""
        return lrelu(x)


def discriminator(
    num_identities: int, img_channels: int, size_px: int, *, channels: int, max_channels: int,
    spectral_norm: bool, stddev_group: int,
) -> nn.Module:  # fmt: skip
    """Residual blocks, minibatch standard deviation, a dense layer and a projection of the person."""
    base_px, levels = grid(size_px)
    down = widths(channels, max_channels, levels)
    last, extra = down[-1], int(stddev_group > 1)
    layers = [_conv(img_channels, down[0], 1, spectral_norm), Activation()]
    layers += [ResidualBlock(i, o, spectral_norm) for i, o in pairwise(down)]
    if extra:
        layers.append(MinibatchStddev(stddev_group))
    dense = maybe_spectral(EqualLinear(last * base_px**2, last, scaled=not spectral_norm), spectral_norm)
    layers += [_conv(last + extra, last, 3, spectral_norm), Activation(), nn.Flatten(), dense, Scaled()]
    return ProjectionDiscriminator(nn.Sequential(*layers), last, num_identities, spectral_norm)
