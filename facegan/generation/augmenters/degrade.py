"""Photos as a poor camera would have them: the arm that a restoration has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from facegan.generation.augmenters import AUGMENTERS, AugmenterConfig, Changed

if TYPE_CHECKING:
    import numpy as np

    from facegan.generation.augmenters import Change
    from facegan.generation.train_photos import TrainPhotos

Range = tuple[float, float]
SECOND = 0.5  # of the first round's blur, down-scaling and noise, in the second (Real-ESRGAN: 1/2, 1/2, 5/6)


@AUGMENTERS.register
class Degrade(AugmenterConfig):
    """Each photo blurred, scaled down, with noise and as JPEG, and often a second time, half as strongly.

    Order, rounds and qualities are those of Real-ESRGAN (Wang et al. 2021, options/train_realesrgan_x4plus.yml), blur
    (up to 10 px at 512, here with the side) and noise those of GFPGAN (Wang et al. 2021), which scales down to an
    eighth of its 512 px: here to a quarter. All are drawn evenly.
    """

    words: ClassVar[str] = "their photos blurred, scaled down, with noise and as JPEG"
    kind: Literal["degrade"] = "degrade"
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
        from facegan.generation.gans.networks.registration import REFERENCE_PX

        rounds = []
        for strength in (1.0, SECOND)[: 1 + (rng.random() < self.second)]:
            blur, shrink, noise, quality = (
                rng.uniform(*ends) for ends in (self.blur_px, self.shrink, self.noise, self.quality)
            )
            small = max(1, round(side / (1 + strength * (shrink - 1))))
            rounds.append(Round(strength * blur * side / REFERENCE_PX, small, strength * noise, round(quality)))
        return rounds

    def change(self, photos: TrainPhotos) -> Change:
        """See AugmenterConfig."""

        def degraded(photo: int, rng: np.random.Generator) -> Changed:
            pixels = photos.picture(photo)
            for part in self.rounds(len(pixels), rng):
                pixels = part.applied(pixels, rng)
            return Changed(pixels)

        return degraded


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

        import cv2
        import numpy as np
        from PIL import Image

        from facegan.data.images import decode_pixels
        from facegan.generation.augmenters._bands import blurred
        from facegan.generation.train_photos import to_uint8

        side, channels = pixels.shape[1:]
        soft = pixels.astype(np.float32)
        if self.blur_px > 0:
            soft = blurred(soft, self.blur_px)
        small = cv2.resize(soft, (self.small_px, self.small_px), interpolation=cv2.INTER_AREA)
        small = small.reshape(self.small_px, self.small_px, channels)
        noisy = to_uint8(small + rng.normal(0, self.noise, small.shape))
        jpeg = io.BytesIO()
        Image.fromarray(noisy[:, :, 0] if channels == 1 else noisy).save(jpeg, "JPEG", quality=self.quality)
        decoded = decode_pixels(jpeg.getvalue())
        large = cv2.resize(decoded, (side, side), interpolation=cv2.INTER_LINEAR)
        return np.asarray(large).reshape(pixels.shape)
