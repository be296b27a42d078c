"""`facegan inspect` and `facegan align`: what they count, write and refuse; and the quality of a face."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
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
from facegan.data.align_photos import align
from facegan.data.detectors.landmarks import Landmarks
from facegan.data.images import encode_png
from facegan.data.inspect_manifest import inspect
from facegan.data.options import Align
from facegan.data.preparation.quality import exposure, measure, pose, sharpness
from facegan.reporting import prepare as prepared
from facegan.runtime.context import Context
from facegan.stages import prepare

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
    assert counts["groups"] == manifest.summarise(made)["groups"]
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
    for path, words in ((tmp_path / "none", "there is no manifest"), (tmp_path, "no manifest in")):
        result = invoke("inspect", path)
        assert result.exit_code == 1 and words in result.stderr
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


def test_align_writes_a_folder_that_can_be_read_again(tmp_path: Path, invoke: Invoke) -> None:
    """With detectors that find nothing, all is said and nothing is lost; names that meet stay apart."""
    root = draw_folder(tmp_path / "root", people=2, shots=2)
    (root / "p00" / "0.bmp").write_bytes((root / "p00" / "0.png").read_bytes())
    (root / "p01" / "bad.png").write_bytes(b"")
    result = invoke("align", root, "--out", tmp_path / "out", "--set", "detector.kind=landmarks")
    assert result.exit_code == 0 and "5 no face found" in result.stdout and "1 empty file" in result.stdout
    lines = list(csv.DictReader((tmp_path / "out" / "align.csv").read_text().splitlines()))
    assert [line["outcome"] for line in lines].count("no face found") == 5 and len(lines) == 6
    result = invoke("align", root, "--out", tmp_path / "out")
    assert result.exit_code == 2 and "is not empty" in result.stderr
    result = invoke("align", root, "--out", tmp_path / "else", "--set", "faces=all")
    assert result.exit_code == 2 and "faces" in result.stderr and not (tmp_path / "else").exists()


def test_aligned_names_stay_apart(tmp_path: Path) -> None:
    from facegan.data.align_photos import _free

    taken: set[str] = set()
    names = [_free(name, taken) for name in ("p/1.jpg", "p/1.bmp", "p/1.x.jpg", "q/1.jpg")]
    assert names == ["p/1.png", "p/1.bmp.png", "p/1.x.png", "q/1.png"]
    outcome = align(draw_folder(tmp_path / "root", 1, 2), tmp_path / "out", Align(detector=Landmarks()), 32)
    assert outcome.photos == 2 and outcome.outcomes == {"no face found": 2}


# Quality.

FACES = [draw_face(person, 0, 112, 112) for person in range(6)]


@pytest.mark.parametrize("face", FACES)
def test_blur_lowers_sharpness_step_by_step(face: np.ndarray) -> None:
    blurred = [sharpness(face)] + [sharpness(cv2.GaussianBlur(face, (0, 0), sigma)) for sigma in (1, 2, 4, 8)]
    assert all(0 < low < high < 1 for high, low in itertools.pairwise(blurred))
    assert blurred[4] < 0.3 * blurred[0]


def test_sharpness_knows_neither_size_nor_light() -> None:
    for person in range(6):
        large = draw_face(person, 1, 224, 224)
        small = cv2.resize(large, (112, 112), interpolation=cv2.INTER_AREA)
        assert sharpness(small) == pytest.approx(sharpness(large), rel=0.15)
        dim = (large.astype(float) * 0.5 + 20).round().astype(np.uint8)
        assert sharpness(dim) == pytest.approx(sharpness(large), rel=0.02)
        assert sharpness(np.repeat(large[:, :, None], 3, axis=2)) == pytest.approx(sharpness(large), rel=1e-3)
    assert sharpness(np.full((64, 64), 77, np.uint8)) == 0


def test_sharpness_of_a_wave_is_its_closed_form() -> None:
    """A wave of frequency w, blurred at s: Laplacian -w^2, Gaussian exp(-w^2 s^2 / 2), so r = (s w)^4 exp(-(s w)^2)."""
    side, period = 512, 64.0  # a whole number of periods in the inner three quarters
    x = np.arange(side)
    wave = np.tile(np.round(127.5 + 100 * np.sin(2 * np.pi * x / period)).astype(np.uint8), (side, 1))
    a = 2 * np.pi / period * side / 64
    ratio = a**4 * np.exp(-(a**2))
    assert sharpness(wave) == pytest.approx(ratio / (ratio + 0.05), rel=0.02)


def test_exposure_by_hand() -> None:
    half = np.full((64, 64), 120, np.uint8)
    assert exposure(half) == 1
    half[:, :32] = 255
    assert exposure(half) == pytest.approx(0.5)  # half is clipped; the mean, 187.5, is just within three quarters
    assert exposure(np.full((64, 64), 32, np.uint8)) == pytest.approx(32 / 255 / 0.25)
    assert exposure(np.zeros((64, 64), np.uint8)) == 0


def test_pose_by_hand() -> None:
    def nose_at(x: float, y: float = 20) -> list[float]:
        return [0, 0, 10, 0, x, y, 2, 30, 8, 30]

    assert pose(nose_at(5)) == 1 and pose(nose_at(7.5)) == pytest.approx(0.5) and pose(nose_at(10)) == 0
    assert pose(nose_at(14)) == 0 and pose(None) is None and pose([np.nan] * 10) is None and pose([3] * 10) is None
    turned = [0, 0, 0, 10, -20, 7.5, -30, 2, -30, 8]  # the head lies on its side
    assert pose(turned) == pytest.approx(0.5)
    assert pose([*nose_at(7.5)[:6], *[np.nan] * 4]) == pytest.approx(0.5)  # mouth not known


def test_score_is_the_geometric_mean_of_what_is_known() -> None:
    face, points = FACES[0], [30, 40, 80, 40, 60, 60, 40, 90, 70, 90]
    bare, with_pose = measure(face), measure(face, points)
    assert bare.pose is None and bare.score == pytest.approx((bare.sharpness * bare.exposure) ** 0.5)
    assert with_pose.pose == pytest.approx(0.8) and with_pose.score == pytest.approx((bare.score**2 * 0.8) ** (1 / 3))
    assert measure(np.zeros((32, 32, 3), np.uint8)).score == 0
