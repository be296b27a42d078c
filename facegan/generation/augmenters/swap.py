"""Another head around the same face."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.generation.augmenters import AUGMENTERS, Changed
from facegan.generation.augmenters._inner_face import InnerFaceConfig

if TYPE_CHECKING:
    from facegan.generation.augmenters.methods.registered import RegisteredPhotos


@AUGMENTERS.register
class Swap(InnerFaceConfig):
    """The inner face of each photo, carried by the registration of `morphable` into a photo of another person.

    The label is that of the inner face; hair, rim, pose and light are the other's. Colours and contrasts are matched
    inside the face, Laplacian band by band.
    """

    words: ClassVar[str] = "their inner faces in photos of other people"
    kind: Literal["swap"] = "swap"
    bands: int = Field(4, ge=0, le=6, description="matched in colour, an octave each, from 1 px at a side of 64")

    def join(self, faces: RegisteredPhotos, photo: int, lender: int) -> Changed:
        """See InnerFaceConfig."""
        import numpy as np

        from facegan.data.pixels import to_uint8
        from facegan.generation.augmenters._bands import adain, bands_of

        place = faces.place(lender)
        mask, frame = self.mask(faces.position(place)), faces.photos.picture(lender).astype(np.float32)
        own, around = (bands_of(picture, self.bands) for picture in (faces.carried(photo, place), frame))
        face = sum(adain(band, other, mask) for band, other in zip(own, around, strict=True))
        return Changed(to_uint8(frame + mask * (face - frame)), lender, float(mask.mean()))
