"""Generators from the store, and images to and from what networks work on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facegan.checkpoint import load_tensors
from facegan.errors import UserError
from facegan.gans import GANS
from facegan.gans.networks.base import Generator


def to_tensor(pixels: np.ndarray, mirrored: np.ndarray | None = None) -> torch.Tensor:
    """NHWC uint8 -> NCHW float32 in -1..1; images whose `mirrored` (N,) bool is set are flipped left to right."""
    img = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    if mirrored is not None:
        img = torch.where(torch.from_numpy(mirrored)[:, None, None, None], img.flip(3), img)
    return img.contiguous()


def to_pixels(img: torch.Tensor) -> np.ndarray:
    """NCHW float in -1..1 -> NHWC uint8."""
    scaled = img.detach().float().add(1).mul(127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def load_generator(folder: Path, device: torch.device | str = "cpu") -> tuple[Generator, dict[str, Any]]:
    """G_ema of a finished train_gan folder, ready to draw from, and its `generator.json`."""
    try:
        spec = json.loads((folder / "generator.json").read_bytes())
    except OSError as error:
        raise UserError(f"no generator in '{folder}'", fix="run train_gan first") from error
    config = GANS.get(spec["gan"]["kind"]).model_validate(spec["gan"])
    G = config.build_generator(len(spec["identities"]), spec["channels"], spec["size_px"])
    G.load_state_dict(load_tensors(folder / "generator.safetensors"))
    return G.to(device).eval().requires_grad_(False), spec
