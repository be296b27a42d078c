"""The GAN families as one family: shapes, gradients, latents, spectral norm, and the options of every family."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from facegan.core.errors import ConfigError
from facegan.generation.gans import GANS, Ada, AdversarialConfig, GanConfig, Ramp
from facegan.generation.gans.networks.base import Generator, grid, mode_seeking_loss
from facegan.generation.gans.networks.microbatches import Part
from facegan.generation.gans.networks.objective import (
    Adaptive,
)
from facegan.generation.training import train_step
from facegan.training.tensors import to_input

KINDS = sorted(GANS.load())
ADVERSARIAL = [kind for kind in KINDS if issubclass(GANS.get(kind), AdversarialConfig)]
CONDITIONAL = [kind for kind in ADVERSARIAL if GANS.get(kind).conditional]
LOSSES = ["relativistic", "nonsaturating", "hinge", "wasserstein"]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def config_of(kind: str, **options: Any) -> GanConfig:
    config: GanConfig = GANS.get(kind).model_validate({"kind": kind, **options})
    return config


def adversary(kind: str, **options: Any) -> AdversarialConfig:
    config = config_of(kind, **options)
    assert isinstance(config, AdversarialConfig)
    return config


def begun(config: GanConfig, people: int, channels: int, size_px: int) -> Generator:
    """G as train_gan makes it, begun from two random images of each person."""
    G = config.build_generator(people, channels, size_px)
    G.start(torch.rand(2 * people, channels, size_px, size_px) * 2 - 1, torch.arange(2 * people) % people)
    return G


def networks(config: AdversarialConfig, people: int, channels: int, size_px: int) -> tuple[Generator, nn.Module]:
    """G, begun, and D."""
    return begun(config, people, channels, size_px), config.build_discriminator(people, channels, size_px)


def latents(G: Generator, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, G.code_dim, generator=rng), torch.randn(count, G.z_dim, generator=rng)


def adam(net: nn.Module, config: AdversarialConfig, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr, (config.beta1, config.beta2), foreach=True)


# The family.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size_px", "channels"), [(16, 1), (48, 3)])
def test_shapes_and_ranges(kind: str, size_px: int, channels: int) -> None:
    config = config_of(kind)
    G = begun(config, 5, channels, size_px)
    w, z = latents(G, 4)
    img = G(w, z)
    assert img.shape == (4, channels, size_px, size_px) and img.dtype == torch.float32
    assert img.detach().abs().max() <= 1
    if isinstance(config, AdversarialConfig):
        logits = config.build_discriminator(5, channels, size_px)(img, torch.tensor([0, 1, 4, 4]))
        assert logits.shape == (4,) and logits.isfinite().all()
    assert G.num_identities == 5 and G.codes().shape == (5, G.code_dim)
    encoded = G.encode(img, w)
    assert (encoded is not None) == config.encodes
    assert encoded is None or encoded.shape == z.shape


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixed_and_turned_variation_code_is_one(kind: str) -> None:
    """Shapes, that noise 0 is repeatable, and that a code alone blends to itself."""
    G = begun(config_of(kind), 3, 1, 16)
    own, other = (latents(G, 4, seed)[1].numpy() for seed in (0, 1))
    np.testing.assert_allclose(G.blend(own[None], np.ones(1)), own, rtol=1e-6)
    assert G.blend(np.stack([own, other]), np.asarray([0.3, 0.7])).shape == own.shape
    first, again = (G.vary(own, other, 0.4, 0.0, np.random.default_rng(seed)) for seed in (0, 1))
    noisy = G.vary(own, other, 0.4, 0.1, np.random.default_rng(0))
    assert first.shape == own.shape and np.array_equal(first, again)
    assert np.abs(noisy - first).max() > 1e-3 and np.abs(first - own).max() > 1e-3


def test_learned_codes_keep_their_length() -> None:
    """sum a_p z_p / |a|, and sqrt(1 - b^2) own + b other + noise e: independent codes of length 1 stay so."""
    G = Generator()
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((2, 20_000, 3))
    blended = G.blend(np.stack([one, two]), np.asarray([0.75, 0.25]))
    np.testing.assert_allclose(blended, (3 * one + two) / np.sqrt(10))
    np.testing.assert_allclose(G.vary(one, two, 0.6, 0.0, rng), 0.8 * one + 0.6 * two)
    assert blended.std() == pytest.approx(1, rel=0.02)
    assert (G.vary(one, two, 0.6, 0.5, rng) - 0.8 * one - 0.6 * two).std() == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size_px", [80, 112, 144])
def test_other_sizes_are_made_or_refused(kind: str, size_px: int) -> None:
    config = config_of(kind)
    try:
        G = begun(config, 2, 1, size_px)
    except ConfigError:
        with pytest.raises(ConfigError):
            adversary(kind).build_discriminator(2, 1, size_px)
        return
    assert G(*latents(G, 2)).shape == (2, 1, size_px, size_px)


@pytest.mark.parametrize("kind", KINDS)
def test_both_codes_and_the_label_matter(kind: str) -> None:
    config = config_of(kind)
    G = begun(config, 3, 1, 16).eval()
    (w, z), (other_w, other_z) = latents(G, 2), latents(G, 2, seed=1)
    img = G(w, z)
    assert (G(other_w, z) - img).abs().amax(dim=(1, 2, 3)).min() > 1e-5
    assert (G(w, other_z) - img).abs().amax(dim=(1, 2, 3)).min() > 1e-5
    if isinstance(config, AdversarialConfig) and config.conditional:
        D = config.build_discriminator(3, 1, 16).eval()
        assert (D(img, torch.tensor([1, 1])) - D(img, torch.tensor([0, 0]))).abs().min() > 1e-6


@pytest.mark.parametrize("kind", ADVERSARIAL)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_every_parameter_gets_a_gradient(kind: str, loss: str, spectral_norm: bool) -> None:
    gamma, penalty = 0.0 if loss == "wasserstein" else 1.0, "exact" if loss == "hinge" else "finite"
    penalties = {"r1_gamma": gamma, "r2_gamma": gamma, "penalty": penalty, "critic_steps": 1}
    config = adversary(kind, loss=loss, spectral_norm=spectral_norm, **penalties)
    G, D = networks(config, 3, 1, 16)
    label = torch.tensor([0, 1, 2, 0, 1, 2])  # not a multiple of style's group of four
    opt_g, opt_d = adam(G, config, config.lr_g), adam(D, config, config.lr_d)
    before = copy.deepcopy(G.state_dict())
    real_img = to_input(np.random.default_rng(0).integers(0, 256, (6, 16, 16, 1), np.uint8))
    values = train_step(config, G, D, opt_g, opt_d, real_img, label, 0)
    assert all(math.isfinite(value) for value in values.values())
    assert ("gp" in values) == (loss == "wasserstein")
    assert {"r1", "r2"} & set(values) == (set() if loss == "wasserstein" else {"r1", "r2"})
    for net in (G, D):
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.requires_grad, name
    assert any(not torch.equal(value, before[name]) for name, value in G.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_eval_images_depend_on_their_own_latents_alone(kind: str) -> None:
    config = config_of(kind)
    G = begun(config, 4, 1, 32)
    if isinstance(config, AdversarialConfig):
        D = config.build_discriminator(4, 1, 32)
        opt_g, opt_d = adam(G, config, config.lr_g), adam(D, config, config.lr_d)
        train_step(config, G, D, opt_g, opt_d, torch.rand(4, 1, 32, 32) * 2 - 1, torch.arange(4), 1)
    again = config.build_generator(4, 1, 32)
    again.load_state_dict(G.state_dict())
    G.eval(), again.eval()
    w, z = latents(G, 8)
    img = G(w, z)
    for index in (0, 3, 7):
        is_index = (torch.arange(8) == index)[:, None]
        torch.rand(5)  # the state of the global generator plays no part
        assert torch.equal(again(w * is_index, z * is_index)[index], img[index])


@pytest.mark.parametrize("kind", KINDS)
def test_learns_who_is_bright(kind: str) -> None:
    """Two people, one dark and one bright: after 40 steps at the default rates (none where G is solved from the
    images) G knows them, whatever z."""
    config = config_of(kind)
    G = config.build_generator(2, 1, 16)
    label = torch.arange(16) % 2
    real_img = (label * 1.2 - 0.6)[:, None, None, None] + 0.05 * torch.randn(16, 1, 16, 16)
    G.start(real_img, label)
    if isinstance(config, AdversarialConfig):
        D = config.build_discriminator(2, 1, 16)
        opt_g, opt_d = adam(G, config, config.lr_g), adam(D, config, config.lr_d)
        for step in range(40):
            train_step(config, G, D, opt_g, opt_d, real_img, label, step)
    G.eval()
    _, z = latents(G, 32)
    with torch.no_grad():
        dark, bright = (G(code.expand(32, -1), z).mean(dim=(1, 2, 3)) for code in G.codes())
    assert (bright > dark).all()
    assert bright.mean() - dark.mean() > 0.3


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_spectral_norm_bounds_every_layer(kind: str) -> None:
    D = adversary(kind, spectral_norm=True).build_discriminator(6, 1, 32)
    for name, parameter in D.named_parameters():
        assert parameter.ndim < 2 or "parametrizations.weight" in name, f"{name} is not normalised"
    layers: list[Any] = [layer for layer in D.modules() if hasattr(layer, "parametrizations")]
    assert len(layers) >= 4
    for layer in layers:
        for _ in range(40):  # each look at the weight is a power iteration
            weight = layer.weight
        top = torch.linalg.matrix_norm(weight.detach().flatten(1), ord=2)
        assert top == pytest.approx(1.0, abs=0.05), layer
        assert getattr(layer, "scale", 1.0) == 1.0  # an equalised rate must not undo the bound


@pytest.mark.parametrize("kind", ["dcgan", "style"])
def test_sizes_of_the_pyramid(kind: str) -> None:
    for size_px in range(16, 513, 16):
        try:
            base_px, levels = grid(size_px)
        except ConfigError as error:
            assert "prepare.size_px" in str(error)
            assert size_px // (size_px & -size_px) > 7
        else:
            assert base_px * 2**levels == size_px and 4 <= base_px <= 7
    for build in (adversary(kind).build_generator, adversary(kind).build_discriminator):
        with pytest.raises(ConfigError, match=r"set prepare\.size_px=128 or 160"):
            build(2, 1, 144)


def test_dcgan_has_batch_norm_in_d_only_where_it_may() -> None:
    def norms(**options: Any) -> int:
        D = adversary("dcgan", **options).build_discriminator(2, 1, 64)
        return sum(isinstance(layer, nn.BatchNorm2d) for layer in D.modules())

    assert norms(loss="nonsaturating") == norms(loss="hinge") == 3  # of four convolutions, all but the first
    assert norms() == norms(loss="wasserstein") == norms(loss="hinge", spectral_norm=True) == 0


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_penalties_are_of_what_d_sees(spectral_norm: bool) -> None:
    """Of the augmented images, at photos and at fakes; finite differences of one D, though spectral_norm moves it."""
    found: dict[tuple[str, bool], dict[str, float]] = {}
    for penalty in ("exact", "finite"):
        for is_augmented in (False, True):
            torch.manual_seed(4)
            config = adversary(
                "style", penalty=penalty, spectral_norm=spectral_norm, stddev_group=0, r2_gamma=0.7,
                diffaugment=["cutout"] if is_augmented else [],
            )  # fmt: skip
            G, D = networks(config, 3, 1, 16)
            for name, parameter in D.named_parameters():
                if name.endswith("bias"):  # at 0 a hole's features lie on the kink of leaky ReLU, which has no slope
                    nn.init.normal_(parameter, std=0.1)
            opt_g, opt_d = adam(G, config, config.lr_g), adam(D, config, config.lr_d)
            real_img, label = torch.rand(256, 1, 16, 16) * 2 - 1, torch.arange(256) % 3
            if not is_augmented:
                img = real_img.clone().requires_grad_(True)
                (slope,) = torch.autograd.grad(copy.deepcopy(D)(img, label).sum(), img)
                by_hand = 0.05 / 2 * slope.square().sum(dim=(1, 2, 3)).mean().item()
            found[penalty, is_augmented] = train_step(config, G, D, opt_g, opt_d, real_img, label, 0)
    assert found["exact", False]["r1"] == pytest.approx(by_hand, rel=1e-4)
    for name in ("r1", "r2"):  # a finite one is a mean of 256 squared normals: to 9 %
        for is_augmented in (False, True):
            assert found["finite", is_augmented][name] == pytest.approx(found["exact", is_augmented][name], rel=0.4)
    assert found["exact", True]["r1"] != pytest.approx(found["exact", False]["r1"], rel=0.02)


def test_wasserstein_penalises_between_what_d_saw() -> None:
    """D's third look is at points on the lines from the augmented photos of the pairs to their augmented fakes."""
    config = adversary("cvae_gan", loss="wasserstein", spectral_norm=False, diffaugment=["cutout"])
    G, D = networks(config, 3, 1, 16)
    looks: list[torch.Tensor] = []
    D.register_forward_pre_hook(lambda _, inputs: looks.append(inputs[0].detach().double()))
    opt_g, opt_d = adam(G, config, config.lr_g), adam(D, config, config.lr_d)
    real_img = torch.rand(7, 1, 16, 16) + 0.1  # nowhere 0, so that a hole is a change
    train_step(config, G, D, opt_g, opt_d, real_img, torch.arange(7) % 3, 0)
    real, fake, between = looks
    assert len(real) == len(fake) == len(between) == 4  # cvae_gan makes fakes of the first half of the rows
    assert (real != real_img[:4]).any() and ((real == real_img[:4]) | (real == 0)).all()
    along, line = between - real, fake - real
    t = (along * line).sum(dim=(1, 2, 3), keepdim=True) / line.square().sum(dim=(1, 2, 3), keepdim=True)
    assert ((t > 0) & (t < 1)).all()
    torch.testing.assert_close(along, t * line, rtol=0, atol=1e-6)


