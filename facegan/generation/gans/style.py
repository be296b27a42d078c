"""Style: a small StyleGAN2, whose codes steer every layer of G."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.generation.gans import GANS, AdversarialConfig

if TYPE_CHECKING:
    from torch import nn

    from facegan.generation.gans.networks.base import Generator


@GANS.register
class Style(AdversarialConfig):
    """Karras et al. 2020 in a small form: mapping network, modulated convolutions with noise, skip outputs,
    and a residual D, under today's objective. Without style mixing and path length regularisation; with tanh at
    the output, and with DiffAugment."""

    kind: Literal["style"] = "style"
    default_kimg: ClassVar[float] = 100.0  # an hour of one core at 64 px grey, 28 images/s; less on two
    lr_g: float = Field(2e-3, gt=0, description="learning rate of G")
    lr_d: float = Field(2e-3, gt=0, description="learning rate of D")
    channels: int = Field(16, ge=8, le=512, description="at full resolution; doubles below")
    max_channels: int = Field(128, ge=8, le=1024, description="most channels of any layer")
    code_dim: int = Field(64, ge=4, le=1024, description="identity code")
    z_dim: int = Field(64, ge=2, le=1024, description="variation code")
    style_dim: int = Field(128, ge=8, le=1024, description="what the mapping network makes of both codes")
    mapping_layers: int = Field(2, ge=1, le=8, description="layers that turn the code into styles")
    stddev_group: int = Field(
        4, ge=0, le=64, description="images whose spread D sees (minibatch stddev); 0 leaves it out"
    )

    def build_generator(self, num_identities: int, img_channels: int, size_px: int) -> Generator:
        """See GanConfig. Raises ConfigError for a size that is not 4, 5, 6 or 7 times a power of two."""
        from facegan.generation.gans.networks.style import StyleGenerator

        return StyleGenerator(
            num_identities, img_channels, size_px, channels=self.channels, max_channels=self.max_channels,
            code_dim=self.code_dim, z_dim=self.z_dim, style_dim=self.style_dim, mapping_layers=self.mapping_layers,
        )  # fmt: skip

    def build_discriminator(self, num_identities: int, img_channels: int, size_px: int) -> nn.Module:
        """See GanConfig. Raises ConfigError for a size that is not 4, 5, 6 or 7 times a power of two."""
        from facegan.generation.gans.networks.style import discriminator

        return discriminator(
            num_identities, img_channels, size_px, channels=self.channels, max_channels=self.max_channels,
            spectral_norm=self.spectral_norm, stddev_group=self.stddev_group,
        )  # fmt: skip
