"""Every head against an independent implementation, and the family as a family."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from pytorch_metric_learning.losses import ArcFaceLoss, CosFaceLoss, NormalizedSoftmaxLoss
from torch import Tensor, nn
from torch.nn import functional as F

from facegan.core.errors import UserError
from facegan.recognition.heads import HEADS
from facegan.recognition.heads.networks.margins import angle_of
from head_batches import CLASSES, DIM, KINDS, hard_batch, make


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Matrices this small only lose time by being shared out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("kind", "config", "theirs"),
    [
        ("softmax", {"s": 20.0}, NormalizedSoftmaxLoss(CLASSES, DIM, temperature=1 / 20)),
        ("cosface", {"s": 30.0, "m": 0.35}, CosFaceLoss(CLASSES, DIM, margin=0.35, scale=30)),
        ("cosface", {"s": 8.0, "m": 0.0}, CosFaceLoss(CLASSES, DIM, margin=0, scale=8)),
        ("arcface", {"s": 30.0, "m": 0.5}, ArcFaceLoss(CLASSES, DIM, margin=math.degrees(0.5), scale=30)),
        ("arcface", {"s": 64.0, "m": 0.2}, ArcFaceLoss(CLASSES, DIM, margin=math.degrees(0.2), scale=64)),
    ],
)
def test_loss_and_gradients_are_those_of_pytorch_metric_learning(
    kind: str, config: dict[str, Any], theirs: Any
) -> None:
    head = make(kind, **config).double()
    embedding, label = hard_batch(head)
    embedding = F.normalize(embedding) * torch.linspace(0.01, 50, 40)[:, None]
    theirs.W.data = head.weight.detach().T.clone()

    ours_in, theirs_in = embedding.clone().requires_grad_(), embedding.clone().requires_grad_()
    ours = F.cross_entropy(head(ours_in, label), label)
    expected = theirs(theirs_in, label)
    ours.backward()
    expected.backward()

    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours_in.grad, theirs_in.grad, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(head.weight.grad, theirs.W.grad.T, rtol=1e-7, atol=1e-9)
    if kind == "arcface":  # the batch did reach the angles where cos(theta + m) rises again
        own = (F.normalize(embedding) * F.normalize(head.weight)[label]).sum(1)
        assert (own.acos() > math.pi - config["m"]).any()


def adaface_by_hand(
    rows: list[list[float]], labels: list[int], centres: list[list[float]], mean: float, std: float
) -> list[list[float]]:
    """Kim et al. 2022, section 3.3, in plain Python: s = 12, m = 0.4, h = 0.333, given the statistics."""
    logits = []
    for row, label in zip(rows, labels, strict=True):
        length = math.sqrt(sum(x * x for x in row))
        z = (min(max(length, 1e-3), 100) - mean) / (std + 1e-3) * 0.333
        z = min(max(z, -1), 1)
        out = []
        for k, centre in enumerate(centres):
            norm = math.sqrt(sum(x * x for x in centre))
            cos = sum(x * c for x, c in zip(row, centre, strict=True)) / (max(length, 1e-3) * norm)
            if k == label:
                theta = min(max(math.acos(cos) + -0.4 * z, 0), math.pi)
                cos = math.cos(theta) - (0.4 * z + 0.4)
            out.append(12 * cos)
        logits.append(out)
    return logits


def test_adaface_is_the_papers_formula_with_running_statistics() -> None:
    head = make("adaface", s=12.0, t_alpha=0.4).double()
    centres = head.weight.tolist()
    mean = std = 0.0
    for batch, weight in enumerate([1.0, 0.5, 0.4, 0.4]):  # 1/n until that is under t_alpha
        embedding, label = hard_batch(head)
        norms = [min(max(math.hypot(*row), 1e-3), 100) for row in embedding.tolist()]
        mean = weight * statistics.mean(norms) + (1 - weight) * mean
        std = weight * statistics.stdev(norms) + (1 - weight) * std
        expected = adaface_by_hand(embedding.tolist(), label.tolist(), centres, mean, std)
        torch.testing.assert_close(
            head(embedding, label), torch.tensor(expected, dtype=torch.float64), msg=f"batch {batch}"
        )

    before = {k: v.clone() for k, v in head.state_dict().items()}
    head.eval()
    head(embedding, label)
    head.train()
    head(embedding[:1], label[:1])  # one image has no standard deviation
    assert all(torch.equal(v, before[k]) for k, v in head.state_dict().items())


def test_adaface_asks_less_of_short_embeddings_that_are_far_from_their_centre() -> None:
    head = make("adaface", num_classes=2, embedding_dim=2, s=1.0).eval()
    head.weight.data = torch.eye(2)
    head.norm_mean.fill_(10)
    label = torch.zeros(3, dtype=torch.int64)
    direction = torch.tensor([math.cos(0.8), math.sin(0.8)])
    poor, fair, good = head(direction * torch.tensor([[1.0], [10.0], [50.0]]), label)[:, 0].tolist()
    assert poor == pytest.approx(math.cos(0.8 + 0.4))  # ArcFace
    assert fair == pytest.approx(math.cos(0.8) - 0.4)  # CosFace
    assert good == pytest.approx(math.cos(0.8 - 0.4) - 0.8)


def test_adaface_resumes_exactly_from_its_state() -> None:
    head, resumed = make("adaface"), make("adaface")
    batches = [hard_batch(head) for _ in range(4)]
    for batch in batches[:2]:
        head(*batch)
    resumed.load_state_dict(head.state_dict())
    for batch in batches[2:]:
        assert torch.equal(head(*batch), resumed(*batch))


def test_arcface_falls_with_the_angle_all_the_way_to_pi() -> None:
    head = make("arcface", num_classes=2, embedding_dim=2, s=1.0)
    head.weight.data = torch.eye(2)
    theta = torch.linspace(0, math.pi, 500)
    own = head(torch.stack([theta.cos(), theta.sin()], 1), torch.zeros(500, dtype=torch.int64))[:, 0].detach()
    assert (own.diff() < 0).all()
    assert own[-1].item() == pytest.approx(-1 - 0.5 * math.sin(0.5), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: str) -> None:
    head = make(kind).double().eval()
    if kind == "adaface":
        head.norm_mean.fill_(99)  # embeddings longer than 100: the detached length is constant
    label = torch.arange(6) % CLASSES
    embedding = (200 * F.normalize(torch.randn(6, DIM, dtype=torch.float64))).requires_grad_()

    def logits(embedding: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(head, {"weight": weight}, (embedding, label))

    weight = head.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(logits, (embedding, weight), eps=1e-5, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_family_shape_dtype_and_seeding(kind: str) -> None:
    head, again = make(kind), make(kind)
    embedding, label = torch.randn(4, DIM), torch.tensor([0, 6, 3, 3])
    logits = head(embedding, label)
    assert logits.shape == (4, CLASSES) and logits.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), again.parameters(), strict=True))
    assert HEADS.get(kind)().kind == kind


@pytest.mark.parametrize("kind", KINDS)
def test_family_computes_in_float32_under_autocast(kind: str) -> None:
    head = make(kind, s=64.0).eval()
    embedding, label = torch.randn(4, DIM).bfloat16(), torch.tensor([0, 6, 3, 3])
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(embedding, label)
    assert torch.equal(logits, head(embedding.float(), label))


@pytest.mark.parametrize("kind", KINDS)
def test_family_gives_no_gradient_along_the_embedding(kind: str) -> None:
    """Only the direction is trained: AdaFace's quality is detached."""
    head = make(kind).double()
    embedding = torch.randn(9, DIM, dtype=torch.float64, requires_grad=True)
    F.cross_entropy(head(embedding, torch.arange(9) % CLASSES), torch.arange(9) % CLASSES).backward()
    assert embedding.grad is not None and embedding.grad.abs().sum() > 0.1
    assert (embedding.grad * embedding).sum(1).abs().max() < 1e-12


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", KINDS)
def test_family_has_finite_gradients_at_the_poles_and_at_zero(kind: str, mode: bool) -> None:
    head = make(kind, num_classes=DIM).train(mode)
    centre = head.weight.data = torch.eye(DIM)  # so that the cosines are +-1 to the last bit
    embedding = torch.cat([centre, -centre, 30 * centre, 0 * centre]).requires_grad_()
    label = torch.arange(DIM).repeat(4)
    logits = head(embedding, label)
    F.cross_entropy(logits, label).backward()
    assert logits.isfinite().all()
    assert embedding.grad is not None and embedding.grad.isfinite().all()
    assert head.weight.grad.isfinite().all() and head.weight.grad.abs().sum() > 0
    assert embedding.grad.norm(dim=1).max() < 1e4


