"""Features of frozen networks on the disk: the bits of a computation, known by network and pixels, bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facegan.recognition import frozen_features
from facegan.recognition.embedder import Embedder, embed
from facegan.recognition.frozen_features import FrozenFeatures
from facegan.recognition.options import TrainRecognizer
from facegan.runtime.context import Context, Event
from facegan.runtime.options import Runtime

CPU = torch.device("cpu")
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def network(**start: Any) -> Embedder:
    """An untrained embedder whose layer is fitted."""
    begins = {"kind": "imagenet", "size_px": 32, "stages": [2, 4], **start}
    torch.manual_seed(0)
    return Embedder(TrainRecognizer(start=begins, tune="whitened", steps=0, embedding_dim=24), 3, 32).eval()


def features(net: Embedder, cache: Path | None, events: list[Event] | None = None) -> FrozenFeatures:
    return FrozenFeatures(
        net.backbone, net.made_of, CPU, Context(Runtime(), (events if events is not None else []).append, cache=cache)
    )


def silenced(net: Embedder) -> Embedder:
    """The same network, which may not be asked any more."""

    def asked(img: torch.Tensor) -> torch.Tensor:
        raise AssertionError("computed again")

    net.backbone.forward = asked  # type: ignore[method-assign]
    return net


def files(cache: Path) -> list[Path]:
    return sorted(cache.glob("features/*/*.bin"))


def test_a_batch_is_computed_once_to_the_same_bits(tmp_path: Path) -> None:
    expected = network().backbone(torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert torch.equal(features(network(), None)(PIXELS), expected)
    assert torch.equal(features(network(), tmp_path)(PIXELS), expected)
    assert torch.equal(features(silenced(network()), tmp_path)(PIXELS), expected)
    with pytest.raises(AssertionError, match="computed again"):
        features(silenced(network()), tmp_path)(PIXELS[:4])
    assert [path.stat().st_mode & 0o777 for path in files(tmp_path)] == [0o600]


def test_embeddings_are_those_of_the_network(tmp_path: Path) -> None:
    net = network()
    torch.nn.init.normal_(net.project.get_buffer("map0"))
    torch.nn.init.normal_(net.project.get_buffer("map1"))
    without = embed(net, PIXELS, 2)
    assert np.array_equal(embed(net, PIXELS, 2, CPU, features(net, tmp_path)), without)
    assert np.array_equal(embed(silenced(net), PIXELS, 2, CPU, features(net, tmp_path)), without)
    assert len(files(tmp_path)) == 6  # three batches and their mirror images


@pytest.mark.parametrize("other", [{"stages": [2, 3]}, {"size_px": 64}])
def test_another_network_has_features_of_its_own(tmp_path: Path, other: dict[str, Any]) -> None:
    features(network(), tmp_path)(PIXELS)
    features(network(**other), tmp_path)(PIXELS)
    assert len(files(tmp_path)) == 2


def test_other_weights_have_features_of_their_own(tmp_path: Path) -> None:
    net = network()
    first = features(net, tmp_path)(PIXELS)
    with torch.no_grad():
        next(net.backbone.parameters()).mul_(2)
    assert not torch.equal(features(net, tmp_path)(PIXELS), first)


def test_a_changed_file_is_made_again(tmp_path: Path) -> None:
    expected = features(network(), tmp_path)(PIXELS)
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    for damaged in (data[:-4] + bytes([data[-4] ^ 1]) + data[-3:], data[:-8], b""):
        path.write_bytes(damaged)
        assert torch.equal(features(network(), tmp_path)(PIXELS), expected)
        assert path.read_bytes() == bytes(data)


def test_what_was_used_longest_ago_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    known = features(net, tmp_path)
    size = known(PIXELS[:1]).numel() * 4 + 32
    monkeypatch.setattr(frozen_features, "MOST_BYTES", 3 * size)
    for image in range(5):
        known(PIXELS[image : image + 1])
    assert len(files(tmp_path)) == 3
    silenced(net)
    for image in (2, 3, 4):
        known(PIXELS[image : image + 1])


def test_a_disk_that_takes_nothing_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("in the way")
    events: list[Event] = []
    net = network()
    known = features(net, tmp_path, events)
    assert torch.equal(known(PIXELS), known(PIXELS))
    assert ["not kept" in event.text for event in events] == [True]
