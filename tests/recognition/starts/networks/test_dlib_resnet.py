"""dlib's network: its shapes, and the refusal of a file with other weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facegan.core.errors import UserError
from facegan.recognition.starts.networks.dlib_resnet import DlibResNet, add_padded, load
from onnx_networks import tensor


def test_another_file_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("dlib") / "x.dat"
    path.write_bytes(b"\x01\x05con_4" + tensor(np.ones((7, 1, 1, 1))))
    with pytest.raises(UserError, match="7 weights, expected 4736"):
        load(path)


def test_maps_of_unequal_size_are_padded_with_zeros() -> None:
    one, other = torch.ones(1, 2, 3, 3), torch.ones(1, 1, 4, 4)
    total = add_padded(one, other)
    assert total.shape == (1, 2, 4, 4) and total[0, 0].sum() == 9 + 16 and total[0, 1].sum() == 9


def test_network_gives_128_numbers_a_face() -> None:
    with torch.no_grad():
        assert DlibResNet().eval()(torch.zeros(1, 3, 150, 150)).shape == (1, 128)
