"""Every source and format: the same faces give the same images, people and fingerprint, wherever they lie."""

from __future__ import annotations

import base64
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import formats
from drawn import SIZE_PX, Lab, draw_lfw, tiny
from facegan.data import manifest
from facegan.data.import_faces import import_
from facegan.data.options import Prepare
from facegan.data.sources import SOURCES, SourceConfig, SourceImage, guess
from facegan.data.sources.folder import Folder
from facegan.store.local import Artifact


def test_the_family(faces: Path, tmp_path: Path) -> None:
    members = SOURCES.load()
    import_([Folder(root=str(faces))], tmp_path / "imported")
    paths = {
        "csv": formats.write_csv(faces, tmp_path / "list.csv"),
        "folder": faces,
        "insightface-bin": formats.write_bin(faces, tmp_path / "lfw.bin"),
        "insightface-rec": formats.write_rec(faces, tmp_path / "rec"),
        "lfw": draw_lfw(tmp_path, {"Ann_Lee": 2, "Bo": 1}),
        "manifest": tmp_path / "imported",
        "parquet": formats.write_parquet(faces, tmp_path / "a.parquet"),
        "webdataset": formats.write_webdataset(faces, tmp_path / "shards"),
    }
    assert members.keys() == paths.keys() | {"orl"}
    for kind, member in members.items():
        options = {"root": str(paths[kind])} if kind in paths else {}
        options |= {"images": str(faces)} if kind == "csv" else {}
        source: SourceConfig = member.model_validate({"kind": kind, **options})
        rows = list(source.rows())
        assert rows == list(source.rows())
        assert len({r.relative for r in rows}) == len(rows) > 0
        assert all(r.path.is_file() and r.identity.count("/") >= 1 and not Path(r.relative).is_absolute() for r in rows)
        assert source.fingerprint() == source.fingerprint()
        assert "root" not in source.identifying()


Write = Callable[[Path, Path], dict[str, Any]]


def csv_config(faces: Path, folder: Path) -> dict[str, Any]:
    return {"kind": "csv", "root": str(formats.write_csv(faces, folder / "list.csv")), "images": str(faces)}


def manifest_config(faces: Path, folder: Path) -> dict[str, Any]:
    import_([SOURCES.get("folder")(root=str(faces), dataset="d")], folder / "imported")
    return {"kind": "manifest", "root": str(folder / "imported")}


def bare(data: bytes) -> str:
    """Base64 as MIME has it: without a word what it is, in lines of 76 letters."""
    return base64.encodebytes(data).decode()


WRITERS: dict[str, Write] = {
    "folder": lambda faces, place: {"kind": "folder", "root": str(faces)},
    "zip": lambda faces, place: {"kind": "folder", "root": str(formats.write_zip(faces, place / "a.zip"))},
    "flat zip": lambda faces, place: {"kind": "folder", "root": str(formats.write_zip(faces, place / "a.zip", ""))},
    "csv": csv_config,
    "parquet": lambda faces, place: {"kind": "parquet", "root": str(formats.write_parquet(faces, place / "a.parquet"))},
    "csv64": lambda faces, place: {"kind": "csv", "root": str(formats.write_csv64(faces, place / "b.csv"))},
    "bare csv64": lambda f, place: {"kind": "csv", "root": str(formats.write_csv64(f, place / "b.csv", bare))},
    "parquet64": lambda f, place: {"kind": "parquet", "root": str(formats.write_parquet64(f, place / "b.parquet"))},
    "bare parquet64": lambda faces, place: {
        "kind": "parquet",
        "root": str(formats.write_parquet64(faces, place / "b.parquet", bare)),
    },
    "datasets": lambda faces, place: {"kind": "parquet", "root": str(formats.write_datasets(faces, place / "hf"))},
    "json": lambda faces, place: {"kind": "webdataset", "root": str(formats.write_webdataset(faces, place / "w"))},
    "cls": lambda faces, place: {
        "kind": "webdataset",
        "root": str(formats.write_webdataset(faces, place / "w", "cls")),
    },
    "txt": lambda faces, place: {
        "kind": "webdataset",
        "root": str(formats.write_webdataset(faces, place / "w", "txt")),
    },
    "key": lambda faces, place: {"kind": "webdataset", "root": str(formats.write_webdataset(faces, place / "w", ""))},
    "rec": lambda faces, place: {"kind": "insightface-rec", "root": str(formats.write_rec(faces, place / "rec"))},
    "manifest": manifest_config,
}


