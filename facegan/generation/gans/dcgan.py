"""DCGAN: the classic of transposed convolutions, made conditional on the person."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.generation.gans import GANS, AdversarialConfig

if TYPE_CHECKING:
    from torch import nn

    from facegan.generation.gans.networks.base import Generator


@GANS.register
class Dcgan(AdversarialConfig):
    """Radford et al. 2016 with their networks and initialisation, and today's objective; the person enters G as a
    learned code beside z, and D as a projection. D has their batch norm with their loss, nonsaturating, and with hinge;
    not where the loss is of pairs (relativistic, wasserstein), and not under spectral_norm, which takes its place."""

    kind: Literal["dcgan"] = "dcgan"
    default_kimg: ClassVar[float] = 300.0  # two hours of one slow core at 64 px grey, 36 images/s; one in bfloat16
    mode_seeking: float = Field(
        0.01, ge=0, description="weight of a term by which two variation codes of one person give two images; 0: none"
    )
    lr_g: float = Field(5e-4, gt=0, description="learning rate of G")
    lr_d: float = Field(5e-4, gt=0, description="learning rate of D")
    channels: int = Field(32, ge=8, le=512, description="at half resolution; doubles below (the paper has 64)")
    max_channels: int = Field(512, ge=8, le=2048, description="most channels of any layer")
    code_dim: int = Field(64, ge=4, le=1024, description="identity code")
    z_dim: int = Field(100, ge=2, le=1024, description="variation code")

    def build_generator(self, num_identities: int, img_channels: int, size_px: int) -> Generator:
        """See GanConfig. Raises ConfigError for a size that is not 4, 5, 6 or 7 times a power of two."""
        from facegan.generation.gans.networks.dcgan import DcganGenerator

        return DcganGenerator(
            num_identities, img_channels, size_px, channels=self.channels, max_channels=self.max_channels,
            code_dim=self.code_dim, z_dim=self.z_dim,
        )  # fmt: skip

    def build_discriminator(self, num_identities: int, img_channels: int, size_px: int) -> nn.Module:
        """See GanConfig. Raises ConfigError for a size that is not 4, 5, 6 or 7 times a power of two."""
        from facegan.generation.gans.networks.dcgan import discriminator

        return discriminator(
            num_identities, img_channels, size_px, channels=self.channels, max_channels=self.max_channels,
            spectral_norm=self.spectral_norm, batch_norm=not (self.pairs or self.spectral_norm),
        )  # fmt: skip
