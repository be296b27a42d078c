"""Shared-out class centres in one process: the full head's maths, samples, an optimizer for each row, shards.

Several ranks are in tests/integration/test_sharded_ranks.py.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drawn import RUNTIME, Lab
from facegan.core.errors import UserError
from facegan.recipe.recipe import Recipe
from facegan.recognition.classifier import Heads
from facegan.recognition.heads import HEADS, HeadConfig
from facegan.recognition.heads.networks import centres as centres_module
from facegan.recognition.heads.networks.centres import Centres, normal_rows
from facegan.recognition.heads.networks.margins import CosineHead
from facegan.recognition.heads.networks.sharded import ShardedHead, random_bits
from facegan.recognition.options import Sharded, TrainRecognizer, Use
from facegan.runtime.context import Context, Event
from facegan.stages import train_recognizer
from facegan.training import ranks
from facegan.training.checkpoints import SHARDS, Checkpoints
from head_batches import CLASSES, DIM, KINDS, hard_batch, make
from ranked import options, rows_of, trained


class Stop(Exception):
    """Raised in the middle of a training, as a crash would come."""


def sharded(kind: str, rate: float = 1.0, classes: int = CLASSES, dim: int = DIM, **config: Any) -> ShardedHead:
    torch.manual_seed(0)
    return ShardedHead(HEADS.get(kind)(**config), classes, dim, rate).double()


@pytest.mark.parametrize("kind", KINDS)
def test_all_classes_give_the_full_heads_loss_gradients_and_steps(kind: str) -> None:
    full, ours = make(kind).double(), sharded(kind)
    assert torch.equal(full.weight, ours.centres.value)  # the same first values
    optimizer = torch.optim.AdamW(full.parameters(), lr=0.03, weight_decay=0.1)
    for _ in range(5):
        embedding, label = hard_batch(full)
        theirs_in, ours_in = embedding.clone().requires_grad_(), embedding.clone().requires_grad_()
        expected, loss = F.cross_entropy(full(theirs_in, label), label, reduction="sum"), ours(ours_in, label, 0, 0)
        optimizer.zero_grad()
        expected.backward()
        loss.backward()
        optimizer.step()
        ours.centres.update(0.03, 0.1)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours_in.grad, theirs_in.grad, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(ours.centres.value, full.weight.detach(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_gives_the_softmax_over_its_classes_and_touches_no_other(kind: str) -> None:
    full, ours = make(kind, num_classes=40).double(), sharded(kind, 0.5, classes=40)
    embedding, label = torch.randn(6, DIM, dtype=torch.float64), torch.tensor([0, 9, 9, 39, 4, 20])
    for draw in range(3):  # moments and counts that are not zero
        ours(embedding, label, 0, draw).backward()
        ours.centres.update(0.1, 0.1)
        full(embedding, label)  # AdaFace's averages
    full.weight.data = ours.centres.value.clone()
    before = {name: buffer.clone() for name, buffer in ours.centres.named_buffers()}
    index = ours.sample(label, 3)
    assert index is not None and set(label.tolist()) <= set(index.tolist()) and 10 < len(index) < 30

    loss = ours(embedding, label, 0, 3)
    logits = full(embedding, label)[:, index]
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.searchsorted(index, label), reduction="sum"))
    loss.backward()
    ours.centres.update(0.1, 0.1)
    unseen = torch.ones(40, dtype=torch.bool).index_fill(0, index, False)
    for name, buffer in ours.centres.named_buffers():
        assert torch.equal(buffer[unseen], before[name][unseen])  # neither trained nor decayed
        assert (buffer[index] != before[name][index]).reshape(len(index), -1).all(dim=1).all()


def test_a_sampled_loss_by_hand() -> None:
    """Three classes at 0, 90 and 180 degrees, an image of the first at 60; the third is not in the sample."""
    head = sharded("cosface", 0.6, classes=3, dim=2, s=2.0, m=0.1)
    head.centres.value = torch.tensor([[3.0, 0.0], [0.0, 0.5], [-1.0, 0.0]], dtype=torch.float64)
    label = torch.tensor([0])
    draw = next(d for d in range(100) if (index := head.sample(label, d)) is not None and index.tolist() == [0, 1])
    image = torch.tensor([[0.5, math.sin(math.pi / 3)]], dtype=torch.float64)
    own, other = math.exp(2 * (0.5 - 0.1)), math.exp(2 * math.sin(math.pi / 3))
    assert head(image, label, 0, draw).item() == pytest.approx(-math.log(own / (own + other)), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sampled_head_learns_a_separable_toy(kind: str) -> None:
    torch.manual_seed(0)
    head = ShardedHead(HEADS.get(kind)(), 40, 8, 0.3)
    people, label, net = torch.randn(40, 16), torch.arange(200) % 40, nn.Linear(16, 8)
    img = people[label] + 0.1 * torch.randn(200, 16)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for step in range(120):
        rows = torch.randperm(200)[:8]
        optimizer.zero_grad()
        (head(net(img[rows]), label[rows], 0, step) / 8).backward()
        optimizer.step()
        head.centres.update(0.05, 0.0)
    cos = F.normalize(net(img)) @ F.normalize(head.centres.value).T
    assert (cos.argmax(1) == label).float().mean() > 0.95


def test_the_sample_holds_its_rate_and_always_the_batchs_people() -> None:
    head, label = sharded("softmax", 0.1, classes=2000), torch.randint(0, 2000, (64,))
    drawn = [head.sample(label, draw) for draw in range(200)]
    positive = set(label.tolist())
    assert all(index is not None and positive <= set(index.tolist()) for index in drawn)
    sizes = [len(index) for index in drawn if index is not None]
    assert abs(np.mean(sizes) - 200) < 3.5 and 7 < np.std(sizes) < 15  # binomial: 200 and 11; mean of 200 draws: 0.8
    times = torch.stack([torch.bincount(index, minlength=2000) for index in drawn if index is not None]).sum(0)
    assert times.max() == 200 and (times == 0).sum() == 0  # each other one has its turns: 0.9^200 is 1e-9
    few = sharded("softmax", 0.01, classes=2000)
    index = few.sample(label, 0)
    assert index is not None and set(index.tolist()) == positive  # no place for others
    everybody = few.sample(torch.arange(2000), 0)
    assert everybody is not None and len(everybody) == 2000


def test_the_sample_is_the_same_for_any_number_of_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    label = torch.tensor([3, 3, 90])
    whole = sharded("softmax", 0.2, classes=101).sample(label, 5)
    parts = []
    for mine in (slice(0, 33), slice(33, 67), slice(67, 101)):
        monkeypatch.setattr(ranks, "part", lambda _, mine=mine: mine)
        index = sharded("softmax", 0.2, classes=101).sample(label, 5)
        assert index is not None
        parts.append(index + mine.start)
    assert whole is not None and torch.equal(torch.cat(parts), whole)


def test_random_bits_are_those_of_splitmix64() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert random_bits(torch.arange(4), 1234567).tolist() == [value >> 11 for value in published]
    assert random_bits(torch.tensor([2]), 1234567).item() == published[2] >> 11


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("count", "width"), [(64, 8), (65, 9), (97, 33), (5, 8), (1, 9)])
def test_first_rows_are_those_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, count: int, width: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(centres_module, "BLOCK", 32)
    torch.set_default_dtype(dtype)
    try:
        torch.manual_seed(3)
        whole = nn.init.normal_(torch.empty(count, width), std=0.3)
        for cuts in ((0, count), (0, count // 3, count // 2, count)):
            found = []
            for start, stop in pairwise(cuts):
                torch.manual_seed(3)
                found.append(normal_rows(count, width, 0.3, slice(start, stop)))
            assert torch.equal(torch.cat(found), whole)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("all_rows", [True, False])
def test_each_row_is_trained_as_adamw_would_it_alone(monkeypatch: pytest.MonkeyPatch, all_rows: bool) -> None:
    monkeypatch.setattr(centres_module, "BLOCK", 4)
    torch.manual_seed(0)
    centres = Centres(11, 3, 1.0).double()
    alone = [nn.Parameter(row.clone()) for row in centres.value]
    optimizer = torch.optim.AdamW(alone, lr=1.0, weight_decay=0.2)
    for step in range(12):
        index = None if all_rows else torch.randperm(11)[: 1 + step % 7].sort()[0]
        rows = centres.take(index)
        grad = torch.randn_like(rows)
        rows.backward(grad)
        optimizer.zero_grad(set_to_none=True)
        for row, place in enumerate(range(11) if index is None else index.tolist()):
            alone[place].grad = grad[row]
        lr = optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
        optimizer.step()
        centres.update(lr, 0.2)
        torch.testing.assert_close(centres.value, torch.stack([p.detach() for p in alone]), rtol=0, atol=1e-13)
    value = centres.value.clone()
    centres.update(1.0, 0.2)  # nothing was taken since
    assert torch.equal(value, centres.value)


class LearnedScale(CosineHead):
    """A head with a parameter of its own."""

    def __init__(self, num_classes: int, embedding_dim: int, s: float) -> None:
        super().__init__(num_classes, embedding_dim, s)
        self.scale = nn.Parameter(torch.ones(()))


class Doubled(CosineHead):
    """A head with a forward of its own."""

    def forward(self, embedding: Tensor, label: Tensor) -> Tensor:
        return 2 * super().forward(embedding, label)


@pytest.mark.parametrize("make_head", [lambda *size: nn.Linear(size[1], size[0]), LearnedScale, Doubled])
def test_a_head_of_another_kind_is_refused(make_head: Any) -> None:
    class Own(HeadConfig):
        kind: Literal["own"] = "own"

        def build(self, num_classes: int, embedding_dim: int) -> nn.Module:
            module: nn.Module = make_head(num_classes, embedding_dim, 8.0)
            return module

    with pytest.raises(UserError, match="head 'own' cannot be shared out") as error:
        ShardedHead(Own(), 5, 8, 1.0)
    assert "train_recognizer.sharded" in error.value.fix


def test_recipes_without_it_keep_their_fingerprints() -> None:
    assert "sharded" not in TrainRecognizer().model_dump(mode="json")
    assert TrainRecognizer(sharded=Sharded()).model_dump(mode="json")["sharded"] == {"sample_rate": 1.0}
    for rate in (0.0, 1.1):
        with pytest.raises(ValueError, match="sample_rate"):
            TrainRecognizer.model_validate({"sharded": {"sample_rate": rate}})


def test_new_people_have_a_sharded_head_of_their_own() -> None:
    label, group = np.asarray([0, 1, 2, 3, 4, 3]), np.asarray([0, 0, 1, 2, 2, 2])
    use, rows = Use(own_head=True), np.asarray([5, 0, 3, 1])
    embedding = torch.randn(4, 16)
    torch.manual_seed(0)
    full = Heads(TrainRecognizer(embedding_dim=16, use=use), label, group)
    torch.manual_seed(0)
    ours = Heads(TrainRecognizer(embedding_dim=16, use=use, sharded=Sharded()), label, group)
    assert len(ours.sharded) == 2 and not list(ours.parameters())
    torch.testing.assert_close(ours(embedding, rows), full(embedding, rows))


def shards(checkpoints: Checkpoints, nimg: int, value: float) -> dict[str, Any]:
    for name in ("a", "b"):
        checkpoints.save_shard(nimg, name, {"x": torch.full((2,), value)})
    return {"w": torch.full((2,), value), SHARDS: {"a": [0], "b": [1]}}


def test_a_checkpoint_is_as_whole_as_its_shards(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for nimg in (8, 16, 24):
        checkpoints.save(nimg, shards(checkpoints, nimg, nimg))
    assert len(list(tmp_path.iterdir())) == 6  # of two checkpoints: what goes takes its shards along
    checkpoints.save_shard(32, "a", {"x": torch.zeros(2)})  # a crash before the checkpoint itself
    latest = checkpoints.load_latest()
    assert latest and latest[0] == 24 and checkpoints.load_shard(24, "b")["x"][0] == 24
    shard = tmp_path / "shard-000000000024-b.pt"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="has changed"):
        checkpoints.load_shard(24, "b")
    latest = checkpoints.load_latest()
    assert latest and latest[0] == 16 and not list(tmp_path.glob("*24*"))
    (tmp_path / "shard-000000000016-a.pt").unlink()
    assert checkpoints.load_latest() is None


@pytest.fixture(scope="module")
def rows(recipe: Recipe, shared: Lab) -> dict[str, Path]:
    """What is trained on."""
    return rows_of(recipe, shared)


def test_a_sampled_training_goes_on_to_the_same_bytes(rows: dict[str, Path], tmp_path: Path) -> None:
    chosen = options(steps=12, evaluations=4, sharded={"sample_rate": 0.4})

    def run(out: Path, stop_at: int = 0) -> bytes:
        def on_event(event: Event) -> None:
            if event.kind == "progress" and event.done == stop_at:
                raise Stop

        (out / "work").mkdir(parents=True, exist_ok=True)
        train_recognizer.run(chosen, {"seed": 0}, rows, out, Context(RUNTIME, on_event))
        return (out / "embedder.safetensors").read_bytes() + (out / "curve.jsonl").read_bytes()

    whole = run(tmp_path / "whole")
    for step in (5, 8):
        with pytest.raises(Stop):
            run(tmp_path / "torn", step)
    assert run(tmp_path / "torn") == whole


def test_all_classes_train_what_the_full_head_does(rows: dict[str, Path], tmp_path: Path) -> None:
    full = trained(options(steps=12), rows, tmp_path / "full", 1)
    other = trained(options(steps=12, sharded={}), rows, tmp_path / "sharded", 1)
    sampled = trained(options(steps=12, sharded={"sample_rate": 0.4}), rows, tmp_path / "sampled", 1)
    assert distance_of(full, other) < 1e-9 < 1e-4 < distance_of(full, sampled)


def distance_of(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)
