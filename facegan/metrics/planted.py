"""Photos changed as a leak may have been, to see which changes the leakage gate sees through."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter

from facegan.metrics.leakage import SIDE_PX

Pixels = np.ndarray
MOST = 100  # photos that are changed, evenly chosen

TURN_DEG, SCALE, SHIFT_PX, CROP, GAIN = (2.0, 10.0), 0.15, 6.0, 0.15, 0.25  # pixels of 64, in proportion elsewhere
GAMMA, BLUR_PX, QUALITY = (0.7, 1.4), 1.5, (95, 40)


def chosen(count: int) -> np.ndarray:
    """At most MOST of `count` rows, evenly chosen: (n,) int64."""
    return np.unique(np.linspace(0, count - 1, min(MOST, count)).round().astype(np.int64))


def _moved(pixels: Pixels, turn_deg: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> Pixels:
    """Turned, made `scale` times as large and moved by `shift` (N, 2) of half the side; the edge's pixels go on."""
    img = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float()
    angle = np.radians(turn_deg)
    linear = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1).reshape(-1, 2, 2)
    maps = np.concatenate([linear / scale[:, None, None], -shift[:, :, None]], 2)
    at = F.affine_grid(torch.from_numpy(maps).float(), list(img.shape), align_corners=False)
    moved = F.grid_sample(img, at, mode="bicubic", padding_mode="border", align_corners=False)
    return moved.round().clamp(0, 255).byte().numpy().transpose(0, 2, 3, 1)


def _amounts(count: int, low: float, high: float) -> np.ndarray:
    """From low to high in even steps, so that every strength is there: (count,)."""
    return np.linspace(low, high, count)


def _signs(count: int) -> np.ndarray:
    return np.where(np.arange(count) % 2, -1.0, 1.0)


def _turned(pixels: Pixels) -> Pixels:
    n = len(pixels)
    return _moved(pixels, _amounts(n, *TURN_DEG) * _signs(n), np.ones(n), np.zeros((n, 2)))


def _scaled(pixels: Pixels) -> Pixels:
    n = len(pixels)
    return _moved(pixels, np.zeros(n), 1 + _amounts(n, 0.02, SCALE) * _signs(n), np.zeros((n, 2)))


def _shifted(pixels: Pixels) -> Pixels:
    n = len(pixels)
    direction = np.arange(n) * 2.4  # radians: a golden angle, so that all directions come
    length = _amounts(n, 1, SHIFT_PX) * 2 / SIDE_PX
    return _moved(
        pixels, np.zeros(n), np.ones(n), length[:, None] * np.stack([np.cos(direction), np.sin(direction)], 1)
    )


def _cropped(pixels: Pixels) -> Pixels:
    """A part of the photo, of a corner or the middle, brought back to its size."""
    n = len(pixels)
    share = _amounts(n, 0.03, CROP)
    corner = np.asarray([(0, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)], np.float64)[np.arange(n) % 5]
    return _moved(pixels, np.zeros(n), 1 / (1 - share), corner * share[:, None])


def _toned(pixels: Pixels, change: Callable[[np.ndarray, np.ndarray], np.ndarray], amounts: np.ndarray) -> Pixels:
    unit = pixels.astype(np.float32) / 255
    return np.asarray((change(unit, amounts[:, None, None, None]) * 255).round().clip(0, 255), np.uint8)


def _gain(pixels: Pixels) -> Pixels:
    n = len(pixels)
    return _toned(pixels, lambda unit, gain: unit * gain, 1 + _amounts(n, 0.05, GAIN) * _signs(n))


def _gamma(pixels: Pixels) -> Pixels:
    return _toned(pixels, lambda unit, gamma: unit**gamma, np.geomspace(*GAMMA, len(pixels)))


def _blurred(pixels: Pixels) -> Pixels:
    sigmas = _amounts(len(pixels), 0.3, BLUR_PX) * pixels.shape[1] / SIDE_PX
    blurred = [gaussian_filter(img.astype(np.float32), (s, s, 0)) for img, s in zip(pixels, sigmas, strict=True)]
    return np.stack(blurred).round().clip(0, 255).astype(np.uint8)


def _jpeg(pixels: Pixels) -> Pixels:
    def saved(image: np.ndarray, quality: int) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(image.squeeze()).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer)).reshape(image.shape)

    qualities = _amounts(len(pixels), *QUALITY).round().astype(int)
    return np.stack([saved(img, int(quality)) for img, quality in zip(pixels, qualities, strict=True)])


KINDS: dict[str, Callable[[Pixels], Pixels]] = {
    "unchanged": lambda pixels: pixels,
    "mirrored": lambda pixels: np.ascontiguousarray(pixels[:, :, ::-1]),
    "turned 2 to 10 degrees": _turned,
    "scaled to 15 %": _scaled,
    "shifted to 6 px": _shifted,
    "cropped to 15 %": _cropped,
    "gain to 25 %": _gain,
    "gamma 0.7 to 1.4": _gamma,
    "blurred to 1.5 px": _blurred,
    "JPEG from quality 40": _jpeg,
}
"""What a leaked photo may have gone through: (N, H, W, C) uint8 -> the same, each strength of the kind in turn."""

REDRAWN = "redrawn by the generator"  # planted by whoever has the generator
