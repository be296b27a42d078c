"""Photos as a poor camera would have them: the arm that a restoration has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from facegan.data.degradation import Degradation
from facegan.generation.augmenters import AUGMENTERS, AugmenterConfig, Changed

if TYPE_CHECKING:
    import numpy as np

    from facegan.generation.augmenters import Change
    from facegan.generation.train_photos import TrainPhotos


@AUGMENTERS.register
class Degrade(Degradation, AugmenterConfig):
    """Each photo blurred, scaled down, with noise and as JPEG, and often a second time, half as strongly.

    Ranges and sources in facegan.data.degradation.
    """

    words: ClassVar[str] = "their photos blurred, scaled down, with noise and as JPEG"
    kind: Literal["degrade"] = "degrade"

    def change(self, photos: TrainPhotos) -> Change:
        """See AugmenterConfig."""

        def degraded(photo: int, rng: np.random.Generator) -> Changed:
            return Changed(self.degraded(photos.picture(photo), rng))

        return degraded
