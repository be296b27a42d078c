"""prepare: a manifest of one size, a quarantine with reasons, people split once and for all."""

from __future__ import annotations

import binascii
import hashlib
import json
import os
import shutil
import struct
import unicodedata
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from drawn import SHARED, Lab, draw_face, draw_folder, pick, tiny
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.conditions.small import Small
from facegan.data.dataset import ManifestImages
from facegan.data.images import decode_pixels, encode_png
from facegan.data.options import Prepare, Split
from facegan.data.preparation.splits import quotas, splits_of
from facegan.data.sources.orl import Orl
from facegan.pipeline import graph
from facegan.recipe.recipe import Recipe
from facegan.store.local import Artifact
from image_formats import COLOR, FACE, FORMATS, LAB, encoded
from manifests import summarise


def prepared(lab: Lab, root: Path, **options: Any) -> Artifact:
    return lab.stage(tiny(root, prepare=options), "prepare")


def quarantine(artifact: Artifact) -> dict[str, str]:
    return {r["file"]: r["reason"] for r in pq.read_table(artifact.path / "quarantine.parquet").to_pylist()}


def pixels_by_photo(artifact: Artifact) -> dict[str, np.ndarray]:
    """Stored pixels (side, side, C) uint8 by the sha256 of the photo's file."""
    rows = manifest.read(artifact.path, ["source_sha256", "image"]).to_pylist()
    return {row["source_sha256"]: decode_pixels(row["image"]["bytes"]) for row in rows}


