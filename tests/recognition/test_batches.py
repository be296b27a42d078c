"""Batches of real and synthetic rows, and heads that judge them apart."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from facegan.core.seeds import subseed
from facegan.recognition.batches import Batches, allot
from facegan.recognition.classifier import Heads
from facegan.recognition.options import TrainRecognizer, Use
from facegan.training.loop import Sampler

GROUP = np.repeat([0, 1, 2], [12, 6, 20])


@pytest.mark.parametrize(
    ("rows", "shares", "counts"),
    [
        ([10, 10, 20], [None, None, None], [8, 8, 16]),  # by number of rows
        ([10, 10, 20], [None, 0.25, 0.25], [16, 8, 8]),
        ([10, 0, 20], [None, 0.25, 0.25], [24, 0, 8]),  # what a group without rows leaves goes to the others
        ([0, 10, 20], [None, 0.25, 0.5], [0, 11, 21]),  # nobody else is there: in proportion
        ([10, 10, 20], [None, 0.0, None], [11, 0, 21]),
        ([10, 10, 20], [None, 0.5, 0.5], [0, 16, 16]),
    ],
)
def test_a_batch_is_allotted(rows: list[int], shares: list[float | None], counts: list[int]) -> None:
    assert allot(32, rows, shares) == counts


def test_by_default_all_rows_are_alike() -> None:
    batches, sampler = Batches(GROUP, Use(), 10, 8, seed=3), Sampler(len(GROUP), 3)
    assert all(np.array_equal(batches.rows(step), sampler.batch(8 * step, 8)) for step in range(10))


def test_every_row_of_a_group_has_its_turn() -> None:
    batches = Batches(GROUP, Use(existing=0.25, new=0.25), 60, 8, seed=0)
    drawn = [batches.rows(step) for step in range(60)]
    assert all(np.array_equal(np.bincount(GROUP[rows], minlength=3), [4, 2, 2]) for rows in drawn)
    times = Counter(np.concatenate(drawn).tolist())
    assert {times[row] for row in range(12)} == {20}  # 240 places for 12 rows
    assert {times[row] for row in range(12, 18)} == {20} and {times[row] for row in range(18, 38)} == {6}
    again = Batches(GROUP, Use(existing=0.25, new=0.25), 60, 8, seed=0)
    assert np.array_equal(again.rows(37), drawn[37])  # a resume needs no history


def test_pretraining_is_synthetic_alone() -> None:
    batches = Batches(GROUP, Use(pretrain=0.5, new=0.25, existing=0.0), 20, 8, seed=0)
    drawn = np.stack([GROUP[batches.rows(step)] for step in range(20)])
    assert (drawn[:10] == 2).all() and ((drawn[10:] == 0).sum(axis=1) == 6).all()
    later = np.concatenate([batches.rows(step) for step in range(10, 20)])
    assert Counter(Counter(later[GROUP[later] == 0].tolist()).values()) == {5: 12}  # goes on where it stood: 60 of 12


def rows_by_the_first_formula(use: Use, steps: int, size: int, seed: int, step: int) -> np.ndarray:
    """The rows of a step as recognizers were trained before there were curricula."""
    first = round(steps * use.pretrain)
    if use == Use():
        return Sampler(len(GROUP), seed).batch(step * size, size)
    rows, shares = [np.flatnonzero(place == GROUP) for place in range(3)], [None, use.existing, use.new]
    late = allot(size, [12, 6, 20], shares)
    early = allot(size, [0, 6, 20], shares)
    found = []
    for place, name in enumerate(("real", "existing", "new")):
        if count := (early if step < first else late)[place]:
            seen = early[place] * min(step, first) + late[place] * max(0, step - first)
            found.append(rows[place][Sampler(len(rows[place]), subseed(name, seed)).batch(seen, count)])
    return np.concatenate(found)


@pytest.mark.parametrize("use", [Use(), Use(new=0.3), Use(existing=0.2, new=0.4, pretrain=0.35), Use(pretrain=0.5)])
def test_rows_are_those_of_before(use: Use) -> None:
    batches = Batches(GROUP, use, 30, 9, seed=5)
    for step in (*range(30), 12, 3):
        assert np.array_equal(batches.rows(step), rows_by_the_first_formula(use, 30, 9, 5, step))


def test_an_arm_without_synthetic_rows_ignores_the_use() -> None:
    batches = Batches(np.zeros(9, np.int64), Use(existing=0.3, new=0.3, pretrain=0.4), 9, 4, seed=0)
    assert Counter(np.concatenate([batches.rows(step) for step in range(9)]).tolist()) == dict.fromkeys(range(9), 4)


def test_one_head_is_plain_cross_entropy_and_two_are_apart() -> None:
    label = np.asarray([0, 1, 2, 3, 4, 3])
    group = np.asarray([0, 0, 1, 2, 2, 2])
    embedding, rows = torch.randn(6, 16, generator=torch.Generator().manual_seed(0)), np.arange(6)
    one = Heads(TrainRecognizer(embedding_dim=16), label, group)
    logits = one.heads[0](embedding, torch.from_numpy(label))
    assert len(one.heads) == 1
    torch.testing.assert_close(one(embedding, rows), F.cross_entropy(logits, torch.from_numpy(label)))
    two = Heads(TrainRecognizer(embedding_dim=16, use=Use(own_head=True)), label, group)
    real, new = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 0])
    parts = [
        F.cross_entropy(two.heads[0](embedding[:3], real), real, reduction="sum"),
        F.cross_entropy(two.heads[1](embedding[3:], new), new, reduction="sum"),
    ]
    torch.testing.assert_close(two(embedding, rows), torch.stack(parts).sum() / 6)
    torch.testing.assert_close(
        two(embedding[:2], rows[:2]), F.cross_entropy(two.heads[0](embedding[:2], real[:2]), real[:2])
    )


def test_one_new_person_stays_with_the_rest() -> None:
    heads = Heads(
        TrainRecognizer(embedding_dim=16, use=Use(own_head=True)), np.asarray([0, 1, 2]), np.asarray([0, 0, 2])
    )
    assert len(heads.heads) == 1 and heads.label.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("use", "match"),
    [
        ({"existing": 0.6, "new": 0.6}, r"use.existing \+ use.new must be at most 1"),
        ({"new": 1.1}, "less than or equal to 1"),
    ],
)
def test_shares_that_cannot_be_are_refused(use: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Use(**use)
