"""How images are augmented for a recognizer."""

from __future__ import annotations

from pydantic import Field

from facegan.core.options import Options


class Augment(Options):
    """The classical augmentation (albumentations) that every arm gets alike."""

    flip: float = Field(0.5, ge=0, le=1, description="probability of the mirror image")
    shift: float = Field(0.06, ge=0, le=0.5, description="moved by at most this share of the side")
    scale: float = Field(0.1, ge=0, le=0.5, description="larger or smaller by at most this share")
    rotate_deg: float = Field(10, ge=0, le=90, description="turned by at most so many degrees")
    brightness: float = Field(0.25, ge=0, le=1, description="largest change of it, as a share")
    contrast: float = Field(0.25, ge=0, le=1, description="largest change of it, as a share")
    gamma: float = Field(0.2, ge=0, le=0.9, description="largest distance of the exponent from 1")
    blur: float = Field(0.1, ge=0, le=1, description="probability of a slight blur")
    erase: float = Field(0.3, ge=0, le=1, description="probability of one random rectangle")
