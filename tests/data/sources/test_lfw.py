"""The source lfw: faces in a folder or a zip, and the people of View 1 for train and val alone."""

from __future__ import annotations

import shutil
import zipfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from drawn import SHARED, Lab, draw_lfw, tiny
from facegan.core.errors import ConfigError, UserError
from facegan.data import manifest
from facegan.data.options import Prepare, Split
from facegan.data.sources.lfw import Lfw, read_people
from facegan.recipe import load
from facegan.store.local import Artifact

DEVELOP = {"Ann_Lee": 3, "Bo": 2, "Cy-X": 2, "Di_Da": 1, "Ed": 2, "Flo": 3}
TEST = {"Gus": 3, "Hal_O": 1, "Ida": 2, "Joe": 1}
VIEW1 = "3\nAnn_Lee\t1\t2\nBo\t1\t2\nEd\t1\t2\nAnn_Lee\t1\tCy-X\t2\nDi_Da\t1\tBo\t1\nFlo\t3\tGone\t1\n"
SPLIT = {"train": 0.6, "val": 0.4, "test": 0.0}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `lfw`, an archive of it, and the pairs file. Read only."""
    root = draw_lfw(tmp_path_factory.mktemp("lfw"), DEVELOP | TEST)
    (root / "pairs.txt").write_text(VIEW1)
    (root / "lfw" / "README.txt").write_text("nobody")
    pack(root / "lfw", root / "lfw.zip")
    return root


def pack(folder: Path, path: Path, top: str = "lfw/", **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.jpg"), reverse=True):
            archive.write(file, top + file.relative_to(folder).as_posix())
        for name, data in more.items():
            archive.writestr(name, data)
    return path


def lfw(root: Path, pairs: Path | None = None) -> Lfw:
    return Lfw(root=str(root), pairs=str(pairs) if pairs else None)


def prepared(lab: Lab, root: Path, pairs: Path) -> Artifact:
    source = {"kind": "lfw", "root": str(root), "pairs": str(pairs)}
    return lab.stage(tiny("unused", prepare={"source": source, "split": SPLIT}), "prepare")


def test_folder_and_zip_are_the_same_source(drawn: Path, tmp_path: Path) -> None:
    flat = pack(drawn / "lfw", tmp_path / "flat.zip", top="")
    roots = [drawn, drawn / "lfw", drawn / "lfw.zip", flat]
    listed = [[(r.identity, r.relative, r.side, r.read()) for r in lfw(root).rows()] for root in roots]
    assert listed[0] == listed[1] == listed[2] == listed[3] == sorted(listed[0])
    assert Counter(row[0] for row in listed[0]) == {f"lfw/{name}": n for name, n in (DEVELOP | TEST).items()}
    assert listed[0][0][1] == "Ann_Lee/Ann_Lee_0001.jpg" and {row[2] for row in listed[0]} == {None}
    assert len({lfw(root).fingerprint() for root in roots}) == 1


def test_pairs_say_who_is_for_test(drawn: Path, tmp_path: Path) -> None:
    source = lfw(drawn / "lfw.zip", drawn / "pairs.txt")
    sides = {row.identity: row.side for row in source.rows()}
    assert sides == {f"lfw/{name}": "develop" if name in DEVELOP else "test" for name in DEVELOP | TEST}
    assert source.fingerprint() == lfw(drawn, drawn / "pairs.txt").fingerprint() != lfw(drawn).fingerprint()
    other = tmp_path / "other.txt"
    other.write_text(VIEW1.replace("Flo", "Gus"))
    assert lfw(drawn, other).fingerprint() != source.fingerprint()
    assert source.identifying() == {"kind": "lfw"}


def test_others_may_take_no_part(lab: Lab, drawn: Path) -> None:
    """The named people alone are divided, into test people too; the rest is counted."""
    source = lfw(drawn / "lfw.zip", drawn / "pairs.txt").model_copy(update={"others": "left_out"})
    rows = list(source.rows())
    assert {row.identity for row in rows} == {f"lfw/{name}" for name in DEVELOP} and {row.side for row in rows} == {
        None
    }
    assert f"{sum(TEST.values())} photos of people whom source.pairs does not name" in source.notes.left_out_line()
    changes = {"split": {"train": 0.34, "val": 0.33, "test": 0.33}, "min_images": 1}
    artifact = lab.stage(tiny("unused", prepare={"source": source.model_dump(), **changes}), "prepare")
    table = manifest.read(artifact.path, ["identity", "split"]).to_pylist()
    assert Counter({row["identity"]: row["split"] for row in table}.values()) == {"train": 2, "val": 2, "test": 2}


def test_others_need_a_list_and_a_share_for_test(drawn: Path) -> None:
    with pytest.raises(UserError, match="pairs is null"):
        next(lfw(drawn).model_copy(update={"others": "left_out"}).rows())
    with pytest.raises(ValidationError, match="names no test people"):
        Prepare(source=Lfw(root=str(drawn), pairs="pairs.txt", others="left_out"), split=Split(**SPLIT))


def test_prepare_keeps_the_protocol(lab: Lab, drawn: Path) -> None:
    """Test people stay with one image; development people need two, and share train and val among them."""
    artifacts = [prepared(lab, root, drawn / "pairs.txt") for root in (drawn, drawn / "lfw.zip")]
    assert artifacts[0].fingerprint == artifacts[1].fingerprint and artifacts[1].state == "cached"
    table = manifest.read(artifacts[0].path, ["identity", "split"]).to_pylist()
    people = {row["identity"].removeprefix("lfw/"): row["split"] for row in table}
    assert {name for name, split in people.items() if split == "test"} == set(TEST)
    assert people.keys() == (DEVELOP.keys() | TEST.keys()) - {"Di_Da"}
    assert Counter(people.values()) == {"train": 3, "val": 2, "test": 4}
    assert sum(row["split"] == "test" for row in table) == sum(TEST.values())
    quarantined = pq.read_table(artifacts[0].path / "quarantine.parquet").to_pylist()
    assert [row["file"] for row in quarantined] == ["Di_Da/Di_Da_0001.jpg"] and "min_images is 2" in quarantined[0][
        "reason"
    ]


def test_image_ids_are_those_of_the_folder(drawn: Path, tmp_path: Path) -> None:
    ids = []
    for number, root in enumerate((drawn, drawn / "lfw.zip")):
        artifact = prepared(Lab(tmp_path / str(number)), root, drawn / "pairs.txt")
        ids.append(manifest.read(artifact.path, ["image_id", "source_sha256", "split"]).to_pylist())
    assert ids[0] == ids[1]


def test_no_share_for_test_without_a_protocol(drawn: Path) -> None:
    with pytest.raises(ValidationError, match="names no test people"):
        Prepare(source=lfw(drawn), split=Split(**SPLIT))
    assert Prepare(source=lfw(drawn, drawn / "pairs.txt"), split=Split(**SPLIT)).split.test == 0


def test_broken_members_go_to_the_quarantine(lab: Lab, drawn: Path, tmp_path: Path) -> None:
    path = pack(drawn / "lfw", tmp_path / "bad.zip", **{"lfw/Gus/Gus_0009.jpg": b"text", "lfw/Gus/Gus_0008.jpg": b""})
    photo = next(row.read() for row in lfw(path).rows() if row.relative == "Ida/Ida_0002.jpg")
    data = path.read_bytes().replace(photo, photo[: len(photo) // 2] + bytes(len(photo) - len(photo) // 2))
    path.write_bytes(data)  # stored, not packed: the checksum no longer holds
    artifact = prepared(lab, path, drawn / "pairs.txt")
    reasons = {r["file"]: r["reason"] for r in pq.read_table(artifact.path / "quarantine.parquet").to_pylist()}
    assert "broken in the archive (Bad CRC-32" in reasons["Ida/Ida_0002.jpg"]
    assert "not an image" in reasons["Gus/Gus_0009.jpg"] and "empty file" in reasons["Gus/Gus_0008.jpg"]
    names = set(manifest.read(artifact.path, ["identity"])["identity"].to_pylist())
    assert {"lfw/Ida", "lfw/Gus"} <= names


def test_a_zip_with_backslashes(drawn: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in (drawn / "lfw").rglob("*.jpg"):
            name = zipfile.ZipInfo()
            name.filename = f"lfw\\{file.parent.name}\\{file.name}"
            archive.writestr(name, file.read_bytes())
    assert lfw(path).fingerprint() == lfw(drawn).fingerprint()
    assert all("backslashes" in row.remarks[0] for row in lfw(path).rows())


@pytest.mark.parametrize("name", ["../Eve/Eve_0001.jpg", "lfw/../../Eve/Eve_0001.jpg", "/Eve/Eve_0001.jpg"])
def test_members_that_lead_out_are_refused(drawn: Path, tmp_path: Path, name: str) -> None:
    path = pack(drawn / "lfw", tmp_path / "bad.zip", **{name: b"x"})
    with pytest.raises(UserError, match="leads out of it"):
        list(lfw(path).rows())


def test_archives_that_cannot_be_read(drawn: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.zip"
    path.write_bytes((drawn / "lfw.zip").read_bytes()[:-200])
    with pytest.raises(UserError, match="no zip archive that can be read"):
        list(lfw(path).rows())
    path.write_bytes(b"")
    with pytest.raises(UserError, match="no zip archive that can be read"):
        lfw(path).fingerprint()


def test_links_out_of_the_folder_are_not_followed(drawn: Path, tmp_path: Path) -> None:
    root = shutil.copytree(drawn / "lfw", tmp_path / "lfw")
    (root / "Gus" / "Gus_0007.jpg").symlink_to(drawn / "lfw" / "Gus" / "Gus_0001.jpg")
    (root / "Eve").symlink_to(drawn / "lfw" / "Joe")
    assert lfw(root).fingerprint() == lfw(drawn).fingerprint()


def test_what_is_not_there_is_said_with_its_place(drawn: Path, tmp_path: Path) -> None:
    for root, words in ((tmp_path / "nowhere", "are not there"), (tmp_path, "no face of LFW")):
        with pytest.raises(UserError, match=words) as error:
            list(lfw(root).rows())
        assert str(root) in str(error.value) and "prepare.source.root" in error.value.fix
    with pytest.raises(UserError, match="pairs file of LFW is not there") as error:
        list(lfw(drawn, tmp_path / "gone.txt").rows())
    assert "pairsDevTrain.txt" in error.value.fix
    shutil.copytree(drawn / "lfw", tmp_path / "one")
    shutil.copytree(drawn / "lfw", tmp_path / "two")
    with pytest.raises(UserError, match="below several folders"):
        list(lfw(tmp_path).rows())
    (tmp_path / "strangers.txt").write_text("1\nNobody\t1\t2\nNobody\t1\tNoone\t1\n")
    with pytest.raises(UserError, match="nobody of"):
        list(lfw(drawn, tmp_path / "strangers.txt").rows())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a count N"),
        ("10\t300\nA\t1\t2\n", "not a count N"),
        ("1\nA\t1\t2\n", "it has 2 lines"),
        ("1\nA\t1\t2\nA\t1\t2\n", "line 3: expected 4 fields"),
        ("1\nA\t1\tx\nA\t1\tB\t2\n", "line 2: expected 3 fields"),
    ],
)
def test_pairs_files_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_people(path)


def test_the_recipe_waits_for_the_users_files(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load.load("lfw-limited")
    with pytest.raises(UserError, match="not there"):
        recipe.prepare.source.fingerprint()
    assert not recipe.report.show_faces and recipe.prepare.split.test == 0 and recipe.prepare.min_images == 2
    comparison = recipe.comparison
    assert (comparison.metric, comparison.baseline, comparison.arm) == ("eer", "real", "real+synthetic")
    assert recipe.study is not None and len(recipe.study.splits) >= 3 and recipe.prepare.train_identities == 100
    assert len(recipe.seeds) * len(recipe.study.splits) >= 5
    monkeypatch.chdir(drawn)
    with_files = load.load("lfw-limited", ["prepare.source.root=lfw.zip", "prepare.source.pairs=pairs.txt"])
    assert {row.side for row in with_files.prepare.source.rows()} == {"develop", "test"}  # from wherever it is called
    monkeypatch.chdir("/")
    assert with_files.prepare.source.fingerprint()
    with pytest.raises(ConfigError, match="names no test people"):
        load.load("lfw-limited", ["prepare.source.pairs=null"])


def test_the_recipe_of_views(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(drawn)
    recipe = load.load("lfw-views", ["benchmark.benchmarks.0.file=pairs.txt"])
    assert list(recipe.arms) == ["real", "real+synthetic"] and recipe.comparison.metric == "eer"
    view1, view2 = recipe.benchmark.benchmarks[:2]
    assert (view1.label, view2.label) == ("view1", "view2") and {"view1/accuracy", "view2/eer"} <= {
        name for benchmark in recipe.benchmark.benchmarks for name in benchmark.names()
    }
    monkeypatch.chdir("/")
    assert view1.fingerprint().keys() == {"pairs:view1"}
    with pytest.raises(UserError, match="pairs file of benchmark 'view2' is not there") as error:
        view2.fingerprint()
    assert str(drawn / "data" / "lfw" / "pairs.txt") in str(error.value)
    assert "file" not in view1.identifying()


@pytest.mark.skipif(not (SHARED / "lfw_aligned112.zip").is_file(), reason="LFW is not beside the project")
def test_the_real_lfw() -> None:
    rows = list(lfw(SHARED / "lfw_aligned112.zip", SHARED / "lfw_pairsDevTrain.txt").rows())
    assert len(rows) == 13_233 and len({row.relative for row in rows}) == 13_233
    images = {side: Counter(row.identity for row in rows if row.side == side) for side in ("develop", "test")}
    assert {side: len(people) for side, people in images.items()} == {"develop": 2132, "test": 3617}
    assert sum(count >= 2 for count in images["test"].values()) == 735 and images["test"].total() == 6548
    assert rows[0].identity == "lfw/AJ_Cook" and rows[0].read().startswith(b"\xff\xd8")
