"""Style: a photo with the contrasts and colours of another person's."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.generation.augmenters import AUGMENTERS, AugmenterConfig, Changed

if TYPE_CHECKING:
    import numpy as np

    from facegan.generation.augmenters import Change
    from facegan.generation.train_photos import TrainPhotos


@AUGMENTERS.register
class Adain(AugmenterConfig):
    """Each photo with the mean and deviation, band by band and by channel, of a random photo of another person.

    Adaptive instance normalization (Huang and Belongie 2017) on Laplacian bands of the image: no network. Statistics
    carry the colour of the skin too.
    """

    words: ClassVar[str] = "their photos with the contrasts and colours of other people's"
    lends: ClassVar[bool] = True
    kind: Literal["adain"] = "adain"
    bands: int = Field(3, ge=0, le=6, description="an octave each, from 1 px at a side of 64; 0: the whole image alone")
    strength: float = Field(1.0, gt=0, le=1, description="1: the other photo's statistics, less: between both")

    def change(self, photos: TrainPhotos) -> Change:
        """See AugmenterConfig."""
        from facegan.data.pixels import to_uint8
        from facegan.generation.augmenters._lender import stranger

        def restyled(photo: int, rng: np.random.Generator) -> Changed:
            lender = stranger(photos, photo, rng)
            content, style = photos.picture(photo), photos.picture(lender)
            return Changed(to_uint8(restyle(content, style, self.bands, self.strength)), lender)

        return restyled


def restyle(content: np.ndarray, style: np.ndarray, bands: int, strength: float) -> np.ndarray:
    """A picture (H, W, C) uint8 with the statistics of each band of `style`, alike: (H, W, C) float32, not cut off."""
    import numpy as np

    from facegan.generation.augmenters._bands import adain, bands_of

    own, others = (bands_of(picture.astype(np.float32), bands) for picture in (content, style))
    styled = sum(adain(band, other) for band, other in zip(own, others, strict=True))
    return np.asarray((1 - strength) * content + strength * styled, np.float32)
