"""The same folder of faces in every format that a source reads, written without facegan."""

from __future__ import annotations

import base64
import csv
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

MAGIC = struct.pack("<I", 0xCED7230A)


def listed(faces: Path) -> list[tuple[str, str, bytes]]:
    """(person, name of the file, bytes) of a folder of folders, sorted."""
    return [(p.parent.name, p.name, p.read_bytes()) for p in sorted(faces.glob("*/*"))]


def write_zip(faces: Path, path: Path, top: str = "faces/") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for person, name, data in listed(faces):
            archive.writestr(f"{top}{person}/{name}", data)
    return path


def write_csv(faces: Path, path: Path) -> Path:
    """Paths are absolute: give `images`."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "person"])
        writer.writerows([str(faces / person / name), person] for person, name, _ in listed(faces))
    return path


def uri(data: bytes) -> str:
    """An image as a data: URI."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def write_csv64(faces: Path, path: Path, encode: Callable[[bytes], str] = uri) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["person", "image"])
        writer.writerows([person, encode(data)] for person, _, data in listed(faces))
    return path


def write_parquet64(faces: Path, path: Path, encode: Callable[[bytes], str] = uri) -> Path:
    rows = listed(faces)
    columns = {"image": [encode(data) for *_, data in rows], "name": [person for person, *_ in rows]}
    pq.write_table(pa.table(columns), path, row_group_size=7)
    return path


def write_parquet(faces: Path, path: Path, rows_per_group: int = 7) -> Path:
    rows = listed(faces)
    columns = {"jpg": [data for *_, data in rows], "name": [person for person, *_ in rows]}
    pq.write_table(pa.table(columns), path, row_group_size=rows_per_group)
    return path


def write_datasets(faces: Path, folder: Path) -> Path:
    """As Hugging Face datasets: an Image feature and a ClassLabel."""
    from datasets import ClassLabel, Dataset, Features, Image

    rows = listed(faces)
    people = sorted({person for person, *_ in rows})
    columns = {
        "image": [{"bytes": data, "path": name} for _, name, data in rows],
        "label": [people.index(person) for person, *_ in rows],
    }
    dataset = Dataset.from_dict(columns, Features({"image": Image(), "label": ClassLabel(names=people)}))
    (folder / "data").mkdir(parents=True)
    dataset.to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    return folder


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_webdataset(faces: Path, folder: Path, says: str = "json") -> Path:
    """Three shards; the person is in .json, .cls, .txt or, for "", in the folder of the key."""
    folder.mkdir()
    rows = listed(faces)
    for shard in range(3):
        with tarfile.open(folder / f"shard-{shard}.tar", "w") as tar:
            for number, (person, name, data) in enumerate(rows[shard::3]):
                key = f"{number:05d}" if says else f"{person}/{number:05d}"
                add(tar, f"{key}.{name.rsplit('.', 1)[1]}", data)
                if says:
                    add(
                        tar,
                        f"{key}.{says}",
                        json.dumps({"person": person}).encode() if says == "json" else person.encode(),
                    )
    return folder


def record(flag: int, labels: Iterable[float], image: bytes) -> bytes:
    """A record of RecordIO: cut at each aligned magic, as dmlc-core writes it."""
    labels = list(labels)
    content = struct.pack("<IfQQ", flag, 0.0 if flag else labels[0], 0, 0)
    content += struct.pack(f"<{flag}f", *labels[:flag]) if flag else b""
    content += image
    pieces, begin = [], 0
    for place in range(0, len(content) - 3, 4):
        if content[place : place + 4] == MAGIC:
            pieces.append(content[begin:place])
            begin = place + 4
    pieces.append(content[begin:])
    written = b""
    for number, piece in enumerate(pieces):
        first, last = number == 0, number == len(pieces) - 1
        kind = 0 if first and last else 1 if first else 3 if last else 2
        written += MAGIC + struct.pack("<I", kind << 29 | len(piece)) + piece + b"\0" * (-len(piece) % 4)
    return written


def write_rec(faces: Path, folder: Path) -> Path:
    """train.rec, .idx and property: a header record first, then the images, then one header record a person."""
    folder.mkdir()
    rows = listed(faces)
    people = sorted({person for person, *_ in rows})
    ranges = [[n for n, (who, *_) in enumerate(rows, start=1) if who == person] for person in people]
    records = [record(2, [len(rows) + 1, len(rows) + 1 + len(people)], b"")]
    records += [record(0, [people.index(person)], data) for person, _, data in rows]
    records += [record(2, [places[0], places[-1] + 1], b"") for places in ranges]
    offsets = [sum(map(len, records[:number])) for number in range(len(records))]
    (folder / "train.rec").write_bytes(b"".join(records))
    (folder / "train.idx").write_text("".join(f"{number}\t{offset}\n" for number, offset in enumerate(offsets)))
    (folder / "property").write_text(f"{len(people)},112,112\n")
    return folder


def write_bin(faces: Path, path: Path, protocol: int = 4, wrap: Callable[[bytes], object] = bytes) -> Path:
    """Pairs of each person's first photo with each of their others, and with the next person's first."""
    by_person: dict[str, list[bytes]] = {}
    for person, _, data in listed(faces):
        by_person.setdefault(person, []).append(data)
    people = list(by_person)
    images, same = [], []
    for number, person in enumerate(people):
        for other in by_person[person][1:]:
            images += [by_person[person][0], other]
            same.append(True)
        images += [by_person[person][0], by_person[people[(number + 1) % len(people)]][0]]
        same.append(False)
    path.write_bytes(pickle.dumps(([wrap(data) for data in images], same), protocol=protocol))
    return path
