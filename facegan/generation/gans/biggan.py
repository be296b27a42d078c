"""BigGAN: residual blocks that the person and a part of z of their own steer, for truncation to trade variety away."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.generation.gans import GANS, AdversarialConfig, Ramp

if TYPE_CHECKING:
    from torch import nn

    from facegan.generation.gans.networks.base import Generator


@GANS.register
class Biggan(AdversarialConfig):
    """Brock et al. 2019 in a small form: residual blocks whose batch norms take the person's code, shared by all, and
    a part of z; filters kept apart; D with a projection of the person that is ramped in. Without self-attention. Made
    for `synthesize.truncate_z` and `truncate_identity`. Its default length was not tried: look at its sample grids."""

    kind: Literal["biggan"] = "biggan"
    default_kimg: ClassVar[float] = 120.0
    lr_g: float = Field(5e-4, gt=0, description="learning rate of G")
    lr_d: float = Field(5e-4, gt=0, description="learning rate of D")
    ramp: Ramp | None = Field(
        Ramp(start_kimg=5, end_kimg=20),
        description="from no condition on the person to the whole one; null: the whole one from the beginning",
    )
    channels: int = Field(16, ge=8, le=512, description="at full resolution; doubles below (the paper has 96)")
    max_channels: int = Field(128, ge=8, le=2048, description="most channels of any layer")
    code_dim: int = Field(64, ge=4, le=1024, description="identity code, shared by all layers")
    z_dim: int = Field(80, ge=2, le=1024, description="variation code, split among the layers")
    orthogonal: float = Field(1e-4, ge=0, description="weight of the penalty on filters of G that are alike")

    def build_generator(self, num_identities: int, img_channels: int, size_px: int) -> Generator:
        """See GanConfig. Raises ConfigError for a size that is not 4, 5, 6 or 7 times a power of two."""
        from facegan.generation.gans.networks.biggan import BigganGenerator

        return BigganGenerator(
            num_identities, img_channels, size_px, channels=self.channels, max_channels=self.max_channels,
            code_dim=self.code_dim, z_dim=self.z_dim, orthogonal=self.orthogonal,
        )  # fmt: skip

    def build_discriminator(self, num_identities: int, img_channels: int, size_px: int) -> nn.Module:
        """See GanConfig. Raises ConfigError for a size that is not 4, 5, 6 or 7 times a power of two."""
        from facegan.generation.gans.networks.biggan import discriminator

        return discriminator(
            num_identities, img_channels, size_px, channels=self.channels, max_channels=self.max_channels,
            spectral_norm=self.spectral_norm,
        )  # fmt: skip
