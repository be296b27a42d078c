"""Photos that are kept out of every training: by seeded rank or by session, and nobody without photos on both sides."""

from __future__ import annotations

import csv
import datetime
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drawn import Lab, draw_face, draw_folder, pick, tiny
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.images import encode_png
from facegan.data.options import Prepare
from facegan.data.preparation.held_out import describe, hold_out
from facegan.data.preparation.splits import limit_sizes
from facegan.data.sources import SOURCES
from facegan.pipeline import graph
from facegan.recipe.recipe import Recipe

EVERYBODY = {"p": "train"}


def item(name: str, person: str = "p", session: str | None = None, sha256: str = "", shot: int = 0) -> dict[str, Any]:
    png = encode_png(draw_face(ord(person[-1]), shot or sum(map(ord, name)), 32, 32))
    return {"file": name, "identity": person, "source_sha256": sha256 or name, "session": session, "png": png}


def options(held_out: int | None, session_column: str | None = None, **rest: Any) -> Prepare:
    source = SOURCES.get("folder")(root="anywhere", session_column=session_column)
    return Prepare(source=source, held_out=held_out, **rest)


def held(items: list[dict[str, Any]], **rest: Any) -> set[str]:
    hold_out(items, dict.fromkeys({i["identity"] for i in items}, "train"), options(**rest))
    return {i["file"] for i in items if i["held_out"]}


@pytest.mark.parametrize(("photos", "wanted", "expected"), [(5, 2, 2), (5, 9, 2), (2, 2, 1), (3, 1, 1), (10, 3, 3)])
def test_so_many_and_at_most_half(photos: int, wanted: int, expected: int) -> None:
    items = [item(f"p/{n}") for n in range(photos)]
    assert len(held(items, held_out=wanted)) == expected
    assert held([item(f"p/{n}") for n in reversed(range(photos))], held_out=wanted) == held(items, held_out=wanted)


def test_who_has_photos_enough_trains_on_the_same_ones_as_without() -> None:
    split: Any = {"p": "train", "q": "train"}
    items = [item(f"{who}/{n}", who) for who in split for n in range(9)]
    _, plain = limit_sizes(split, [dict(i) for i in items], options(None, train_images=4))
    hold_out(items, split, chosen := options(3, train_images=4))
    _, kept = limit_sizes(split, items, chosen)
    assert {i["file"] for i in kept if not i["held_out"]} == {i["file"] for i in plain}
    assert Counter(i["identity"] for i in kept if i["held_out"]) == {"p": 3, "q": 3}


def test_others_than_train_people_have_no_mark() -> None:
    items = [item("p/1"), item("p/2"), item("q/1", "q"), item("q/2", "q")]
    hold_out(items, {"p": "train", "q": "test"}, options(1))
    assert ["held_out" in i for i in items] == [True, True, False, False]
    hold_out(unmarked := [item("p/1"), item("p/2")], EVERYBODY, options(None))
    assert not any("held_out" in i for i in unmarked)


def test_copies_of_a_photo_are_never_on_both_sides() -> None:
    same = [item(f"p/{n}", sha256="one") for n in range(4)]
    assert held([*same, item("p/other", sha256="two")], held_out=1) in ({"p/other"}, {i["file"] for i in same})
    for number in range(20):  # the other person has the same picture: it is held out of both, or of neither
        pair = [item(f"p/{n}") for n in (1, 2)], [item(f"q/{n}", "q") for n in (1, 2)]
        pair[0][0]["source_sha256"] = pair[1][1]["source_sha256"] = f"shared {number}"
        chosen = held([*pair[0], *pair[1]], held_out=1)
        assert ("p/1" in chosen) == ("q/2" in chosen)


@pytest.mark.parametrize(
    ("sessions", "wanted", "expected"),
    [
        ({"s1": 3, "s2": 2, "s10": 1}, 1, {"s10"}),  # s10 is after s2
        ({"s1": 3, "s2": 2, "s10": 1}, 3, {"s2", "s10"}),
        ({"s1": 1, "s2": 2, "s10": 1}, 3, {"s10"}),  # both would be more than half
        ({"s1": 1, "s2": 4}, 1, {"s2"}),  # the last one whole
        ({"2024-12-31": 2, "2025-01-01": 2}, 2, {"2025-01-01"}),
        ({"only": 5}, 2, set()),
    ],
)
def test_the_last_sessions_whole(sessions: dict[str, int], wanted: int, expected: set[str]) -> None:
    items = [item(f"p/{name}-{n}", session=name) for name, count in sessions.items() for n in range(count)]
    items.append(item("p/undated"))
    chosen = held(items, held_out=wanted, session_column="when")
    assert chosen == {i["file"] for i in items if i["session"] in expected}


def test_what_is_said() -> None:
    items = [item("p/a", session="1"), item("p/b", session="2"), item("p/c"), item("q/a", "q", "1")]
    items[1]["png"] = encode_png(np.clip(draw_face(112, sum(map(ord, "p/a")), 32, 32) * 0.9 + 9, 0, 255).astype("u1"))
    split: Any = {"p": "train", "q": "train"}
    hold_out(items, split, chosen := options(1, "when"))
    found = describe(items, split, chosen)
    assert found is not None and (found.images, found.people, found.without, found.unknown) == (1, 1, 1, 1)
    assert [pair[:2] for pair in found.near] == [("p/b", "p/a")]
    said = "\n".join(found.lines())
    assert "1 photos of 1 train people are held out" in said and "1 train people have none held out" in said
    assert "1 photos of train people have no session" in said and "'p/b' and 'p/a'" in said
    assert describe([], {}, options(None)) is None


