"""`facegan benchmark`: the numbers of the stage, folders, archives, lists of pairs, templates, and refusals."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from drawn import Lab, draw_folder, draw_lfw, pick
from embedder_modules import write_modules
from facegan.cli.main import main
from facegan.data import manifest
from facegan.data.images import encode_png
from facegan.data.import_faces import import_
from facegan.data.sources import SOURCES
from facegan.pipeline import graph
from facegan.recipe.recipe import Recipe


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with modules of the user's in it."""
    monkeypatch.chdir(tmp_path)
    write_modules(tmp_path)
    return tmp_path


def command(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["benchmark", *words])
    return result.exit_code, result.output


def answer(*words: str) -> dict[str, Any]:
    path = Path("answer.json")
    code, text = command(*words, "--json", str(path))
    assert code == 0, text
    results: dict[str, Any] = json.loads(path.read_text())
    return results


def values(results: dict[str, Any]) -> dict[str, float]:
    return {m["name"]: m["value"] for result in results["benchmarks"].values() for m in result["metrics"]}


def test_a_recognizer_scores_as_in_its_run(recipe: Recipe, shared: Lab, here: Path) -> None:
    """The stored recognizer on the run's own manifest gives the stage's results, number for number."""
    node = pick(graph.build(recipe), "benchmark", "real", 0)
    stage = shared.make(node)
    net, test = (str(shared.done[node.needs[name].key].path) for name in ("recognizer", "test"))
    results = answer("--embedder", net, "--data", test, "--split", "test")
    assert results["benchmarks"] == json.loads((stage.path / "results.json").read_text())
    assert results["images"] == 10 and results["failed"] == 0


def test_folders_failures_and_pairs(here: Path) -> None:
    draw_folder(here / "own", people=4, shots=3)
    (here / "own" / "p01" / "9.png").write_bytes(b"no image")
    plain = answer("--embedder", "theirs_y:rows", "--data", "own", "--size-px", "32", "--benchmark", "verification")
    note = plain["benchmarks"]["verification"]["metrics"][0]["note"]
    assert (plain["images"], plain["failed"]) == (13, 1) and note.startswith("1 of 13 images gave no embedding")
    flipped = answer(
        "--embedder",
        "theirs_y:rows",
        "--data",
        "own",
        "--size-px",
        "32",
        "--flip",
        "--benchmark",
        "{kind: verification}",
    )
    assert "mirror image added" in flipped["benchmarks"]["verification"]["metrics"][0]["note"]
    assert values(plain) != values(flipped)
    (here / "p.csv").write_text(
        "first,second,same\np00/0.png,p00/1.png,1\np01/0.png,p01/2.png,1\np00/0,p02/1,0\np03/1,p01/9,0\n"
    )
    lone = answer("--embedder", "theirs_y:rows", "--data", "own", "--size-px", "32", "--pairs", "p.csv")
    assert (lone["images"], values(lone)["pairs/fta"]) == (7, 1 / 7)
    (here / "q.txt").write_text((here / "p.csv").read_text().partition("\n")[2].replace(",0\n", ",-1\n"))
    code, text = command("--embedder", "theirs_y:rows", "--data", "own", "--size-px", "32", "--pairs", "q.txt")
    assert code == 0 and "q.txt: 4 pairs, 2 of one person and 2 of two, no folds (lines of two images" in text
    assert "1 is one person, -1 is two)" in text


def test_lfw_from_a_zip(here: Path) -> None:
    """End to end as for the whole: archive, list in LFW's form, table, JSON."""
    people = {f"P{n}": 4 for n in range(6)}
    root = draw_lfw(here / "faces", people)
    with zipfile.ZipFile(here / "lfw.zip", "w") as archive:
        for file in sorted(root.rglob("*.jpg")):
            archive.write(file, file.relative_to(root).as_posix())
    lines = ["3\t2"]
    for fold in range(3):
        a, b = f"P{2 * fold}", f"P{2 * fold + 1}"
        lines += [f"{a}\t1\t2", f"{b}\t1\t3", f"{a}\t1\t{b}\t2", f"{a}\t3\t{b}\t3"]
    (here / "pairs.txt").write_text("\n".join(lines) + "\n")
    words = ("--embedder", "theirs_y:rows", "--data", "lfw.zip", "--pairs", "pairs.txt", "--size-px", "32")
    code, text = command(*words)
    assert code == 0 and "RGB, 32 px, uint8" in text and "3 folds of the list" in text
    results = answer(*words)
    assert results["images"] == 18 and results["benchmarks"]["pairs"]["metrics"][0]["n_genuine"] == 6


def test_what_cannot_work_is_said(here: Path) -> None:
    draw_folder(here / "own", people=2, shots=2)
    base = ("--embedder", "theirs_x:rows", "--data", "own")
    for words, message in (
        (("--embedder", "theirs_x:rows", "--data", "nowhere"), "there is nothing at"),
        ((*base, "--split", "test"), "is no manifest"),
        (
            (*base, "--benchmark", "none"),
            "attack, domains, enrolled, groups, identification, membership, open_set, pairs, verification",
        ),
        ((*base, "--benchmark", "{kind: pairs, file: gone.txt}"), "is not there"),
        ((*base, "--pairs", "gone.txt"), "is not there"),
        ((*base, "--benchmark", "open_set", "--benchmark", "{kind: verification, folds: 1}"), "folds"),
    ):
        code, text = command(*words)
        assert code in (1, 2) and message in text and "Traceback" not in text, text


def test_how_much_of_the_weights_fitted_is_shown(here: Path) -> None:
    draw_folder(here / "own", people=2, shots=2)
    net = timm.create_model("resnet10t", num_classes=0)
    save_file({**net.state_dict(), "fc.bias": torch.ones(3)}, here / "w.safetensors")
    words = ("--embedder", "timm:resnet10t", "--size-px", "32", "--weights", "w.safetensors")
    line = "w.safetensors: 70 of 70 tensors of the network fit; 1 not used (fc.bias)"
    code, text = command(*words, "--data", "own")
    assert code == 0 and line in text
    import_([SOURCES.get("folder")(root=str(here / "own"))], here / "made")
    result = CliRunner().invoke(main, ["overlap", "made", *words])
    assert result.exit_code == 0 and line in result.output


def test_templates_by_group(here: Path) -> None:
    rows = []
    rng = np.random.default_rng(0)
    for person in range(4):
        for n in range(6):
            data = encode_png(rng.integers(0, 256, (16, 16, 3), np.uint8))
            columns = {"identity": f"d/p{person}", "source": "real", "dataset": "d", "split": "test"}
            rows.append(
                manifest.row(data, f"p{person}/{n}.png", height=16, width=16, group=f"video{n // 3}", **columns)
            )
    manifest.write(here / "m", rows, "import", {})
    results = answer("--embedder", "theirs_x:rows", "--data", "m", "--size-px", "16", "--templates")
    metric = results["benchmarks"]["verification"]["metrics"][0]
    assert metric["n_genuine"] == 4 and metric["n_impostor"] == 24
    assert "8 templates of 24 images, pooled by group" in metric["note"]
