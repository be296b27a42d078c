"""Pixels, gradients and local binary patterns under a linear map: what was usual before networks were trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from facegan.core.types import Embed
from facegan.recognition.fitted import FITTED, Fit
from facegan.recognition.fitted._whitened import Whitened

if TYPE_CHECKING:
    import numpy as np

    from facegan.data.dataset import ManifestImages
    from facegan.runtime.context import Context

Feature = Literal["pixels", "hog", "lbp"]


@FITTED.register
class Classical(Whitened):
    """Pixels, HOG and LBP, each under PCA and within-class whitening (WCCN), with the mirror image.

    Sees grey images of 64 px: colour is turned to grey, other sides are resized. For each feature val people choose
    the number of components and the shrinkage. Sources: HOG, Dalal and Triggs 2005; LBP, Ahonen et al. 2006; WCCN,
    Hatch et al. 2006.
    """

    words: ClassVar[str] = "which is no network"
    kind: Literal["classical"] = "classical"
    features: tuple[Feature, ...] = Field(("pixels", "hog", "lbp"), min_length=1, description="what is measured")

    @field_validator("features")
    @classmethod
    def _differ(cls, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        if len(set(features)) != len(features):
            raise ValueError(f"a feature stands twice: {list(features)}")
        return features

    def fit(self, train: ManifestImages, val: ManifestImages, context: Context) -> Fit:
        """See FittedConfig; raises UserError where all images are the same."""
        from facegan.recognition.augment import Augmenter
        from facegan.recognition.fitted.methods.features import measure
        from facegan.recognition.fitted.methods.linear_maps import Choices, fit

        choices = Choices(self.features, self.components, self.shrinkage, self.max_images, self.augmented_to)
        return fit(choices, measure, train, val, context, Augmenter(self.augment))

    def embedder(self, arrays: dict[str, np.ndarray]) -> Embed:
        """See FittedConfig."""
        from facegan.recognition.fitted.methods.features import measure
        from facegan.recognition.fitted.methods.linear_maps import embedder

        return embedder(measure, self.features, arrays)
