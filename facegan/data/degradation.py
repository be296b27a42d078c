"""Photos as a poor camera would have them: blurred, scaled down, with noise and as JPEG, once or twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from facegan.core.options import Options

if TYPE_CHECKING:
    import numpy as np

Range = tuple[float, float]
REFERENCE_PX = 64  # the side at which blurs are given
SECOND = 0.5  # of the first round's blur, down-scaling and noise, in the second (Real-ESRGAN: 1/2, 1/2, 5/6)


class Degradation(Options):
    """Blur, down-scaling, noise and JPEG, and often all of them a second time, half as strongly.

    Order, rounds and qualities are those of Real-ESRGAN (Wang et al. 2021, options/train_realesrgan_x4plus.yml), blur
    (up to 10 px at 512, here with the side) and noise those of GFPGAN (Wang et al. 2021), which scales down to an
    eighth of its 512 px: here to a quarter. All are drawn evenly.
    """

    blur_px: Range = Field((0.1, 1.25), description="least and largest deviation of the blur, in px at a side of 64")
    shrink: Range = Field((1, 4), description="least and largest factor by which the side is made smaller")
    noise: Range = Field((0, 20), description="least and largest deviation of the noise, in grey levels")
    quality: Range = Field((30, 95), description="least and best quality of the JPEG")
    second: float = Field(0.8, ge=0, le=1, description="share of the images that get the second round")

    @field_validator("blur_px", "shrink", "noise", "quality")
    @classmethod
    def _rises(cls, ends: Range) -> Range:
        if ends[0] > ends[1]:
            raise ValueError(f"wanted the smaller end first, got {list(ends)}")
        return ends

    @field_validator("blur_px", "noise")
    @classmethod
    def _not_negative(cls, ends: Range) -> Range:
        if ends[0] < 0:
            raise ValueError(f"a deviation is not negative, got {list(ends)}")
        return ends

    @field_validator("shrink")
    @classmethod
    def _smaller(cls, ends: Range) -> Range:
        if ends[0] < 1:
            raise ValueError(f"a factor below 1 would make the image larger, got {list(ends)}")
        return ends

    @field_validator("quality")
    @classmethod
    def _of_jpeg(cls, ends: Range) -> Range:
        if not 1 <= ends[0] <= ends[1] <= 100:
            raise ValueError(f"JPEG has qualities from 1 to 100, got {list(ends)}")
        return ends

    def rounds(self, side: int, rng: np.random.Generator) -> list[Round]:
        """The rounds of one image of `side` px: one, or two."""
        rounds = []
        for strength in (1.0, SECOND)[: 1 + (rng.random() < self.second)]:
            blur, shrink, noise, quality = (
                rng.uniform(*ends) for ends in (self.blur_px, self.shrink, self.noise, self.quality)
            )
            small = max(1, round(side / (1 + strength * (shrink - 1))))
            rounds.append(Round(strength * blur * side / REFERENCE_PX, small, strength * noise, round(quality)))
        return rounds

    def degraded(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A square picture (side, side, C) uint8, degraded as `rng` says: of the same shape."""
        for part in self.rounds(len(pixels), rng):
            pixels = part.applied(pixels, rng)
        return pixels


@dataclass(frozen=True)
class Round:
    """One round: the blur's deviation in px, the side in px that it is scaled down to, the noise's deviation in grey
    levels, and the JPEG's quality."""

    blur_px: float
    small_px: int
    noise: float
    quality: int

    def applied(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A square picture (side, side, C) uint8 after the round, at its old side."""
        import io

        import numpy as np
        from PIL import Image

        from facegan.data.images import decode_pixels
        from facegan.data.pixels import blurred, resized, to_uint8

        side, channels = pixels.shape[1:]
        soft = pixels.astype(np.float32)
        if self.blur_px > 0:
            soft = blurred(soft, self.blur_px)
        small = resized(soft, self.small_px)
        noisy = to_uint8(small + rng.normal(0, self.noise, small.shape))
        jpeg = io.BytesIO()
        Image.fromarray(noisy[:, :, 0] if channels == 1 else noisy).save(jpeg, "JPEG", quality=self.quality)
        decoded = decode_pixels(jpeg.getvalue())
        return resized(decoded, side)
