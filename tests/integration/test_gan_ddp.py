"""Generators by several ranks over gloo, and part after part: the same maths, and no orphans."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from drawn import RUNTIME, Lab
from facegan.core.errors import UserError
from facegan.generation.options import TrainGan
from facegan.recipe.recipe import Recipe
from facegan.runtime.context import Context, Event
from facegan.runtime.processes import WorkerKilled
from facegan.stages import train_gan
from facegan.training import launch
from rank_runs import Stop, environment, signalled, stop
from ranked_gan import ADAPTIVE, PENALISED, apart, gan_options, gan_trained, people_of

pytestmark = pytest.mark.integration

LOSSES = ["relativistic", "nonsaturating", "hinge", "wasserstein"]
STEPS, BATCH = 10, 7  # two of G where D has five for each; no even halves
STOPPED = gan_options("cvae_gan", steps=40, every=10, **PENALISED)

UNDER_TORCHRUN = """
import sys
from pathlib import Path

import torch.distributed as dist
from drawn import RUNTIME
from facegan.generation.options import TrainGan
from facegan.runtime.context import Context
from facegan.stages import train_gan
from ranked import in_double

dist.init_process_group("gloo")
chosen = TrainGan.model_validate_json(sys.argv[1])
in_double(train_gan.run, chosen, {}, {"manifest": Path(sys.argv[2])}, Path(sys.argv[3]), Context(RUNTIME))
dist.destroy_process_group()
"""


def at_step(step: int, act: Callable[[], None]) -> Callable[[Event], None]:
    """Do something when rank 0 tells of a step."""

    def on_event(event: Event) -> None:
        if event.kind == "progress" and round(event.done * 1000) == step * BATCH:
            act()

    return on_event


@pytest.fixture(scope="module")
def people(recipe: Recipe, shared: Lab) -> Path:
    """What is trained on."""
    return people_of(recipe, shared)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["biggan", "cvae_gan", "dcgan", "style", "refiner"])
def test_two_ranks(people: Path, tmp_path: Path, kind: str, loss: str) -> None:
    chosen = gan_options(kind, STEPS, loss=loss, **PENALISED)
    one = gan_trained(chosen, people, tmp_path / "one")
    assert apart(one, gan_trained(chosen, people, tmp_path / "two", ranks=2)) < 1e-5
    other = gan_options(kind, STEPS, loss=loss, **PENALISED, lr_d=2.1e-3)
    assert apart(one, gan_trained(other, people, tmp_path / "other")) > 1e-4


@pytest.mark.parametrize(
    ("kind", "changes", "ranks", "at_once"),
    [
        ("style", {"batch_size": 12}, 3, 0),  # a group of four for each rank
        ("style", {"batch_size": 24, "spectral_norm": True}, 2, 5),
        ("cvae_gan", {"spectral_norm": False}, 2, 2),
        ("cvae_gan", {"loss": "wasserstein"}, 7, 0),  # ranks without a fake image
        ("cvae_gan", {"loss": "relativistic", "ada": ADAPTIVE}, 7, 0),
        ("dcgan", {"spectral_norm": True}, 3, 0),
        ("style", {"batch_size": 24, "ada": ADAPTIVE, "ramp": {"start_kimg": 0.05, "end_kimg": 0.2}}, 2, 5),
    ],
)
def test_groups_power_iterations_and_parts_of_parts(
    people: Path, tmp_path: Path, kind: str, changes: dict[str, object], ranks: int, at_once: int
) -> None:
    chosen = gan_options(kind, 12, **{**PENALISED, **changes})  # type: ignore[arg-type]
    one = gan_trained(chosen, people, tmp_path / "one")
    assert apart(one, gan_trained(chosen, people, tmp_path / "parts", ranks, at_once)) < 1e-5


def test_under_torchrun(people: Path, tmp_path: Path) -> None:
    chosen = gan_options("dcgan", STEPS, **PENALISED)
    one = gan_trained(chosen, people, tmp_path / "one")
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(UNDER_TORCHRUN)
    (out / "work").mkdir(parents=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    subprocess.run(
        [*command, chosen.model_dump_json(), str(people), str(out)], env=environment(), check=True, timeout=200
    )
    assert apart(one, gan_trained(chosen, people, out)) < 1e-5  # goes on from the last checkpoint, for one step


@pytest.fixture(scope="module")
def in_one_go(people: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], Path]:
    """What one process makes of `STOPPED` without a stop, and where."""
    out = tmp_path_factory.mktemp("one-go")
    return gan_trained(STOPPED, people, out), out


def test_gone_on_with_by_another_number_of_ranks(
    people: Path, tmp_path: Path, in_one_go: tuple[dict[str, torch.Tensor], Path]
) -> None:
    said: list[str] = []
    for ranks, step in ((1, 12), (2, 25)):
        with pytest.raises(Stop):
            gan_trained(STOPPED, people, tmp_path, ranks, on_event=at_step(step, stop))
    resumed = gan_trained(STOPPED, people, tmp_path, batch_gpu=3, on_event=lambda event: said.append(event.text))
    assert "goes on from 0.14 of 0.28 kimg" in said
    assert apart(resumed, in_one_go[0]) < 1e-5
    assert_same_curves(tmp_path, in_one_go[1])


def test_a_killed_rank_ends_the_stage_which_then_goes_on(
    people: Path, tmp_path: Path, in_one_go: tuple[dict[str, torch.Tensor], Path]
) -> None:
    pids, struck = [], 0.0

    def strike() -> None:
        nonlocal struck
        pids.extend(child.pid for child in multiprocessing.active_children() if child.pid)
        struck = time.monotonic()
        signalled(1, signal.SIGKILL)()

    with pytest.raises(WorkerKilled, match="training, rank 1 was killed") as error:
        gan_trained(STOPPED, people, tmp_path, 2, on_event=at_step(15, strike))
    assert "run the same command again" in error.value.fix and time.monotonic() - struck < 30
    assert len(pids) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert apart(gan_trained(STOPPED, people, tmp_path, 2), in_one_go[0]) < 1e-5
    assert_same_curves(tmp_path, in_one_go[1])


def test_a_rank_that_does_not_answer(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "TIMEOUT_S", 15.0)
    with pytest.raises(UserError, match="a rank did not answer for 15 s"):
        gan_trained(STOPPED, people, tmp_path, 2, on_event=at_step(15, signalled(1, signal.SIGSTOP)))
    assert not multiprocessing.active_children()


def test_more_ranks_than_groups(people: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="3 ranks share batches of 8 images, of which D looks at 4 together") as error:
        gan_trained(gan_options("style", batch_size=8), people, tmp_path, 3)
    assert "nproc_per_node" in error.value.fix and not multiprocessing.active_children()


def test_a_family_that_is_solved_needs_no_ranks(people: Path, tmp_path: Path) -> None:
    made = []
    for ranks in (1, 2):
        out = tmp_path / str(ranks)
        out.mkdir()
        runtime = RUNTIME.model_copy(update={"nproc_per_node": ranks, "batch_gpu": 1})
        chosen = TrainGan.model_validate({"gan": {"kind": "morphable"}})
        train_gan.run(chosen, {}, {"manifest": people}, out, Context(runtime))
        made.append({path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert made[0] == made[1] and not multiprocessing.active_children()


def assert_same_curves(one: Path, other: Path) -> None:
    """Two trainings have told the same losses, at the same places."""
    curves = [[json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()] for out in (one, other)]
    assert [line["nimg"] for line in curves[0]] == list(range(BATCH, 40 * BATCH + 1, BATCH))
    assert len(curves[0]) == len(curves[1])
    for a, b in zip(*curves, strict=True):
        assert a == pytest.approx(b, abs=2e-6)
