"""A stranger's rim around a face that stays as it is: what a swap has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from facegan.generation.augmenters import AUGMENTERS, Changed
from facegan.generation.augmenters._inner_face import InnerFaceConfig

if TYPE_CHECKING:
    from facegan.generation.augmenters.methods.registered import RegisteredPhotos


@AUGMENTERS.register
class Rim(InnerFaceConfig):
    """Each photo with its inner face as it is, and a photo of another person, as it is, around it.

    The control of `swap`, under the same mask: nothing is carried over and no colour is matched.
    """

    words: ClassVar[str] = "their photos with the rim of other people's around the inner face"
    kind: Literal["rim"] = "rim"

    def join(self, faces: RegisteredPhotos, photo: int, lender: int) -> Changed:
        """See InnerFaceConfig."""
        import numpy as np

        from facegan.data.pixels import to_uint8

        mask = self.mask(faces.position(faces.place(photo)))
        face, around = (faces.photos.picture(row).astype(np.float32) for row in (photo, lender))
        return Changed(to_uint8(around + mask * (face - around)), lender, float(mask.mean()))