def source(faces: Path, folder: Path, name: str) -> SourceConfig:
    folder.mkdir(exist_ok=True)
    config = WRITERS[name](faces, folder)
    validated: SourceConfig = SOURCES.get(config["kind"]).model_validate(
        config | ({} if config["kind"] == "manifest" else {"dataset": "d"})
    )
    return validated


def prepared(lab: Lab, source_config: SourceConfig) -> Artifact:
    return lab.stage(tiny("unused", prepare={"source": source_config.model_dump(mode="json")}), "prepare")


def people(rows: list[SourceImage]) -> dict[str, list[bytes]]:
    by_person: dict[str, list[bytes]] = {}
    for row in rows:
        by_person.setdefault(row.identity, []).append(row.read())
    return {name: sorted(images) for name, images in sorted(by_person.items())}


@pytest.fixture(scope="module")
def reference(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[bytes]], list[Any]]:
    """Of the folder: {identity: bytes of their images}, and (image_id, identity, split) of what prepare makes."""
    folder = source(faces, tmp_path_factory.mktemp("none"), "folder")
    return people(list(folder.rows())), stored(prepared(Lab(tmp_path_factory.mktemp("lab")), folder))


def stored(artifact: Artifact) -> list[Any]:
    rows = manifest.read(artifact.path, ["image_id", "identity", "split", "source_sha256"]).to_pylist()
    return sorted(tuple(row.values()) for row in rows)


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_faces_through_any_format(
    lab: Lab, faces: Path, tmp_path: Path, reference: tuple[dict[str, list[bytes]], list[Any]], name: str
) -> None:
    written = source(faces, tmp_path / "here", name)
    images, rows = reference
    by_person = people(list(written.rows()))
    assert list(by_person.values()) == list(images.values())
    ids = stored(prepared(lab, written))
    if name == "rec":  # people have numbers there
        assert list(by_person) == [f"d/{number}" for number in range(8)]
        assert [row[0] for row in ids] == [row[0] for row in rows]
    else:
        assert by_person.keys() == images.keys() and ids == rows
    root = Path(written.root)  # type: ignore[attr-defined]
    assert guess(root) == written.kind


@pytest.mark.parametrize("name", WRITERS)
def test_fingerprints_know_no_place(faces: Path, tmp_path: Path, name: str) -> None:
    here = source(faces, tmp_path / "here", name)
    moved = source(shutil.copytree(faces, tmp_path / "faces"), tmp_path / "there", name)
    assert here.fingerprint() == moved.fingerprint() and here.identifying() == moved.identifying()
    assert not {str(tmp_path), str(faces)} & set(map(str, here.identifying().values()))
    changed = shutil.copytree(faces, tmp_path / "changed")
    (changed / "p00" / "0.png").write_bytes((changed / "p00" / "1.png").read_bytes())
    assert source(changed, tmp_path / "third", name).fingerprint() != here.fingerprint()


def test_who_is_on_an_image_is_in_the_fingerprint(faces: Path, tmp_path: Path) -> None:
    data = (faces / "p00" / "0.png").read_bytes()

    def parquet(name: str, license: str) -> str:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"image": [data], "identity": [name], "license": [license]}), path)
        return str(SOURCES.get("parquet")(root=str(path)).fingerprint())

    assert len({parquet("ann", "CC0"), parquet("bo", "CC0"), parquet("ann", "research only")}) == 3


