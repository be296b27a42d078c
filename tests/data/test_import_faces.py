"""Import and export: no image is encoded anew, nothing that is known of one is lost, and both ways give the same."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import formats
from drawn import Lab, draw_face, draw_lfw, tiny
from facegan.core.errors import UserError
from facegan.data import export_faces, manifest
from facegan.data.export_faces import FORMATS, escape, export
from facegan.data.import_faces import import_
from facegan.data.sources import SOURCES, SourceConfig

NAMES = [
    "Ann_Lee",
    "..",
    ".",
    ".hidden",
    "a/b",
    "../../etc/passwd",
    "Zoë 日本 \U0001f600",
    "metadata.jsonl",
    "Metadata.JSONL",
    "x" * 400,
    "x" * 401,
    "é" * 300,
    "a%2Fb",
    "CON ",
    "tab\there\nand a line",
    "-rf",
    "~",
    "a\\b",
]
POINTS = [30.5, 51.25, 65.5, 51.5, 48.0, 71.75, 33.5, 92.25, 62.75, 92.0]
SAME = (
    "image_id",
    "identity",
    "dataset",
    "source",
    "license",
    "group",
    "landmarks",
    "source_sha256",
    "split",
    "height",
)


def source(kind: str, root: Path, **options: Any) -> SourceConfig:
    config: SourceConfig = SOURCES.get(kind)(root=str(root), **options)
    return config


def encoded(person: int, shot: int, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(draw_face(person, shot)).save(buffer, kind, **options)
    return buffer.getvalue()


def rows(folder: Path) -> list[dict[str, Any]]:
    return list(manifest.iterate(folder))


def kept(folder: Path) -> list[tuple[Any, ...]]:
    """What must survive a round trip, in an order of its own."""
    return sorted((tuple(str(row[name]) for name in SAME), row["image"]["bytes"]) for row in rows(folder))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An import of two datasets, with names, licences, groups and landmarks of every kind."""
    root = tmp_path_factory.mktemp("odd")
    with tarfile.open(root / "a.tar", "w") as tar:
        for number, name in enumerate(NAMES):
            for shot in range(2):
                formats.add(
                    tar, f"{number}-{shot}.{('jpg', 'png')[shot]}", encoded(number, shot, ("JPEG", "PNG")[shot])
                )
                facts: dict[str, Any] = {"identity": name}
                facts |= {"license": f"licence {number}", "group": "ä/b"} if number % 2 else {}
                facts |= {"landmarks": [p + number / 3 for p in POINTS]} if number % 3 else {}
                facts |= {"landmarks": [*POINTS[:6], None, None, None, None]} if number == 3 else {}
                formats.add(tar, f"{number}-{shot}.json", json.dumps(facts).encode())
    draw_lfw(root, {"Ann_Lee": 2, "Bo": 1})
    import_([source("webdataset", root / "a.tar", dataset="odd"), source("lfw", root)], root / "out")
    return root / "out"


def test_an_import_stores_the_files_as_they_are(faces: Path, tmp_path: Path) -> None:
    done = import_([source("folder", faces, license="CC0")], tmp_path / "out")
    assert (done.images, done.encoded, len(done.people), done.bad) == (40, 0, 8, [])
    stored = rows(tmp_path / "out")
    assert [row["image"] for row in stored] == [
        {"bytes": data, "path": f"{person}/{name}"} for person, name, data in formats.listed(faces)
    ]
    assert all(row["source_sha256"] == row["image_id"] for row in stored)
    assert {(r["license"], r["split"], r["source"], r["height"], r["width"]) for r in stored} == {
        ("CC0", "unassigned", "real", 48, 44)
    }
    assert manifest.validate(tmp_path / "out") == []
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["licenses"] == {"CC0": 40}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


def test_the_same_bytes_wherever_it_goes(faces: Path, tmp_path: Path) -> None:
    zipped = formats.write_zip(faces, tmp_path / "a.zip")
    for out, root in ((tmp_path / "one", faces), (tmp_path / "b" / "two", zipped)):
        import_([source("folder", root)], out, threads=1 if out.name == "one" else 3)
    parts = [manifest.parts(out)[0].read_bytes() for out in (tmp_path / "one", tmp_path / "b" / "two")]
    assert parts[0] == parts[1]


