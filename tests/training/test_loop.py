"""What both training loops share: position in the data, seeds, schedules, averages, curves."""

from __future__ import annotations

import copy
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from facegan.core.errors import UserError
from facegan.training.loop import (
    Curve,
    Sampler,
    check_finite,
    cosine_lr,
    cut_curve,
    ema_beta,
    numpy_draws,
    reseed,
    step_size,
    update_ema,
)


@pytest.mark.parametrize(("length", "size"), [(10, 3), (7, 7), (5, 12), (1, 4), (33, 8)])
def test_every_row_once_an_epoch(length: int, size: int) -> None:
    sampler = Sampler(length, seed=1)
    batches = [sampler.batch(nimg, size) for nimg in range(0, length * size, size)]
    assert all(batch.shape == (size,) and batch.dtype == np.int64 for batch in batches)
    rows = np.concatenate(batches).reshape(-1, length)  # size whole epochs
    assert all(sorted(epoch.tolist()) == list(range(length)) for epoch in rows)
    if length > 5:
        assert len({tuple(epoch) for epoch in rows.tolist()}) > 1  # epochs differ in order


def test_a_batch_is_a_function_of_its_position() -> None:
    straight = Sampler(10, seed=3)
    expected = {nimg: straight.batch(nimg, 4).tolist() for nimg in range(0, 80, 4)}
    order = np.random.default_rng(0).permutation(list(expected))
    jumping = Sampler(10, seed=3)
    for nimg in order:
        assert jumping.batch(int(nimg), 4).tolist() == expected[int(nimg)]
        assert Sampler(10, seed=3).batch(int(nimg), 4).tolist() == expected[int(nimg)]


def test_a_batch_crosses_epochs_without_loss() -> None:
    sampler = Sampler(10, seed=3)
    across = sampler.batch(8, 5)
    assert across[:2].tolist() == sampler.batch(0, 10)[8:].tolist()
    assert across[2:].tolist() == sampler.batch(10, 10)[:3].tolist()
    other = [Sampler(10, seed=seed).batch(0, 10).tolist() for seed in range(5)]
    assert len({tuple(rows) for rows in other}) == 5


def test_seeds_are_a_function_of_seed_and_place() -> None:
    def draws(seed: int, nimg: int) -> tuple[float, float]:
        reseed(seed, nimg, torch.device("cpu"))
        return float(torch.rand(())), float(numpy_draws(seed, nimg).random())

    first = draws(0, 8)
    torch.rand(100)
    assert draws(0, 8) == first
    pairs = [draws(seed, nimg) for seed in (0, 1, 8, 80) for nimg in (0, 8, 80, 800)]
    assert len({torch_ for torch_, _ in pairs}) == len({numpy_ for _, numpy_ in pairs}) == 16


def test_cosine_schedule() -> None:
    rates = [cosine_lr(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.5) and 0 < rates[99] < 1e-3
    assert rates[32] == pytest.approx(0.5 * (1 + math.cos(math.pi * 22 / 90)))
    assert cosine_lr(0, 1, 0.0) == 1.0 and all(cosine_lr(s, 4, 0.99) > 0 for s in range(4))


def test_ema_by_hand() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    ema = copy.deepcopy(net).requires_grad_(False)
    expected = [p.detach().clone() for p in net.parameters()]
    for step in range(4):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        net(torch.randn(8, 3))  # moves the buffers
        update_ema(ema, net, 0.75)
        expected = [0.75 * e + 0.25 * p.detach() for e, p in zip(expected, net.parameters(), strict=True)]
        assert all(torch.allclose(a, e) for a, e in zip(ema.parameters(), expected, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(ema.buffers(), net.buffers(), strict=True))
        assert int(dict(ema.named_buffers())["1.num_batches_tracked"]) == step + 1


def test_ema_of_buffers_by_hand() -> None:
    net = nn.BatchNorm1d(2)
    ema = copy.deepcopy(net).requires_grad_(False)
    net(torch.randn(8, 2) + 5)
    mean, var = net.running_mean, net.running_var
    assert mean is not None and var is not None and ema.running_mean is not None and ema.running_var is not None
    update_ema(ema, net, 0.75, average_buffers=True)
    assert torch.allclose(ema.running_mean, 0.25 * mean) and torch.allclose(ema.running_var, 0.75 + 0.25 * var)
    assert ema.num_batches_tracked == 1


def test_an_average_forgets_its_start_and_then_has_its_half_life() -> None:
    kept = math.prod(ema_beta(50, updates) for updates in range(50))
    assert kept < 1e-6, "the random start is gone after one half-life"
    assert math.prod(ema_beta(50, updates) for updates in range(1000, 1050)) == pytest.approx(0.5)
    assert ema_beta(50, 0) == 0.1 and ema_beta(0.01, 100) == pytest.approx(0)


def test_ema_without_memory_is_the_net() -> None:
    net, ema = nn.Linear(2, 2), nn.Linear(2, 2)
    update_ema(ema, net, 0.0)
    assert torch.allclose(ema.weight, net.weight)


def test_a_curve_has_no_times_and_stops_at_nan(tmp_path: Path) -> None:
    curve = Curve(tmp_path / "curve.jsonl")
    curve.add(8, {"loss": 1.23456789})
    curve.add(16, {"loss": 0.5, "val_eer": 0.25})
    assert curve.path.read_text() == '{"nimg": 8, "loss": 1.234568}\n{"nimg": 16, "loss": 0.5, "val_eer": 0.25}\n'
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(UserError, match=r"diverged after 24 images: loss = ") as error:
            curve.add(24, {"loss": bad, "sound": 1.0})
        assert "learning rate" in error.value.fix and "sound" not in str(error.value)
    assert [json.loads(line)["nimg"] for line in curve.path.read_text().splitlines()] == [8, 16]
    check_finite(0, {"a": 0.0, "b": -1e30})


def test_length_of_a_run_is_whole_batches() -> None:
    assert step_size(18, 32) == 18016 and step_size(0.048, 8) == 48 and step_size(0.001, 8) == 8


def test_a_curve_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    lines = [json.dumps({"nimg": nimg, "loss": nimg / 2}) + "\n" for nimg in (8, 16, 24, 32)]
    path.write_text("".join(lines))
    cut_curve(path, 16)
    assert path.read_text() == lines[0] + lines[1]
    cut_curve(path, 0)
    assert path.read_text() == ""
    cut_curve(tmp_path / "none.jsonl", 5)
    assert not (tmp_path / "none.jsonl").exists()


@pytest.mark.parametrize("torn", ['{"nimg": 2', '{"nimg": 24, "loss"', "{}", "\x00\x00"])
def test_a_torn_last_line_goes(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "curve.jsonl"
    path.write_text('{"nimg": 8, "loss": 1}\n' + torn)
    cut_curve(path, 100)
    assert path.read_text() == '{"nimg": 8, "loss": 1}\n'


def test_a_whole_line_without_its_end_stays_a_line(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    path.write_text('{"nimg": 8}\n{"nimg": 16}')
    cut_curve(path, 16)
    assert path.read_text() == '{"nimg": 8}\n{"nimg": 16}\n'
