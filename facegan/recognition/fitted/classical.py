"""Pixels, gradients and local binary patterns under a linear map: what was usual before networks were trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from facegan.core.types import Embed
from facegan.recognition.fitted import FITTED, Fit, FittedConfig

if TYPE_CHECKING:
    import numpy as np

    from facegan.data.dataset import ManifestImages
    from facegan.runtime.context import Context

Feature = Literal["pixels", "hog", "lbp"]


@FITTED.register
class Classical(FittedConfig):
    """Pixels, HOG and LBP, each under PCA and within-class whitening (WCCN), with the mirror image.

    Sees grey images of 64 px: colour is turned to grey, other sides are resized. For each feature val people choose
    the number of components and the shrinkage. Sources: HOG, Dalal and Triggs 2005; LBP, Ahonen et al. 2006; WCCN,
    Hatch et al. 2006.
    """

    words: ClassVar[str] = "which is no network"
    kind: Literal["classical"] = "classical"
    features: tuple[Feature, ...] = Field(("pixels", "hog", "lbp"), min_length=1, description="what is measured")
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

    @field_validator("components", "shrinkage")
    @classmethod
    def _positive(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if min(values) <= 0:
            raise ValueError(f"all must be above 0, got {list(values)}")
        return values

    @field_validator("features")
    @classmethod
    def _differ(cls, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        if len(set(features)) != len(features):
            raise ValueError(f"a feature stands twice: {list(features)}")
        return features

    def fit(self, train: ManifestImages, val: ManifestImages, context: Context) -> Fit:
        """See FittedConfig; raises UserError where all images are the same."""
        from facegan.recognition.fitted.methods.features import measure
        from facegan.recognition.fitted.methods.linear_maps import Choices, fit

        choices = Choices(self.features, self.components, self.shrinkage, self.max_images)
        return fit(choices, measure, train, val, context)

    def embedder(self, arrays: dict[str, np.ndarray]) -> Embed:
        """See FittedConfig."""
        from facegan.recognition.fitted.methods.features import measure
        from facegan.recognition.fitted.methods.linear_maps import embedder

        return embedder(measure, self.features, arrays)
