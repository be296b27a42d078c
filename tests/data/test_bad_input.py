"""Bad input through every reader: a quarantine with a reason or an error in words; nothing run, nothing lost."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import formats
from drawn import draw_folder
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.images import BadImage, decode
from facegan.data.import_faces import import_
from facegan.data.sources import SOURCES, SourceConfig
from image_formats import COLOR, FACE, encoded


def promise(kind: str, side: int = 50_000) -> bytes:
    """A header of side x side px, with next to nothing behind it."""
    if kind == "png":
        parts = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 1000))]
        body = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts]
        return b"\x89PNG\r\n\x1a\n" + b"".join(body)
    if kind == "bmp":
        return (
            b"BM" + struct.pack("<IHHIIiiHHIIiiII", 154, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(100)
        )
    data = bytearray(encoded(FACE, "JPEG"))
    offset = data.index(b"\xff\xc0") + 5
    data[offset : offset + 4] = struct.pack(">HH", side, side)
    return bytes(data)


JPEG, PNG = encoded(COLOR, "JPEG", quality=95), encoded(COLOR, "PNG")
ROTATED = Image.Exif()
ROTATED[274] = 6
BAD = {
    "empty": b"",
    "text": b"this is no photo",
    "wrong magic": b"\x89PNG\r\n\x1a\n" + JPEG,
    "cut jpeg": JPEG[: len(JPEG) // 2],
    "cut png": PNG[: len(PNG) // 2],
    "header alone": JPEG[:20],
    "huge png": promise("png"),
    "huge jpeg": promise("jpeg"),
    "huge bmp": promise("bmp"),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n",
    "zeros": bytes(5000),
}
ODD = {
    "cmyk.jpg": encoded(COLOR.convert("CMYK"), "JPEG"),
    "16bit.png": encoded(Image.fromarray(np.asarray(FACE, np.uint16) * 200), "PNG"),
    "palette.png": encoded(COLOR.quantize(16), "PNG"),
    "rotated.jpg": encoded(COLOR.rotate(90, expand=True), "JPEG", exif=ROTATED.tobytes()),
    "grey.jpg": encoded(FACE, "JPEG"),
    "bits.png": encoded(FACE.convert("1"), "PNG"),
}


def test_a_promise_of_gigabytes_is_refused_by_its_header() -> None:
    for kind in ("png", "jpeg", "bmp"):
        with pytest.raises(Exception, match=r"50000 x 50000 px|absurdly large"):
            decode(promise(kind))


def test_no_other_program_is_started_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would run `gs` on an EPS."""
    from PIL import EpsImagePlugin

    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/trap\n")
    (tmp_path / "gs").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    with pytest.raises(OSError):
        Image.open(io.BytesIO(BAD["eps"])).load()
    assert (tmp_path / "trap").exists()
    (tmp_path / "trap").unlink()
    with pytest.raises(BadImage, match="not an image"):
        decode(BAD["eps"])
    assert not (tmp_path / "trap").exists()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one person's bad files, another's odd ones and a third's good ones."""
    root = tmp_path_factory.mktemp("mixed") / "root"
    for person, files in (("bad", BAD), ("odd", ODD), ("zed", {"1.jpg": JPEG, "2.png": PNG})):
        (root / person).mkdir(parents=True)
        for name, data in files.items():
            (root / person / (name if "." in name else f"{name}.jpg")).write_bytes(data)
    return root


def as_manifest(faces: Path, folder: Path) -> dict[str, Any]:
    rows = [
        manifest.row(data, identity=f"d/{person}", source="real", dataset="d", split="train", height=1, width=1)
        for person, _, data in formats.listed(faces)
    ]
    manifest.write(folder / "m", rows, "import", {})
    return {"kind": "manifest", "root": str(folder / "m")}


