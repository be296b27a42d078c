"""A backbone with the weights that timm has for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.core.errors import UserError
from facegan.recognition.starts import STARTS, Asked, Begun, StartConfig

if TYPE_CHECKING:
    from torch import nn


@STARTS.register
class Timm(StartConfig):
    """timm's weights of `train_recognizer.backbone` (downloads them); the embedding layer begins at random."""

    words: ClassVar[str] = "a backbone that comes trained from timm"
    downloads: ClassVar[bool] = True
    kind: Literal["timm"] = "timm"
    own_input: bool = Field(
        True, description="images have the mean, deviation and side that the weights know; false: as prepared, -1 to 1"
    )
    size_px: int | None = Field(
        None, ge=16, le=1024, description="of own_input: another side than its own, which often is 224"
    )

    def network(self, asked: Asked) -> nn.Module:
        """See StartConfig."""
        return self._network(asked, pretrained=False)

    def load(self, net: nn.Module, backbone: nn.Module, asked: Asked) -> Begun:
        """See StartConfig; raises UserError where timm has no weights, or they cannot be downloaded."""
        import torch

        with torch.random.fork_rng(devices=[]):  # what is drawn after this does not depend on it
            try:
                pretrained = self._network(asked, pretrained=True)
            except UserError:
                raise
            except Exception as error:  # timm, its hub and the network have no common base
                raise UserError(
                    f"the weights of backbone '{asked.backbone}' cannot be had from timm: {error}",
                    fix="give a safetensors file of them: train_recognizer.start={kind: file, path: FILE}",
                ) from error
        backbone.load_state_dict(pretrained.state_dict())
        layer = "" if asked.fitted else "; the embedding layer begins at random"
        return Begun(f"{asked.backbone} with timm's weights{layer}")

    def _network(self, asked: Asked, pretrained: bool) -> nn.Module:
        import timm

        from facegan.recognition.starts.networks.backbone import timm_backbone
        from facegan.recognition.starts.networks.own_input import OwnInput

        if not self.own_input:
            return timm_backbone(asked.backbone, asked.backbone_args, asked.channels, asked.size_px, pretrained)
        network = timm_backbone(asked.backbone, asked.backbone_args, 3, self.size_px, pretrained)
        known = timm.data.resolve_model_data_config(network)
        mean, scale = ([255 * value for value in known[name]] for name in ("mean", "std"))
        return OwnInput(network, asked.size_px, self.size_px or int(known["input_size"][-1]), mean, scale)
