"""Sources as users bring them, drawn by chance: every entry is used, in the quarantine or counted as left out."""

from __future__ import annotations

import base64
import csv
import itertools
import json
import os
import pickle
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import formats
from drawn import draw_face
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.import_faces import Imported, import_
from facegan.data.names import is_nobody, normal
from facegan.data.sources import SOURCES, SourceConfig
from facegan.data.suppression import SuppressionList
from image_formats import encoded

NAMES = ["José Núñez", "Zoë", "Ann Lee", "Łukasz Żak", "007", "Ñandú", "o'Brien", "Na", "a.b"]
NOBODY = ["nan", "-1", "NULL", "unknown", "<NA>"]
USED, REFUSED, LEFT = "used", "refused", "left out"


@dataclass(frozen=True)
class Entry:
    """A file of a source: whose folder or row it stands in, its name and bytes, and what is to become of it."""

    person: str
    name: str
    data: bytes
    fate: str


def entry(rng: np.random.Generator, person: str, number: int, films: bool) -> Entry:
    """A photo that can be used or not, or (with `films`) something that is none."""
    face = draw_face(number, int(rng.integers(1 << 30)))
    image = Image.fromarray(face)
    hole = face.astype(np.float32) / 255
    hole[1, 1] = np.nan
    png = encoded(image, "PNG")
    choices: list[tuple[str, bytes, str]] = [
        ("png", png, USED),
        ("JPG", encoded(image, "JPEG"), USED),
        ("webp", encoded(image, "WEBP"), USED),
        ("png", encoded(Image.fromarray(face.astype(np.uint16) * 257), "PNG"), USED),
        ("png", png[:33] + b"\0\0\0\x04tEXtab\0cBAD!" + png[33:], USED),
        ("tif", encoded(Image.fromarray(hole), "TIFF"), REFUSED),
        ("png", encoded(Image.new("RGB", (30, 30), (9, 9, 9)), "PNG"), REFUSED),
        ("png", encoded(image.resize((4, 5)), "PNG"), REFUSED),
        ("jpg", b"<!DOCTYPE html><html>404</html>" + bytes(number % 7), REFUSED),
        ("jpg", b"version https://git-lfs.github.com/spec/v1\noid sha256:%d\n" % number, REFUSED),
        ("heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes([number % 256]), REFUSED),
        ("jpg", b"", REFUSED),
        ("jpg", encoded(image, "JPEG")[:300], REFUSED),
    ]
    over = [("MOV", b"\0\0\0\x14ftypqt  ", LEFT), ("aae", b"<?xml version='1.0'?>", LEFT)]
    suffix, data, fate = pick(rng, choices, over if films else [])
    return Entry(person, f"{number:03d}.{suffix}", data, REFUSED if fate == USED and is_nobody(person) else fate)


def pick(rng: np.random.Generator, choices: list[Any], over: list[Any]) -> Any:
    """Half of the photos can be used."""
    if over and rng.random() < 0.15:
        return over[int(rng.integers(len(over)))]
    usable = [choice for choice in choices if choice[2] == USED]
    pool = usable if rng.random() < 0.5 else choices
    return pool[int(rng.integers(len(pool)))]


def entries(seed: int, films: bool) -> list[Entry]:
    """Some fifty files of people and of nobody, each name composed or decomposed as it comes."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(50):
        person = str(rng.choice(NAMES if rng.random() < 0.85 else NOBODY))
        person = unicodedata.normalize(str(rng.choice(["NFC", "NFD"])), person)
        found.append(entry(rng, person, number, films))
    return [*found, Entry(NAMES[0], "900.png", encoded(Image.fromarray(draw_face(1, seed)), "PNG"), USED)]


def add_trouble(root: Path, some: Path, away: Path) -> int:
    """Links, hidden and loose files, a pipe in a folder of pictures; how many."""
    away.mkdir()
    (away / "1.png").write_bytes(b"x")
    (root / "linked").symlink_to(away)
    (some / "out.png").symlink_to(away / "1.png")
    (some / "gone.png").symlink_to(away / "2.png")
    (root / "round").symlink_to(root)
    (root / ".hidden").mkdir()
    (some / "._1.png").write_bytes(b"x")
    (root / "readme.txt").write_text("x")
    os.mkfifo(some / "pipe.png")
    return 8


def write_folder(files: list[Entry], place: Path) -> tuple[dict[str, Any], int]:
    """A folder, with links, hidden and loose files besides: (config, how many entries beside `files`)."""
    root = place / "root"
    for file in files:
        (root / file.person).mkdir(parents=True, exist_ok=True)
        (root / file.person / file.name).write_bytes(file.data)
    return {"kind": "folder", "root": str(root)}, add_trouble(root, root / files[0].person, place / "away")


def write_archive(files: list[Entry], place: Path) -> tuple[dict[str, Any], int]:
    with zipfile.ZipFile(place / "a.zip", "w") as archive:
        for file in files:
            archive.writestr(f"faces/{file.person}/{file.name}", file.data)
        archive.writestr("faces/read-me.txt", "x")
        archive.writestr("__MACOSX/faces/._x", "x")
    return {"kind": "folder", "root": str(place / "a.zip")}, 2 + update(place / "a.zip", files[-1])


def update(path: Path, file: Entry) -> int:
    """Append members anew under their names, as Python's zipfile does, which replaces them: how many are replaced."""
    with zipfile.ZipFile(path, "a") as archive:
        twice = [name for name in archive.namelist() if name.endswith(file.name)]
        for name in twice:
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr(name, file.data)
        return len(twice)


def write_metadata(files: list[Entry], place: Path) -> tuple[dict[str, Any], int]:
    """Folders by number: the metadata alone says who it is. One file it does not name, and one is not there."""
    root, lines = place / "root", []
    for number, file in enumerate(files):
        name = f"part{number % 3}/{file.name}"
        (root / f"part{number % 3}").mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(file.data)
        lines.append(json.dumps({"file_name": name, "label": file.person, "age": number}))
    (root / "part0" / "unnamed.png").write_bytes(b"x")
    lines.append(json.dumps({"file_name": "part0/gone.png", "label": "Bo", "age": 0}))
    (root / "metadata.jsonl").write_text("\n".join(lines))
    return {"kind": "folder", "root": str(root)}, 2


def write_table(files: list[Entry], place: Path) -> tuple[dict[str, Any], int]:
    """Paths in the other form of Unicode than on the disk; the file's name and its number in columns besides."""
    write_folder(files, place)
    with open(place / "a.csv", "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["file_name", "name", "id", "label"])
        for number, file in enumerate(files):
            other = "NFD" if unicodedata.is_normalized("NFC", file.person) else "NFC"
            folder = unicodedata.normalize(other, file.person)
            writer.writerow([f"{folder}/{file.name}", file.name, number, file.person])
        writer.writerow(["nowhere/1.png", "1.png", 5000, "Ann Lee"])
    return {"kind": "csv", "root": str(place / "a.csv"), "images": str(place / "root")}, 1


def write_base64(files: list[Entry], place: Path) -> tuple[dict[str, Any], int]:
    """Images as texts, with a head of their type or, where they begin as images do, without; some cut short."""
    rng = np.random.default_rng(len(files[0].data))
    separator = str(rng.choice([",", ";", "\t"]))
    rows = [(file.person, in_base64(rng, file.data)) for file in files]
    good = base64.b64encode(files[-1].data).decode()
    rows += [("Bo", good[:-3]), ("Bo", good[:90] + "*" + good[91:]), ("Bo", ""), ("", good)]
    if rng.random() < 0.5:
        columns = {"person": [person for person, _ in rows], "image": [text for _, text in rows]}
        pq.write_table(pa.table(columns), place / "a.parquet", row_group_size=int(rng.integers(1, 30)))
        return {"kind": "parquet", "root": str(place / "a.parquet")}, 4
    with open(place / "a.csv", "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, delimiter=separator)
        writer.writerows([("person", "image"), *rows])
    return {"kind": "csv", "root": str(place / "a.csv")}, 4


def in_base64(rng: np.random.Generator, data: bytes) -> str:
    """A text that is a path by its looks is none here: what does not begin as a JPEG, PNG or WebP gets its type."""
    text = (base64.b64encode if rng.random() < 0.7 else base64.encodebytes)(data).decode()
    known = data.startswith((b"\xff\xd8\xff", b"\x89PNG", b"RIFF"))
    return text if known and rng.random() < 0.5 else f"data:{rng.choice(['image/png', ''])};base64,{text}"


def write_parquet(files: list[Entry], place: Path) -> tuple[dict[str, Any], int]:
    """As Hugging Face datasets: a ClassLabel, in which nobody is -1, and one beyond the names."""
    names = sorted({normal(file.person) for file in files if not is_nobody(file.person)})
    labels = [-1 if is_nobody(file.person) else names.index(normal(file.person)) for file in files]
    labels, data = [*labels, len(names), None], [*(file.data for file in files), files[-1].data, files[-1].data]
    image = pa.array([{"bytes": item, "path": f"{n}.png"} for n, item in enumerate(data)])
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    schema = pa.schema([("image", image.type), ("label", pa.int64())])
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    (place / "root").mkdir()
    pq.write_table(pa.table([image, pa.array(labels, pa.int64())], schema=schema), place / "root" / "a.parquet")
    return beside("parquet", place / "root", 2)


def write_shards(files: list[Entry], place: Path) -> tuple[dict[str, Any], int]:
    """Names with dots, dealt over folders that are nobody's, and one sample without a label."""
    (place / "root").mkdir()
    with tarfile.open(place / "root" / "a.tar", "w") as tar:
        for number, file in enumerate(files):
            stem, _, suffix = file.name.partition(".")
            key = f"part{number % 3}/anna.{number % 5}_{stem}"
            formats.add(tar, f"{key}.{suffix}", file.data)
            formats.add(tar, f"{key}.cls", file.person.encode())
        formats.add(tar, "part0/zoe.x.png", files[-1].data)
    return beside("webdataset", place / "root", 1)


def write_records(files: list[Entry], place: Path) -> tuple[dict[str, Any], int]:
    """train.rec: people by number, nobody as -1 or NaN, and a record of labels without an image."""
    people = sorted({normal(file.person) for file in files})
    records = [formats.record(2, [len(files) + 1, len(files) + 1], b"")]
    for number, file in enumerate(files):
        nobody = (-1.0, float("nan"))[number % 2]
        label = nobody if is_nobody(file.person) else float(people.index(normal(file.person)))
        records.append(formats.record(0, [label], file.data))
    (place / "root").mkdir()
    (place / "root" / "train.rec").write_bytes(b"".join(records))
    return beside("insightface-rec", place / "root", 1)


def beside(kind: str, root: Path, more: int) -> tuple[dict[str, Any], int]:
    """A folder that holds a source's own file, and other entries besides."""
    (root / "sub").mkdir()
    return {"kind": kind, "root": str(root)}, more + add_trouble(root, root / "sub", root.parent / "away")


def as_lfw(files: list[Entry]) -> list[Entry]:
    """Names as LFW has them: whoever is not written in ASCII is no file of it."""
    named = []
    for number, file in enumerate(files):
        person, suffix = file.person.replace(" ", "_"), file.name.rpartition(".")[2]
        name = f"{person}_{number:04d}.{suffix if file.fate == LEFT else 'jpg'}"
        named.append(replace(file, person=person, name=name, fate=file.fate if person.isascii() else LEFT))
    return named


def write_lfw(files: list[Entry], place: Path) -> tuple[dict[str, Any], int]:
    """A folder, in one of its own or not, with View 1's people; a name that is another's, and one without a number."""
    rng = np.random.default_rng(len(files[0].data))
    top = place / "root" / ("lfw" if rng.random() < 0.5 else "")
    for name, data in lfw_members(files):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
    someone = next(file.person for file in files if file.fate == USED)
    (place / "pairs.txt").write_text(f"1\n{someone}\t1\t2\n{someone}\t1\tBo\t2\n")
    config = {"kind": "lfw", "root": str(place / "root"), "pairs": str(place / "pairs.txt")}
    return config, 2 + add_trouble(place / "root", top / files[-1].person, place / "away")


def write_lfw_archive(files: list[Entry], place: Path) -> tuple[dict[str, Any], int]:
    rng = np.random.default_rng(len(files[0].data))
    between, top = ("\\", "") if rng.random() < 0.3 else ("/", rng.choice(["", "lfw/"]))
    with zipfile.ZipFile(place / "lfw.zip", "w") as archive:
        for name, data in [*lfw_members(files), ("read-me.txt", b"x"), ("__MACOSX/._x", b"x")]:
            member = zipfile.ZipInfo()
            member.filename = (f"{top}{name}").replace("/", between)
            archive.writestr(member, data)
    more = 0 if between == "\\" else update(place / "lfw.zip", files[-1])
    return {"kind": "lfw", "root": str(place / "lfw.zip")}, 4 + more


def lfw_members(files: list[Entry]) -> list[tuple[str, bytes]]:
    last = files[-1]
    more = [(f"{last.person}/Other_0001.jpg", last.data), (f"{last.person}/{last.person}.jpg", last.data)]
    return [*((f"{file.person}/{file.name}", file.data) for file in files), *more]


def as_pairs(files: list[Entry]) -> list[Entry]:
    """Pairs of each person's first usable photo with the others, and with other people's; two images a pair."""
    by_person: dict[str, list[Entry]] = {}
    for file in sorted(files, key=lambda file: file.fate != USED):
        if not is_nobody(file.person):
            by_person.setdefault(normal(file.person), []).append(file)
    pairs = [(own[0], other) for own in by_person.values() for other in own[1:] or own]
    pairs += [(own[0], others[-1]) for own, others in itertools.pairwise(by_person.values())]
    return [file for pair in pairs for file in pair]


def write_pairs(files: list[Entry], place: Path) -> tuple[dict[str, Any], int]:
    """insightface's .bin, by each protocol that has bytes, of bytes or of arrays."""
    rng = np.random.default_rng(len(files[0].data))
    arrays = rng.random() < 0.5
    images = [np.frombuffer(file.data, np.uint8).copy() if arrays and file.data else file.data for file in files]
    same = [normal(one.person) == normal(other.person) for one, other in zip(files[::2], files[1::2], strict=True)]
    (place / "a.bin").write_bytes(pickle.dumps((images, same), protocol=int(rng.integers(3, 6))))
    return {"kind": "insightface-bin", "root": str(place / "a.bin")}, 0


def write_rows(files: list[Entry], place: Path) -> tuple[dict[str, Any], int]:
    """A manifest of an earlier version: names as they were typed, and one row of a person who does not exist."""
    rows = [
        manifest.row(file.data, f"{number}.x", identity=f"d/{file.person}", source="real", dataset="d", split="train",
                     height=1, width=1)
        for number, file in enumerate(files)
    ]  # fmt: skip
    made_up = manifest.row(files[-1].data, "made.png", identity="synthetic/1", source="synthetic", dataset="synthetic",
                           split="train", height=1, width=1, generator="g" * 64, latent=b"0")  # fmt: skip
    manifest.write(place / "m", [*rows, made_up], "import", {})
    return {"kind": "manifest", "root": str(place / "m")}, 1


WRITERS: dict[str, tuple[Callable[[list[Entry], Path], tuple[dict[str, Any], int]], bool]] = {
    "folder": (write_folder, True),
    "zip": (write_archive, True),
    "metadata": (write_metadata, True),
    "lfw": (write_lfw, True),
    "lfw zip": (write_lfw_archive, True),
    "csv": (write_table, False),
    "base64": (write_base64, False),
    "parquet": (write_parquet, False),
    "webdataset": (write_shards, False),
    "rec": (write_records, False),
    "bin": (write_pairs, False),
    "manifest": (write_rows, False),
}


def source(config: dict[str, Any]) -> SourceConfig:
    validated: SourceConfig = SOURCES.get(config["kind"]).model_validate(
        config if config["kind"] in ("manifest", "lfw") else {**config, "dataset": "d"}
    )
    return validated


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", WRITERS)
def test_every_entry_is_used_refused_or_counted(tmp_path: Path, name: str, seed: int) -> None:
    write, films = WRITERS[name]
    files = [file for file in entries(seed, films) if name != "webdataset" or not file.name.endswith("heic")]
    files = as_lfw(files) if name.startswith("lfw") else as_pairs(files) if name == "bin" else files
    config, more = write(files, tmp_path)
    faces = source(config)
    done: Imported = import_([faces], tmp_path / "out")
    assert done.images + len(done.bad) + done.left_out.total() == len(files) + more  # nothing is lost, nothing twice
    used = [file for file in files if file.fate == USED]
    assert done.images == len(used)
    found = Counter(manifest.read(tmp_path / "out", ["identity"])["identity"].to_pylist())
    people = Counter(f"{'lfw' if name.startswith('lfw') else 'd'}/{normal(file.person)}" for file in used)
    if name in ("rec", "bin"):  # people by number
        assert sorted(found.values()) == sorted(people.values())
    else:
        assert found == people
    assert done.people == found.keys()
    assert done.left_out.total() >= sum(file.fate == LEFT for file in files)
    assert all(item["reason"] for item in done.bad)
    assert sum(faces.notes.left_out.values()) == done.left_out.total()
    assert faces.notes.taken or name == "manifest", "it is said what was taken for what"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_people_one_level_deeper_are_asked_for(tmp_path: Path, kind: str, seed: int) -> None:
    """GROUP/PERSON/IMAGE: both counts, until the level is given; train and test on top are no people."""
    rng = np.random.default_rng(seed)
    groups, each = int(rng.integers(2, 6)), int(rng.integers(2, 5))
    png = encoded(Image.fromarray(draw_face(0, 0)), "PNG")

    def made(name: str, tops: list[str]) -> dict[str, Any]:
        names = [f"{top}/p{g:02d}{p}/{n}.png" for g, top in enumerate(tops) for p in range(each) for n in range(2)]
        if kind == "zip":
            with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
                for member in [*names, "read-me.txt"]:
                    archive.writestr(f"wrapped/{member}", png)
            return {"kind": "folder", "root": str(tmp_path / f"{name}.zip")}
        if kind == "tar":
            with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
                for member in names:
                    formats.add(tar, member, png)
            return {"kind": "webdataset", "root": str(tmp_path / f"{name}.tar")}
        for member in names:
            (tmp_path / name / member).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / member).write_bytes(png)
        return {"kind": "folder", "root": str(tmp_path / name)}

    config = made("groups", [f"group {n}" for n in range(groups)])
    people = groups * each
    with pytest.raises(UserError, match=rf"{groups} folders hold {people} folders") as error:
        list(source(config).rows())
    assert "--level 2" in error.value.fix
    for level, expected in ((1, groups), (2, people)):
        assert len({row.identity for row in source({**config, "level": level}).rows()}) == expected
    split = source(made("split", ["train", "Test"]))
    assert len({row.identity for row in split.rows()}) == 2 * each
    assert any("2 folders hold" in line for line in split.notes.lines())


def test_two_people_of_one_name_in_two_groups_are_not_joined(tmp_path: Path) -> None:
    for top in ("a", "b", "train", "test"):
        for person in ("ann", "bo"):
            place = tmp_path / ("split" if top[0] == "t" else "groups") / top / person
            place.mkdir(parents=True)
            (place / "1.png").write_bytes(encoded(Image.fromarray(draw_face(0, 0)), "PNG"))
    with pytest.raises(UserError, match="stand in several folders"):
        list(source({"kind": "folder", "root": str(tmp_path / "groups"), "level": 2}).rows())
    assert len({row.identity for row in source({"kind": "folder", "root": str(tmp_path / "split")}).rows()}) == 2
    for top in ("train", "val"):
        (tmp_path / "flat" / top).mkdir(parents=True)
        (tmp_path / "flat" / top / "1.png").write_bytes(b"x")
    with pytest.raises(UserError, match="parts of a data set"):
        list(source({"kind": "folder", "root": str(tmp_path / "flat")}).rows())


@pytest.mark.parametrize(
    ("columns", "taken"),
    [
        ({"person": "aabb", "label": "1122"}, "person"),  # the same parts
        ({"name": ["0.png", "1.png", "2.png", "3.png"], "label": "1122"}, "label"),
        ({"id": "wxyz", "label": "1122"}, "label"),
        ({"class": "ffff", "id": "1122"}, "id"),
        ({"person": ["", "", "nan", ""], "label": "1122"}, "label"),
        ({"person": "aabb", "label": "1212"}, None),
        ({"person": "aabb", "label": "1123"}, None),
        ({"name": ["0.png", "1.png", "2.png", "3.png"]}, None),
    ],
)
def test_labels_that_part_the_pictures_differently_are_refused(
    tmp_path: Path, columns: dict[str, Any], taken: str | None
) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(encoded(Image.fromarray(draw_face(number, 0)), "PNG"))
    columns = {name: list(values) for name, values in columns.items()}
    rows = [dict(zip(["file_name", *columns], values, strict=True)) for values in
            zip([f"{n}.png" for n in range(4)], *columns.values(), strict=True)]  # fmt: skip
    with open(tmp_path / "a.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    folder = tmp_path / "folder"
    (folder / "x").mkdir(parents=True)
    for number in range(4):
        (folder / "x" / f"{number}.png").write_bytes(b"x")
    lines = [{**row, "file_name": f"x/{row['file_name']}"} for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for config in (
        {"kind": "csv", "root": str(tmp_path / "a.csv")},
        {"kind": "parquet", "root": str(tmp_path / "a.parquet")},
        {"kind": "folder", "root": str(folder)},
    ):
        if taken is None:
            with pytest.raises(UserError, match=r"part the pictures differently|the files' names") as error:
                list(source(config).rows())
            assert "--identity-column" in error.value.fix
            chosen = next(reversed(columns))
            rows_taken = list(source({**config, "identity_column": chosen}).rows())
            assert {row.identity for row in rows_taken} == {f"d/{value}" for value in columns[chosen]}
        else:
            faces = source(config)
            assert {row.identity for row in faces.rows()} == {f"d/{value}" for value in columns[taken]}
            assert any(taken in line for line in faces.notes.lines())


def test_who_was_erased_stays_out_in_each_form(tmp_path: Path) -> None:
    """The list holds hashes of the name as it was then: decomposed, from a Mac."""
    png = encoded(Image.fromarray(draw_face(0, 0)), "PNG")
    for form in ("NFC", "NFD"):
        (tmp_path / "f" / unicodedata.normalize(form, "José")).mkdir(parents=True)
        (tmp_path / "f" / unicodedata.normalize(form, "José") / f"{form}.png").write_bytes(png + form.encode())
    (tmp_path / "f" / "Ann").mkdir()
    (tmp_path / "f" / "Ann" / "1.png").write_bytes(png)
    for form in ("NFC", "NFD"):
        listed = SuppressionList().add([unicodedata.normalize(form, "d/José")], tmp_path / form)
        rows = list(listed.without(source({"kind": "folder", "root": str(tmp_path / "f")})).rows())
        assert {row.identity for row in rows} == {"d/Ann"}


def shards(place: Path, samples: list[dict[str, bytes]]) -> dict[str, Any]:
    """A tar of samples in one folder each of two: {kind: bytes} beside a picture."""
    place.mkdir()
    with tarfile.open(place / "a.tar", "w") as tar:
        for number, sample in enumerate(samples):
            formats.add(tar, f"f{number % 2}/{number}.png", encoded(Image.fromarray(draw_face(number, 0)), "PNG"))
            for kind, data in sample.items():
                formats.add(tar, f"f{number % 2}/{number}.{kind}", data)
    return {"kind": "webdataset", "root": str(place / "a.tar")}


def test_labels_of_a_tar_win_over_its_folders_and_must_agree(tmp_path: Path) -> None:
    def people(name: str, samples: list[dict[str, bytes]], **options: Any) -> set[str]:
        return {row.identity for row in source({**shards(tmp_path / name, samples), **options}).rows()}

    who = [b"ann", b"ann", b"bo", b"bo"]
    by_json = [json.dumps({"person": name.decode(), "license": "CC0"}).encode() for name in who]
    number = [b"0", b"0", b"1", b"1"]
    caption = [b"one", b"two", b"three", b"four"]
    both = [{"json": j, "cls": n, "txt": c} for j, n, c in zip(by_json, number, caption, strict=True)]
    assert people("agree", both) == {"d/ann", "d/bo"}
    crossed = [{"json": j, "cls": n} for j, n in zip(by_json, [b"0", b"1", b"0", b"1"], strict=True)]
    with pytest.raises(UserError, match="part the pictures differently"):
        people("crossed", crossed)
    assert people("chosen", crossed, label="cls") == {"d/0", "d/1"}
    assert people("some", [{"cls": b"0"}, {}, {"cls": b"1"}, {}]) == {"d/0", "d/1", "d/?"}  # never the folder
    assert people("none", [{}, {}, {}, {}]) == {"d/f0", "d/f1"}
    assert people("facts", [{"json": b'{"license": "CC0", "caption": "x"}'}] * 4) == {"d/f0", "d/f1"}
    with pytest.raises(UserError, match="celebrity: does one say who is on them"):
        people("unread", [{"json": b'{"celebrity": "x"}'}] * 4)
    assert people("read", [{"json": b'{"celebrity": "x"}'}] * 4, identity_column="celebrity") == {"d/x"}


def test_metadata_that_is_not_understood_is_asked_about(tmp_path: Path) -> None:
    for person in ("a", "b"):
        (tmp_path / "f" / person).mkdir(parents=True)
        (tmp_path / "f" / person / "1.png").write_bytes(b"x")
    lines = [{"file_name": f"{p}/1.png", "celebrity": f"c{p}", "license": "CC0"} for p in ("a", "b")]
    (tmp_path / "f" / "metadata.csv").write_text(
        "file_name,celebrity,license\n" + "".join(",".join(line.values()) + "\n" for line in lines)
    )
    config = {"kind": "folder", "root": str(tmp_path / "f")}
    with pytest.raises(UserError, match="has celebrity: does one say who is on an image"):
        list(source(config).rows())
    by_column = list(source({**config, "identity_column": "celebrity"}).rows())
    assert [(row.identity, row.license) for row in by_column] == [("d/ca", "CC0"), ("d/cb", "CC0")]
    assert {row.identity for row in source({**config, "level": 1}).rows()} == {"d/a", "d/b"}


def test_equal_bytes_that_are_no_photo_join_nobody(tmp_path: Path) -> None:
    """Pairs of an own photo and an error page, or one colour: each is a person, until they share a photo."""
    rng = np.random.default_rng(5)
    own = [encoded(Image.fromarray(draw_face(n, int(rng.integers(99)))), "PNG") for n in range(6)]
    grey = encoded(Image.new("RGB", (30, 30), (9, 9, 9)), "PNG")
    nothing = (b"<html>404</html>", b"", grey)
    for shared, people, crossed in (*((data, 6, False) for data in nothing), (own[0], 1, True)):
        pairs = [*((photo, shared, True) for photo in own), (own[1], own[2], False)]
        images, same = [image for pair in pairs for image in pair[:2]], [pair[2] for pair in pairs]
        (tmp_path / "a.bin").write_bytes(pickle.dumps((images, same)))
        faces = source({"kind": "insightface-bin", "root": str(tmp_path / "a.bin")})
        assert len({row.identity for row in faces.rows()}) == people
        assert ("but so show one: 1" in faces.notes.taken[0]) == crossed


@pytest.mark.skipif(os.geteuid() != 0, reason="as another user than the owner: needs root")
@pytest.mark.parametrize("kind", ["folder", "lfw", "parquet", "webdataset", "insightface-rec"])
def test_a_folder_that_may_not_be_read_is_counted(tmp_path: Path, kind: str) -> None:
    """And never is one advised to free space for it."""
    png = encoded(Image.fromarray(draw_face(0, 0)), "PNG")
    for person in ("a", "b", "c"):
        (tmp_path / "f" / person).mkdir(parents=True)
        (tmp_path / "f" / person / f"{person}_0001.jpg").write_bytes(b"x")
    if kind == "parquet":
        pq.write_table(pa.table({"image": [png, png], "person": ["a", "c"]}), tmp_path / "f" / "a.parquet")
    if kind == "webdataset":
        with tarfile.open(tmp_path / "f" / "a.tar", "w") as tar:
            formats.add(tar, "a/1.png", png)
            formats.add(tar, "c/1.png", png)
    if kind == "insightface-rec":
        (tmp_path / "f" / "train.rec").write_bytes(formats.record(0, [1.0], png) + formats.record(0, [2.0], png))
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    (tmp_path / "f" / "b").chmod(0o700)
    script = (
        "import os, sys; from facegan.data.sources import SOURCES; faces = SOURCES.get(sys.argv[2])(root=sys.argv[1]); "
        "faces.model_json_schema(); from PIL import Image; Image.init(); os.seteuid(65534)\n"
        "try:\n print(len(list(faces.rows())), faces.notes.lines()[-1])\n"
        "except Exception as error:\n print(type(error).__name__, error)"
    )

    def said(root: Path) -> str:
        done = subprocess.run([sys.executable, "-c", script, root, kind], capture_output=True, text=True, check=True)
        return done.stdout

    answer = said(tmp_path / "f")
    assert answer.startswith("2 ") and "1 folder that may not be read (b/)" in answer
    assert ("2 other files (a/a_0001.jpg, c/c_0001.jpg)" in answer) == (kind not in ("folder", "lfw"))
    (tmp_path / "f").chmod(0o700)
    answer = said(tmp_path / "f")
    assert str(tmp_path / "f") in answer and "space" not in answer
    assert "Permission denied" in answer, answer
