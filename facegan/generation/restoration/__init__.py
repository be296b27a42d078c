"""Restoration of poor photos: its options; the network and its training are modules of their own."""

from __future__ import annotations

from pydantic import Field, model_validator

from facegan.data.degradation import Degradation
from facegan.generation.photo_networks import PhotoTraining


class Restoration(PhotoTraining):
    """A residual U-net that learns from pairs of a degraded and a clean photo of train people.

    The loss is l1 |x - y| + perceptual P(x, y) + identity (1 - cos) + adversarial G, for a restored photo x and the
    clean one y: P is the distance of the guide's features (facegan.generation.restoration.features), cos that of its
    embeddings, G the relativistic loss of the GANs. Terms as in GFPGAN (Wang et al. 2021, section 3.4), with the guide
    in the place of VGG and ArcFace.
    """

    degradation: Degradation = Field(default_factory=Degradation, description="how the poor half of a pair is made")
    l1: float = Field(1.0, ge=0, description="weight of the mean absolute difference of pixels in -1..1")
    perceptual: float = Field(0.5, ge=0, description="weight of the distance of the guide's features")
    identity: float = Field(0.2, ge=0, description="weight of 1 - cosine of the guide's embeddings")
    adversarial: float = Field(0.01, ge=0, description="weight of the adversarial term; 0: no discriminator")

    @model_validator(mode="after")
    def _learns(self) -> Restoration:
        if not (self.l1 or self.perceptual):
            raise ValueError("nothing ties a restored photo to the clean one: give l1 or perceptual a weight")
        return self

    @property
    def needs_guide(self) -> bool:
        """Whether a recognizer takes part in the loss."""
        return self.perceptual > 0 or self.identity > 0
