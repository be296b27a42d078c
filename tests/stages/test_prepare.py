"""prepare: every format to one size, a quarantine with reasons, people split once and for all."""

from __future__ import annotations

import binascii
import io
import json
import random
import shutil
import struct
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, features

from drawn import SHARED, Lab, draw_face, draw_folder, pick, tiny
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.dataset import ManifestImages
from facegan.data.images import BadImage, decode, to_pixels, to_square
from facegan.data.options import Prepare, Split
from facegan.data.preparation.splits import assign, quotas, splits_of
from facegan.data.sources.orl import Orl
from facegan.pipeline import graph
from facegan.recipe.recipe import Recipe
from facegan.store.local import Artifact


def prepared(lab: Lab, root: Path, **options: Any) -> Artifact:
    return lab.stage(tiny(root, prepare=options), "prepare")


def quarantine(artifact: Artifact) -> dict[str, str]:
    return {r["file"]: r["reason"] for r in pq.read_table(artifact.path / "quarantine.parquet").to_pylist()}


def huge_png(width: int, height: int) -> bytes:
    """A PNG whose header promises width x height; its data would unpack to nothing of the sort."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", binascii.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


FACE = Image.fromarray(draw_face(0, 0))
COLOR = Image.merge("RGB", [FACE, FACE.point(lambda v: v // 2), FACE.point(lambda v: v // 3)])


LAB = encoded(Image.fromarray(np.zeros((9, 9, 3), np.uint8)).convert("LAB"), "TIFF")


def test_orl_comes_out_whole(lab: Lab) -> None:
    recipe = Recipe(prepare=Prepare(source=Orl(), size_px=48))
    artifact = lab.stage(recipe, "prepare")
    summary = manifest.summarise(artifact.path)
    assert summary["images"] == 400 and summary["identities"] == 40
    assert {k: v["identities"] for k, v in summary["groups"].items()} == {
        "real/train": 20, "real/val": 6, "real/test": 14,
    }  # fmt: skip
    assert manifest.validate(artifact.path) == []
    assert not any("people are few" in event.text for event in lab.events)
    table = manifest.read(artifact.path, ["height", "width", "source_sha256", "dataset", "license"])
    assert set(table["height"].to_pylist()) == set(table["width"].to_pylist()) == {48}
    assert set(table["dataset"].to_pylist()) == {"orl"} and len(set(table["source_sha256"].to_pylist())) == 400


def test_what_cannot_be_used_goes_to_the_quarantine(lab: Lab, faces: Path, tmp_path: Path) -> None:
    root = shutil.copytree(faces, tmp_path / "root")
    png, jpeg = (root / "p00" / "0.png").read_bytes(), encoded(COLOR, "JPEG")
    bad = {
        "p00/empty.png": (b"", "empty file"),
        "p00/short.png": (png[: len(png) // 2], "broken or truncated"),
        "p01/short.jpg": (jpeg[: len(jpeg) // 2], "broken or truncated"),
        "p01/text.jpg": (b"this is not a photo\n", "not an image in a known format"),
        "p02/huge.png": (huge_png(50_000, 50_000), "absurdly large: Image size (2500000000 pixels)"),
        "p02/large.png": (huge_png(12_000, 10_000), "12000 x 10000 px is more than 100 megapixels"),
        "p03/lies.png": (huge_png(300, 300), "broken or truncated"),
        "p03/zero.png": (huge_png(0, 300), "not an image in a known format"),
        "p03/lab.tif": (LAB, "colour mode LAB cannot be converted"),
    }
    for name, (data, _) in bad.items():
        (root / name).write_bytes(data)
    artifact = prepared(lab, root)
    reasons = quarantine(artifact)
    assert reasons.keys() == bad.keys()
    for name, (_, reason) in bad.items():
        assert reason in reasons[name] and reasons[name], name
    assert manifest.summarise(artifact.path)["images"] == 40  # the run went on with all the others
    summary = json.loads((artifact.path / "summary.json").read_text())
    assert summary["files"] == 49 and summary["quarantined"] == 9
    tables = [event for event in lab.events if event.kind == "table"]
    assert any("9 image(s) in the quarantine" in event.text for event in tables)


def test_few_people_are_told_so(lab: Lab, faces: Path) -> None:
    prepared(lab, faces)
    assert any("4 train people are few" in event.text and "20 people or more" in event.text for event in lab.events)


@pytest.mark.parametrize("change", ["more", "less", "other bytes"])
def test_a_source_that_changes_between_planning_and_reading_is_said(
    lab: Lab, faces: Path, tmp_path: Path, change: str
) -> None:
    root = Path(shutil.copytree(faces, tmp_path / "faces"))
    recipe = tiny(root)
    planned = pick(graph.build(recipe), "prepare")
    photo = sorted(root.rglob("*.png"))[0]
    if change == "less":
        photo.unlink()
    else:
        target = photo if change == "other bytes" else photo.with_name("new.png")
        target.write_bytes(encoded(FACE.rotate(3), "PNG"))
    with pytest.raises(UserError, match="has changed since this run began"):
        lab.make(planned)
    again = pick(graph.build(recipe), "prepare")
    assert again.key != planned.key and lab.make(again).state == "ran"


def test_a_working_directory_inside_the_faces_is_said(faces: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(faces, tmp_path / "faces"))
    with pytest.raises(UserError, match="give a --workdir outside"):
        prepared(Lab(root / "data" / "store"), root)


def test_the_bound_on_megapixels_is_an_option(lab: Lab, faces: Path, tmp_path: Path) -> None:
    root = shutil.copytree(faces, tmp_path / "root")
    (root / "p00" / "large.png").write_bytes(encoded(Image.new("L", (200, 200)), "PNG"))
    assert "200 x 200 px" in quarantine(prepared(lab, root, max_megapixels=0.03))["p00/large.png"]
    assert quarantine(prepared(lab, root, max_megapixels=0.05)) == {}


def test_a_file_that_cannot_be_read_goes_to_the_quarantine(
    lab: Lab, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "3.png" and path.parent.name == "p02":
            raise PermissionError(13, "Permission denied")
        return read(path)

    node = pick(graph.build(tiny(faces)), "prepare")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert quarantine(lab.make(node)) == {"p02/3.png": "cannot be read: Permission denied"}


# Formats.


def sixteen_bit() -> Image.Image:
    return Image.fromarray(np.asarray(FACE).astype(np.uint16) * 257)


def palette_with_transparency() -> bytes:
    image = Image.new("P", (44, 48), 1)
    image.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
    return encoded(image, "PNG", transparency=1)


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying: turn by 90 degrees to the right to see it upright
    return encoded(FACE.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)


FORMATS = {
    "grey.png": encoded(FACE, "PNG"),
    "color.png": encoded(COLOR, "PNG"),
    "color.jpg": encoded(COLOR, "JPEG", quality=95),
    "cmyk.jpg": encoded(COLOR.convert("CMYK"), "JPEG", quality=95),
    "16bit.png": encoded(sixteen_bit(), "PNG"),
    "16bit.tif": encoded(sixteen_bit(), "TIFF"),
    "32bit.tif": encoded(FACE.convert("I"), "TIFF"),
    "float.tif": encoded(FACE.convert("F"), "TIFF"),
    "palette.png": encoded(COLOR.quantize(256), "PNG"),
    "palette.gif": encoded(COLOR.quantize(256), "GIF"),
    "rgba.png": encoded(Image.merge("RGBA", [*COLOR.split(), Image.new("L", FACE.size, 255)]), "PNG"),
    "la.png": encoded(Image.merge("LA", [FACE, Image.new("L", FACE.size, 255)]), "PNG"),
    "rotated.jpg": rotated(),
    "face.bmp": encoded(COLOR, "BMP"),
    "face.pgm": encoded(FACE, "PPM"),
    "face.webp": encoded(COLOR, "WEBP", lossless=True),
    "ycbcr.tif": encoded(COLOR.convert("YCbCr"), "TIFF"),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("color", "channels"), [("grey", 1), ("rgb", 3)])
def test_every_format_comes_out_right(name: str, color: str, channels: int) -> None:
    pixels = np.asarray(to_square(decode(FORMATS[name]), 32, color))
    assert pixels.dtype == np.uint8 and pixels.shape == ((32, 32) if channels == 1 else (32, 32, 3))
    grey = (
        "grey.png",
        "16bit.png",
        "16bit.tif",
        "32bit.tif",
        "float.tif",
        "la.png",
        "rotated.jpg",
        "face.pgm",
    )
    plain = FACE if name in grey else COLOR
    expected = np.asarray(to_square(plain, 32, color)).astype(float)
    assert np.corrcoef(pixels.ravel(), expected.ravel())[0, 1] > 0.97  # the face, upright
    if name.split(".")[0] not in ("16bit", "32bit", "float"):  # those are stretched to their own range
        assert np.abs(pixels - expected).mean() < 8


def test_one_bit_and_transparency() -> None:
    one_bit = Image.fromarray(np.asarray(FACE) > 100)
    assert set(np.unique(np.asarray(to_square(decode(encoded(one_bit, "PNG")), 48, "grey")))) > {0, 255}
    clear = np.asarray(to_square(decode(palette_with_transparency()), 32, "rgb"))
    assert (clear == 255).all()  # what is transparent shows the white behind it
    blank = np.asarray(to_square(Image.fromarray(np.full((20, 20), 7, np.uint16)), 32, "grey"))
    assert (blank == blank[0, 0]).all()


@pytest.mark.parametrize(("color", "channels"), [("grey", 1), ("rgb", 3)])
def test_formats_in_a_folder(lab: Lab, faces: Path, tmp_path: Path, color: str, channels: int) -> None:
    root = shutil.copytree(faces, tmp_path / "root")
    for name, data in FORMATS.items():
        (root / "p00" / name).write_bytes(data)
    artifact = prepared(lab, root, color=color)
    assert quarantine(artifact) == {}
    images = ManifestImages(artifact.path)
    assert images.pixels.shape == (40 + len(FORMATS), 32, 32, channels)
    for item in manifest.read(artifact.path, ["image"])["image"].to_pylist():
        assert item["bytes"].startswith(b"\x89PNG") and to_pixels(item["bytes"]).shape == (32, 32, channels)


def test_no_damaged_image_ends_the_run() -> None:
    """Whatever Pillow throws at a broken file is a BadImage with a reason."""
    rng = np.random.default_rng(0)
    reasons = Counter[str]()
    rest = [encoded(COLOR, "AVIF")] if features.check("avif") else []
    for data in [*FORMATS.values(), LAB, encoded(COLOR.quantize(16), "BLP"), *rest]:
        for _ in range(30):
            damaged = bytearray(data)
            for offset in rng.integers(0, len(data), rng.integers(1, 12)):
                damaged[offset] = int(rng.integers(256))
            cut = bytes(damaged[: rng.integers(1, len(data) + 1)])
            for broken in (bytes(damaged), cut):
                try:
                    assert to_square(decode(broken, 1), 16, "grey").size == (16, 16)
                except BadImage as error:
                    assert str(error)
                    reasons[str(error).split(":")[0]] += 1
    assert reasons["broken or truncated"] > 100 and reasons["not an image in a known format"] > 50


# People who cannot be used.


def test_people_with_one_image_are_left_out_with_the_reason(lab: Lab, tmp_path: Path) -> None:
    root = draw_folder(tmp_path / "root", people=8, shots=2)
    (root / "p07" / "1.png").unlink()
    (root / "p06" / "1.png").write_bytes(b"")
    artifact = prepared(lab, root)
    reasons = quarantine(artifact)
    assert reasons.keys() == {"p07/0.png", "p06/0.png", "p06/1.png"}
    assert "identity has 1 readable image(s), min_images is 2" in reasons["p07/0.png"]
    names = set(manifest.read(artifact.path, ["identity"])["identity"].to_pylist())
    assert names == {f"folder/p{n:02d}" for n in range(6)}


@pytest.mark.parametrize("people", [1, 2, 3, 5])
def test_too_few_people_is_said(lab: Lab, tmp_path: Path, people: int) -> None:
    root = draw_folder(tmp_path / "root", people=people, shots=2)
    with pytest.raises(UserError, match="too few usable people") as error:
        prepared(lab, root)
    text = str(error.value)
    assert f"from {people * 2} files" in text and str(root) in text and "six people" in error.value.fix


def test_six_people_are_enough_for_every_stage(lab: Lab, tmp_path: Path) -> None:
    """Whoever takes the advice of the message must not fail later: val and test need impostors."""
    root = draw_folder(tmp_path / "root", people=6, shots=2)
    recipe = tiny(root, train_recognizer={"steps": 2}, prepare={"split": {"train": 0.5, "val": 0.15, "test": 0.35}})
    summary = json.loads((lab.stage(recipe, "prepare").path / "summary.json").read_text())
    assert {s: v["identities"] for s, v in summary["splits"].items()} == {"train": 2, "val": 2, "test": 2}
    lab.stage(recipe, "benchmark", "real", 0)


def test_no_usable_identity_says_what_was_found_where(lab: Lab, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for person in range(8):
        (root / f"p{person}").mkdir(parents=True)
        (root / f"p{person}" / "a.jpg").write_bytes(b"text")
        (root / f"p{person}" / "b.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="too few usable people") as error:
        prepared(lab, root)
    text = str(error.value)
    assert "8 x not an image in a known format" in text and "8 x empty file" in text and str(root) in text


def test_single_images_cannot_be_judged(lab: Lab, tmp_path: Path) -> None:
    root = draw_folder(tmp_path / "root", people=8, shots=1)
    with pytest.raises(UserError, match="two images"):
        prepared(lab, root, min_images=1)


# The split.


def some_names(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return sorted({f"d/{rng.getrandbits(64):x}" for _ in range(count)})


@pytest.mark.parametrize("count", [6, 7, 10, 23, 40, 200, 1001])
def test_proportions(count: int) -> None:
    options = Split()
    counts = Counter(assign(some_names(count), options).values())
    assert sum(counts.values()) == count and counts == quotas(count, options)
    for split, share in (("train", 0.5), ("val", 0.15), ("test", 0.35)):
        assert abs(counts[split] - share * count) <= (2 if count < 14 else 1)
    assert min(counts.values()) >= 2


def test_the_split_is_of_the_names_alone() -> None:
    names = some_names(60)
    first = assign(names, Split())
    shuffled = names.copy()
    random.Random(1).shuffle(shuffled)
    assert assign(shuffled, Split()) == first
    assert assign(names, Split(seed=1)) != first
    # The hash is fixed for ever: a run of years ago has the same test people.
    orl = assign([f"orl/s{n}" for n in range(1, 11)], Split())
    assert {name for name in orl if orl[name] == "test"} == {"orl/s10", "orl/s5", "orl/s8", "orl/s4"}
    assert {name for name in orl if orl[name] == "val"} == {"orl/s9", "orl/s3"}


def test_the_split_does_not_know_files(lab: Lab, faces: Path, tmp_path: Path) -> None:
    def splits(root: Path) -> dict[str, str]:
        table = manifest.read(prepared(lab, root).path, ["identity", "split"])
        return {r["identity"]: r["split"] for r in table.to_pylist()}

    root = shutil.copytree(faces, tmp_path / "root")
    (root / "p04" / "4.png").rename(root / "p04" / "aaa.png")
    (root / "p00" / "0.png").unlink()
    assert splits(root) == splits(faces)


def test_frozen_people_stay() -> None:
    names = some_names(30)
    frozen: dict[str, Any] = {names[0]: "test", names[1]: "test", names[2]: "val", "d/gone": "train"}
    options = Split(frozen=frozen)
    splits = assign(names, options)
    assert {name: splits[name] for name in names[:3]} == {name: frozen[name] for name in names[:3]}
    assert "d/gone" not in splits and Counter(splits.values()) == quotas(30, options)
    # People added later never move those of an earlier run that is frozen whole.
    grown = assign(names + some_names(20, seed=9), Split(frozen=splits))
    assert {name: grown[name] for name in names} == splits


def test_too_many_frozen_people_take_no_others_place() -> None:
    names = some_names(10)
    options = Split(frozen=dict.fromkeys(names[:9], "test"))
    assert Counter(assign(names, options).values()) == {"test": 9, "train": 1}


@pytest.mark.parametrize("seed", range(20))
def test_nobody_is_in_two_splits(seed: int) -> None:
    rng = random.Random(seed)
    letters = "aAäß日\u0301/ .-_'\"\\\n0é"
    names = sorted({"d/" + "".join(rng.choices(letters, k=rng.randint(1, 6))) for _ in range(rng.randint(6, 80))})
    test = rng.uniform(0.05, 0.4)
    val = rng.uniform(0.05, 0.4)
    options = Split(train=1 - val - test, val=val, test=test, seed=seed)
    rows = rng.choices(names, k=300)
    assigned = assign(names, options)
    assert assigned.keys() == set(names) and set(assigned.values()) <= {"train", "val", "test"}
    people: dict[str, set[str]] = {}
    for name in rows:
        people.setdefault(assigned[name], set()).add(name)
    splits = list(people.values())
    assert sum(map(len, splits)) == len(set().union(*splits))


def test_growing_moves_few() -> None:
    """Ranks are cut, so one more person moves at most two over each border; none between train and test."""
    names = some_names(80)
    for count in range(40, 79):
        before, after = assign(names[:count], Split()), assign(names[: count + 1], Split())
        moved = [(before[n], after[n]) for n in before if before[n] != after[n]]
        assert len(moved) <= 4 and {"train", "test"} not in [set(pair) for pair in moved]


@pytest.mark.parametrize("held", [0, 30])
def test_by_hash_nobody_ever_moves_another(held: int) -> None:
    """However a source grows or shrinks; and the shares hold within the draw's own error."""
    names, options = some_names(4000), Split(by="hash")
    test = set(names[:held])
    everybody = assign(names, options, test)
    for some in (names[: held + 1], names[:50], names[:51], names[:3999], names[5:700]):
        assert assign(some, options, test & set(some)).items() <= everybody.items()
    shares = {"train": 0.5 / 0.65, "val": 0.15 / 0.65} if held else {"train": 0.5, "val": 0.15, "test": 0.35}
    counts = Counter(everybody[name] for name in names[held:])
    assert counts.keys() == shares.keys() and all(everybody[name] == "test" for name in test)
    for split, share in shares.items():
        expected = share * (4000 - held)
        assert abs(counts[split] - expected) < 4 * (expected * (1 - share)) ** 0.5
    assert assign(names, Split(by="hash", seed=1), test) != everybody


