"""`facegan align`: the folder, table and contact sheet that it writes."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from drawn import draw_folder
from facegan.cli.main import main
from facegan.data.align_photos import align
from facegan.data.detectors.landmarks import Landmarks
from facegan.data.options import Align

Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    return lambda *words: CliRunner().invoke(main, [str(word) for word in words])


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
