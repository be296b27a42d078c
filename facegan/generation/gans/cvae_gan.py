"""CVAE-GAN: a decoder of identity code and variation code, the default where images are few."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.generation.gans import GANS, AdversarialConfig, Augmentation, Loss

if TYPE_CHECKING:
    from torch import nn

    from facegan.generation.gans.networks.base import Generator


@GANS.register
class CvaeGan(AdversarialConfig):
    """Bao et al. 2017 in a small form: an encoder infers the variation code of a real image; G rebuilds the
    image from it and the person's code, and must fool D when the variation comes from another person."""

    draws_z: ClassVar[bool] = False
    kind: Literal["cvae_gan"] = "cvae_gan"
    encodes: ClassVar[bool] = True
    channels: int = Field(32, ge=8, le=512, multiple_of=8, description="at half the side; doubles below")
    max_channels: int = Field(128, ge=8, le=1024, multiple_of=8, description="most channels of any layer")
    code_dim: int = Field(64, ge=4, le=1024, description="identity code")
    z_dim: int = Field(96, ge=2, le=1024, description="variation code")
    loss: Loss = Field("hinge", description="wasserstein brings its gradient penalty with it")
    r1_gamma: float = Field(0.0, ge=0, description="weight of the penalty on D's slope at photos; 0 leaves it out")
    r2_gamma: float = Field(0.0, ge=0, description="weight of the same penalty at fakes; 0 leaves it out")
    spectral_norm: bool = Field(True, description="bound D's layers by their spectral norm")
    beta1: float = Field(0.5, ge=0, lt=1, description="Adam's, of G and D")
    lr_d: float = Field(2e-3, gt=0, description="learning rate of D")
    ema_kimg: float = Field(0.5, ge=0, description="half-life of the averaged generator; 0: no average")
    diffaugment: tuple[Augmentation, ...] = Field(
        ("color", "translation"), description="differentiable augmentation of all that D sees"
    )
    reconstruction: float = Field(2.0, gt=0, description="weight of L1 at full and at quarter scale")
    kl: float = Field(0.002, ge=0, description="weight of the variation code's divergence from N(0, 1)")
    adversarial: float = Field(0.2, ge=0, description="weight of the adversarial term in G")

    def build_generator(self, num_identities: int, img_channels: int, size_px: int) -> Generator:
        """See GanConfig."""
        from facegan.generation.gans.networks.cvae_gan import CvaeGenerator

        return CvaeGenerator(
            num_identities, img_channels, size_px, channels=self.channels, max_channels=self.max_channels,
            code_dim=self.code_dim, z_dim=self.z_dim, reconstruction=self.reconstruction, kl=self.kl,
            guide_codes=self.codes == "guide",
        )  # fmt: skip

    def build_discriminator(self, num_identities: int, img_channels: int, size_px: int) -> nn.Module:
        """See GanConfig."""
        from facegan.generation.gans.networks.cvae_gan import discriminator

        return discriminator(
            num_identities, img_channels, size_px, channels=self.channels, max_channels=self.max_channels,
            spectral_norm=self.spectral_norm,
        )  # fmt: skip
