"""`facegan inspect`: what it counts, writes and refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from drawn import RUNTIME, draw_face, draw_folder, tiny
from facegan.cli.main import main
from facegan.data import manifest
from facegan.data.images import encode_png
from facegan.data.inspect_manifest import inspect
from facegan.reporting import prepare as prepared
from facegan.runtime.context import Context
from facegan.stages import prepare
from manifests import summarise

Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    return lambda *words: CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """prepare's output over 8 people with 5 photos, two of them the same file and one nearly so, one broken."""
    home = tmp_path_factory.mktemp("inspect")
    root = draw_folder(home / "root")
    shutil.copy(root / "p00" / "0.png", root / "p00" / "same.png")
    near = np.clip(draw_face(1, 0).astype(int) + 3, 0, 255).astype(np.uint8)
    (root / "p02" / "near.png").write_bytes(encode_png(near))
    (root / "p03" / "broken.png").write_bytes(b"no image")
    options = tiny(root, prepare={"source": {"license": "consent form 12"}}).prepare
    prepare.run(options, {}, {}, home / "made", Context(RUNTIME))
    return home / "made"


def test_counts(made: Path) -> None:
    progress: list[tuple[int, int]] = []
    counts = inspect(made, True, lambda done, total: progress.append((done, total)))
    assert counts["images"] == 42 and counts["identities"] == 8 and progress[-1] == (42, 42)
    assert counts["groups"] == summarise(made)["groups"]
    assert counts["images_per_identity"]["min"] == 5 and counts["images_per_identity"]["max"] == 6
    assert counts["sizes"] == {"32 x 32": 42} and counts["formats"] == {"PNG": 42}
    assert counts["licenses"] == {"consent form 12": 42} and counts["datasets"] == {"folder": 42}
    assert counts["exact_duplicates"] == 1 and counts["unreadable"] == 0 and counts["faults"] == []
    pairs = {(p["identity"], p["other_identity"]) for p in counts["near_duplicates"]["listed"]}
    assert ("folder/p01", "folder/p02") in pairs and counts["near_duplicates"]["across"] >= 1
    assert counts["quarantine"] == {"not an image in a known format": 1}
    scores = manifest.read(made, ["quality"])["quality"].to_pylist()
    assert counts["quality"]["min"] == pytest.approx(min(scores), abs=1e-4)
    assert inspect(made / "manifest")["quarantine"] == counts["quarantine"]
    part = inspect(made / "manifest" / "part-00000.parquet")
    assert part["images"] == 42 and part["quarantine"] == counts["quarantine"]


def test_the_command_prints_writes_and_validates(made: Path, tmp_path: Path, invoke: Invoke) -> None:
    result = invoke("inspect", made, "--out", tmp_path / "out", "--validate")
    assert result.exit_code == 0 and "42 images of 8 people" in result.stdout and "consent form 12: 42" in result.stdout
    assert "it is sound" in result.stdout
    page = (tmp_path / "out" / "index.html").read_text()
    assert "42 images of 8 people" in page and "data:image/png;base64," in page and "<script" not in page
    sheet = Image.open(tmp_path / "out" / "contact-sheet.png")
    assert sheet.height == 8 * 68
    counts = json.loads(invoke("inspect", made, "--json").stdout)
    assert counts["images"] == 42 and "faults" not in counts


def rewritten(made: Path, out: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the manifest with its first row changed."""
    part = made / "manifest" / "part-00000.parquet"
    rows = pq.read_table(part).to_pylist()
    change(rows[0])
    (out / "manifest").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(part)), out / "manifest" / part.name)
    return out


def test_faults_are_said_and_end_with_1(made: Path, tmp_path: Path, invoke: Invoke) -> None:
    moved = rewritten(made, tmp_path / "a", lambda row: row.update(split="test" if row["split"] != "test" else "val"))
    result = invoke("inspect", moved, "--validate")
    assert result.exit_code == 1 and "stands in" in result.stdout
    broken = rewritten(made, tmp_path / "b", lambda row: row["image"].update(bytes=b"\x89PNG no"))
    assert inspect(broken)["unreadable"] == 1 and invoke("inspect", broken).exit_code == 1
    assert "is not the sha256" in invoke("inspect", broken, "--validate").stdout
    for path, words, status in ((tmp_path / "none", "there is no manifest", 1), (tmp_path, "looks like no source", 2)):
        result = invoke("inspect", path)
        assert result.exit_code == status and words in result.stderr
    (tmp_path / "part-0.parquet").write_bytes(b"text")
    assert "cannot be read" in invoke("inspect", tmp_path / "part-0.parquet").stderr


def test_the_report_tells_quality_by_split(made: Path) -> None:
    collected = prepared.collect(made, pictures=True)
    assert [line["split"] for line in collected["quality"]] == ["train", "val", "test"]
    assert (
        sum(line["images"] for line in collected["quality"]) == 42
        and collected["faces"] is None
        and not collected["rejected"]
    )
