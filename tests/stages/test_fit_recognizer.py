"""fit_recognizer: in every recipe, on the rows of an arm, the same bytes again; and its benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file

from drawn import Lab, pick, tiny
from facegan.core.errors import UserError
from facegan.data.dataset import ManifestImages
from facegan.evaluation.embedders import InputOptions, face_embedder
from facegan.metrics.all_pairs import all_pairs
from facegan.pipeline import graph
from facegan.recipe.load import load, shipped
from facegan.recognition.fitted import load_fitted

HOG = {"classical": {"kind": "classical", "features": ["hog"], "components": [20]}}


def test_every_shipped_recipe_has_it_without_being_asked() -> None:
    for name in shipped():
        recipe = load(name)
        assert "classical" in recipe.fitted(), name
        assert recipe.fitted()["classical"][1] == recipe.comparison.baseline


def test_on_the_rows_of_the_compared_arms(faces: Path) -> None:
    nodes = graph.build(tiny(faces))
    fits = {node.arm: node for node in nodes if node.stage == "fit_recognizer"}
    assert list(fits) == ["classical", "classical+synthetic"]
    assert fits["classical"].needs["train"].key == pick(nodes, "merge", "real").key
    assert fits["classical+synthetic"].needs["train"].key == pick(nodes, "merge", "real+synthetic").key
    judged = pick(nodes, "benchmark", "classical+synthetic")
    assert judged.seed is None and set(judged.needs) == {"recognizer", "train", "test"}
    assert judged.needs["recognizer"].key == fits["classical+synthetic"].key
    report = nodes[-1].needs
    assert {"fit_recognizer:classical", "benchmark:classical", "benchmark:classical+synthetic"} < set(report)
    arms = {"a": {}, "b": {"trials": {"default": {}}}}
    plain = tiny(faces, arms=arms, comparison={"baseline": "a", "arm": "b"})
    assert list(plain.fitted()) == ["classical"], "no synthetic rows, no second one"


def test_null_takes_it_away_and_changes_nothing_else(faces: Path, tmp_path: Path) -> None:
    with_it, without = graph.build(tiny(faces)), graph.build(tiny(faces, baselines={}))
    own = {node.key for node in with_it if node.arm in ("classical", "classical+synthetic")}
    assert len(own) == 4
    assert {node.key for node in with_it[:-1]} - own == {node.key for node in without[:-1]}
    path = tmp_path / "mine.yaml"
    path.write_text("extends: orl-tiny\nbaselines: {classical: null}\n")
    assert load(str(path)).baselines == {} == load("orl-tiny", ["baselines.classical=null"]).baselines
    path.write_text("extends: orl-tiny\nbaselines: {classical: {features: [hog]}, raw: classical}\n")
    both = load(str(path)).baselines
    assert both["classical"].features == ("hog",) and len(both["raw"].features) == 3  # type: ignore[attr-defined]
    child = tmp_path / "child.yaml"
    child.write_text("extends: mine.yaml\nbaselines: {classical: null}\n")
    assert list(load(str(child)).baselines) == ["raw"]


@pytest.mark.parametrize(
    ("baselines", "name"),
    [
        ({"real": {"kind": "classical"}}, "real"),
        ({"guide": {"kind": "classical"}}, "guide"),
        ({"real+synthetic": {"kind": "classical"}}, "real+synthetic"),
        ({"a": {"kind": "classical"}, "a+synthetic": {"kind": "classical"}}, "a+synthetic"),
    ],
)
def test_a_baseline_and_an_arm_of_one_name_are_refused(faces: Path, baselines: dict[str, Any], name: str) -> None:
    with pytest.raises(ValidationError, match=r"baseline '.*' has the name of another recognizer") as error:
        tiny(faces, baselines=baselines)
    assert f"'{name}'" in str(error.value)


def test_it_is_fitted_and_judged_and_gives_the_same_bytes_again(faces: Path, tmp_path: Path) -> None:
    nodes = graph.build(tiny(faces, baselines=HOG))
    labs = Lab(tmp_path / "one"), Lab(tmp_path / "two")
    first, second = (lab.make(pick(nodes, "fit_recognizer", "classical")).path for lab in labs)
    for name in ("fitted.safetensors", "fitted.json", "summary.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    summary = json.loads((first / "summary.json").read_text())
    assert summary["people"] == 4 and summary["images"] == 20 and list(summary["features"]) == ["hog"]
    assert json.loads((first / "fitted.json").read_text())["licenses"] == ["licence unknown"]
    judged = labs[0].make(pick(nodes, "benchmark", "classical")).path
    embedding = load_file(judged / "embeddings.safetensors")["embedding"]
    test = ManifestImages(labs[0].make(pick(nodes, "prepare")).path, split="test")
    np.testing.assert_allclose(embedding, load_fitted(first)(test.pixels), atol=1e-6)
    metrics = json.loads((judged / "results.json").read_text())["verification"]["metrics"]
    eer = next(metric["value"] for metric in metrics if metric["name"] == "eer")
    assert eer == pytest.approx(all_pairs(embedding, test.codes()[1]).eer())
    assert pq.read_table(judged / "rows.parquet")["identity"].to_pylist() == test.identity.tolist()
    outside = face_embedder(str(first), InputOptions())
    assert (outside.size_px, outside.color) == (32, "grey")
    np.testing.assert_allclose(outside.embed(test.pixels[:3]), embedding[:3], atol=1e-6)


def test_a_folder_without_one_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no fitted recognizer"):
        load_fitted(tmp_path)


def test_the_command_lists_the_family() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "facegan", "list", "baselines"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split()[0] == "classical"