def test_frozen_people_stay_by_hash_too() -> None:
    names = some_names(60)
    frozen: dict[str, Any] = dict.fromkeys(names[10:20], "test")
    splits = assign(names, Split(by="hash", frozen=frozen))
    assert splits == {**assign(names, Split(by="hash")), **frozen}


def test_an_earlier_preparation_is_what_is_frozen(lab: Lab, faces: Path, tmp_path: Path) -> None:
    before = splits_of(prepared(lab, faces).path)
    root = shutil.copytree(faces, tmp_path / "root")
    for person in range(8, 20):
        (root / f"q{person}").mkdir()
        for shot in (1, 2):
            (root / f"q{person}" / f"{shot}.png").write_bytes(encoded(Image.fromarray(draw_face(person, shot)), "PNG"))
    shutil.rmtree(root / "p03")
    plain = splits_of(prepared(lab, root).path)
    after = splits_of(prepared(lab, root, split={"frozen": before}).path)
    assert any(plain[name] != before[name] for name in before if name in plain), "ranks move people, so freeze them"
    assert all(after[name] == before[name] for name in before if name in after) and "folder/p03" not in after
    assert len(after) == 19 and Counter(after.values()) == quotas(19, Split(train=0.5, val=0.25, test=0.25))


def test_a_hash_that_leaves_a_split_empty_is_said(lab: Lab, faces: Path) -> None:
    share = {"by": "hash", "train": 0.98, "val": 0.01, "test": 0.01}
    with pytest.raises(UserError, match="too few usable people") as error:
        prepared(lab, faces, split=share)
    assert "prepare.split.by=rank" in error.value.fix
    assert "by" not in pick(graph.build(tiny(faces)), "prepare").config["split"], (
        "and what is not set in no fingerprint"
    )