def test_other_formats_become_png_of_the_same_pixels(lab: Lab, faces: Path, tmp_path: Path) -> None:
    root = shutil.copytree(faces, tmp_path / "root")
    pixels = draw_face(0, 0)
    Image.fromarray(pixels).save(root / "p00" / "grey.bmp")
    Image.fromarray(pixels).save(root / "p00" / "grey.pgm")
    Image.fromarray(np.dstack([pixels, 255 - pixels, pixels])).save(root / "p00" / "rgb.tif")
    Image.fromarray(np.dstack([pixels] * 3 + [pixels])).save(root / "p00" / "alpha.webp", lossless=True)
    Image.fromarray(pixels.astype(np.uint16) * 200).save(root / "p00" / "deep.tif")
    Image.fromarray(pixels.astype(np.uint16) * 200).save(root / "p00" / "deep.png")
    done = import_([source("folder", root)], tmp_path / "out")
    assert (done.images, done.encoded) == (46, 5)
    for row in rows(tmp_path / "out"):
        assert row["image"]["bytes"][:4] == b"\x89PNG"
    artifacts = [
        lab.stage(tiny("unused", prepare={"source": {"kind": kind, "root": str(place)}}), "prepare")
        for kind, place in (("folder", root), ("manifest", tmp_path / "out"))
    ]
    tables = [manifest.read(a.path, ["image_id", "identity", "split", "source_sha256"]) for a in artifacts]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("kind", FORMATS)
def test_a_round_trip_loses_nothing(odd: Path, tmp_path: Path, kind: str) -> None:
    assert export(odd, kind, tmp_path / "there") == 2 * len(NAMES) + 3
    inside = (tmp_path / "there").resolve()
    assert all(inside in path.resolve().parents for path in inside.rglob("*"))
    assert stat.S_IMODE(inside.stat().st_mode) == 0o700
    done = import_([source(kind, tmp_path / "there")], tmp_path / "back")
    assert done.bad == [] and done.encoded == 0
    assert kept(tmp_path / "back") == kept(odd)
    assert len({row["identity"] for row in rows(odd)}) == len(NAMES) + 2
    assert {f"odd/{name.strip()}" for name in NAMES} < {row["identity"] for row in rows(tmp_path / "back")}


def test_a_zipped_export_comes_back(odd: Path, tmp_path: Path) -> None:
    export(odd, "folder", tmp_path / "there")
    shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "there")
    import_([source("folder", tmp_path / "a.zip")], tmp_path / "back")
    assert kept(tmp_path / "back") == kept(odd)


