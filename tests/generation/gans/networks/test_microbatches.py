"""Parts of a batch: what they are, and that a generator trained in parts is the one trained on whole batches.

Every family and loss by several ranks is in tests/integration/test_gan_ddp.py.
"""

from __future__ import annotations

import itertools
import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from drawn import RUNTIME, Lab, tiny
from facegan.core.errors import UserError
from facegan.generation.gans import GANS
from facegan.generation.gans.networks.cvae_gan import borrowers
from facegan.generation.gans.networks.microbatches import WHOLE, Part, parts_of
from facegan.generation.gans.networks.style import MinibatchStddev
from facegan.generation.options import TrainGan
from facegan.runtime.context import Context
from facegan.stages import train_gan
from facegan.training.checkpoints import Checkpoints
from ranked_gan import ADAPTIVE, PENALISED, apart, gan_options, gan_trained, leaves, people_of

PLAIN = nn.Linear(1, 1)


@pytest.fixture(scope="module")
def people(faces: Path, shared: Lab) -> Path:
    """Photos of 16 px: sums of parts do not depend on the size."""
    return people_of(tiny(faces, prepare={"size_px": 16}), shared)


@pytest.mark.parametrize(("batch_size", "at_once"), [(8, 3), (7, 1), (32, 31), (4, 4), (9, 100), (30, 0)])
def test_every_row_is_in_one_part(batch_size: int, at_once: int) -> None:
    parts = parts_of(PLAIN, PLAIN, batch_size, at_once)
    if at_once == 0 or at_once >= batch_size:
        assert parts == [WHOLE]
        return
    rows = [part.take(torch.arange(batch_size)).tolist() for part in parts]
    assert len(rows) == math.ceil(batch_size / at_once)
    assert sorted(itertools.chain(*rows)) == list(range(batch_size)) and all(
        0 < len(part_rows) <= at_once for part_rows in rows
    )


@pytest.mark.parametrize(("batch_size", "at_once", "group"), [(12, 4, 4), (24, 9, 4), (14, 4, 2), (9, 5, 3), (7, 3, 1)])
def test_images_looked_at_together_stay_together(batch_size: int, at_once: int, group: int) -> None:
    x = torch.randn(batch_size, 2, 3, 3, dtype=torch.float64)
    expected = MinibatchStddev(4)(x)
    layer = MinibatchStddev(4)
    parts = parts_of(PLAIN, nn.Sequential(layer), batch_size, at_once)
    assert len(parts) > 1 and layer.group == group
    for part in parts:
        torch.testing.assert_close(layer(part.take(x)), part.take(expected))
    assert sum(len(part.take(x)) for part in parts) == batch_size


def test_parts_draw_what_the_whole_draws_and_add_up() -> None:
    parts, values = parts_of(PLAIN, PLAIN, 10, 4), torch.rand(10, 3)
    for source in (torch.rand, torch.randn, partial(torch.randint, 0, 9)):
        torch.manual_seed(1)
        whole, after = WHOLE.draw(source, 10, 2, 5), torch.rand(1)
        for part in parts:
            torch.manual_seed(1)
            part_values = part.draw(source, len(part.take(values)), 2, 5)
            assert torch.equal(part_values, part.take(whole)) and torch.equal(torch.rand(1), after)
    shares = [part.mean(part.take(values)) for part in parts]
    torch.testing.assert_close(torch.stack(shares).sum(), values.mean())
    assert Part(torch.arange(0), 10).mean(values[:0]) == 0  # a part without a row has no share


@pytest.mark.parametrize("count", [4, 7, 10])
def test_who_borrows_from_a_part(count: int) -> None:
    z, half = torch.arange(count), (count + 1) // 2
    fakes, lenders = borrowers(WHOLE, count)
    assert torch.equal(z[fakes.rows], z[:half]) and torch.equal(z[lenders], z.roll(1)[:half])
    seen: dict[int, int] = {}
    for part in parts_of(PLAIN, PLAIN, count, 2):
        fakes, lenders = borrowers(part, count)
        assert fakes.count == half
        seen |= dict(zip(z[fakes.rows].tolist(), part.take(z)[lenders].tolist(), strict=True))
    assert seen == {row: (row - 1) % count for row in range(half)}


@pytest.mark.parametrize(("kind", "at_once"), [("cvae_gan", 3), ("cvae_gan", 1), ("style", 2), ("refiner", 3)])
def test_a_few_images_at_once(people: Path, tmp_path: Path, kind: str, at_once: int) -> None:
    losses = {"hinge": {"penalty": "exact"}, "wasserstein": {"critic_steps": 2}, "relativistic": {"penalty": "finite"}}
    penalised = {**PENALISED, "r1_interval": 2}  # with the first and the last of three steps
    penalised |= {"mode_seeking": 0.1} if GANS.get(kind).draws_z else {}
    for loss, changes in losses.items():
        chosen = gan_options(kind, steps=3, loss=loss, spectral_norm=True, **penalised, **changes)
        outs = [tmp_path / loss / name for name in ("whole", "parts")]
        whole = gan_trained(chosen, people, outs[0])
        assert apart(whole, gan_trained(chosen, people, outs[1], batch_gpu=at_once)) < 1e-7
        lines = [[json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()] for out in outs]
        assert len(lines[0]) == 3 and all(a == pytest.approx(b, abs=2e-6) for a, b in zip(*lines, strict=True))


