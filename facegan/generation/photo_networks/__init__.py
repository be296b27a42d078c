"""Networks from a photo to a photo, for augmenters that train one: the options that all have."""

from __future__ import annotations

from pydantic import Field

from facegan.core.options import Options


class PhotoTraining(Options):
    """The training of residual U-nets beside discriminators of patches and faces."""

    r_gamma: float = Field(0.05, ge=0, description="weight of the penalties on D's slope at photos and at what is made")
    channels: int = Field(16, ge=4, le=256, description="of the U-net at full size; three and six times as many below")
    kimg: float = Field(5.0, gt=0, description="thousands of pairs that the training sees")
    batch_size: int = Field(16, ge=1, le=4096, description="pairs of each step")
    lr: float = Field(1e-3, gt=0, description="learning rate of the U-net, falling to zero by half a cosine")
    lr_d: float = Field(5e-4, gt=0, description="learning rate of the discriminator")
    checkpoint_kimg: float = Field(1.0, gt=0, description="write a checkpoint this often")
