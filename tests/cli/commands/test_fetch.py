"""`facegan fetch`: what it finds, and what it says without a network."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from drawn import draw_face
from facegan.cli.main import main
from facegan.data.sources.lfw import Lfw


def lfw(root: Path, pairs: Path | None = None) -> Lfw:
    return Lfw(root=str(root), pairs=str(pairs) if pairs else None)


def fetched(root: Path) -> Path:
    """What scikit-learn's fetcher leaves: the lists of pairs, and photos of 250 px, 500 of one person."""
    photos = root / "lfw_home" / "lfw_funneled"
    for name, count in {"Ann_Lee": 500, "Bo": 2, "Cy-X": 1}.items():
        (photos / name).mkdir(parents=True)
        first = photos / name / f"{name}_0001.jpg"
        Image.fromarray(draw_face(len(name), 0, 250, 250)).convert("RGB").save(first)
        for shot in range(2, count + 1):
            (photos / name / f"{name}_{shot:04d}.jpg").hardlink_to(first)
    (photos / "pairs_01.txt").write_text("as in the archive")
    for name in ("pairs.txt", "pairsDevTrain.txt", "pairsDevTest.txt"):
        (root / "lfw_home" / name).write_text("1\nAnn_Lee\t1\t2\nBo\t1\tAnn_Lee\t2\n")
    return photos


def test_what_the_fetcher_leaves_is_a_source(tmp_path: Path) -> None:
    """And `facegan fetch` finds it there: nothing is downloaded again."""
    photos = fetched(tmp_path)
    result = CliRunner().invoke(main, ["fetch", "lfw", "--out", str(tmp_path)])
    assert result.exit_code == 0 and f"prepare.source.root={photos}" in result.stdout
    assert sorted(p.name for p in (tmp_path / "lfw_home").iterdir() if p.is_dir()) == ["lfw_funneled"]
    rows = list(lfw(photos, photos.parent / "pairsDevTrain.txt").rows())
    assert Counter((row.identity, row.side) for row in rows) == {
        ("lfw/Ann_Lee", "develop"): 500, ("lfw/Bo", "develop"): 2, ("lfw/Cy-X", "test"): 1,
    }  # fmt: skip


def test_without_a_network_it_says_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    result = CliRunner().invoke(main, ["fetch", "lfw", "--out", str(tmp_path / "out")])
    assert result.exit_code == 1 and "LFW cannot be fetched: " in result.stderr and "lfw-funneled.tgz" in result.stderr
    assert str(tmp_path / "out" / "lfw_home") in result.stderr and "bug" not in result.stderr
    assert CliRunner().invoke(main, ["fetch", "faces", "--out", str(tmp_path / "out")]).exit_code == 2
