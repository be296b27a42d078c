"""timm's backbones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
from torch import nn

from facegan.core.errors import UserError


def timm_backbone(
    name: str, arguments: dict[str, Any], channels: int, size_px: int | None, pretrained: bool = False
) -> nn.Module:
    """timm's network without its classifier: (N, channels, size_px, size_px) -> (N, num_features).

    `arguments` are passed to timm.create_model; `size_px` None: the side that the network has by itself. Raises
    UserError where timm has no such network, or it does not take the arguments.
    """
    common = {"pretrained": pretrained, "num_classes": 0, "in_chans": channels}
    create: Callable[..., Any] = timm.create_model
    try:
        if size_px is None:
            return create(name, **common, **arguments)
        try:  # transformers need to know the side; convolutional networks refuse to hear of it
            return create(name, img_size=size_px, **common, **arguments)
        except TypeError:
            return create(name, **common, **arguments)
    except RuntimeError as error:
        similar = timm.list_models(f"*{name[:6]}*")[:8]
        hint = f"for example: {', '.join(similar)}" if similar else "see `facegan list backbones`"
        raise UserError(f"timm has no backbone '{name}' ({error})", fix=hint) from error
    except TypeError as error:
        raise UserError(
            f"backbone '{name}' does not take {arguments}: {error}", fix="change train_recognizer.backbone_args"
        ) from error


def num_features(backbone: nn.Module) -> int:
    """How many numbers a backbone gives; some (MobileNetV3) widen theirs before the classifier that is left out."""
    return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)  # type: ignore[arg-type]


def block_sizes(backbone: nn.Module) -> tuple[int, ...]:
    """How many numbers each of the maps has that a network gives side by side; one, but for `StageMaps`."""
    return tuple(getattr(backbone, "block_sizes", None) or (num_features(backbone),))