def as_arrow(faces: Path, folder: Path) -> dict[str, Any]:
    table = pq.read_table(formats.write_parquet(faces, folder / "a.parquet"))
    with pa.OSFile(str(folder / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return {"kind": "parquet", "root": str(folder / "a.arrow")}


def as_csv(faces: Path, folder: Path) -> dict[str, Any]:
    return {"kind": "csv", "root": str(formats.write_csv(faces, folder / "a.csv")), "images": str(faces)}


WRITERS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "zip": lambda faces, place: {"kind": "folder", "root": str(formats.write_zip(faces, place / "a.zip"))},
    "csv": as_csv,
    "parquet": lambda faces, place: {"kind": "parquet", "root": str(formats.write_parquet(faces, place / "a.parquet"))},
    "csv64": lambda faces, place: {"kind": "csv", "root": str(formats.write_csv64(faces, place / "b.csv"))},
    "parquet64": lambda f, place: {"kind": "parquet", "root": str(formats.write_parquet64(f, place / "b.parquet"))},
    "arrow": as_arrow,
    "webdataset": lambda f, place: {"kind": "webdataset", "root": str(formats.write_webdataset(f, place / "w"))},
    "rec": lambda faces, place: {"kind": "insightface-rec", "root": str(formats.write_rec(faces, place / "rec"))},
    "bin": lambda faces, place: {"kind": "insightface-bin", "root": str(formats.write_bin(faces, place / "a.bin"))},
    "manifest": as_manifest,
}


def source(config: dict[str, Any]) -> SourceConfig:
    validated: SourceConfig = SOURCES.get(config["kind"]).model_validate(config)
    return validated


@pytest.mark.parametrize("name", ["folder", *WRITERS])
def test_bad_images_go_to_the_quarantine_and_odd_ones_are_kept(mixed: Path, tmp_path: Path, name: str) -> None:
    config = WRITERS[name](mixed, tmp_path) if name in WRITERS else {"kind": "folder", "root": str(mixed)}
    faces = source(config)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    imported = import_([faces], tmp_path / "out")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200_000  # kB: nothing of 7.5 GB was unpacked
    listed = list(faces.rows())
    assert imported.images + len(imported.bad) == len(listed)
    if name != "bin":  # there photos stand in several pairs
        assert (imported.images, len(imported.bad)) == (len(ODD) + 2, len(BAD))
    stored = {row["image"]["bytes"] for row in manifest.iterate(tmp_path / "out")}
    assert stored == {*ODD.values(), JPEG, PNG}  # as they are
    assert all(item["reason"] and item["file"] for item in imported.bad)
    reasons = " ".join(item["reason"] for item in imported.bad)
    assert all(words in reasons for words in ("empty file", "not an image", "truncated", "absurdly large"))
    assert pq.read_table(tmp_path / "out" / "quarantine.parquet").num_rows == len(imported.bad)


def damaged(data: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Seeded damage: cut, bytes changed, a stretch of zeros or 255, a piece twice, a piece missing."""
    rng = np.random.default_rng(seed)
    yield "empty", b""
    yield "text", b"hello\n"
    for number in range(count):
        cut = int(rng.integers(1, len(data)))
        changed = bytearray(data)
        kind = ("cut", "flip", "fill", "twice", "missing")[number % 5]
        if kind == "cut":
            changed = changed[:cut]
        elif kind == "flip":
            for place in rng.integers(0, len(data), rng.integers(1, 9)):
                changed[place] = int(rng.integers(256))
        elif kind == "fill":
            changed[cut : cut + 64] = bytes([number % 2 * 255]) * len(changed[cut : cut + 64])
        elif kind == "twice":
            changed[cut:cut] = data[cut : cut + int(rng.integers(1, 400))]
        else:
            del changed[cut : cut + int(rng.integers(1, 400))]
        yield kind, bytes(changed)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("few") / "root", people=3, shots=3)


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_containers_end_in_words(few: Path, tmp_path: Path, name: str) -> None:
    """Every row is read or refused with a reason; what is cut short is never taken for the whole."""
    config = WRITERS[name](few, tmp_path)
    faces = source(config)
    root = Path(config["root"])
    inner = {"rec": "train.rec", "webdataset": "shard-0.tar", "manifest": "manifest/part-00000.parquet"}
    path = root / inner[name] if name in inner else root
    count, data = len(list(faces.rows())), path.read_bytes()
    refused = read = 0
    for kind, broken in damaged(data, 60, seed=len(name)):
        path.write_bytes(broken)
        try:
            rows = list(faces.rows())
        except UserError as error:
            assert str(error) and error.fix
            refused += 1
            continue
        assert kind != "cut" or name.startswith("csv") or len(rows) == count
        for row in rows:
            json.dumps([row.identity, row.relative, row.license, row.group, row.landmarks])
            try:
                assert isinstance(row.read(), bytes)
                read += 1
            except OSError as error:
                assert error.strerror
    assert refused >= 2 and read > 0


def evil_zip(path: Path, name: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ann/1.jpg", JPEG)
        archive.writestr(name, b"x")
    return path


@pytest.mark.parametrize("name", ["../up.jpg", "ann/../../up.jpg", "/abs/up.jpg"])
def test_members_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        formats.add(tar, "ann/1.jpg", JPEG)
        formats.add(tar, name, JPEG)
    for kind, path in (("folder", evil_zip(tmp_path / "a.zip", name)), ("webdataset", tmp_path / "a.tar")):
        with pytest.raises(UserError, match="leads out of it"):
            import_([source({"kind": kind, "root": str(path)})], tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "a.zip"]


def test_links_and_devices_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number, (kind, target) in enumerate(
            [
                (tarfile.SYMTYPE, "/etc/passwd"),
                (tarfile.LNKTYPE, "1.jpg"),
                (tarfile.FIFOTYPE, ""),
                (tarfile.CHRTYPE, ""),
            ]
        ):
            member = tarfile.TarInfo(f"ann/{number}.jpg")
            member.type, member.linkname = kind, target
            tar.addfile(member)
        formats.add(tar, "ann/9.jpg", JPEG)
        formats.add(tar, "loose.json", b"{}")
        formats.add(tar, "bad.jpg", JPEG)
        formats.add(tar, "bad.json", b"[" * 100_000)
        formats.add(tar, "nobody.jpg", JPEG)
    done = import_([source({"kind": "webdataset", "root": str(tmp_path / "a.tar")})], tmp_path / "out")
    reasons = [item["reason"] for item in done.bad]
    assert done.images == 1 and len(reasons) == 7
    assert sum("a link, a device" in reason for reason in reasons) == 4
    for words in ("no image among loose.json", "its JSON", "names no person"):
        assert any(words in reason for reason in reasons)


def test_bombs_and_locked_members_of_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ann/1.jpg", JPEG)
        archive.writestr("ann/2.jpg", bytes(1000))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    last = data.rindex(b"PK\x01\x02")
    data[last + 24 : last + 28] = struct.pack("<I", 0x70000000)  # says that it unpacks to 1.9 GB
    first = data.index(b"PK\x01\x02")
    (tmp_path / "big.zip").write_bytes(data)
    data[first + 8] |= 1  # encrypted
    (tmp_path / "locked.zip").write_bytes(data)
    imported = import_([source({"kind": "folder", "root": str(tmp_path / "big.zip")})], tmp_path / "out")
    assert imported.images == 1 and "larger than 500 MB" in imported.bad[0]["reason"]
    with pytest.raises(UserError, match=r"encrypted|broken in the archive"):
        import_([source({"kind": "folder", "root": str(tmp_path / "locked.zip")})], tmp_path / "none")


def test_loops_of_links_and_paths_of_a_table_that_lead_out(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "ann").mkdir(parents=True)
    (root / "ann" / "1.jpg").write_bytes(JPEG)
    (tmp_path / "secret.jpg").write_bytes(JPEG)
    (root / "ann" / "loop").symlink_to(root / "ann" / "loop")
    (root / "ann" / "round").symlink_to(root)
    (root / "ann" / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    os.mkfifo(root / "ann" / "pipe.jpg")
    done = import_([source({"kind": "folder", "root": str(root)})], tmp_path / "folder")
    assert (done.images, done.bad) == (1, [])
    names = ["ann/1.jpg", "ann/loop", "ann/out.jpg", "ann/pipe.jpg", "../secret.jpg", str(tmp_path / "secret.jpg"),
             "ann/none.jpg", "ann", "ann/round/ann/1.jpg", "a\0b", "n" * 5000, ""]  # fmt: skip
    pq.write_table(pa.table({"path": names, "identity": ["ann"] * len(names)}), root / "a.parquet")
    (root / "a.csv").write_text(
        "path,identity\n" + "".join(f"{n},ann\n" for n in names if "\0" not in n and n) + ",ann\n"
    )
    for file, count in (("a.parquet", len(names)), ("a.csv", len(names) - 1)):
        config = {"kind": file[2:], "root": str(root / file)}
        done = import_([source(config)], tmp_path / f"out {file}")
        assert done.images + len(done.bad) == count and done.images == (2 if file == "a.parquet" else 1)
        stored = [row["image"]["path"] for row in manifest.iterate(tmp_path / f"out {file}")]
        assert not any("secret" in path or "out.jpg" in path for path in stored)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"image": [1, 2], "identity": ["a", "b"]}, "column 'image' is int64"),
        ({"image": [[1.0], [2.0]], "identity": ["a", "b"]}, "column 'image' is list"),
        ({"image": [{"bytes": "text", "path": 3}] * 2, "identity": ["a", "b"]}, None),
        ({"image": [{"data": b"x"}] * 2, "identity": ["a", "b"]}, "column 'image' is struct"),
        ({"image": [b"x", b"y"], "identity": [0.5, 1.5]}, "column 'identity' is double"),
        ({"image": [b"x", b"y"], "identity": [[1], [2]]}, "column 'identity' is list"),
        ({"image": [b"x", b"y"]}, "no column whose name says that it holds the identity"),
        ({"identity": ["a", "b"], "pixels": [b"x", b"y"]}, "no column whose name says that it holds the image"),
        ({"image": [None, b"y"], "identity": [None, "b"]}, None),
        ({"image": [JPEG, JPEG], "identity": ["a", "b"], "landmarks": [[1.0], None]}, None),
        ({"image": [JPEG, JPEG], "identity": ["a", "b"], "license": [{"x": 1}, None]}, None),
        ({"image": [], "identity": []}, "is null"),
    ],
)
def test_parquet_of_wrong_types(tmp_path: Path, columns: dict[str, list[Any]], said: str | None) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    made = source({"kind": "parquet", "root": str(tmp_path / "a.parquet")})
    if said is not None:
        with pytest.raises(UserError, match=said):
            list(made.rows())
        return
    rows = list(made.rows())
    assert len(rows) == 2
    failed = 0
    for row in rows:
        try:
            decode(row.read())
        except Exception as error:
            assert "reader" not in str(error)
            failed += 1
    assert failed >= 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "no column"),
        (b"path,identity\n", "names no image"),
        (b"path;who\na;b\n", "set identity_column to one of: path, who"),
        (b"\xff\xfe\x00path", "cannot be read as CSV"),
        (b"a,b\n1,2\n", "no column"),
    ],
)
def test_csv_that_is_none(tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / "a.csv").write_bytes(text)
    with pytest.raises(UserError, match=said) as error:
        list(source({"kind": "csv", "root": str(tmp_path / "a.csv")}).rows())
    assert error.value.fix


@pytest.mark.parametrize("line", [b"[1]", b"{", b'{"identity": "a"}', b"\xff", b"[" * 100_000, b'{"file_name": 1}'])
def test_metadata_that_is_none(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "1.jpg").write_bytes(JPEG)
    (tmp_path / "metadata.jsonl").write_bytes(b'{"file_name": "ann/1.jpg"}\n' + line + b"\n")
    with pytest.raises(UserError, match=r"line 2 of metadata.jsonl"):
        list(source({"kind": "folder", "root": str(tmp_path)}).rows())


@pytest.mark.parametrize(
    "said",
    [
        {"identity": None},
        {"identity": ""},
        {"identity": {"a": 1}},
        {"identity": True},
        {"identity": "a", "landmarks": [1, 2]},
        {"identity": "a", "landmarks": [float("nan")] * 10},
        {"identity": "a", "landmarks": [float("nan"), *range(9)]},
        {"identity": "a", "landmarks": "left eye"},
        {"identity": "a", "license": ["CC0"]},
        {"identity": "synthetic/x", "dataset": "synthetic"},
    ],
)
def test_what_is_said_of_an_image_must_make_sense(tmp_path: Path, said: dict[str, Any]) -> None:
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "1.jpg").write_bytes(JPEG)
    lines = [{"file_name": "ann/1.jpg", **said}, {"file_name": "ann/gone.jpg"}, {"file_name": "../up.jpg"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for row in source({"kind": "folder", "root": str(tmp_path)}).rows():
        with pytest.raises(OSError) as error:
            row.read()
        assert error.value.strerror


def test_very_long_and_strange_names(tmp_path: Path) -> None:
    names = ["é" * 120, "日本", "a b'\"", "n" * 250, "new\nline", "\u202egnp", "%s%n", "-rf"]
    root = tmp_path / "root"
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / f"{name[:240]}.jpg".replace("/", "")).write_bytes(JPEG)
    shutil.make_archive(str(tmp_path / "a"), "zip", root)
    for place in (root, tmp_path / "a.zip"):
        done = import_([source({"kind": "folder", "root": str(place)})], tmp_path / f"out {place.name}")
        assert done.people == {f"folder/{name}" for name in names} and not done.bad
