"""benchmark: train and test are disjoint, and what the stage writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from drawn import RUNTIME, Lab, draw_face, pick, tiny
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.dataset import ManifestImages
from facegan.data.images import encode_png
from facegan.data.pair_lists import PairList
from facegan.evaluation.options import Benchmark
from facegan.evaluation.protocols import PROTOCOLS
from facegan.metrics.verification import eer, pair_scores
from facegan.pipeline import graph
from facegan.recipe.recipe import Recipe
from facegan.reporting import runs
from facegan.runtime.context import Context
from facegan.stages import benchmark
from facegan.stages.benchmark import check_disjoint

# Train and test are disjoint.


def row(person: int, shot: int, split: str, **columns: Any) -> dict[str, Any]:
    base = {
        "identity": f"d/p{person}",
        "source": "real",
        "dataset": "d",
        "split": split,
        "height": 32,
        "width": 32,
        "source_sha256": f"{person}-{shot}",
    }
    return manifest.row(encode_png(draw_face(person, shot, 32, 32)), **{**base, **columns})


def sides(tmp_path: Path, *planted: dict[str, Any]) -> tuple[Path, Path]:
    """An arm of people 0 and 1 with `planted` beside them, and a source whose test people are 2 and 3."""
    train = [row(person, shot, "train") for person in (0, 1) for shot in range(3)]
    test = [row(person, shot, "test") for person in (2, 3) for shot in range(3)]
    synthetic = row(50, 0, "train", source="synthetic", source_sha256=None, parents=["d/p0", "d/p1"])
    manifest.write(tmp_path / "arm", [*train, synthetic, *planted], "merge", {})
    manifest.write(tmp_path / "source", [*train, row(4, 0, "val"), *test], "prepare", {})
    return tmp_path / "arm", tmp_path / "source"


def test_a_clean_split_passes(tmp_path: Path) -> None:
    check_disjoint(*sides(tmp_path))
    check_disjoint(*sides(tmp_path, row(4, 0, "train")))  # a val person is none of the gate's business


PLANTED: dict[str, tuple[dict[str, Any], str]] = {
    "person": (row(2, 9, "train"), "1 people on both sides of train and test, such as d/p2"),
    "image": (row(2, 1, "train", identity="d/other", source_sha256="x"), "1 images on both sides"),
    "file": (
        row(9, 9, "train", source_sha256="3-2"),
        "1 image files on both sides of train and test, such as 3-2",
    ),
    "parent": (
        row(
            60,
            0,
            "train",
            identity="synthetic/0",
            source="synthetic",
            source_sha256=None,
            parents=["d/p0", "d/p3"],
        ),
        "1 test people are parents of synthetic train rows, such as d/p3",
    ),
    "made of a test person": (
        row(60, 0, "train", identity="d/p2", source="synthetic", source_sha256=None, parents=["d/p2"]),
        "1 people on both sides of train and test, such as d/p2",
    ),
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_on_both_sides_is_refused(tmp_path: Path, what: str) -> None:
    planted, sentence = PLANTED[what]
    with pytest.raises(UserError, match="test") as error:
        check_disjoint(*sides(tmp_path, planted))
    assert sentence in str(error.value) and error.value.fix


def test_files_without_a_digest_are_not_the_same_file(tmp_path: Path) -> None:
    arm, source = sides(tmp_path, row(9, 9, "train", source_sha256=None))
    rows = manifest.read(source).to_pylist()
    manifest.write(source, [{**r, "source_sha256": None} for r in rows], "prepare", {})
    check_disjoint(arm, source)


def test_the_stage_passes_the_gate_first(recipe: Recipe, shared: Lab, tmp_path: Path) -> None:
    node = pick(graph.build(recipe), "benchmark", "real", 0)
    folders = {name: shared.make(needed).path for name, needed in node.needs.items()}
    rows = manifest.read(folders["train"]).to_pylist()
    test = manifest.read(folders["test"], split="test").to_pylist()
    manifest.write(tmp_path / "arm", [*rows, {**test[0], "split": "train", "label": 0}], "merge", {})
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="both sides of train and test"):
        benchmark.run(recipe.benchmark, {}, {**folders, "train": tmp_path / "arm"}, tmp_path / "out", Context(RUNTIME))
    assert list((tmp_path / "out").iterdir()) == []


def test_one_photo_under_two_names_is_refused_in_a_whole_run(faces: Path, lab: Lab, tmp_path: Path) -> None:
    nodes = graph.build(tiny(faces))
    prepare = lab.make(pick(nodes, "prepare"))
    rows = manifest.read(prepare.path, ["identity", "split"]).to_pylist()
    person = {row["split"]: row["identity"].split("/")[1] for row in rows}
    root = shutil.copytree(faces, tmp_path / "root")
    shutil.copy(root / person["test"] / "0.png", root / person["train"] / "copy.png")
    with pytest.raises(UserError, match="the same photo stands in train and in test"):
        lab.stage(tiny(root, train_recognizer={"steps": 1}), "benchmark", "real", 0)


# The stage.


def test_what_the_stage_writes(recipe: Recipe, shared: Lab) -> None:
    node = pick(graph.build(recipe), "benchmark", "real", 0)
    artifact = shared.make(node)
    assert set(artifact.record["outputs"]) == {"results.json", "embeddings.safetensors", "rows.parquet"}
    test = ManifestImages(shared.done[node.needs["test"].key].path, split="test")
    rows = pq.read_table(artifact.path / "rows.parquet").to_pydict()
    assert {name: rows[name] for name in ("image_id", "identity", "file")} == {
        name: getattr(test, name).tolist() for name in ("image_id", "identity", "file")
    }
    assert all(rows["acquired"]) and rows["file"][0].startswith(test.identity[0].split("/")[1])
    embedding = load_file(artifact.path / "embeddings.safetensors")["embedding"]
    assert embedding.shape == (10, 16) and np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
    results = json.loads((artifact.path / "results.json").read_text())
    assert results.keys() == {"verification", "identification"}
    pairs = pair_scores(embedding, test.codes()[1])
    metrics = {m["name"]: m for m in results["verification"]["metrics"]}
    assert metrics["eer"]["value"] == pytest.approx(eer(pairs.score, pairs.genuine))
    assert (metrics["eer"]["n_genuine"], metrics["eer"]["n_impostor"]) == (20, 25)
    assert set(results["verification"]["curves"]) == {"det"}


def test_every_run_is_judged_on_the_same_people(faces: Path, shared: Lab) -> None:
    nodes = graph.build(tiny(faces, seeds=[0, 1, 2]))
    done = [shared.make(pick(nodes, "benchmark", "real", seed)) for seed in (0, 1, 2)]
    assert len({artifact.record["outputs"]["rows.parquet"]["sha256"] for artifact in done}) == 1
    assert len({artifact.record["outputs"]["embeddings.safetensors"]["sha256"] for artifact in done}) == 3


def test_options_choose_the_benchmarks(recipe: Recipe, shared: Lab, lab: Lab) -> None:
    only = Benchmark(benchmarks=({"kind": "identification", "ranks": [1]},))  # type: ignore[arg-type]
    lab.store = shared.store
    artifact = lab.stage(recipe.model_copy(update={"benchmark": only}), "benchmark", "real", 0)
    results = json.loads((artifact.path / "results.json").read_text())
    assert [m["name"] for m in results["identification"]["metrics"]] == ["rank-1"] and len(results) == 1


# Lists of pairs, failures, mirrors and templates in a run.


def listed(lab: Lab, recipe: Recipe, path: Path) -> Path:
    """A list of all pairs of test photos, and of one that is not there."""
    prepare = lab.stage(recipe, "prepare")
    names = manifest.read(prepare.path, ["image"], split="test")["image"].combine_chunks().field("path").to_pylist()
    i, j = np.triu_indices(len(names), k=1)
    people = np.asarray([name.split("/")[0] for name in names])
    first, second = ([names[n] for n in side] for side in (i, j))
    lost = names[0].replace("0.png", "99.png")
    same = [*(people[i] == people[j]).tolist(), True]
    PairList((*first, names[0]), (*second, lost), np.asarray(same)).write(path)
    return path


def test_pairs_in_a_run(recipe: Recipe, lab: Lab, tmp_path: Path) -> None:
    """The list is hashed by content, kept with the results, and read from there by the report."""
    path = listed(lab, recipe, tmp_path / "list.parquet")
    benchmarks = [{"kind": "verification"}, {"kind": "pairs", "name": "own", "file": str(path), "people": "test"}]

    def with_benchmarks(specs: list[dict[str, str]]) -> Recipe:
        options = Benchmark.model_validate({"benchmarks": specs, "flip": True})
        return recipe.model_copy(update={"benchmark": options})

    recipe_with_pairs = with_benchmarks(benchmarks)
    node = pick(graph.build(recipe_with_pairs), "benchmark", "real", 0)
    artifact = lab.make(node)
    results = json.loads((artifact.path / "results.json").read_text())
    metrics = {m["name"]: m for m in results["own"]["metrics"]}
    verification = {m["name"]: m for m in results["verification"]["metrics"]}
    assert (metrics["own/eer"]["n_genuine"], verification["eer"]["n_genuine"]) == (21, 20)
    assert metrics["own/fta"]["value"] == 1 / 11 and "mirror image added" in verification["eer"]["note"]
    run = runs.load({"benchmark:real:0": artifact.path}, "real", 0)
    moved = path.rename(tmp_path / "elsewhere.parquet")
    kept = PROTOCOLS.get("pairs").model_validate(benchmarks[1]).reading_from(run.folder)
    replicates = kept.replicates(run.faces, np.ones((2, 2), np.int32))
    assert replicates["own/eer"] == pytest.approx(metrics["own/eer"]["value"], abs=1e-6)
    same = with_benchmarks([benchmarks[0], {**benchmarks[1], "file": str(moved)}])
    assert pick(graph.build(same), "benchmark", "real", 0).key == node.key
    PairList(("p00/0", "p00/0"), ("p00/1", "p01/1"), np.array([True, False])).write(moved)
    assert pick(graph.build(same), "benchmark", "real", 0).key != node.key


def test_photos_in_the_quarantine_are_failures(faces: Path, lab: Lab, tmp_path: Path) -> None:
    """A test person's broken photo stands in the results; a train person's does not."""
    split = manifest.read(lab.stage(tiny(faces), "prepare").path, ["identity", "split"]).to_pylist()
    root = shutil.copytree(faces, tmp_path / "root")
    for side in ("train", "test"):
        who = next(row["identity"] for row in split if row["split"] == side).split("/")[1]
        (root / who / "broken.png").write_bytes(b"\x89PNG")
    artifact = lab.stage(tiny(root), "benchmark", "real", 0)
    rows = pq.read_table(artifact.path / "rows.parquet").to_pylist()
    assert [row["file"].split("/")[1] for row in rows if not row["acquired"]] == ["broken.png"] and len(rows) == 11
    metric = json.loads((artifact.path / "results.json").read_text())["verification"]["metrics"][0]
    assert metric["note"] == "1 of 11 images gave no embedding and count as errors" and metric["n_genuine"] == 25


def test_no_flip_is_the_config_of_before() -> None:
    assert set(Benchmark().model_dump()) == {"benchmarks", "batch_size"}


def test_thresholds_measures_and_attacks_are_kept_for_the_report(faces: Path, lab: Lab) -> None:
    specs: list[dict[str, Any]] = [
        {"kind": "verification"},
        {"kind": "groups", "parts": 2, "fmr": 0.4, "least_people": 2},
        {"kind": "attack", "fmr": 0.4, "pairs": 8, "steps": 2, "restarts": 1, "bisections": 1},
        {"kind": "membership"},
    ]
    recipe = tiny(faces, train_recognizer={"steps": 1}, benchmark={"benchmarks": specs})
    artifact = lab.make(pick(graph.build(recipe), "benchmark", "real", 0))
    probes = {"probe-attack.safetensors", "probe-membership.safetensors"}
    assert {"thresholds.json", *probes} <= set(artifact.record["outputs"])
    run = runs.load({"benchmark:real:0": artifact.path}, "real", 0)
    assert run.faces.thresholds.keys() == {0.4} and 0 < run.faces.measured["light"].min() < 1
    assert run.faces.probed["attack"]["first"].shape == (8,)
    assert {name: run.faces.probed["membership"][name].shape for name in ("members", "others")} == {
        "members": (4, 5),
        "others": (2, 5),
    }
    for spec in specs[1:]:
        benchmark_used = PROTOCOLS.get(spec["kind"]).model_validate(spec)
        again = {m.name: m.value for m in benchmark_used.run(run.faces).metrics}
        kept = {m["name"]: m["value"] for m in run.results[spec["kind"]]["metrics"]}
        assert again == kept and any(value is not None for value in kept.values())
