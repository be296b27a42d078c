"""No stage but the benchmark sees a photo that is held out: its pixels change nothing that is trained or made."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drawn import Lab, draw_folder, pick, tiny
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.images import encode_png
from facegan.data.preparation.splits import assign
from facegan.pipeline import graph
from facegan.recipe.recipe import Recipe
from facegan.stages.benchmark import check_disjoint
from facegan.store.local import Artifact

ARMS: dict[str, Any] = {
    "real": {"real": True},
    "real+synthetic": {"real": True, "existing": True, "new": True},
    "synthetic": {"real": False, "existing": True, "new": True},
    "degraded": {"real": True, "set": {"kind": "degrade"}},
    "duplicates": {"real": True, "set": {"kind": "duplicates"}},
    "mixed": {"real": True, "set": {"kind": "pixel_mix"}},
}
JUDGING = ("benchmark", "report")


def recipe_of(folder: Path, noise: bool, last: bool) -> Recipe:
    """Faces with sessions, of which train people's `last` are held out; their photos of it are noise where `noise`."""
    root = draw_folder(folder / "faces", people=8, shots=6)
    split = assign([f"csv/{person.name}" for person in sorted(root.iterdir())], tiny(root).prepare.split)
    rng = np.random.default_rng(0)
    with open(folder / "list.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "person", "day"])
        for photo in sorted(root.glob("*/*.png")):
            is_last = photo.stem in "45"
            if noise and is_last and split[f"csv/{photo.parent.name}"] == "train":
                photo.write_bytes(encode_png(rng.integers(0, 255, (48, 44), np.uint8)))
            writer.writerow([photo, photo.parent.name, "2025-01-02" if is_last else "2024-05-05"])
    source = {"kind": "csv", "root": str(folder / "list.csv"), "images": str(root), "session_column": "day"}
    prepare = {"source": source, "held_out": 2 if last else None}
    benchmarks = [{"kind": "verification"}, *([{"kind": "enrolled", "fpir": [0.9], "far": [0.3]}] if last else [])]
    return tiny(root, prepare=prepare, arms=ARMS, audit={"enforce": False}, benchmark={"benchmarks": benchmarks})


def outputs(artifact: Artifact) -> dict[str, Any]:
    """What a stage wrote: bytes, and of manifests the rows less the fingerprint of the generator."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in artifact.path.rglob("*") if p.is_file() and p.name != "record.json"):
        name = str(path.relative_to(artifact.path))
        if path.parent.name == "manifest":
            rows = [{k: v for k, v in row.items() if k != "generator"} for row in manifest.iterate(path)]
            found[name] = rows
        else:
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple[str, Artifact]]]:
    """{title: (stage, artifact)} of all stages, with the held-out photos as they are and with noise."""
    runs = []
    for noise in (False, True):
        folder = tmp_path_factory.mktemp("held_out")
        lab = Lab(folder / "store")
        nodes = graph.build(recipe_of(folder, noise, last=True))
        runs.append({node.title: (node.stage, lab.make(node)) for node in nodes})
    return runs


def test_held_out_photos_change_nothing_but_what_is_measured_on_them(two_runs: Any) -> None:
    one, other = two_runs
    stages = {stage for stage, _ in one.values()}
    assert stages >= {"train_gan", "synthesize", "audit", "derive", "merge", "train_recognizer", "fit_recognizer"}
    assert one.keys() == other.keys()
    for title, (stage, artifact) in one.items():
        if stage not in ("prepare", *JUDGING):
            assert outputs(artifact) == outputs(other[title][1]), title
    held_out = [manifest.read(run["prepare"][1].path, split=manifest.HELD_OUT).to_pylist() for run in two_runs]
    assert [len(rows) for rows in held_out] == [8, 8] and held_out[0] != held_out[1]
    for title, (stage, _) in one.items():
        if stage == "benchmark":
            results = [json.loads((run[title][1].path / "results.json").read_bytes()) for run in two_runs]
            assert results[0]["verification"] == results[1]["verification"]
            assert results[0]["enrolled"] != results[1]["enrolled"]


def test_the_report_has_each_arm_s_values_and_intervals(two_runs: Any) -> None:
    report = two_runs[0]["report"][1].path
    results = json.loads((report / "results.json").read_bytes())
    for arm in ARMS:
        for metric in ("enrolled/fnir@fpir=0.9", "enrolled/rank-1", "enrolled/tar@far=0.3"):
            found = results["arms"][arm][metric]
            assert found["ci_low"] <= found["mean"] <= found["ci_high"]
            assert "8 searches of 4 own people, 12 of 2 others; 4 enrolled by 16 trained photos" in found["note"]
        at_home = results["arms"][arm]["enrolled/fnmr@val-fmr=0.01"]  # 12 photos of two val people
        assert at_home["mean"] is None and "not resolvable with 12 impostor pairs of val people" in at_home["note"]
    assert "enrolled/rank-1" in (report / "report.md").read_text()
    assert results["baselines"]["classical"]["enrolled/rank-1"]["value"] is not None


def test_no_held_out_photo_is_among_the_rows_of_an_arm(two_runs: Any) -> None:
    prepared = two_runs[0]["prepare"][1].path
    held_out = set(manifest.read(prepared, ["image_id"], split=manifest.HELD_OUT)["image_id"].to_pylist())
    merges = [artifact for stage, artifact in two_runs[0].values() if stage == "merge"]
    assert len(merges) == len(ARMS) + 2  # and those of guide and judge
    for merge in merges:
        rows = manifest.read(merge.path).to_pylist()
        assert not held_out & {row["image_id"] for row in rows}
        assert not any(digest in (row["latent"] or "") for row in rows for digest in held_out)
        assert not any(row["held_out"] for row in rows)


def test_the_same_stages_do_see_them_where_they_are_not_held_out(tmp_path: Path) -> None:
    """The comparison above can fail: without the option the same photos do change what is trained."""
    trained = []
    for noise in (False, True):
        (folder := tmp_path / str(noise)).mkdir()
        lab = Lab(folder / "store")
        nodes = graph.build(recipe_of(folder, noise, last=False))
        trained.append(outputs(lab.make(pick(nodes, "train_recognizer", "real", 0))))
    assert trained[0] != trained[1]


def test_the_gate_knows_a_held_out_photo_from_an_overlap(two_runs: Any, tmp_path: Path) -> None:
    run = two_runs[0]
    prepared, merged = run["prepare"][1].path, run["merge · real"][1].path
    check_disjoint(merged, prepared)  # the same people, other photos
    rows = manifest.read(merged).to_pylist()
    held = manifest.read(prepared, split=manifest.HELD_OUT).to_pylist()[0]
    manifest.write(tmp_path / "arm", [*rows, {**held, "label": 0}], "merge", {})
    with pytest.raises(UserError, match="1 photos that are held out are trained on"):
        check_disjoint(tmp_path / "arm", prepared)