def huge_png(width: int, height: int) -> bytes:
    """A PNG whose header promises width x height; its data would unpack to nothing of the sort."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", binascii.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_orl_comes_out_whole(lab: Lab) -> None:
    recipe = Recipe(prepare=Prepare(source=Orl(), size_px=48))
    artifact = lab.stage(recipe, "prepare")
    summary = summarise(artifact.path)
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
    assert summarise(artifact.path)["images"] == 40  # the run went on with all the others
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
    (root / "p00" / "large.png").write_bytes(encoded(Image.linear_gradient("L").resize((200, 200)), "PNG"))
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
        assert item["bytes"].startswith(b"\x89PNG") and decode_pixels(item["bytes"]).shape == (32, 32, channels)


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


def test_the_split_does_not_know_files(lab: Lab, faces: Path, tmp_path: Path) -> None:
    def splits(root: Path) -> dict[str, str]:
        table = manifest.read(prepared(lab, root).path, ["identity", "split"])
        return {r["identity"]: r["split"] for r in table.to_pylist()}

    root = shutil.copytree(faces, tmp_path / "root")
    (root / "p04" / "4.png").rename(root / "p04" / "aaa.png")
    (root / "p00" / "0.png").unlink()
    assert splits(root) == splits(faces)


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
    for side in ("val", "test"):
        small = kept(prepared(lab, faces, **{f"{side}_images": 2}))
        assert all(small[other] == everything[other] for other in everything if other != side)
        assert all(
            len(small[side][name]) == 2 and small[side][name] < everything[side][name] for name in everything[side]
        )
    other = kept(prepared(lab, faces, train_images=2, split={"seed": 1}))["train"]
    assert any(two["train"][name] != images for name, images in other.items() if name in two["train"])


def test_limits_left_unset_are_in_no_fingerprint(faces: Path) -> None:
    hashed = pick(graph.build(tiny(faces)), "prepare").config
    assert not {"train_images", "val_images", "test_images", "train_identities"} & hashed.keys()
    assert pick(graph.build(tiny(faces, prepare={"train_images": 3})), "prepare").config["train_images"] == 3


@pytest.mark.parametrize("color", ["grey", "rgb"])
def test_photos_under_conditions_are_those_without_changed_in_turn(lab: Lab, faces: Path, color: str) -> None:
    assert "conditions" not in pick(graph.build(tiny(faces)), "prepare").config
    small = {"kind": "small", "side_px": 8}
    plain, one, both = (
        pixels_by_photo(prepared(lab, faces, color=color, conditions=conditions))
        for conditions in ([], [small], [small, {"kind": "side_light", "ambient": 0.0}])
    )
    assert any("(prepare.conditions): small, then side_light" in event.text for event in lab.events)
    brighter = set()
    for photo, before in plain.items():
        assert np.array_equal(Small(side_px=8).changed(before, np.random.default_rng(0)), one[photo])
        halves = np.split(both[photo] / one[photo].clip(1), 2, axis=1)
        left, right = (half.mean() for half in halves)
        assert max(left, right) > 1.5 * min(left, right), "the light is changed after the pixels, from one side"
        brighter.add(left > right)
    assert brighter == {True, False}, "each photo draws for itself"


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


def test_photos_that_arrive_move_nobody_in_the_manifest(lab: Lab, tmp_path: Path) -> None:
    """Through prepare itself: people come with a photo too few, get more, and others join."""
    root, split = draw_folder(tmp_path / "root", people=24, shots=2), {"by": "hash"}
    before = splits_of(lab.stage(tiny(root, prepare={"split": split}), "prepare").path)
    for people in ((24,), (25, 26, 27)):
        for person in people:
            (root / f"p{person:02d}").mkdir()
            for shot in range(2 if person > 24 else 1):
                (root / f"p{person:02d}" / f"{shot}.png").write_bytes(encode_png(draw_face(person, shot)))
        (root / "p24" / "9.png").write_bytes(encode_png(draw_face(24, 9)))
        after = splits_of(lab.stage(tiny(root, prepare={"split": split}), "prepare").path)
        assert before.items() <= after.items()
        before = after
    assert len(before) == 28


def test_one_picture_under_many_people(lab: Lab, tmp_path: Path) -> None:
    """A `photo gone` of a download: it is counted, and an option leaves all its copies out."""
    root = draw_folder(tmp_path / "root", people=12, shots=4)
    gone = encoded(COLOR.resize((90, 60)), "JPEG")
    for person in range(9):
        for number in range(1 + person % 2):
            (root / f"p{person:02d}" / f"gone{number}.jpg").write_bytes(gone)
    with pytest.raises(UserError, match=r"the same picture stands under 9 people, 13 times: p00/gone0\.jpg") as error:
        prepared(lab, root)
    assert "prepare.left_out_photos=['p00/gone0.jpg']" in error.value.fix
    artifact = prepared(lab, root, left_out_photos=("p00/gone0.jpg",))
    reasons = quarantine(artifact)
    assert len(reasons) == 13 and set(reasons.values()) == {"left out by prepare.left_out_photos"}
    assert not any("gone" in row["image"]["path"] for row in manifest.iterate(artifact.path))
    by_bytes = prepared(lab, root, left_out_photos=(hashlib.sha256(gone).hexdigest(),))
    assert quarantine(by_bytes) == reasons
    with pytest.raises(UserError, match=r"names 'p00/gone\.jpg', and no file"):
        prepared(lab, root, left_out_photos=("p00/gone.jpg",))


def test_names_given_in_the_other_form_are_found(lab: Lab, tmp_path: Path) -> None:
    """People composed and decomposed are one; lists of a recipe may have either form."""
    root = draw_folder(tmp_path / "root", people=10, shots=4)
    names = ["José", "Zoë", "Åse", "Ñandú"]
    for number, name in enumerate(names):
        os.rename(root / f"p{number:02d}", root / unicodedata.normalize("NFD", name))
    half = root / unicodedata.normalize("NFC", names[0])
    half.mkdir()
    os.rename(root / unicodedata.normalize("NFD", names[0]) / "0.png", half / "0.png")
    split = Split(frozen={f"folder/{unicodedata.normalize(f, names[0])}": "val" for f in ("NFD",)})
    same = ((f"folder/{unicodedata.normalize('NFD', names[1])}", "folder/p04"),)
    artifact = prepared(lab, root, split=split, same_people=same, left_out=(f"folder/{names[2]}",))
    table = manifest.read(artifact.path, ["identity", "split"]).to_pylist()
    counts = Counter(row["identity"] for row in table)
    assert counts[f"folder/{names[0]}"] == 4 and counts[f"folder/{names[1]}"] == 8
    assert f"folder/{names[2]}" not in counts and all(unicodedata.is_normalized("NFC", name) for name in counts)
    assert {row["split"] for row in table if row["identity"] == f"folder/{names[0]}"} == {"val"}
    assert set(quarantine(artifact).values()) == {"left out by prepare.left_out"}
