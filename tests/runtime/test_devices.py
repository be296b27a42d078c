"""Devices and threads of a stage."""

from __future__ import annotations

import pytest
import torch

from facegan.core.errors import UserError
from facegan.runtime.devices import device_of, threads_of
from facegan.runtime.options import Runtime


def test_devices_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(Runtime()) == device_of(Runtime(device="cpu")) == torch.device("cpu")
    with pytest.raises(UserError, match="torch sees no GPU"):
        device_of(Runtime(device="cuda:1"))
    with pytest.raises(UserError, match="unknown device 'abacus'"):
        device_of(Runtime(device="abacus"))
    assert threads_of(Runtime(threads=3)) == 3 and threads_of(Runtime(jobs=256)) == 1
