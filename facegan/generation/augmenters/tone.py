"""Photos as brighter or darker light and another camera would have them: the arm that a style has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.generation.augmenters import AUGMENTERS, AugmenterConfig, Changed

if TYPE_CHECKING:
    import numpy as np

    from facegan.generation.augmenters import Change
    from facegan.generation.train_photos import TrainPhotos


@AUGMENTERS.register
class Tone(AugmenterConfig):
    """Each photo with other brightness, contrast and gamma: one curve of the grey values, alike in all channels.

    As the training's augmentation changes them, at a strong setting; all are drawn evenly.
    """

    words: ClassVar[str] = "their photos in other brightness, contrast and gamma"
    kind: Literal["tone"] = "tone"
    brightness: float = Field(0.4, ge=0, le=1, description="largest change of it, as a share of the range")
    contrast: float = Field(0.4, ge=0, le=1, description="largest change of it, as a share")
    gamma: float = Field(0.4, ge=0, le=0.9, description="largest distance of the exponent from 1")

    def change(self, photos: TrainPhotos) -> Change:
        """See AugmenterConfig."""

        def toned(photo: int, rng: np.random.Generator) -> Changed:
            return Changed(self.curve(rng)[photos.picture(photo)])

        return toned

    def curve(self, rng: np.random.Generator) -> np.ndarray:
        """What becomes of each grey value: (256,) uint8, c 255 (v / 255)^g + 255 b."""
        import numpy as np

        from facegan.data.pixels import to_uint8

        brightness, contrast, gamma = (rng.uniform(-x, x) for x in (self.brightness, self.contrast, self.gamma))
        return to_uint8(255 * ((1 + contrast) * (np.arange(256) / 255) ** (1 + gamma) + brightness))
