"""What prepare makes of un-aligned photos, of landmarks and of faces of low quality."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from drawn import RUNTIME, draw_face, tiny
from facegan.core.errors import ConfigError
from facegan.data import manifest
from facegan.data.detectors.landmarks import Landmarks
from facegan.data.images import decode_pixels
from facegan.data.options import Prepare
from facegan.data.preparation import quarantine
from facegan.data.preparation.alignment import (
    NO_FACE,
    template_at,
)
from facegan.data.sources import SourceImage
from facegan.data.sources.folder import Folder
from facegan.pipeline import graph
from facegan.recipe.load import load
from facegan.recipe.recipe import Recipe
from facegan.runtime.context import Context
from facegan.stages import prepare
from turned_faces import TEMPLATE, photo_of


class Marked(Folder):
    """A folder whose photos come with landmarks, as tables have them; those of shot 4 are missing."""

    def rows(self) -> Iterator[SourceImage]:
        for row in super().rows():
            person, shot = int(row.path.parent.name[1:]), int(row.path.stem)
            points = None if shot == 4 else photo_of(person, shot, 1.5, 10 * shot)[1]
            yield SourceImage(row.identity, row.relative, row.path, landmarks=points)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos") / "root"
    for person in range(8):
        for shot in range(5):
            path = root / f"p{person:02d}" / f"{shot}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photo_of(person, shot, 1.5, 10 * shot)[0].save(path)
    return root


def prepared(root: Path, out: Path, **changes: Any) -> Path:
    options = Prepare.model_validate(tiny(root, prepare=changes).prepare.model_dump())
    options = options.model_copy(update={"source": Marked(root=str(root))})
    prepare.run(options, {}, {}, out, Context(RUNTIME))
    return out


ALIGN = {"detector": {"kind": "landmarks"}}


def test_prepare_aligns_and_says_what_it_left_out(photos: Path, tmp_path: Path) -> None:
    out = prepared(photos, tmp_path / "a" / "made", align=ALIGN, size_px=64)
    rows = list(manifest.iterate(out))
    assert len(rows) == 32 and manifest.validate(out) == []
    for row in rows:
        assert np.allclose(row["landmarks"], template_at(TEMPLATE, 64).ravel(), atol=1e-3)
        assert 0 < row["quality"] <= 1
        person = int(row["identity"][-2:])
        upright = [draw_face(person, shot, 112, 112) for shot in range(4)]
        crop = cv2.resize(decode_pixels(row["image"]["bytes"]).squeeze(), (112, 112))[20:92, 20:92]
        correlations = [np.corrcoef(crop.ravel(), face[20:92, 20:92].ravel())[0, 1] for face in upright]
        assert max(correlations) > 0.95  # turned back, and at its own size
    left_out = pq.read_table(out / "quarantine.parquet").to_pylist()
    assert {r["reason"] for r in left_out} == {NO_FACE} and len(left_out) == 8
    faces = json.loads((out / "summary.json").read_text())["faces"]
    assert faces["counts"] == {"usable": 32, NO_FACE: 8} and "source" in faces["detector"]
    assert len(quarantine.read_rejected(out)) == 8 and all(
        r["jpeg"].startswith(b"\xff\xd8") for r in quarantine.read_rejected(out)
    )
    again = prepared(photos, tmp_path / "b" / "made", align=ALIGN, size_px=64)
    for name in ("manifest/part-00000.parquet", "rejected.parquet", "summary.json", "quarantine.parquet"):
        assert (out / name).read_bytes() == (again / name).read_bytes()


def test_landmarks_follow_a_photo_that_is_not_aligned(photos: Path, tmp_path: Path) -> None:
    """320 x 300 px to the centre square of 64: x loses 10 px of margin first."""
    out = prepared(photos, tmp_path / "out", size_px=64)
    row = next(r for r in manifest.iterate(out) if r["landmarks"] is not None and r["identity"] == "folder/p03")
    in_photo = [np.array(photo_of(3, shot, 1.5, 10 * shot)[1]).reshape(5, 2) for shot in range(4)]
    expected = [((points - (10, 0) + 0.5) * 64 / 300 - 0.5).ravel() for points in in_photo]
    assert min(np.abs(np.array(row["landmarks"]) - points).max() for points in expected) < 0.5
    assert "faces" not in json.loads((out / "summary.json").read_text()) and not quarantine.read_rejected(out)


def test_min_quality_leaves_the_worst_out(photos: Path, tmp_path: Path) -> None:
    unfiltered = prepared(photos, tmp_path / "whole")
    scores = sorted(r["quality"] for r in manifest.iterate(unfiltered))
    bound = round(scores[6], 3)
    filtered = prepared(photos, tmp_path / "few", min_quality=bound)
    kept = [r["quality"] for r in manifest.iterate(filtered)]
    assert min(kept) >= bound > scores[0] and len(kept) == sum(s >= bound for s in scores)
    reasons = {r["reason"] for r in pq.read_table(filtered / "quarantine.parquet").to_pylist()}
    assert reasons == {f"quality under min_quality ({bound:g})"}


def test_unset_options_stay_out_of_the_fingerprint_and_paths_too(photos: Path, tmp_path: Path) -> None:
    def hashed(**changes: Any) -> dict[str, Any]:
        return next(n for n in graph.build(tiny(photos, prepare=changes)) if n.stage == "prepare").config

    assert not {"align", "min_quality"} & hashed().keys()
    net = tmp_path / "net.onnx"
    net.write_bytes(b"any")
    yunet = hashed(align={"detector": {"kind": "yunet", "path": str(net)}})
    assert yunet["align"]["faces"] == "largest" and "path" not in yunet["align"]["detector"]
    keys = []
    for data in (b"one", b"two"):
        net.write_bytes(data)
        recipe = tiny(photos, prepare={"align": {"detector": {"kind": "yunet", "path": str(net)}}})
        keys.append(next(n for n in graph.build(recipe) if n.stage == "prepare").key)
    assert keys[0] != keys[1]  # the network's content counts


def test_align_is_set_from_the_command_line(photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sets = ["prepare.source.kind=folder", f"prepare.source.root={photos}", "prepare.align.detector.kind=landmarks"]
    align = load("orl-tiny", [*sets, "prepare.align.faces=skip"]).prepare.align
    assert align is not None and align.faces == "skip" and isinstance(align.detector, Landmarks)
    monkeypatch.chdir(tmp_path)
    with_yunet = load("orl-tiny", ["prepare.align.detector={kind: yunet, path: net.onnx}"]).prepare.align
    assert with_yunet is not None and with_yunet.detector.path == str(tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match="detector"):
        load("orl-tiny", ["prepare.align.detector.kind=nobody"])


def test_the_default_recipe_aligns_nothing() -> None:
    assert Recipe().prepare.align is None