def test_a_lazy_penalty_counts_for_the_steps_that_leave_it_out() -> None:
    config = adversary("dcgan", r1_interval=4, penalty="exact", lr_d=1e-9, lr_g=1e-9, diffaugment=[])
    G, D = networks(config, 3, 1, 16)
    opt_g, opt_d = adam(G, config, config.lr_g), adam(D, config, config.lr_d)
    real_img, label, told = torch.rand(6, 1, 16, 16), torch.arange(6) % 3, []
    for config_now in (config, config.model_copy(update={"r1_interval": 1})):
        told += [train_step(config_now, G, D, opt_g, opt_d, real_img, label, step) for step in (0, 1)]
    assert ["r1" in values for values in told] == ["r2" in values for values in told] == [True, False, True, True]
    assert told[0]["r1"] == pytest.approx(4 * told[2]["r1"], rel=1e-3)


def test_without_batch_norm_d_of_dcgan_begins_with_a_slope() -> None:
    """Logits of images as different as photos are apart; from N(0, 0.02^2) they were a hundredth of it."""
    logits = adversary("dcgan").build_discriminator(3, 1, 64)(torch.rand(64, 1, 64, 64) * 2 - 1, torch.zeros(64).long())
    assert 0.1 < logits.std() < 10


# Adaptive augmentation.


