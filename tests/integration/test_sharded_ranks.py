"""Class centres shared out over gloo ranks: what one process with the full head trains, samples, and shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from drawn import Lab
from facegan.recipe.recipe import Recipe
from facegan.store.local import WORK
from facegan.training.checkpoints import SHARDS, Checkpoints
from head_batches import KINDS
from rank_runs import Stop, at, stop
from ranked import VIT, distance, options, rows_of, trained

pytestmark = pytest.mark.integration
MIXED = {"existing": 0.3, "new": 0.3, "own_head": True, "pretrain": 0.2}  # two heads, of whose people a rank has none


@pytest.fixture(scope="module")
def rows(recipe: Recipe, shared: Lab) -> dict[str, Path]:
    """What is trained on."""
    return rows_of(recipe, shared)


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_train_what_one_process_does_with_the_full_head(
    rows: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    chosen: dict[str, Any] = {**VIT, "steps": 30, "head": {"kind": kind}}
    full = trained(options(**chosen), rows, tmp_path / "full", 1)
    two = trained(options(**chosen, sharded={}), rows, tmp_path / "sharded", 2)
    assert distance(full, two) < 1e-7
    curves = [losses(tmp_path / name) for name in ("full", "sharded")]
    assert len(curves[0]) == 30 and curves[0] == pytest.approx(curves[1], abs=2e-6)  # rounded in the file


@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_any_number_of_ranks_trains_the_same(rows: dict[str, Path], tmp_path: Path, rate: float) -> None:
    chosen = options(steps=15, head={"kind": "adaface"}, use=MIXED, sharded={"sample_rate": rate})
    one = trained(chosen, rows, tmp_path / "1", 1)
    for ranks in (2, 5):  # batches of 7; with five ranks, some hold no person of a head
        assert distance(trained(chosen, rows, tmp_path / str(ranks), ranks), one) < 1e-6
    other = options(**{**chosen.model_dump(), "sharded": None if rate < 1 else {"sample_rate": 0.4}})
    assert distance(trained(other, rows, tmp_path / "other", 1), one) > 1e-3


@pytest.mark.parametrize("ranks", [(2, 1, 2), (1, 3, 1)])
def test_gone_on_with_by_another_number_of_ranks(rows: dict[str, Path], tmp_path: Path, ranks: tuple[int, ...]) -> None:
    chosen = options(steps=40, evaluations=4, use=MIXED, sharded={"sample_rate": 0.4})
    whole = trained(chosen, rows, tmp_path / "whole", 1)
    torn = tmp_path / "torn"
    for number, step in zip(ranks[:2], (12, 25), strict=True):
        with pytest.raises(Stop):
            trained(chosen, rows, torn, number, at(step, stop))
        assert_shared_out(torn, number)
    assert distance(trained(chosen, rows, torn, ranks[2]), whole) < 1e-6
    assert losses(torn) == pytest.approx(losses(tmp_path / "whole"), abs=2e-6)
    ours, theirs = centres(torn), centres(tmp_path / "whole")
    assert (
        ours.keys() == theirs.keys() == {(head, label) for head, people in enumerate((4, 2)) for label in range(people)}
    )
    for person, saved in theirs.items():
        assert saved["updates"] > 0 and saved["exp_avg_sq"].sum() > 0
        for name, value in saved.items():
            torch.testing.assert_close(ours[person][name], value, rtol=0, atol=1e-6)


def losses(out: Path) -> list[float]:
    """The losses of a training, step by step."""
    return [json.loads(line)["loss"] for line in (out / "curve.jsonl").read_text().splitlines()]


def latest(out: Path) -> tuple[Checkpoints, int, dict[str, Any]]:
    """The newest checkpoint of a training."""
    checkpoints = Checkpoints(out / WORK)
    found = checkpoints.load_latest()
    assert found
    return checkpoints, *found


def centres(out: Path) -> dict[tuple[int, int], dict[str, torch.Tensor]]:
    """What the newest checkpoint holds of every class: {(head, class): {name: value}}."""
    checkpoints, nimg, state = latest(out)
    found = {}
    for shard, (head, start, end) in state[SHARDS].items():
        saved = checkpoints.load_shard(nimg, shard)
        for label in range(start, end):
            assert (head, label) not in found
            found[head, label] = {name: value[label - start] for name, value in saved.items()}
    return found


def assert_shared_out(out: Path, ranks: int) -> None:
    """Each rank has written its even part of each head's classes, and the checkpoint names all, and itself none."""
    _, nimg, state = latest(out)
    for head, count in enumerate((4, 2)):
        parts = [(rank * count // ranks, (rank + 1) * count // ranks) for rank in range(ranks)]
        written = sorted((start, stop) for place, start, stop in state[SHARDS].values() if place == head)
        assert written == [(start, stop) for start, stop in parts if start < stop]
    here = {path.name for path in (out / WORK).glob(f"shard-{nimg:012d}-*")}
    assert here == {f"shard-{nimg:012d}-{name}.pt" for name in state[SHARDS]}
    assert not state["head"].keys() & {"weight", "value"} and len(state["optimizer"]["state"]) > 10