def test_bad_input_is_answered_in_words() -> None:
    with pytest.raises(
        UserError, match=r"no photo of a train person has anything in the column 'day'[\s\S]*session_column"
    ):
        hold_out([item("p/1"), item("p/2")], EVERYBODY, options(1, "day"))
    single = [item("p/1"), item("q/1", "q")]
    split: Any = {"p": "train", "q": "train"}
    hold_out(single, split, options(1))
    with pytest.raises(UserError, match="all have one photo, or one session"):
        describe(single, split, options(1))


SESSIONS = {"0": "2024-03-01", "1": "2024-03-01", "2": "2024-11-20", "3": "2025-02-02", "4": ""}


def as_csv(faces: Path, folder: Path) -> dict[str, Any]:
    with open(folder / "list.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "person", "when"])
        writer.writerows([p, p.parent.name, SESSIONS[p.stem]] for p in sorted(faces.glob("*/*.png")))
    return {"kind": "csv", "root": str(folder / "list.csv"), "images": str(faces)}


def as_parquet(faces: Path, folder: Path) -> dict[str, Any]:
    files = sorted(faces.glob("*/*.png"))
    dates = [datetime.date.fromisoformat(SESSIONS[p.stem]) if SESSIONS[p.stem] else None for p in files]
    columns = {"image": [p.read_bytes() for p in files], "person": [p.parent.name for p in files], "when": dates}
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return {"kind": "parquet", "root": str(folder / "a.parquet")}


def as_folder(faces: Path, folder: Path) -> dict[str, Any]:
    root = shutil.copytree(faces, folder / "root")
    lines = [{"file_name": f"{p.parent.name}/{p.name}", "when": SESSIONS[p.stem]} for p in sorted(root.glob("*/*.png"))]
    (root / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"kind": "folder", "root": str(root)}


@pytest.mark.parametrize("write", [as_csv, as_parquet, as_folder])
def test_every_source_with_columns_has_sessions(write: Any, lab: Lab, faces: Path, tmp_path: Path) -> None:
    source = {**write(faces, tmp_path), "session_column": "when"}
    recipe = tiny("", prepare={"source": source, "held_out": 1})
    table = manifest.read(lab.stage(recipe, "prepare").path).to_pylist()
    photos = {encode_png(draw_face(int(p.parent.name[1:]), int(p.stem))): p for p in faces.glob("*/*.png")}
    shot_of = {digest_of(data): path.stem for data, path in photos.items()}
    train = [row for row in table if row["split"] == "train"]
    assert {(shot_of[row["source_sha256"]], row["held_out"]) for row in train} == {
        ("0", False), ("1", False), ("2", False), ("3", True), ("4", False),
    }  # fmt: skip
    assert {row["held_out"] for row in table if row["split"] != "train"} == {None}
    assert manifest.validate(lab.stage(recipe, "prepare").path) == []
    without = recipe.model_copy(update={"prepare": recipe.prepare.model_copy(update={"held_out": None})})
    assert pick(graph.build(without), "prepare").key != pick(graph.build(recipe), "prepare").key


def digest_of(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def test_a_column_that_is_not_there(faces: Path, tmp_path: Path) -> None:
    for write in (as_csv, as_parquet, as_folder):
        source = SOURCES.get(write.__name__[3:])(**{**write(faces, tmp_path), "session_column": "day"})
        with pytest.raises(UserError, match=r"has no column 'day'[\s\S]*session_column is one of: .*when"):
            list(source.rows())


def test_a_date_that_does_not_sort_goes_to_the_quarantine(lab: Lab, tmp_path: Path) -> None:
    faces = draw_folder(tmp_path / "faces")
    source = as_csv(faces, tmp_path)
    text = Path(source["root"]).read_text().replace("2025-02-02", "02/03/2025", 1)
    Path(source["root"]).write_text(text)
    recipe = tiny("", prepare={"source": {**source, "session_column": "when"}, "held_out": 1})
    rows = pq.read_table(lab.stage(recipe, "prepare").path / "quarantine.parquet").to_pylist()
    assert [row["file"] for row in rows] == ["p00/3.png"] and "write YYYY-MM-DD" in rows[0]["reason"]


def test_the_summary_counts_them_apart(lab: Lab, tmp_path: Path) -> None:
    recipe: Recipe = tiny(draw_folder(tmp_path / "faces"), prepare={"held_out": 2})
    artifact = lab.stage(recipe, "prepare")
    summary = json.loads((artifact.path / "summary.json").read_bytes())
    assert summary["splits"]["train"] == {"identities": 4, "images": 12}
    assert {name: summary["held_out"][name] for name in ("images", "people", "without")} == {
        "images": 8, "people": 4, "without": 0,
    }  # fmt: skip
    assert manifest.read(artifact.path, split="train").num_rows == 12
    assert any("8 photos of 4 train people are held out" in event.text for event in lab.events)