def kept(artifact: Artifact) -> dict[str, dict[str, set[str]]]:
    """{split: {identity: source_sha256 of its images}}."""
    images: dict[str, dict[str, set[str]]] = {split: {} for split in manifest.SPLITS}
    for row in manifest.read(artifact.path, ["split", "identity", "source_sha256"]).to_pylist():
        images[row["split"]].setdefault(row["identity"], set()).add(row["source_sha256"])
    return images


def test_fewer_train_images_and_people_are_nested_and_touch_no_one_else(lab: Lab, faces: Path) -> None:
    everything = kept(prepared(lab, faces))
    three, two = kept(prepared(lab, faces, train_images=3)), kept(prepared(lab, faces, train_images=2))
    few = prepared(lab, faces, train_images=2, train_identities=3)
    for limited in (three, two, kept(few)):
        assert (limited["val"], limited["test"]) == (everything["val"], everything["test"])
    for name, images in everything["train"].items():
        assert two["train"][name] < three["train"][name] < images
        assert (len(two["train"][name]), len(three["train"][name])) == (2, 3)
    people = kept(few)["train"]
    assert len(people) == 3 and people.items() < two["train"].items()
    assert json.loads((few.path / "summary.json").read_text())["not_used"] == {"identities": 1, "images": 14}
    assert not quarantine(few)
    small_val = kept(prepared(lab, faces, val_images=2))
    assert (small_val["train"], small_val["test"]) == (everything["train"], everything["test"])
    assert all(
        len(small_val["val"][name]) == 2 and small_val["val"][name] < everything["val"][name]
        for name in everything["val"]
    )
    other = kept(prepared(lab, faces, train_images=2, split={"seed": 1}))["train"]
    assert any(two["train"][name] != images for name, images in other.items() if name in two["train"])


