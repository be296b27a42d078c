"""Licences travel: from the photos to synthetic rows, to each arm, to the weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from drawn import Lab, tiny
from facegan.data import licences, manifest


def test_nothing_is_dropped_and_the_unknown_is_said() -> None:
    assert licences.names(["B", "A", None, "A"]) == ["A", "B", licences.UNKNOWN]
    assert licences.names([licences.inherited(["A", "B"]), "C", "B"]) == ["A", "B", "C"]
    assert licences.inherited([licences.UNKNOWN]) is None
    assert licences.names([licences.inherited(["A", licences.UNKNOWN])]) == ["A", licences.UNKNOWN]


def test_a_sources_licence_reaches_the_weights(faces: Path, tmp_path: Path) -> None:
    root = shutil.copytree(faces, tmp_path / "faces")
    lines = [
        {"file_name": f"p{n:02d}/{shot}.png", **({"license": "non-commercial research only"} if n % 2 else {})}
        for n in range(8)
        for shot in range(5)
    ]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    recipe = tiny(root, train_recognizer={"steps": 2, "evaluations": 1})
    lab = Lab(tmp_path / "store")
    expected = licences.of(lab.stage(recipe, "prepare").path, "train")
    assert expected == [licences.UNKNOWN, "non-commercial research only"], "the split has people of both"
    synthetic = lab.stage(recipe, "synthesize").path
    assert set(manifest.read(synthetic, ["license"])["license"].to_pylist()) == {licences.AND.join(expected)}
    assert json.loads((lab.stage(recipe, "train_gan").path / "generator.json").read_bytes())["licenses"] == expected
    summary = json.loads((lab.stage(recipe, "merge", "synthetic").path / "summary.json").read_bytes())
    assert summary["licenses"] == expected, "an arm without one photo still stands under the photos' licences"
    weights = lab.stage(recipe, "train_recognizer", "synthetic", 0).path
    assert json.loads((weights / "embedder.json").read_bytes())["licenses"] == expected
