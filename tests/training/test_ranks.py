"""Ranks: several processes train what one would. What takes longer is in tests/integration/test_ddp.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from drawn import RUNTIME, Lab
from facegan.core.errors import UserError
from facegan.recipe.recipe import Recipe
from facegan.recognition.augment import Augmenter
from facegan.recognition.augment_options import Augment
from facegan.runtime.context import Context
from facegan.stages import train_recognizer
from ranked import distance, options, rows_of, trained


def test_two_ranks_train_what_one_process_does(recipe: Recipe, shared: Lab, tmp_path: Path) -> None:
    rows = rows_of(recipe, shared)
    use = {"existing": 0.3, "new": 0.3, "own_head": True, "pretrain": 0.2}  # heads of whose people a rank has none
    training_options = options(
        steps=10, head={"kind": "adaface"}, use=use, ema=0.2
    )  # batch norm, and statistics of a batch
    by_one, by_two = (trained(training_options, rows, tmp_path / str(ranks), ranks) for ranks in (1, 2))
    assert distance(by_one, by_two) < 1e-5
    curves = [
        [json.loads(line) for line in (tmp_path / ranks / "curve.jsonl").read_text().splitlines()] for ranks in "12"
    ]
    assert len(curves[0]) == 10
    for a, b in zip(*curves, strict=True):
        assert a == pytest.approx(b, abs=2e-6)  # and the loss is the whole batch's


@pytest.mark.parametrize("channels", [1, 3])
def test_parts_of_a_batch_are_augmented_as_the_whole(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 32, 32, channels), dtype=np.uint8)
    augment = Augmenter(Augment(blur=0.5, erase=0.5))
    whole = augment(pixels, 3)
    parts = [augment(pixels[start:stop], 3, before=start) for start, stop in ((0, 4), (4, 5), (5, 9))]
    assert np.array_equal(np.concatenate(parts), whole) and not np.array_equal(augment(pixels[4:], 3), whole[4:])


def test_more_ranks_than_images_in_a_batch(recipe: Recipe, shared: Lab, tmp_path: Path) -> None:
    runtime = RUNTIME.model_copy(update={"nproc_per_node": 8})
    with pytest.raises(UserError, match="8 ranks share batches of 7") as error:
        train_recognizer.run(options(), {"seed": 0}, {}, tmp_path, Context(runtime))
    assert "nproc_per_node" in error.value.fix
