"""The network from ImageNet: its tensors are where they belong, and its maps are what they are said to be."""

from __future__ import annotations

import importlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from drawn import draw_face
from facegan.core.errors import UserError
from facegan.recognition.fitted import imagenet
from facegan.recognition.fitted.methods.imagenet import FILE, REPEATS, measure_by, weights

STRIDES = (1, 2, 2, 2, 1, 2, 1)  # Tan and Le 2019, table 1, less the stem


def same(values: torch.Tensor, kernel: torch.Tensor, stride: int, groups: int = 1) -> torch.Tensor:
    """A convolution padded as TensorFlow's SAME: the odd pixel goes to the right and below."""
    side = kernel.shape[-1]
    total = [max((-(-n // stride) - 1) * stride + side - n, 0) for n in values.shape[2:]]
    down, right = total
    padded = F.pad(values, (right // 2, right - right // 2, down // 2, down - down // 2))
    return F.conv2d(padded, kernel, None, stride, groups=groups)


def by_hand(tensors: dict[str, torch.Tensor], img: torch.Tensor) -> list[torch.Tensor]:
    """The maps after each stage by the names of the package, with torch's functions alone."""

    def norm(values: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance, scale, shift = (
            tensors[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (values - mean) / (variance + 1e-3).sqrt() * scale + shift

    values = norm(same(img, tensors["_conv_stem.weight"], 2), "_bn0").clamp(0, 6)
    maps, number = [], 0
    for stage, count in enumerate(REPEATS):
        for place in range(count):
            name, before = f"_blocks.{number}", values
            if stage:
                values = norm(F.conv2d(values, tensors[f"{name}._expand_conv.weight"]), f"{name}._bn0").clamp(0, 6)
            kernel = tensors[f"{name}._depthwise_conv.weight"]
            values = same(values, kernel, 1 if place else STRIDES[stage], groups=len(kernel))
            values = norm(values, f"{name}._bn1").clamp(0, 6)
            values = norm(F.conv2d(values, tensors[f"{name}._project_conv.weight"]), f"{name}._bn2")
            if place:
                values = values + before
            number += 1
        maps.append(values)
    return maps


def test_its_maps_are_those_of_the_network_worked_out_by_hand() -> None:
    images = np.stack([cv2.resize(draw_face(person, 0), (100, 100)) for person in range(2)])[..., None]
    path = Path(str(importlib.import_module(imagenet.PACKAGE).__file__)).parent / FILE
    img = torch.from_numpy(images).permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1) / 127.5 - 1
    expected = by_hand(torch.load(path, weights_only=True), img)
    names = [f"stage{stage}" for stage in range(7)]
    maps = measure_by(weights(imagenet.PACKAGE), 1000, 100)(images, names)
    assert list(maps) == names
    for name, values in zip(names, expected, strict=True):
        np.testing.assert_allclose(maps[name], values.flatten(1).numpy(), atol=2e-3 * float(values.abs().max()))


def test_large_maps_are_averaged_and_only_those_asked_for_are_given() -> None:
    images = np.stack([draw_face(0, 0)])[..., None]
    measure = measure_by(weights(imagenet.PACKAGE), 7, 112)
    maps = measure(images, ("stage2", "stage5"))
    assert {name: values.shape for name, values in maps.items()} == {"stage2": (1, 40 * 49), "stage5": (1, 192 * 16)}
    whole = measure_by(weights(imagenet.PACKAGE), 14, 112)(images, ("stage2",))["stage2"].reshape(40, 14, 14)
    np.testing.assert_allclose(
        maps["stage2"].reshape(40, 7, 7), whole.reshape(40, 7, 2, 7, 2).mean((2, 4)), rtol=1e-4, atol=1e-4
    )


def test_weights_that_are_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "others" / "models").mkdir(parents=True)
    (tmp_path / "others" / "__init__.py").touch()
    (tmp_path / "others" / FILE).write_bytes(b"not these")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="missing or others than expected"):
        weights("others")


def test_without_its_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet, "PACKAGE", "no_such_package_here")
    with pytest.raises(UserError, match="no_such_package_here, which is not installed"):
        imagenet.Imagenet().check()
