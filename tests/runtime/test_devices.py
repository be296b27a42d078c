"""Devices and threads of a stage."""

from __future__ import annotations

import pytest
import torch

from facegan.core.errors import UserError
from facegan.runtime.devices import device_of, slow_precision, threads_of
from facegan.runtime.options import Runtime


def test_devices_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(Runtime()) == device_of(Runtime(device="cpu")) == torch.device("cpu")
    with pytest.raises(UserError, match="torch sees no GPU"):
        device_of(Runtime(device="cuda:1"))
    with pytest.raises(UserError, match="unknown device 'abacus'"):
        device_of(Runtime(device="abacus"))
    assert threads_of(Runtime(threads=3)) == 3 and threads_of(Runtime(jobs=256)) == 1


@pytest.mark.parametrize(
    ("precision", "device", "able", "warned"),
    [
        ("bfloat16", "cpu", {"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, True),
        ("bfloat16", "cpu", {"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, False),
        ("bfloat16", "cpu", {"architecture": "aarch64"}, False),  # nothing is known of it here
        ("float32", "cpu", {"architecture": "x86_64", "avx512_bf16": False}, False),
        ("bfloat16", "cuda", {"architecture": "x86_64", "avx512_bf16": False}, False),
    ],
)
def test_slow_arithmetic_is_told(
    monkeypatch: pytest.MonkeyPatch, precision: str, device: str, able: dict[str, object], warned: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    text = slow_precision(precision, torch.device(device), "train_gan.precision")
    assert ("better set train_gan.precision=float32" in text) == warned
