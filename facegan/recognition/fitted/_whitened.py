"""The options that fitted recognizers have whose features pass through PCA and within-class whitening."""

from __future__ import annotations

from pydantic import Field, field_validator

from facegan.core.options import unhashed_default
from facegan.recognition.fitted import FittedConfig
from facegan.recognition.views import Augment, Views


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

    views: tuple[Views, ...] = unhashed_default(
        (0,),
        min_length=1,
        description="how many augmented images of each it is fitted on beside it; of several numbers val people choose",
    )
    augment: Augment = unhashed_default(Augment(), description="of these")

    @field_validator("components", "shrinkage")
    @classmethod
    def _positive(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if min(values) <= 0:
            raise ValueError(f"all must be above 0, got {list(values)}")
        return values
