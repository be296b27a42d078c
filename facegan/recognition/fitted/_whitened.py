"""The options that fitted recognizers have whose features pass through PCA and within-class whitening."""

from __future__ import annotations

from pydantic import Field, field_validator

from facegan.core.options import unhashed_default
from facegan.recognition.augment_options import Augment
from facegan.recognition.fitted import FittedConfig


class Whitened(FittedConfig):
    """Features under `methods.linear_maps`; val people choose the number of components and the shrinkage of each."""

    components: tuple[int, ...] = Field(
        (50, 100, 300), min_length=1, description="of the PCA, of which val people choose; at most what the rows allow"
    )
    shrinkage: tuple[float, ...] = Field(
        (0.1, 0.3, 1.0),
        min_length=1,
        description="of the within-class covariance towards a multiple of one, of which val people choose",
    )
    max_images: int = Field(
        8000, ge=2, description="fitted on at most so many, of whole people: 1 GB of memory; the rest is left out"
    )

    augmented_to: int = unhashed_default(
        0,
        ge=0,
        description="augmented images of each (augment) beside it, to so many images in all; val people choose none, a "
        "quarter or all of them",
    )
    augment: Augment = unhashed_default(Augment(), description="how these are augmented")

    @field_validator("components", "shrinkage")
    @classmethod
    def _positive(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if min(values) <= 0:
            raise ValueError(f"all must be above 0, got {list(values)}")
        return values
