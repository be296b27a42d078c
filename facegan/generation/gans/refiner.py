"""Refiner: a U-net, trained adversarially, that makes a face of what a morphable model drafts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from facegan.generation.gans import GANS, AdversarialConfig, Augmentation
from facegan.generation.gans.morphable import Morphable
from facegan.generation.gans.part_based import PartBased

if TYPE_CHECKING:
    from torch import nn

    from facegan.generation.gans.networks.base import Generator


@GANS.register
class Refiner(AdversarialConfig):
    """A fixed draft of new people and a residual U-net that is trained against D, as in SimGAN (Shrivastava et al.
    2017): it begins as the draft and learns what photos have that drafts lack. D is not told who a face is. The
    generator holds the registered photos: treat its file as you treat them."""

    draws_z: ClassVar[bool] = False
    kind: Literal["refiner"] = "refiner"
    encodes: ClassVar[bool] = True
    conditional: ClassVar[bool] = False
    default_kimg: ClassVar[float] = 8.0  # minutes on two cores at 64 px
    diffaugment: tuple[Augmentation, ...] = Field(
        ("color", "translation"), description="differentiable augmentation of all that D sees; cutout would hide seams"
    )
    draft: PartBased | Morphable = Field(
        default_factory=PartBased, discriminator="kind", description="what is refined; solved from the photos"
    )
    channels: int = Field(16, ge=4, le=256, description="of the U-net at full size; three and six times as many below")
    transport: float = Field(2.0, ge=0, description="weight of the mean square of what is changed, that faces stay")

    @model_validator(mode="after")
    def _is_unconditional(self) -> Refiner:
        if self.ramp or self.identity or self.codes != "learned":
            raise ValueError(
                "ramp, identity and codes say how train people enter G and D, but a refiner learns from new people, "
                "whom D and the guide do not know, and whose codes are weights of people: leave these options out"
            )
        return self

    @property
    def assumption(self) -> str:
        """See GanConfig: that of the draft."""
        return self.draft.assumption

    def build_generator(self, num_identities: int, img_channels: int, size_px: int) -> Generator:
        """See GanConfig."""
        from facegan.generation.gans.networks.refiner import RefinerGenerator

        return RefinerGenerator(
            self.draft.build_generator(num_identities, img_channels, size_px), img_channels, channels=self.channels,
            transport=self.transport,
        )  # fmt: skip

    def build_discriminator(self, num_identities: int, img_channels: int, size_px: int) -> nn.Module:
        """See AdversarialConfig."""
        from facegan.generation.gans.networks.refiner import PatchDiscriminator

        return PatchDiscriminator(img_channels, channels=2 * self.channels, spectral_norm=self.spectral_norm)