@pytest.mark.parametrize("kind", FORMATS)
def test_exports_are_the_same_bytes_each_time(odd: Path, tmp_path: Path, kind: str) -> None:
    exports = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        export(odd, kind, folder)
        exports.append({p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    assert exports[0] == exports[1]


def test_one_dataset_is_exported_as_a_plain_folder(faces: Path, tmp_path: Path) -> None:
    """What comes out is what went in, and torchvision's ImageFolder and Hugging Face's imagefolder read it."""
    import_([source("folder", faces)], tmp_path / "out")
    export(tmp_path / "out", "folder", tmp_path / "there")
    (tmp_path / "there" / "metadata.jsonl").unlink()
    assert formats.listed(tmp_path / "there") == formats.listed(faces)


def test_hugging_face_shows_an_export(odd: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    export(odd, "parquet", tmp_path / "there")
    files = str(tmp_path / "there" / "*.parquet")
    loaded = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded.num_rows == 2 * len(NAMES) + 3 and loaded[0]["image"].size == (44, 48)


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_large_exports_are_cut_into_files(
    odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(export_faces, "SHARD_BYTES", 5_000)
    monkeypatch.setattr(export_faces, "GROUP_BYTES", 2_000)
    export(odd, kind, tmp_path / "there")
    assert len(list((tmp_path / "there").iterdir())) > 3
    import_([source(kind, tmp_path / "there")], tmp_path / "back")
    assert kept(tmp_path / "back") == kept(odd)


def test_names_become_file_names_and_stay_apart() -> None:
    names = [*NAMES, *map(str.upper, NAMES), "", "%", "a b", "a%20b", "x" * 120, "x" * 121]
    escaped = [escape(name) for name in names]
    assert len(set(escaped)) == len(set(names))
    for name in escaped:
        assert name.isascii() and 0 < len(name) <= 120 and not set(name) & set("/\\: \n")
        assert not name.startswith(".") and not name.endswith(".") and name.lower() != "metadata.jsonl"
    assert escape("Ann_Lee") == "Ann_Lee" and escape("..") == "%2E%2E"


def test_files_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for folder, shot in (("one", 0), ("two", 1)):
        (tmp_path / "f" / "ann" / folder).mkdir(parents=True)
        (tmp_path / "f" / "ann" / folder / "1.jpg").write_bytes(encoded(0, shot))
    import_([source("folder", tmp_path / "f", level=1)], tmp_path / "out")
    export(tmp_path / "out", "folder", tmp_path / "there")
    assert sorted(p.name for p in (tmp_path / "there" / "ann").iterdir()) == ["1.jpg", "1~2.jpg"]


def test_an_imported_manifest_is_a_source(lab: Lab, faces: Path, tmp_path: Path) -> None:
    """With its licence; test people stay test people, and changed bytes go to the quarantine."""
    (tmp_path / "pairs.txt").write_text("2\nAnn\t1\t2\nBo\t1\t2\nCy\t1\tDi\t1\nDi\t1\tAnn\t1\n")
    draw_lfw(tmp_path, dict.fromkeys(("Ann", "Bo", "Cy", "Di", "Ed", "Flo"), 2))
    import_([source("lfw", tmp_path, pairs=str(tmp_path / "pairs.txt"))], tmp_path / "out")
    config = {"kind": "manifest", "root": str(tmp_path / "out")}
    artifact = lab.stage(tiny("unused", prepare={"source": config}), "prepare")
    by_identity = {row["identity"]: (row["split"] == "test", row["license"][:7]) for row in rows(artifact.path)}
    assert by_identity == {f"lfw/{n}": (n in ("Ed", "Flo"), "Labeled") for n in ("Ann", "Bo", "Cy", "Di", "Ed", "Flo")}

    path = manifest.parts(tmp_path / "out")[0]
    table = pq.read_table(path)
    changed = table.to_pylist()
    changed[0]["image"]["bytes"] = encoded(5, 5)
    pq.write_table(table.from_pylist(changed, table.schema), path)
    again = import_([source("manifest", tmp_path / "out")], tmp_path / "again")
    assert [item["reason"] for item in again.bad] == [
        "cannot be read: its bytes are not those that its sha256 was made of"
    ]


def test_synthetic_people_are_no_source(odd: Path, tmp_path: Path) -> None:
    changed = [
        row | {"source": "synthetic", "identity": "synthetic/1", "dataset": "synthetic", "seed": 1} for row in rows(odd)
    ]
    manifest.write(tmp_path / "m", changed[:4] + rows(odd)[4:], "merge", {})
    for kind in FORMATS:
        export(tmp_path / "m", kind, tmp_path / kind)
    export_of = {"manifest": tmp_path / "m", **{kind: tmp_path / kind for kind in FORMATS}}
    for kind, place in export_of.items():
        done = import_([source(kind, place)], tmp_path / f"back {kind}")
        assert [item["reason"] for item in done.bad] == ["cannot be read: a synthetic image: no photo of anybody"] * 4
        assert not [row for row in rows(tmp_path / f"back {kind}") if row["identity"].startswith("synthetic/")]


def test_what_is_there_is_not_overwritten(odd: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    for act in (
        lambda: export(odd, "folder", tmp_path / "out"),
        lambda: import_([source("manifest", odd)], tmp_path / "out"),
    ):
        with pytest.raises(UserError, match="already there"):
            act()
    assert os.listdir(tmp_path) == ["out"] and os.listdir(tmp_path / "out") == ["mine"]


def test_an_import_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "f" / "ann").mkdir(parents=True)
    (tmp_path / "f" / "ann" / "1.jpg").write_bytes(b"text")
    with pytest.raises(UserError, match=r"not one image can be used \(1 x not an image in a known format\)"):
        import_([source("folder", tmp_path / "f")], tmp_path / "out")
    assert os.listdir(tmp_path) == ["f"]


def test_parts_are_cut_by_their_bytes(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "BYTES_PER_PART", 10_000)
    import_([source("folder", faces)], tmp_path / "out")
    sizes = [sum(len(row["image"]["bytes"]) for row in rows(part)) for part in manifest.parts(tmp_path / "out")]
    assert len(sizes) > 3 and all(10_000 <= size < 14_000 for size in sizes[:-1])
    assert len(rows(tmp_path / "out")) == 40
