"""Data-parallel training over gloo: the same maths, from any number of ranks to any other, and no orphans."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from drawn import Lab
from facegan.core.errors import UserError
from facegan.recipe.recipe import Recipe
from facegan.runtime.processes import WorkerKilled
from facegan.store.local import WORK
from facegan.training import launch
from facegan.training.checkpoints import Checkpoints
from process_groups import wait_until_gone
from rank_runs import Stop, at, environment, signalled, stop
from ranked import VIT, distance, options, rows_of, trained

pytestmark = pytest.mark.integration
STOPPED = {"steps": 40, "evaluations": 4}  # checkpoints at steps 10, 20 and 30

UNDER_TORCHRUN = """
import json
import sys
from pathlib import Path

import torch.distributed as dist
from drawn import RUNTIME
from facegan.runtime.context import Context
from ranked import in_float64, options

dist.init_process_group("gloo")
inputs = {name: Path(path) for name, path in json.loads(sys.argv[1]).items()}
in_float64(options(**json.loads(sys.argv[2])), {"seed": 0}, inputs, Path(sys.argv[3]), Context(RUNTIME))
dist.destroy_process_group()
"""

ALONE = """
import json
import multiprocessing
import sys
from pathlib import Path
from ranked import options, trained

def told(event):
    if event.kind == "progress":
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)

if __name__ == "__main__":
    inputs = {name: Path(path) for name, path in json.loads(sys.argv[1]).items()}
    trained(options(steps=100_000), inputs, Path(sys.argv[2]), 2, told)
"""


@pytest.fixture(scope="module")
def rows(recipe: Recipe, shared: Lab) -> dict[str, Path]:
    """What is trained on."""
    return rows_of(recipe, shared)


@pytest.fixture(scope="module")
def undisturbed(rows: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What one process makes of `VIT`."""
    return trained(options(**VIT), rows, tmp_path_factory.mktemp("one"), 1)


def test_a_transformer_over_fifty_steps(
    rows: dict[str, Path], undisturbed: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    assert distance(trained(options(**VIT), rows, tmp_path, 2), undisturbed) < 1e-5
    assert distance(trained(options(**VIT, lr=2.1e-3), rows, tmp_path / "other", 1), undisturbed) > 1e-3


def test_batch_norm_over_three_ranks(rows: dict[str, Path], tmp_path: Path) -> None:
    one, three = (trained(options(steps=20), rows, tmp_path / str(ranks), ranks) for ranks in (1, 3))
    assert distance(one, three) < 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {"head": {"kind": "adaface"}, "use": {"new": 0.5, "own_head": True}},
        {"sharded": {}, "use": {"new": 0.5, "own_head": True}},
        {"sharded": {}, "use": {"new": 0.5, "own_head": True, "pretrain": 0.3}},
    ],
)
def test_real_and_synthetic_rows_over_two_ranks(rows: dict[str, Path], tmp_path: Path, changes: dict[str, Any]) -> None:
    chosen = options(steps=10, **changes)  # where shares are fixed rank 1 has no photo
    one, two = (trained(chosen, rows, tmp_path / str(ranks), ranks) for ranks in (1, 2))
    assert distance(one, two) < 1e-5


def test_under_torchrun(rows: dict[str, Path], undisturbed: dict[str, torch.Tensor], tmp_path: Path) -> None:
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(UNDER_TORCHRUN)
    (out / "work").mkdir(parents=True)
    inputs = json.dumps({name: str(path) for name, path in rows.items()})
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    subprocess.run([*command, inputs, json.dumps(VIT), str(out)], env=environment(), check=True, timeout=200)
    assert distance(load_file(out / "embedder.safetensors"), undisturbed) < 1e-5


@pytest.fixture(scope="module")
def in_one_go(rows: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one process has trained without a stop."""
    out = tmp_path_factory.mktemp("one-go")
    trained(options(**STOPPED), rows, out, 1)
    return out


@pytest.mark.parametrize("ranks", [(1, 2, 1), (2, 1, 2)])
def test_gone_on_with_by_another_number_of_ranks(
    rows: dict[str, Path], in_one_go: Path, tmp_path: Path, ranks: tuple[int, ...]
) -> None:
    chosen, said = options(**STOPPED), []
    for number, step in zip(ranks[:2], (12, 25), strict=True):
        with pytest.raises(Stop):
            trained(chosen, rows, tmp_path, number, at(step, stop))
    trained(chosen, rows, tmp_path, ranks[2], lambda event: said.append(event.text))
    assert "goes on from step 20 of 40" in said
    assert_same(tmp_path, in_one_go)


def test_a_killed_rank_ends_the_stage_which_then_goes_on(
    rows: dict[str, Path], in_one_go: Path, tmp_path: Path
) -> None:
    pids: list[int] = []

    def strike() -> None:
        pids.extend(child.pid for child in multiprocessing.active_children() if child.pid)
        signalled(1, signal.SIGKILL)()

    started = time.monotonic()
    with pytest.raises(WorkerKilled, match="training, rank 1 was killed") as error:
        trained(options(**STOPPED), rows, tmp_path, 2, at(15, strike))
    assert "run the same command again" in error.value.fix and time.monotonic() - started < 120
    assert len(pids) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in pids)
    trained(options(**STOPPED), rows, tmp_path, 2)
    assert_same(tmp_path, in_one_go)


def test_a_rank_that_does_not_answer(rows: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "TIMEOUT_S", 15.0)
    with pytest.raises(UserError, match="a rank did not answer for 15 s"):
        trained(options(**STOPPED), rows, tmp_path, 2, at(15, signalled(1, signal.SIGSTOP)))
    assert not multiprocessing.active_children()


def test_ranks_end_with_the_stage(rows: dict[str, Path], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(ALONE)
    inputs = json.dumps({name: str(path) for name, path in rows.items()})
    command = [sys.executable, str(script), inputs, str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(), start_new_session=True)
    assert process.stdout and len(process.stdout.readline().split()) == 2
    process.kill()
    process.wait()
    wait_until_gone(process.pid, 20)


def assert_same(one: Path, other: Path) -> None:
    """Two trainings agree in all that their last checkpoints hold, and in every loss."""
    states = [Checkpoints(out / WORK).load_latest() for out in (one, other)]
    assert states[0] and states[1] and states[0][0] == states[1][0] == 30 * 7
    pairs = list(zip(*(leaves(state[1]) for state in states if state), strict=True))
    assert len(pairs) > 100
    for a, b in pairs:
        assert torch.allclose(a.double(), b.double(), rtol=0, atol=1e-5)
    curves = [[json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()] for out in (one, other)]
    assert [line["nimg"] for line in curves[0]] == list(range(7, 281, 7))
    assert [line["loss"] for line in curves[0]] == pytest.approx([line["loss"] for line in curves[1]], abs=2e-6)


def leaves(state: Any) -> list[torch.Tensor]:
    """The tensors in nested dicts and lists, in order."""
    if isinstance(state, torch.Tensor):
        return [state]
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, list) else []
    return [leaf for value in inner for leaf in leaves(value)]
