"""Photos with the light and contrast of another domain: the arm that a translation has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.generation.augmenters import AUGMENTERS, AugmenterConfig, Changed
from facegan.generation.translation import TwoDomains

if TYPE_CHECKING:
    import numpy as np

    from facegan.generation.augmenters import Change
    from facegan.generation.train_photos import TrainPhotos


@AUGMENTERS.register
class Moments(TwoDomains, AugmenterConfig):
    """Each photo of a domain with the mean and the deviation, by channel, that photos of the other have.

    Reinhard et al. 2001 (Color transfer between images), in the stored channels and towards the mean of a domain.
    """

    words: ClassVar[str] = "their photos with the mean and the deviation that photos of another domain have"
    left_out: ClassVar[str] = "of neither domain"
    kind: Literal["moments"] = "moments"
    per_photo: int = Field(1, ge=1, le=1, description="one: nothing is drawn")
    least_photos: int = Field(2, ge=2, description="a domain of fewer photos is refused")

    def change(self, photos: TrainPhotos) -> Change:
        """See AugmenterConfig; raises UserError as facegan.generation.translation.domains.split."""
        from facegan.data.pixels import to_uint8
        from facegan.generation.augmenters._bands import moved
        from facegan.generation.translation.domains import split

        domains = split(self, photos)
        wanted = [moments_of(photos, domains.rows(domain)) for domain in (0, 1)]

        def towards_the_other(photo: int, rng: np.random.Generator) -> Changed | None:
            if domains.of[photo] < 0:
                return None
            mean, deviation = wanted[1 - int(domains.of[photo])]
            return Changed(to_uint8(moved(photos.picture(photo), mean, deviation)))

        return towards_the_other


def moments_of(photos: TrainPhotos, rows: np.ndarray) -> np.ndarray:
    """Mean and deviation of the channels within a photo, means over these photos: (2, C) float32."""
    import numpy as np

    from facegan.generation.augmenters._bands import statistics

    return np.mean([statistics(photos.picture(row)) for row in rows], axis=0)