def test_limits_left_unset_are_in_no_fingerprint(faces: Path) -> None:
    hashed = pick(graph.build(tiny(faces)), "prepare").config
    assert not {"train_images", "train_identities"} & hashed.keys()
    assert pick(graph.build(tiny(faces, prepare={"train_images": 3})), "prepare").config["train_images"] == 3


CELEBRITIES = SHARED / "celeb17_raw.zip"


@pytest.mark.skipif(not CELEBRITIES.is_file(), reason="the shared photos are not beside the project")
def test_a_folder_of_real_photos_of_any_size(lab: Lab, tmp_path: Path) -> None:
    with zipfile.ZipFile(CELEBRITIES) as archive:
        archive.extractall(tmp_path)
    artifact = prepared(lab, tmp_path / "celeb17_raw", size_px=64, color="rgb")
    images = ManifestImages(artifact.path)
    assert images.pixels.shape == (204, 64, 64, 3) and not quarantine(artifact)
    assert Counter(Counter(images.identity.tolist()).values()) == {12: 17}
    assert manifest.validate(artifact.path) == []


def test_images_keep_their_names_and_the_quarantine_its_side(faces: Path, lab: Lab, tmp_path: Path) -> None:
    """`image.path` is the name below the source's root; a broken photo belongs to the side of its person."""
    root = shutil.copytree(faces, tmp_path / "named")
    for person in sorted(root.iterdir()):
        (person / "broken.png").write_bytes(b"no image")
    (root / "lonely").mkdir()
    (root / "lonely" / "broken.png").write_bytes(b"no image")
    artifact = lab.stage(tiny(root), "prepare")
    rows = manifest.read(artifact.path).to_pylist()
    assert {row["image"]["path"] for row in rows} == {f"p{p:02d}/{n}.png" for p in range(8) for n in range(5)}
    assert all(row["image"]["path"].startswith(row["identity"].split("/")[1]) for row in rows)
    split = {row["identity"]: row["split"] for row in rows}
    quarantined = pq.read_table(artifact.path / "quarantine.parquet").to_pylist()
    assert len(quarantined) == 9 and all(item["split"] == split.get(item["identity"]) for item in quarantined)