def test_the_angle_has_a_finite_slope_at_the_poles() -> None:
    """The clamp before it would hide a bare acos if torch gives clamp no slope at its bounds (2.14)."""
    cos = torch.tensor([-1.0, 0.5, 1.0], requires_grad=True)
    theta = angle_of(cos)
    theta.sum().backward()
    torch.testing.assert_close(theta.detach(), torch.tensor([math.pi, math.pi / 3, 0.0]), atol=6e-4, rtol=0)
    assert cos.grad is not None and cos.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_family_learns_a_separable_toy(kind: str) -> None:
    head = make(kind, num_classes=20, embedding_dim=8)
    people = torch.randn(20, 16)
    label = torch.arange(100) % 20
    img = people[label] + 0.1 * torch.randn(100, 16)
    net = nn.Linear(16, 8)
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], lr=0.05)
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(head(net(img), label), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    cos = F.normalize(net(img)) @ F.normalize(head.weight).T
    assert (cos.argmax(1) == label).float().mean() == 1
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize("num_classes", [20, 100, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_chosen_scale_gives_even_odds_at_45_degrees_and_sure_ones_at_the_centre(kind: str, num_classes: int) -> None:
    head = make(kind, num_classes=num_classes, embedding_dim=num_classes + 1).eval()
    head.weight.data = torch.eye(num_classes, num_classes + 1)
    if kind == "adaface":
        head.norm_mean.fill_(1)  # average quality
    embedding = torch.zeros(2, num_classes + 1)
    embedding[0, [0, -1]] = 0.5**0.5
    embedding[1, 0] = 1
    p = head(embedding, torch.zeros(2, dtype=torch.int64)).softmax(1)[:, 0]
    assert p[0].item() == pytest.approx(0.5, abs=1e-3)
    assert p[1] > (0.75 if kind == "softmax" else 0.9)


def test_scale_without_margin_is_adacos_and_a_given_one_stays() -> None:
    assert make("softmax", num_classes=20).s == pytest.approx(math.sqrt(2) * math.log(19))
    assert make("softmax", num_classes=2).s == make("softmax", num_classes=10).s > 3
    assert make("arcface", num_classes=10_000, m=0.7).s == 64
    assert all(make(kind, s=16.0).s == 16 for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_one_class_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="two or more classes"):
        make(kind, num_classes=1)


@pytest.mark.parametrize("bad", [{"m": -0.1}, {"m": 3.0}, {"s": -1.0}, {"margin": 0.5}])
def test_configs_refuse_what_cannot_work(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        HEADS.get("arcface")(**bad)


def test_unknown_kind_names_the_valid_ones() -> None:
    with pytest.raises(UserError) as error:
        HEADS.get("sphereface")
    assert all(kind in str(error.value) for kind in ("sphereface", "softmax", "cosface", "arcface", "adaface"))
