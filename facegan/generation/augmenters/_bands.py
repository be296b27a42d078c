"""Laplacian bands of a picture, and the statistics of one picture laid on another, band by band."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from facegan.data.pixels import Floats, blurred
from facegan.generation.gans.networks.registration import REFERENCE_PX

FINEST_PX = 1.0  # standard deviation of the first blur at a side of REFERENCE_PX; each next one is twice as wide
LEAST_DEVIATION = 0.1  # grey levels: a band that varies less is taken for one that varies as much


def bands_of(picture: Floats, count: int) -> list[Floats]:
    """A picture (H, W, C) float32 as `count` bands, fine to coarse, and the blur that is left; they add up to it.

    Differences of Gaussian blurs an octave apart, at full size (Burt and Adelson 1983, IEEE Trans. Comm. 31(4),
    without the decimation).
    """
    lows = [picture]
    for octave in range(count):
        lows.append(blurred(picture, FINEST_PX * 2**octave * picture.shape[0] / REFERENCE_PX))
    return [*(fine - coarse for fine, coarse in pairwise(lows)), lows[-1]]


def statistics(band: Floats, weight: Floats | None = None) -> tuple[Floats, Floats]:
    """Mean and standard deviation (C,) float32 of each channel of a band (H, W, C), weighted by `weight` (H, W, 1)."""
    weight = np.ones_like(band[:, :, :1]) if weight is None else weight
    total = weight.sum(dtype=np.float64)
    mean = (weight * band).sum(axis=(0, 1), dtype=np.float64) / total
    variance = (weight * np.square(band - mean)).sum(axis=(0, 1), dtype=np.float64) / total
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


def adain(band: Floats, style: Floats, weight: Floats | None = None) -> Floats:
    """A band (H, W, C) with the mean and the standard deviation that `style` has: s (x - m) / d + n by channel.

    Source: Huang and Belongie 2017 (ICCV), equation 8, with bands of the picture in the place of a network's features.
    """
    return moved(band, *statistics(style, weight), weight)


def moved(picture: Floats, mean: Floats, deviation: Floats, weight: Floats | None = None) -> Floats:
    """A picture (H, W, C) with this mean and deviation (C,) of each channel, as `weight` (H, W, 1) counts: float32."""
    own_mean, own = statistics(picture, weight)
    return np.asarray(deviation / np.maximum(own, LEAST_DEVIATION) * (picture - own_mean) + mean, np.float32)
