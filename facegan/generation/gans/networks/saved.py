"""Generators loaded from the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from facegan.core.errors import UserError
from facegan.generation.gans import GANS
from facegan.generation.gans.networks.base import Generator
from facegan.training.checkpoints import load_tensors


def load_generator(folder: Path, device: torch.device | str = "cpu") -> tuple[Generator, dict[str, Any]]:
    """G_ema of a finished train_gan folder, ready to draw from, and its `generator.json`.

    Raises UserError where there is none, or its tensors are not those of today's network of that family.
    """
    try:
        spec = json.loads((folder / "generator.json").read_bytes())
    except OSError as error:
        raise UserError(f"no generator in '{folder}'", fix="run train_gan first") from error
    config = GANS.get(spec["gan"]["kind"]).model_validate(spec["gan"])
    G = config.build_generator(len(spec["identities"]), spec["channels"], spec["size_px"])
    try:
        G.load_state_dict(load_tensors(folder / "generator.safetensors"))
    except RuntimeError as error:
        raise UserError(
            f"the generator in '{folder}' ({config.kind}) is of another version of facegan: its tensors do not fit",
            fix="delete that folder and run the recipe again, or use the version that made it",
        ) from error
    return G.to(device).eval().requires_grad_(False), spec