def test_a_step_tells_ada_how_sure_d_was() -> None:
    """r is the mean sign of D's logits of real images, whatever their size; p of the step is the one before it."""

    class Says(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, img: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            return self.scale * (torch.tensor([0.01, 0.02, -3.0])[label] + 0 * img.mean(dim=(1, 2, 3)))

    config = adversary("dcgan", loss="hinge", ada={"interval": 1, "kimg": 0.02, "target": 0.4}, lr_d=1e-9)
    G, D, state = config.build_generator(3, 1, 16), Says(), Adaptive(p=0.2)
    label = torch.tensor([0, 0, 1, 2])  # signs 1, 1, 1, -1
    opt_g, opt_d = adam(G, config, config.lr_g), adam(D, config, config.lr_d)
    for before in (0.2, 0.4):
        values = train_step(config, G, D, opt_g, opt_d, torch.zeros(4, 1, 16, 16), label, 0, ada=state)
        assert (values["ada_p"], values["ada_r"]) == (pytest.approx(before), 0.5)
        assert not {"signs", "seen"} & set(values) and values["real_accuracy"] == 0.75
    assert state.p == pytest.approx(0.6)


def test_of_pairs_ada_sees_which_is_above() -> None:
    """cvae_gan makes half as many fakes as there are photos: r is of pairs, a photo and a fake of the same row."""

    class Says(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, img: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            is_photo = (img == 0.5).flatten(1).all(dim=1)
            return self.scale * torch.where(is_photo, label - 9.0, torch.full(label.shape, -8.5)) + 0 * img.sum()

    config = adversary("cvae_gan", loss="relativistic", ada={}, diffaugment=["color"], lr_d=1e-9)
    G, D, state = begun(config, 3, 1, 16), Says(), Adaptive()
    label = torch.tensor([0, 1, 1, 2, 2])  # three fakes, of rows 0, 1 and 2: D puts two photos above them
    opt_g, opt_d = adam(G, config, config.lr_g), adam(D, config, config.lr_d)
    values = train_step(config, G, D, opt_g, opt_d, torch.full((5, 1, 16, 16), 0.5), label, 0, ada=state)
    assert values["ada_r"] == pytest.approx((1 + 1 - 1) / 3) and values["pair_accuracy"] == pytest.approx(2 / 3)
    assert (state.signs, state.steps) == (1, 1)
    assert values["d"] == pytest.approx(sum(math.log1p(math.exp(x)) for x in (0.5, -0.5, -0.5)) / 3, rel=1e-5)
    assert values["g"] == pytest.approx(0.2 * sum(math.log1p(math.exp(x)) for x in (-0.5, 0.5, 0.5)) / 3, rel=1e-5)


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_d_steps_more_often_than_g(kind: str) -> None:
    """With wasserstein five times, each on the photos it is given; G steps with the fifth."""
    assert [adversary(kind, loss=loss).steps_of_d for loss in LOSSES] == [1, 1, 1, 5]
    config = adversary(kind, loss="wasserstein", critic_steps=3)
    G, D = networks(config, 3, 1, 16)
    opt_g, opt_d = adam(G, config, config.lr_g), adam(D, config, config.lr_d)
    moved = []
    for step in range(6):
        before = [copy.deepcopy(list(net.parameters())) for net in (G, D)]
        values = train_step(config, G, D, opt_g, opt_d, torch.rand(6, 1, 16, 16), torch.arange(6) % 3, step)
        moved.append(
            tuple(
                any(not torch.equal(a, b) for a, b in zip(was, net.parameters(), strict=True))
                for was, net in zip(before, (G, D), strict=True)
            )
        )
        assert ("g" in values) == moved[-1][0] and {"d", "gp", "pair_accuracy"} <= set(values)
    assert moved == [(False, True), (False, True), (True, True)] * 2


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_what_cannot_adapt(kind: str) -> None:
    assert adversary(kind, ada={}).ada == Ada(target=0.6, interval=4, kimg=10)
    assert adversary(kind, ada={}, loss="hinge").loss == "hinge"
    with pytest.raises(ValidationError, match="says nothing with loss=wasserstein"):
        adversary(kind, ada={}, loss="wasserstein")
    with pytest.raises(ValidationError, match="diffaugment is empty"):
        adversary(kind, ada={}, diffaugment=[])


# From no condition to the whole one.


def test_the_ramp_is_its_formula() -> None:
    ramp = Ramp(start_kimg=2, end_kimg=6)
    assert [ramp.at(nimg) for nimg in (0, 2000, 3000, 5000, 6000, 9000)] == [0, 0, 0.25, 0.75, 1, 1]
    for end in (2, 1.5):
        with pytest.raises(ValidationError, match=r"must be above ramp\.start_kimg"):
            Ramp(start_kimg=2, end_kimg=end)


@pytest.mark.parametrize("kind", CONDITIONAL)
def test_the_person_counts_as_much_as_the_ramp_says(kind: str) -> None:
    """D's two terms apart; and G in a training step, which at 0 knows nobody (but cvae_gan, which rebuilds)."""
    config = adversary(kind, loss="wasserstein", spectral_norm=False)  # no power iteration, no batch norm
    G, D = networks(config, 3, 1, 16)
    img, people, others = torch.rand(4, 1, 16, 16) * 2 - 1, torch.tensor([0, 1, 2, 2]), torch.tensor([1, 2, 0, 1])

    def logits(label: torch.Tensor, conditioned: float) -> torch.Tensor:
        D.conditioned = conditioned  # type: ignore[assignment]
        return D(img, label).detach()

    def fakes(label: torch.Tensor, conditioned: float) -> torch.Tensor:
        G.conditioned = conditioned
        torch.manual_seed(5)
        return G.step(img, label).fake_img.detach()

    alone = logits(people, 0.0)
    assert torch.equal(alone, logits(others, 0.0)) and not torch.equal(alone, logits(people, 1.0))
    torch.testing.assert_close(logits(people, 0.25) - alone, 0.25 * (logits(people, 1.0) - alone))
    assert torch.equal(fakes(people, 0.0), fakes(others, 0.0)) == (kind != "cvae_gan")
    half, whole = fakes(people, 0.5), fakes(people, 1.0)
    assert torch.equal(half, whole) if kind == "cvae_gan" else (half - whole).abs().max() > 1e-3
    assert not torch.equal(fakes(people, 0.5), fakes(others, 0.5))


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_mode_seeking_is_its_formula_on_two_images_of_each_person(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not adversary(kind).draws_z:
        with pytest.raises(ValidationError, match="variation is of photos"):
            adversary(kind, mode_seeking=0.1)
        return
    G = networks(adversary(kind), 3, 1, 16)[0]
    img, people = torch.zeros(4, 1, 16, 16), torch.tensor([0, 1, 2, 2])
    torch.manual_seed(5)
    without = G.step(img, people)
    G.mode_seeking = 0.25
    drawn, train_forward = list[tuple[torch.Tensor, torch.Tensor]](), G.train_forward

    def noted(w: torch.Tensor, z: torch.Tensor, part: Part) -> torch.Tensor:
        made = train_forward(w, z, part)
        drawn.append((z, made.detach()))
        return made

    monkeypatch.setattr(G, "train_forward", noted)
    torch.manual_seed(5)
    step = G.step(img, people)
    (z, first), (other_z, second) = drawn
    assert not torch.equal(z, other_z)

    def even(img: torch.Tensor) -> np.ndarray:
        values = img.numpy().astype(np.float64)
        return (values - values.mean()) / np.sqrt(values.var() + 1e-6)

    distances = [
        np.abs(even(a) - even(b)).mean() / float((u - v).abs().mean())
        for a, b, u, v in zip(first, second, z, other_z, strict=True)
    ]
    assert float(step.terms.pop("mode_seeking")) == pytest.approx(
        0.25 * np.mean([1 / (d + 1e-5) for d in distances]), rel=1e-4
    )
    assert step.terms.keys() == without.terms.keys()
    losses = [mode_seeking_loss(first, second, z, code) for code in (other_z, z + 2 * (other_z - z))]  # twice as far
    torch.testing.assert_close(losses[1], 2 * losses[0], rtol=1e-3, atol=0)
    brighter = mode_seeking_loss(first, 0.5 * first + 0.2, z, other_z)  # what D is not shown is no difference
    assert (brighter > 100 * losses[0]).all()


@pytest.mark.parametrize("kind", CONDITIONAL)
def test_helps_that_are_off_change_no_fingerprint(kind: str) -> None:
    told = set(adversary(kind).model_dump(mode="json"))
    assert "ada" not in told and ("ramp" in told) == (kind == "biggan")  # which has one by default
    config = adversary(kind, ada={"target": 0.5}, ramp={"start_kimg": 1, "end_kimg": 2}).model_dump(mode="json")
    assert config["ada"]["target"] == 0.5 and config["ramp"] == {"start_kimg": 1, "end_kimg": 2}
    assert adversary(kind, ada=None, ramp=adversary(kind).ramp) == adversary(kind)


def test_what_a_family_takes_for_granted_is_said() -> None:
    part_based, refiner = GANS.get("part_based")(), GANS.get("refiner")()
    assert "aligned faces" in part_based.assumption and refiner.assumption == part_based.assumption
    assert GANS.get("refiner").model_validate({"draft": {"kind": "morphable"}}).assumption == ""
    assert not any(GANS.get(kind)().assumption for kind in GANS.load() if kind not in ("part_based", "refiner"))
