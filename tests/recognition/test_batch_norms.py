"""Group norms in the place of batch norms."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from facegan.core.errors import UserError
from facegan.recognition.batch_norms import group_norm, replace_batch_norms


@pytest.mark.parametrize("backbone", ["resnet10t", "efficientnet_lite0"])  # of the second act within batch norms
def test_no_image_depends_on_the_others_any_more(backbone: str) -> None:
    net = timm.create_model(backbone, num_classes=0, in_chans=1)
    replace_batch_norms(net)
    net.train()
    img = torch.randn(3, 1, 64, 64)
    torch.manual_seed(0)
    together = net(img)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules())
    assert torch.allclose(together[:1], net(img[:1]), atol=1e-4) and together.isfinite().all()


def test_it_is_a_group_norm_with_the_weights_and_what_acted_behind() -> None:
    norm = timm.layers.BatchNormAct2d(48, act_layer=nn.ReLU)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    img = torch.randn(2, 48, 5, 5)
    expected = nn.functional.group_norm(img, 3, norm.weight, norm.bias, norm.eps).relu()
    assert torch.allclose(group_norm(norm)(img), expected, atol=1e-6)


def test_other_batch_norms_are_refused() -> None:
    with pytest.raises(UserError, match="has a BatchNorm3d, for which there is no group norm"):
        replace_batch_norms(nn.Sequential(nn.BatchNorm3d(4)))
