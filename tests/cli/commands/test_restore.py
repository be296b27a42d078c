"""`facegan restore`: files, the sheet, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from drawn import SIZE_PX, Lab, draw_face, tiny
from facegan.cli.main import main
from facegan.data.images import decode_pixels, encode_png
from facegan.generation.restoration.network import load_restorer

SMALL = {"kind": "restore", "channels": 4, "kimg": 0.016, "batch_size": 4, "lr": 0.01}


@pytest.fixture(scope="module")
def workdir(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which two restorers have been learned, the second with a guide."""
    root = tmp_path_factory.mktemp("restore")
    lab = Lab(root / "data" / "store")
    for number, terms in enumerate(({"perceptual": 0, "identity": 0}, {})):
        arms = {"real": {}, "restored": {"set": {**SMALL, **terms, "seed": number}}}
        lab.stage(tiny(faces, arms=arms, comparison={"arm": "restored"}), "derive", "restored")
    return root


def invoke(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["restore", *map(str, words)])
    return done.exit_code, " ".join(done.output.split())


@pytest.fixture
def poor(tmp_path: Path) -> Path:
    folder = tmp_path / "poor"
    folder.mkdir()
    for shot in range(5):
        (folder / f"{shot}.png").write_bytes(encode_png(draw_face(60, shot, 60, 50)))
    return folder


def test_photos_are_restored_by_the_last_run(workdir: Path, poor: Path, tmp_path: Path) -> None:
    (poor / "broken.jpg").write_bytes(b"\xff\xd8")
    code, output = invoke(poor, "--out", tmp_path / "out", "--workdir", workdir)
    assert code == 0 and "5 photos restored" in output and "a guess, no evidence" in output
    assert "broken.jpg" in output and not (tmp_path / "out" / "broken.png").exists()
    made = sorted(workdir.glob("data/store/derive/*/restorer.json"), key=lambda p: p.parent.stat().st_mtime_ns)
    last = load_restorer(made[-1].parent)
    data = (tmp_path / "out" / "3.png").read_bytes()
    xmp = Image.open(io.BytesIO(data)).info["XML:com.adobe.xmp"]
    assert "compositeWithTrainedAlgorithmicMedia" in xmp
    sheet = decode_pixels((tmp_path / "out" / "side-by-side.png").read_bytes())
    left = sheet[:SIZE_PX, 6 * (SIZE_PX + 4) : 6 * (SIZE_PX + 4) + SIZE_PX]  # photo 3: after three pairs
    right = sheet[:SIZE_PX, 7 * (SIZE_PX + 4) : 7 * (SIZE_PX + 4) + SIZE_PX]
    assert np.array_equal(right, decode_pixels(data)) and np.array_equal(last.changed(left), right)
    assert sheet.shape[:2] == (2 * SIZE_PX + 4, 8 * (SIZE_PX + 4) - 4), "a second line for the fifth"


def test_another_run_is_named_by_the_beginning_of_its_fingerprint(workdir: Path, poor: Path, tmp_path: Path) -> None:
    made = sorted(workdir.glob("data/store/derive/*/restorer.json"), key=lambda p: p.parent.stat().st_mtime_ns)
    for number, path in enumerate(made):
        code, output = invoke(
            poor / "1.png", "--out", tmp_path / str(number), "--workdir", workdir, "--run", path.parent.name[:9]
        )
        assert code == 0 and f"by {path.parent.name[:12]}" in output
        recorded = json.loads((path.parent / "record.json").read_text())
        assert ("guide" in recorded["inputs"]) == (number == 1)
    assert (tmp_path / "0" / "1.png").read_bytes() != (tmp_path / "1" / "1.png").read_bytes()


def test_what_is_refused(workdir: Path, poor: Path, tmp_path: Path) -> None:
    def refused(*words: object) -> str:
        code, output = invoke(*words)
        assert code in (1, 2) and not (tmp_path / "out").exists()
        return output

    to = ("--out", tmp_path / "out", "--workdir")
    assert "no restorer in" in refused(poor, *to, tmp_path)
    assert "no restorer 'zz'" in refused(poor, *to, workdir, "--run", "zz")
    assert "none of 1 photos can be read" in refused(tmp_path / "missing.png", *to, workdir)
    (tmp_path / "empty").mkdir()
    assert "there is no photo" in refused(tmp_path / "empty", *to, workdir)
    (poor / "more").mkdir()
    (poor / "more" / "1.jpg").write_bytes((poor / "1.png").read_bytes())
    assert "would both become 1.png" in refused(poor, *to, workdir)
    assert "already there" in invoke(poor / "1.png", "--out", poor, "--workdir", workdir)[1]
