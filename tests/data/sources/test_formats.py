"""The same faces in every format: the same images, the same people, and a fingerprint that knows no place."""

from __future__ import annotations

import base64
import json
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import formats
from drawn import SIZE_PX, Lab, tiny
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.import_faces import import_
from facegan.data.options import Prepare
from facegan.data.sources import SOURCES, SourceConfig, SourceImage, _pickled, guess
from facegan.data.sources import csv as csv_source
from facegan.data.sources._facts import decode_base64, is_base64
from facegan.data.sources.insightface_bin import read_pairs
from facegan.store.local import Artifact

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
    from PIL import Image

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
    from facegan.data.images import to_pixels

    small = to_pixels(row["image"]["bytes"])[:, :, 0].astype(int)
    dark = np.argwhere(small < 150)
    for cx, cy in zip(x, y, strict=True):
        assert np.hypot(dark[:, 1] + 0.5 - cx, dark[:, 0] + 0.5 - cy).min() < 1


def test_records_that_hold_the_magic_come_back_whole(tmp_path: Path) -> None:
    image = b"\xff\xd8" + b"ab" + formats.MAGIC + b"cd" + formats.MAGIC * 3 + b"e"
    path = tmp_path / "train.rec"
    path.write_bytes(formats.record(0, [7], image) + formats.record(2, [3, 9], image) + formats.record(0, [1.5], b"x"))
    first, second, odd = SOURCES.get("insightface-rec")(root=str(path), dataset="d").rows()
    assert first.read() == second.read() == image
    assert (first.identity, second.identity) == ("d/7", "d/3")
    with pytest.raises(OSError, match="no label that is a whole number"):
        odd.read()


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_pairs_of_a_bin(faces: Path, tmp_path: Path, protocol: int) -> None:
    path = formats.write_bin(faces, tmp_path / "lfw.bin", protocol)
    expected, answers = pickle.loads(path.read_bytes())  # our own file
    images, same = read_pairs(path)
    assert same == answers and sum(same) == 32
    rows = list(SOURCES.get("insightface-bin")(root=str(path)).rows())
    assert [row.read() for row in rows] == expected and len(images) == len(rows) == 80
    # People are joined by genuine pairs and by equal bytes: here that is everybody's own photos, and no one else's.
    identities_of = {data: {row.identity for row in rows if row.read() == data} for data in expected}
    assert len({frozenset(names) for names in identities_of.values()}) == 8
    folders = {data: person for person, _, data in formats.listed(faces)}
    assert all(
        len({folders[d] for d in identities_of if identities_of[d] == names}) == 1 for names in identities_of.values()
    )


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_of_bytes_in_a_bin(faces: Path, tmp_path: Path, protocol: int) -> None:
    path = formats.write_bin(faces, tmp_path / "a.bin", protocol, lambda data: np.frombuffer(data, np.uint8).copy())
    plain = formats.write_bin(faces, tmp_path / "b.bin")
    read = [[row.read() for row in SOURCES.get("insightface-bin")(root=str(p)).rows()] for p in (path, plain)]
    assert read[0] == read[1]
    path.write_bytes(pickle.dumps(([np.zeros(3, np.float32)] * 2, [True]), protocol=protocol))
    with pytest.raises(UserError, match="no flat array of bytes"):
        read_pairs(path)


class Evil:
    """Would leave a file behind if anything called it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path: Path, protocol: int) -> None:
    path, trap = tmp_path / "evil.bin", tmp_path / "trap"
    for value in ([[Evil(trap)], [True]], Evil(trap), [[b"1", b"2"], Evil(trap)]):
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        with pytest.raises(UserError, match=r"would import|more than plain data|where an image"):
            read_pairs(path)
    for text in (b"cos\nsystem\n(S'touch " + str(trap).encode() + b"'\ntR.", b"cnumpy\nndarray\n(tR.", b"(lp0\ng0\na."):
        path.write_bytes(text)
        with pytest.raises(UserError, match="no insightface"):
            read_pairs(path)
    assert not trap.exists()


def test_pickles_that_ask_for_memory_are_refused_at_once(tmp_path: Path) -> None:
    """Lengths beyond the file, a memo of 2^32 places, lists that hold each other many times over."""
    path = tmp_path / "bomb.bin"
    nested = b"\x80\x04]\x94(" + b"]\x94" * 1 + b"h\x00" * 50_000 + b"e](" + b"h\x00" * 50_000 + b"e\x86."
    for data in (
        b"\x80\x04B\xff\xff\xff\xff.",
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
        b"\x80\x02]r\xff\xff\xff\xff.",
        nested,
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match="no insightface"):
            read_pairs(path)
    path.write_bytes(b"\x80\x02(" + b"(" * 100_000)
    with pytest.raises(ValueError):
        _pickled.read(path)


def test_prepare_takes_every_member(faces: Path, tmp_path: Path) -> None:
    """A recipe can name each of them, and its paths are not part of what is hashed."""
    for name in WRITERS:
        written = source(faces, tmp_path / name.replace(" ", ""), name)
        assert Prepare(source=written).source == written


def test_text_is_base64_or_a_path() -> None:
    photo = base64.b64encode(b"\xff\xd8\xff" + bytes(range(200))).decode()
    assert is_base64(photo) and decode_base64(photo)[:3] == b"\xff\xd8\xff"
    assert is_base64("data:image/jpeg;base64,") and decode_base64("data:image/jpeg;base64,") == b""
    for path in ("/9j/0001.jpg", "/9j/" + "a" * 40, "R0lGOD/faces/ann/" + "a" * 60 + ".gif", "data:x.png", "", None, 3):
        assert not is_base64(path)
    for broken in (photo[:-1], photo[:100] + "?" + photo[100:], "data:image/png;base64,###"):
        with pytest.raises(OSError, match="base64 is broken"):
            decode_base64(broken)


def test_a_row_of_a_csv_is_read_again_where_it_lies(tmp_path: Path) -> None:
    """Quoted line breaks, other letters and empty lines before it; a table that has changed is told."""
    first, second = (base64.b64encode(b"\xff\xd8\xff" + bytes([n]) * 90).decode() for n in (1, 2))
    text = f'\ufeffname,note,image\r\n"Zoë","two\nlines\u2028or three",{first}\r\n\r\nann,,"{second[:40]}\n{second[40:]}"\r\n'
    table = tmp_path / "a.csv"
    table.write_text(text, encoding="utf-8", newline="")
    rows = list(SOURCES.get("csv")(root=str(table)).rows())
    assert [row.identity for row in rows] == ["csv/Zoë", "csv/ann"]
    assert [row.read()[3:] for row in rows] == [bytes([n]) * 90 for n in (1, 2)]
    table.write_text("name,image\n", encoding="utf-8")
    for row in rows:
        with pytest.raises(OSError, match=r"cut short|has changed"):
            row.read()


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_source, "LONGEST", 1000)
    for field, message in (
        ("A" * 2000, "a line is longer"),
        ('"' + ("A" * 90 + "\n") * 20, "field larger than field limit"),
    ):
        (tmp_path / "a.csv").write_text("name,image\nann," + field)
        with pytest.raises(UserError, match=f"cannot be read as CSV: {message}"):
            list(SOURCES.get("csv")(root=str(tmp_path / "a.csv")).rows())
