"""Checkpoints: the newest intact one of two, nothing pickled; safetensors of one form."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from facegan.core.errors import UserError
from facegan.training.checkpoints import Checkpoints, load_tensors, save_tensors


def state(value: float) -> dict[str, Any]:
    return {
        "w": torch.full((3,), value),
        "best": {"step": 1, "val_eer": math.inf},
        "net": OrderedDict(a=torch.ones(2)),
    }


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).load_latest() is None
    assert Checkpoints(tmp_path / "nowhere").load_latest() is None


def test_two_are_kept_in_the_order_of_images(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for nimg in (8, 96, 1000, 20000):  # 1000 < 20000 < 96 as text
        checkpoints.save(nimg, state(nimg))
    assert names(tmp_path) == ["checkpoint-000000001000.pt", "checkpoint-000000020000.pt"]
    latest = checkpoints.load_latest()
    assert latest is not None and latest[0] == 20000
    assert torch.equal(latest[1]["w"], torch.full((3,), 20000.0)) and latest[1]["best"]["val_eer"] == math.inf


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


@pytest.mark.parametrize(
    "damage",
    [cut, flip, lambda _: b"", lambda data: data[:32], lambda data: data + b"x", lambda data: data[1:]],
)
def test_a_broken_newest_gives_the_one_before(checkpoints: Checkpoints, tmp_path: Path, damage: Any) -> None:
    checkpoints.save(8, state(8))
    checkpoints.save(16, state(16))
    newest = tmp_path / "checkpoint-000000000016.pt"
    newest.write_bytes(damage(newest.read_bytes()))
    latest = checkpoints.load_latest()
    assert latest is not None and latest[0] == 8 and torch.equal(latest[1]["w"], torch.full((3,), 8.0))
    assert names(tmp_path) == ["checkpoint-000000000008.pt"]


def test_both_broken_is_a_start_from_nothing(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.save(8, state(8))
    checkpoints.save(16, state(16))
    for path in tmp_path.iterdir():
        os.truncate(path, 100)
    assert checkpoints.load_latest() is None and names(tmp_path) == []


def test_a_temporary_file_of_a_killed_run_is_passed_over(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.save(8, state(8))
    (tmp_path / ".checkpoint-000000000016.pt.tmp").write_bytes(b"half")
    latest = checkpoints.load_latest()
    assert latest is not None and latest[0] == 8


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def test_nothing_is_unpickled(checkpoints: Checkpoints, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"w": Evil(tmp_path / "was-here")}, buffer)
    data = buffer.getvalue()
    (tmp_path / "checkpoint-000000000008.pt").write_bytes(hashlib.sha256(data).digest() + data)
    with pytest.raises(pickle.UnpicklingError, match="Weights only"):
        checkpoints.load_latest()
    assert not (tmp_path / "was-here").exists()


def test_training_goes_on_exactly(checkpoints: Checkpoints) -> None:
    def parts() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
        net.to(memory_format=torch.channels_last)
        return net, torch.optim.AdamW(net.parameters(), 0.01, foreach=True)

    def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            torch.manual_seed(step)
            optimizer.zero_grad()
            net(torch.randn(5, 1, 4, 4)).square().sum().backward()
            optimizer.step()

    net, optimizer = parts()
    train(net, optimizer, range(3))
    checkpoints.save(3, {"net": net.state_dict(), "optimizer": optimizer.state_dict()})
    train(net, optimizer, range(3, 6))
    other, other_optimizer = parts()
    latest = checkpoints.load_latest()
    assert latest is not None
    other.load_state_dict(latest[1]["net"])
    other_optimizer.load_state_dict(latest[1]["optimizer"])
    train(other, other_optimizer, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True))


# Tensors.


def test_safetensors_are_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
import torch
from facegan.training.checkpoints import save_tensors
tensors = {name: torch.arange(6.0).reshape(2, 3) for name in {"b", "a", "conv.weight", "zz", "norm.bias"}}
save_tensors(Path(sys.argv[1]), tensors, "about")
"""
    hash_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"  # the set above has another order there
    command = [sys.executable, "-c", code, str(tmp_path / "theirs.safetensors")]
    subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, check=True)
    tensors = {name: torch.arange(6.0).reshape(2, 3) for name in {"b", "a", "conv.weight", "zz", "norm.bias"}}
    save_tensors(tmp_path / "ours.safetensors", tensors, "about")
    ours, theirs = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("ours", "theirs"))
    assert ours == theirs
    header = json.loads(ours[8 : 8 + int.from_bytes(ours[:8], "little")])
    assert header["__metadata__"] == {"facegan": "about"}  # one key: the order of several differs


def test_tensors_round_trip(tmp_path: Path) -> None:
    shared = torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last)
    tensors = {
        "a": shared,
        "b": shared.permute(3, 2, 1, 0),
        "c": torch.tensor(3),
        "d": nn.Parameter(torch.ones(2)),
    }
    save_tensors(tmp_path / "x.safetensors", tensors)
    loaded = load_tensors(tmp_path / "x.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\xff" * 100])
def test_what_is_no_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a safetensors file") as error:
        load_tensors(path)
    assert str(path) in str(error.value)


def test_what_torch_saved_is_called_so(tmp_path: Path) -> None:
    for zipped in (True, False):
        torch.save({"w": torch.ones(2)}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(UserError, match=r"torch\.save wrote it") as error:
            load_tensors(tmp_path / "w.pth")
        assert "save_file(torch.load('w.pth', weights_only=True)" in error.value.fix
    with pytest.raises(UserError, match="cannot be read: No such file"):
        load_tensors(tmp_path / "gone.safetensors")
