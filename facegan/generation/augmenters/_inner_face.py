"""What `swap` and `rim` share: where the inner face of a registered photo is, and a second photo laid on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from facegan.core.errors import UserError
from facegan.generation.augmenters import AugmenterConfig, Changed

if TYPE_CHECKING:
    import numpy as np

    from facegan.generation.augmenters import Change
    from facegan.generation.augmenters.methods.registered import RegisteredPhotos
    from facegan.generation.train_photos import TrainPhotos


class InnerFaceConfig(AugmenterConfig):
    """An augmenter that joins one person's inner face, an ellipse in the frame of the registration, and another's rim.

    The label is that of the inner face. Sizes are shares of the side.
    """

    lends: ClassVar[bool] = True
    composite: ClassVar[bool] = True
    center: float = Field(0.59, gt=0, lt=1, description="height of the inner face's middle, from the upper edge")
    width: float = Field(0.66, gt=0, le=1, description="of the inner face, to the middle of the seam")
    height: float = Field(0.76, gt=0, le=1, description="of the inner face, to the middle of the seam")
    candidates: int = Field(8, ge=1, description="random photos of other people, the nearest in shape of which lends")
    seam: float = Field(0.35, gt=0, le=1, description="width of the seam, as a share of the radius")

    def change(self, photos: TrainPhotos) -> Change:
        """See AugmenterConfig; photos whose face is not found where the others have theirs give nothing."""
        import numpy as np

        from facegan.generation.augmenters._lender import stranger
        from facegan.generation.augmenters.methods.registered import RegisteredPhotos

        faces = RegisteredPhotos(photos, self.seed)
        people = np.unique(photos.person[faces.usable])
        if len(people) < 2:
            raise UserError(
                f"{self.kind} lays faces on each other, but of {len(photos.person)} train photos only "
                f"{int(faces.usable.sum())}, of {len(people)} people, have a face where the others have theirs",
                fix="align the photos (prepare.align), give more of them, or take `degrade`, which needs no face",
            )

        def joined(photo: int, rng: np.random.Generator) -> Changed | None:
            if not faces.usable[photo]:
                return None
            drawn = [stranger(photos, photo, rng, faces.usable) for _ in range(self.candidates)]
            return self.join(faces, photo, faces.nearest(photo, drawn))

        return joined

    def join(self, faces: RegisteredPhotos, photo: int, lender: int) -> Changed:
        """The inner face of `photo` and the rim of `lender`."""
        raise TypeError(f"{type(self).__name__} must define join()")

    def mask(self, place: np.ndarray) -> np.ndarray:
        """1 in the inner face, 0 outside, and rising smoothly in the seam: (H, W, 1) float32.

        `place` (H, W, 2) is where each pixel lies in the common frame, (x, y) from -1 to 1.
        """
        import numpy as np

        x, y = place[..., 0] / self.width, (place[..., 1] - (2 * self.center - 1)) / self.height
        inside = np.clip((1 - np.hypot(x, y)) / self.seam + 0.5, 0, 1)
        return np.asarray(inside * inside * (3 - 2 * inside), np.float32)[..., None]