@pytest.mark.parametrize(
    ("kind", "loss", "ranks", "at_once"), [("cvae_gan", "hinge", 1, 3), ("dcgan", "relativistic", 2, 0)]
)
def test_parts_adapt_as_the_whole(people: Path, tmp_path: Path, kind: str, loss: str, ranks: int, at_once: int) -> None:
    helps = {"ada": ADAPTIVE, "ramp": {"start_kimg": 0.007, "end_kimg": 0.03}}
    chosen = gan_options(kind, steps=6, loss=loss, **PENALISED, **helps)
    one = gan_trained(chosen, people, tmp_path / "one")
    assert apart(one, gan_trained(chosen, people, tmp_path / "parts", ranks, at_once)) < 1e-7
    lines = [
        [json.loads(line) for line in (tmp_path / name / "curve.jsonl").read_text().splitlines()]
        for name in ("one", "parts")
    ]
    moved = sum(line["ada_r"] for line in lines[0][:2]) > 2 * ADAPTIVE["target"]  # from 0 it can go up alone
    assert [line["ada_p"] for line in lines[0]] == ([0, 0, 0.14, 0.14, 0.28, 0.28] if moved else [0] * 4 + [0.14] * 2)
    for name in ("ada_p", "ada_r"):  # whole numbers of images: not a bit apart
        assert [line[name] for line in lines[0]] == [line[name] for line in lines[1]]


def test_two_ranks_with_batch_norm_and_a_penalty_on_gradients(people: Path, tmp_path: Path) -> None:
    normed = {"loss": "nonsaturating", "penalty": "exact"}
    chosen = gan_options("dcgan", steps=5, **normed, **PENALISED)  # uneven parts: 3 and 4
    one = gan_trained(chosen, people, tmp_path / "one")
    assert apart(one, gan_trained(chosen, people, tmp_path / "two", ranks=2)) < 1e-7
    other = gan_options("dcgan", steps=5, **normed, **{**PENALISED, "r1_gamma": 0.501})
    assert apart(one, gan_trained(other, people, tmp_path / "other")) > 1e-6


def test_what_cannot_be_split(people: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"batch_gpu is 4, but layer 'layers.1' of G takes the mean and variance"
    ) as error:
        gan_trained(gan_options("dcgan"), people, tmp_path, batch_gpu=4)
    assert "nproc_per_node" in error.value.fix
    gan_trained(gan_options("dcgan", steps=2), people, tmp_path, batch_gpu=7)  # the whole batch at once
    with pytest.raises(UserError, match="batch_gpu is 3, for batches of 8 images, of which D looks at 4 together"):
        gan_trained(gan_options("style", batch_size=8), people, tmp_path / "style", batch_gpu=3)


@pytest.mark.parametrize("kind", ["cvae_gan", "dcgan", "style", "refiner"])
@pytest.mark.parametrize("loss", ["relativistic", "nonsaturating", "wasserstein"])
def test_bfloat16(people: Path, tmp_path: Path, kind: str, loss: str) -> None:
    """Close to single precision and not the same; weights, averages and moments are single."""
    lines = []
    for precision in ("float32", "bfloat16"):
        out = tmp_path / precision
        (out / "work").mkdir(parents=True)
        chosen = gan_options(kind, steps=3, loss=loss, spectral_norm=True, critic_steps=1)
        chosen = TrainGan.model_validate({**chosen.model_dump(), "precision": precision})
        train_gan.run(chosen, {}, {"manifest": people}, out, Context(RUNTIME))
        lines.append([json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()])
    assert lines[0] != lines[1]
    for single, low in zip(*lines, strict=True):
        for counted in ("pair_accuracy", "real_accuracy", "gen_accuracy"):  # a logit near the limit may cross it
            assert single.pop(counted, 0) == pytest.approx(low.pop(counted, 0), abs=0.3)
        assert single == pytest.approx(low, rel=0.05, abs=0.05)
    state = Checkpoints(out / "work").load_latest()
    assert state and all(value.dtype != torch.bfloat16 for _, value in leaves("", state[1]))


def test_options_that_are_new_change_no_fingerprint() -> None:
    assert "precision" not in TrainGan().model_dump(mode="json")
    assert TrainGan(precision="bfloat16").model_dump(mode="json")["precision"] == "bfloat16"
