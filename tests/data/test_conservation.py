"""Sources as users bring them, drawn by chance: every entry is used, in the quarantine or counted as left out."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
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


def write_folder(files: list[Entry], place: Path) -> tuple[dict[str, Any], int]:
    """A folder, with links, hidden and loose files besides: (config, how many entries beside `files`)."""
    root = place / "root"
    for file in files:
        (root / file.person).mkdir(parents=True, exist_ok=True)
        (root / file.person / file.name).write_bytes(file.data)
    away = place / "away"
    away.mkdir()
    (away / "1.png").write_bytes(b"x")
    some = root / files[0].person
    (root / "linked").symlink_to(away)
    (some / "out.png").symlink_to(away / "1.png")
    (some / "gone.png").symlink_to(away / "2.png")
    (root / "round").symlink_to(root)
    (root / ".hidden").mkdir()
    (some / "._1.png").write_bytes(b"x")
    (root / "readme.txt").write_text("x")
    os.mkfifo(some / "pipe.png")
    return {"kind": "folder", "root": str(root)}, 8


def write_archive(files: list[Entry], place: Path) -> tuple[dict[str, Any], int]:
    with zipfile.ZipFile(place / "a.zip", "w") as archive:
        for file in files:
            archive.writestr(f"faces/{file.person}/{file.name}", file.data)
        archive.writestr("faces/read-me.txt", "x")
        archive.writestr("__MACOSX/faces/._x", "x")
    return {"kind": "folder", "root": str(place / "a.zip")}, 2


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


def write_parquet(files: list[Entry], place: Path) -> tuple[dict[str, Any], int]:
    """As Hugging Face datasets: a ClassLabel, in which nobody is -1, and one beyond the names."""
    names = sorted({normal(file.person) for file in files if not is_nobody(file.person)})
    labels = [-1 if is_nobody(file.person) else names.index(normal(file.person)) for file in files]
    labels, data = [*labels, len(names), None], [*(file.data for file in files), files[-1].data, files[-1].data]
    image = pa.array([{"bytes": item, "path": f"{n}.png"} for n, item in enumerate(data)])
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    schema = pa.schema([("image", image.type), ("label", pa.int64())])
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(pa.table([image, pa.array(labels, pa.int64())], schema=schema), place / "a.parquet")
    return {"kind": "parquet", "root": str(place / "a.parquet")}, 2


def write_shards(files: list[Entry], place: Path) -> tuple[dict[str, Any], int]:
    """Names with dots, dealt over folders that are nobody's, and one sample without a label."""
    with tarfile.open(place / "a.tar", "w") as tar:
        for number, file in enumerate(files):
            stem, _, suffix = file.name.partition(".")
            key = f"part{number % 3}/anna.{number % 5}_{stem}"
            formats.add(tar, f"{key}.{suffix}", file.data)
            formats.add(tar, f"{key}.cls", file.person.encode())
        formats.add(tar, "part0/zoe.x.png", files[-1].data)
    return {"kind": "webdataset", "root": str(place / "a.tar")}, 1


def write_records(files: list[Entry], place: Path) -> tuple[dict[str, Any], int]:
    """train.rec: people by number, nobody as -1 or NaN, and a record of labels without an image."""
    people = sorted({normal(file.person) for file in files})
    records = [formats.record(2, [len(files) + 1, len(files) + 1], b"")]
    for number, file in enumerate(files):
        nobody = (-1.0, float("nan"))[number % 2]
        label = nobody if is_nobody(file.person) else float(people.index(normal(file.person)))
        records.append(formats.record(0, [label], file.data))
    (place / "train.rec").write_bytes(b"".join(records))
    return {"kind": "insightface-rec", "root": str(place / "train.rec")}, 1


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
    "csv": (write_table, False),
    "parquet": (write_parquet, False),
    "webdataset": (write_shards, False),
    "rec": (write_records, False),
    "manifest": (write_rows, False),
}


def source(config: dict[str, Any]) -> SourceConfig:
    validated: SourceConfig = SOURCES.get(config["kind"]).model_validate(
        config if config["kind"] == "manifest" else {**config, "dataset": "d"}
    )
    return validated


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", WRITERS)
def test_every_entry_is_used_refused_or_counted(tmp_path: Path, name: str, seed: int) -> None:
    write, films = WRITERS[name]
    files = [file for file in entries(seed, films) if name != "webdataset" or not file.name.endswith("heic")]
    config, more = write(files, tmp_path)
    faces = source(config)
    done: Imported = import_([faces], tmp_path / "out")
    assert done.images + len(done.bad) + done.left_out.total() == len(files) + more  # nothing is lost, nothing twice
    used = [file for file in files if file.fate == USED]
    assert done.images == len(used)
    people = {f"d/{normal(file.person)}" for file in used}
    assert len(done.people) == len(people) and (name == "rec" or done.people == people)
    assert done.left_out.total() >= sum(file.fate == LEFT for file in files)
    assert all(item["reason"] for item in done.bad)
    assert sum(faces.notes.left_out.values()) == done.left_out.total()
    assert faces.notes.taken or name in ("rec", "manifest"), "it is said what was taken for what"


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


@pytest.mark.skipif(os.geteuid() != 0, reason="as another user than the owner: needs root")
def test_a_folder_that_may_not_be_read_is_counted(tmp_path: Path) -> None:
    """And never is one advised to free space for it."""
    for person in ("a", "b", "c"):
        (tmp_path / "f" / person).mkdir(parents=True)
        (tmp_path / "f" / person / "1.png").write_bytes(b"x")
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    (tmp_path / "f" / "b").chmod(0o700)
    script = (
        "import os, sys; from facegan.data.sources import SOURCES; faces = SOURCES.get('folder')(root=sys.argv[1]); "
        "faces.model_json_schema(); from PIL import Image; Image.init(); os.seteuid(65534)\n"
        "try:\n print(len(list(faces.rows())), faces.notes.lines()[1:])\n"
        "except Exception as error:\n print(type(error).__name__, error)"
    )

    def said(root: Path) -> str:
        return subprocess.run([sys.executable, "-c", script, root], capture_output=True, text=True, check=True).stdout

    assert said(tmp_path / "f") == "2 ['left out: 1 folder that may not be read (b/)']\n"
    (tmp_path / "f").chmod(0o700)
    answer = said(tmp_path / "f")
    assert f"'{tmp_path / 'f'}' cannot be read: Permission denied" in answer and "space" not in answer
