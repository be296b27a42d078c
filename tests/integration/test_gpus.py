"""On GPUs, where there are some: what a CPU gives, what one gives by two over NCCL, and a whole recipe.

They pass over themselves elsewhere, and nobody has run them yet on a machine with a GPU.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from drawn import RUNTIME, Lab, tiny
from facegan.pipeline import graph, preflight
from facegan.recipe.recipe import Recipe
from ranked import VIT, distance, options, rows_of, trained
from ranked_gan import PENALISED, apart, gan_options, gan_trained, people_of

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0
one_gpu = pytest.mark.skipif(GPUS < 1, reason="no GPU is here")
two_gpus = pytest.mark.skipif(GPUS < 2, reason="no two GPUs are here")
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def rows(recipe: Recipe, shared: Lab) -> dict[str, Path]:
    """What recognizers are trained on, made on the CPU."""
    return rows_of(recipe, shared)


@one_gpu
@pytest.mark.parametrize("changes", [VIT, {}], ids=["transformer", "resnet"])
def test_a_gpu_gives_what_a_cpu_gives(rows: dict[str, Path], tmp_path: Path, changes: dict[str, object]) -> None:
    chosen = options(**changes, steps=20)
    cpu, gpu = (trained(chosen, rows, tmp_path / device, 1, device=device) for device in ("cpu", "cuda"))
    assert distance(cpu, gpu) < 1e-5


@one_gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_bfloat16_on_a_gpu(rows: dict[str, Path], tmp_path: Path, compiled: bool) -> None:
    first = []
    for name, changes in {"single": {}, "half": {"precision": "bfloat16", "compile": compiled}}.items():
        trained(options(steps=3, **changes), rows, tmp_path / name, 1, device="cuda", double=False)
        curve = (tmp_path / name / "curve.jsonl").read_text().splitlines()
        assert len(curve) == 3
        first.append(json.loads(curve[0])["loss"])
    assert first[1] == pytest.approx(first[0], rel=0.05) and first[1] != first[0]


@one_gpu
def test_a_whole_recipe_on_a_gpu(faces: Path, tmp_path: Path) -> None:
    runtime = RUNTIME.model_copy(update={"device": "cuda"})
    lab = Lab(tmp_path / "store", runtime)
    recipe = tiny(faces, train_gan={"precision": "bfloat16"}, audit={"enforce": False})
    preflight.try_out(graph.build(recipe), runtime)
    report = lab.stage(recipe, "report")
    assert (report.path / "index.html").is_file()
    assert {artifact.record["device"] for artifact in lab.done.values()} == {"cuda"}


@two_gpus
@pytest.mark.parametrize("changes", [VIT, {}], ids=["transformer", "resnet"])
def test_two_gpus_give_what_one_gives(rows: dict[str, Path], tmp_path: Path, changes: dict[str, object]) -> None:
    """Over NCCL, with torch's SyncBatchNorm, and batches that do not divide evenly."""
    chosen = options(**changes, steps=20)
    one, two = (trained(chosen, rows, tmp_path / str(ranks), ranks, device="cuda") for ranks in (1, 2))
    assert distance(one, two) < 1e-5


@two_gpus
@pytest.mark.parametrize("kind", ["biggan", "cvae_gan", "dcgan", "style"])
def test_two_gpus_make_the_generator_of_one(recipe: Recipe, shared: Lab, tmp_path: Path, kind: str) -> None:
    chosen, people = gan_options(kind, 12, **PENALISED), people_of(recipe, shared)
    one = gan_trained(chosen, people, tmp_path / "one", device="cuda")
    assert apart(one, gan_trained(chosen, people, tmp_path / "two", 2, device="cuda")) < 1e-5
