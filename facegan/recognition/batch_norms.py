"""Group norms in the place of batch norms, for trainings in which no image may depend on the others of its batch."""

from __future__ import annotations

import math

from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from facegan.core.errors import UserError

IN_GROUP = 16  # channels, or more where they cannot be shared out so: Wu and He 2018, Group normalization, table 3


def replace_batch_norms(net: nn.Module) -> None:
    """Put a group norm in the place of each batch norm of maps in `net`, with its weights, eps and activation.

    opacus' `ModuleValidator.fix` would lose the activations that timm puts into batch norms, take no 48 channels, and
    make groups of one channel of 32. Raises UserError for batch norms of another kind.
    """
    for parent in list(net.modules()):
        for name, module in parent.named_children():
            if isinstance(module, _BatchNorm):
                setattr(parent, name, group_norm(module))


def group_norm(norm: _BatchNorm) -> nn.Module:
    """The group norm that takes the place of a batch norm; see `replace_batch_norms`."""
    if not isinstance(norm, nn.BatchNorm2d):
        raise UserError(
            f"the backbone has a {type(norm).__name__}, for which there is no group norm here",
            fix="leave out train_recognizer.privacy, or choose another backbone",
        )
    channels = norm.num_features
    groups = math.gcd(channels, max(1, channels // IN_GROUP))
    grouped = nn.GroupNorm(groups, channels, norm.eps, norm.affine)
    grouped.load_state_dict({name: value for name, value in norm.state_dict().items() if name in ("weight", "bias")})
    return nn.Sequential(grouped, norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else grouped