POINTS = [30.5, 51.25, 65.5, 51.5, 48.0, 71.75, 33.5, 92.25, 62.75, 92.0]


def test_landmarks_group_and_licence_are_kept(faces: Path, tmp_path: Path) -> None:
    shutil.copytree(faces / "p00", tmp_path / "f" / "p00")
    data = (faces / "p00" / "0.png").read_bytes()
    facts = {"identity": "ann", "license": "CC BY 4.0", "group": "studio", "landmarks": POINTS}
    (tmp_path / "f" / "metadata.jsonl").write_text(json.dumps({"file_name": "p00/0.png", **facts}) + "\n")
    pq.write_table(pa.Table.from_pylist([{"image": data, **facts}]), tmp_path / "a.parquet")
    (tmp_path / "f" / "list.csv").write_text(
        f'file_name,{",".join(facts)}\np00/0.png,ann,CC BY 4.0,studio,"{" ".join(map(str, POINTS))}"\n'
    )
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        formats.add(tar, "1.png", data)
        formats.add(tar, "1.json", json.dumps({**facts, "landmarks": np.reshape(POINTS, (5, 2)).tolist()}).encode())
    for kind, path in {"folder": "f", "parquet": "a.parquet", "csv": "f/list.csv", "webdataset": "a.tar"}.items():
        rows = list(SOURCES.get(kind)(root=str(tmp_path / path), dataset="d", license="mine").rows())
        row = next(item for item in rows if item.identity == "d/ann")
        assert (row.license, row.group, row.landmarks) == ("CC BY 4.0", "studio", tuple(POINTS)), kind
        assert row.read() == data
        assert {item.license for item in rows if item.identity == "d/p00"} <= {"mine"}


def test_landmarks_go_where_prepare_puts_the_face(lab: Lab, tmp_path: Path) -> None:
    """A dark dot on white, drawn at each landmark of a wide photo, is at that landmark of the small square."""

    points = [60.0, 30.0, 100.0, 30.0, 80.0, 50.0, 65.0, 70.0, 95.0, 70.0]
    pixels = np.full((100, 160), 255, np.uint8)
    for x, y in np.reshape(points, (5, 2)).astype(int):
        pixels[y - 2 : y + 2, x - 2 : x + 2] = 0
    faces, lines = tmp_path / "faces", []
    for person in range(6):
        for shot in range(2):
            (faces / f"p{person}").mkdir(parents=True, exist_ok=True)
            noisy = np.clip(pixels.astype(int) + person * 2 + shot, 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(faces / f"p{person}" / f"{shot}.png")
            lines.append(json.dumps({"file_name": f"p{person}/{shot}.png", "landmarks": points}))
    (faces / "metadata.jsonl").write_text("\n".join(lines))
    artifact = prepared(lab, SOURCES.get("folder")(root=str(faces)))
    row = next(manifest.iterate(artifact.path))
    x, y = np.reshape(row["landmarks"], (5, 2)).T
    assert np.allclose(x, (np.array(points[::2]) - 30) * SIZE_PX / 100) and np.allclose(
        y, np.array(points[1::2]) * SIZE_PX / 100
    )
    from facegan.data.images import decode_pixels

    small = decode_pixels(row["image"]["bytes"])[:, :, 0].astype(int)
    dark = np.argwhere(small < 150)
    for cx, cy in zip(x, y, strict=True):
        assert np.hypot(dark[:, 1] + 0.5 - cx, dark[:, 0] + 0.5 - cy).min() < 1


def test_prepare_takes_every_member(faces: Path, tmp_path: Path) -> None:
    """A recipe can name each of them, and its paths are not part of what is hashed."""
    for name in WRITERS:
        written = source(faces, tmp_path / name.replace(" ", ""), name)
        assert Prepare(source=written).source == written
