"""Images made on one recognizer and shown to the others: the shares by hand, the picture, and a hidden gradient."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from drawn import Lab, pick, tiny
from facegan.evaluation.embedded_faces import EmbeddedFaces, embed_faces
from facegan.evaluation.protocols.attack import AttackProtocol
from facegan.pipeline import graph
from facegan.recipe.recipe import Recipe
from facegan.recognition.embedder import embed, load_embedder
from facegan.reporting import transfer
from facegan.reporting.runs import Run
from facegan.reporting.transfer import ITSELF, Verdicts

EPSILON = 8


@pytest.fixture(scope="module")
def reported(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Lab, Path]:
    """A run of two arms and two seeds with an attack, and its report."""
    attack = {"kind": "attack", "fmr": 0.4, "pairs": 12, "steps": 3, "restarts": 1, "bisections": 1}
    recipe = tiny(
        faces,
        arms={"real": {"real": True}, "degraded": {"real": True, "set": {"kind": "degrade"}}},
        comparison={"arm": "degraded"},
        seeds=[0, 1],
        train_recognizer={"steps": 12},
        benchmark={"benchmarks": [{"kind": "verification"}, {**attack, "transfer": EPSILON}]},
        report={"bootstrap": 200},
    )
    data = recipe.model_dump(mode="json")
    data["arms"] = {name: arm for name, arm in data["arms"].items() if name in ("real", "degraded")}
    recipe = Recipe.model_validate(data)
    lab = Lab(tmp_path_factory.mktemp("transfer"))
    return recipe, lab, lab.stage(recipe, "report").path


def test_each_cell_is_the_share_of_pairs_turned(reported: tuple[Recipe, Lab, Path]) -> None:
    recipe, lab, out = reported
    nodes = graph.build(recipe)
    (table,) = json.loads((out / "results.json").read_text())["transfer"]
    assert (
        table["columns"] == [ITSELF, "real", "degraded", "classical", "classical+synthetic"]
        and table["epsilon"] == EPSILON
    )
    folders = {
        (arm, seed): [lab.done[pick(nodes, stage, arm, seed).key].path for stage in ("benchmark", "train_recognizer")]
        for arm in ("real", "degraded")
        for seed in (0, 1)
    }
    turned = dict.fromkeys(((a, b) for a in ("real", "degraded") for b in (ITSELF, "real", "degraded")), (0, 0))
    for maker, (made, _) in folders.items():
        probe = load_file(made / "probe-attack.safetensors")
        for judge, (judged, network) in folders.items():
            embedding = load_file(judged / "embeddings.safetensors")["embedding"]
            threshold = json.loads((judged / "thresholds.json").read_text())["0.4"]
            changed = embed(load_embedder(network)[0], probe["perturbed"], 4)
            key = maker[0], ITSELF if maker == judge else judge[0]
            for n, (i, j) in enumerate(zip(probe["first"], probe["second"], strict=True)):
                genuine = i // 5 == j // 5  # five photos of each, in order
                before, after = embedding[i] @ embedding[j] >= threshold, changed[n] @ embedding[j] >= threshold
                hit, right = turned[key]
                turned[key] = hit + int(before == genuine and after != genuine), right + int(before == genuine)
    rows = {row["arm"]: row["cells"] for row in table["rows"]}
    for (arm, column), (hit, right) in turned.items():
        assert rows[arm][column]["n"] == right > 0
        assert rows[arm][column]["value"] == pytest.approx(hit / right)
    assert rows["real"][ITSELF]["value"] > 0 and rows["real"]["classical"]["n"] > 0  # it has no gradient, and judges


def test_the_pages_show_the_table_and_the_pair(reported: tuple[Recipe, Lab, Path]) -> None:
    _, _, out = reported
    html, markdown = (out / "index.html").read_text(), (out / "report.md").read_text()
    assert "| made on | the same network | real | degraded | classical | classical+synthetic |" in markdown
    assert "Transfer (attack)" in html and "16 times as large" in html
    with Image.open(out / "figures" / "attack-pairs.png") as picture:
        assert picture.width == 4 * (128 + transfer.GAP_PX) and picture.height % (128 + transfer.GAP_PX) == 0
    assert "figures/attack-pairs.png" in markdown


def test_without_faces_there_is_no_picture(reported: tuple[Recipe, Lab, Path]) -> None:
    recipe, lab, _ = reported
    out = lab.stage(
        recipe.model_copy(update={"report": recipe.report.model_copy(update={"show_faces": False})}), "report"
    )
    names = {path.name for path in (out.path / "figures").iterdir()}
    assert "attack-pairs.png" not in names and "| made on |" in (out.path / "report.md").read_text()


def planted(turned_by_own: int, turned_by_other: int) -> dict[str, Any]:
    """Two arms of one network each; of ten pairs of `a`, so many are turned by its own and by the other's images."""
    base = embed_faces(np.eye(20, dtype=np.float32), np.repeat(np.arange(10), 2))
    probe = {"first": np.arange(0, 20, 2), "second": np.arange(1, 20, 2), "perturbed": np.zeros((10, 1, 1, 1))}
    faces: EmbeddedFaces = replace(base, probed={"attack": probe}, thresholds={0.01: 0.5})
    runs = [Run(arm, 0, Path(), {}, faces, (), tuple(map(str, range(10)))) for arm in ("a", "b")]

    def verdicts(turned: int) -> Verdicts:
        return Verdicts(np.ones(10), np.zeros(10), np.ones(10, bool), np.arange(10) < turned)

    of = {(0, 0): verdicts(turned_by_own), (1, 0): verdicts(turned_by_other), (0, 1): verdicts(0), (1, 1): verdicts(9)}
    recipe = Recipe(name="x").model_dump(mode="json")
    return transfer._table(recipe, AttackProtocol(), runs, runs, of, 300, 0)


def test_an_arm_that_hides_its_gradient_is_told() -> None:
    fair, hidden = planted(8, 2), planted(1, 7)
    assert not fair["remarks"] and len(hidden["remarks"]) == 1 and "“a”" in hidden["remarks"][0]
    cells = {row["arm"]: row["cells"] for row in hidden["rows"]}
    assert cells["b"]["a"] == {**cells["b"]["a"], "value": 0.7, "n": 10}
    assert cells["b"]["a"]["ci_low"] < 0.7 < cells["b"]["a"]["ci_high"]
    assert cells["a"]["a"]["value"] is None  # no second seed of its own arm
