"""A folder of faces: whom it lists, and that its fingerprint is of the faces and not of the place."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from facegan.core.errors import UserError
from facegan.data.sources.folder import Folder


def folder(root: Path, **options: str) -> Folder:
    return Folder(root=str(root), **options)


def test_a_folder_lists_people_and_images(tmp_path: Path, faces: Path) -> None:
    root = shutil.copytree(faces, tmp_path / "root")
    (root / "p00" / "more").mkdir()
    shutil.copy(root / "p00" / "0.png", root / "p00" / "more" / "deep.png")
    (root / "p00" / ".hidden.png").touch()
    (root / ".trash").mkdir()
    shutil.copy(root / "p00" / "0.png", root / ".trash" / "0.png")
    (root / "readme.txt").touch()
    (root / "empty").mkdir()
    rows = list(folder(root, dataset="mine", license="CC0").rows())
    assert Counter(row.identity for row in rows) == {
        "mine/p00": 6,
        **{f"mine/p{n:02d}": 5 for n in range(1, 8)},
    }
    assert "p00/more/deep.png" in {row.relative for row in rows} and {row.license for row in rows} == {"CC0"}


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path, faces: Path) -> None:
    root = shutil.copytree(faces, tmp_path / "root")
    secret = tmp_path / "secret"
    secret.mkdir()
    shutil.copy(root / "p00" / "0.png", secret / "secret.png")
    (root / "p00" / "link.png").symlink_to(secret / "secret.png")
    (root / "p00" / "gone.png").symlink_to(secret / "nothing.png")
    (root / "p00" / "round").symlink_to(root)
    (root / "linked").symlink_to(secret)
    (root / "p01" / "inside.png").symlink_to(root / "p01" / "0.png")
    rows = list(folder(root).rows())
    assert not [row for row in rows if "secret" in str(row.path.resolve())]
    counts = Counter(row.identity for row in rows)
    assert counts["folder/p00"] == 5 and counts["folder/p01"] == 6 and "folder/linked" not in counts


def test_fingerprint_is_of_the_faces(tmp_path: Path, faces: Path) -> None:
    here, there = shutil.copytree(faces, tmp_path / "here"), shutil.copytree(faces, tmp_path / "a" / "there")
    first = folder(here).fingerprint()
    assert first == folder(there).fingerprint() == folder(faces).fingerprint()
    os.utime(there / "p00" / "0.png", (0, 0))
    (there / "notes.txt").write_text("not an image of anybody")
    assert folder(there).fingerprint() == first

    path = there / "p03" / "2.png"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    flipped = folder(there).fingerprint()
    shutil.move(here / "p03" / "2.png", here / "p03" / "9.png")
    renamed = folder(here).fingerprint()
    (here / "p03" / "9.png").unlink()
    assert len({first, flipped, renamed, folder(here).fingerprint()}) == 4


def test_fingerprint_with_a_file_that_cannot_be_read(
    tmp_path: Path, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root reads everything, so the refusal is played; prepare puts the file into the quarantine."""
    import facegan.data.sources as module

    first = folder(faces).fingerprint()

    def refuse(path: Path) -> str:
        if path.name == "3.png":
            raise PermissionError(13, "Permission denied", str(path))
        return "digest"

    monkeypatch.setattr(module, "file_sha256", refuse)
    assert folder(faces).fingerprint() == folder(faces).fingerprint() != first


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there") as error:
        list(folder(tmp_path / "nowhere").rows())
    assert "nowhere" in str(error.value) and "prepare.source.root" in error.value.fix
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="no zip archive"):
        folder(tmp_path / "file").fingerprint()


def test_a_folder_without_people_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").touch()
    with pytest.raises(UserError, match=r"holds no directories \(2 files directly in it\)") as error:
        list(folder(tmp_path).rows())
    assert "FOLDER/PERSON/IMAGE" in error.value.fix


@pytest.mark.parametrize("dataset", ["synthetic", "a/b", "", "ä b"])
def test_names_of_datasets_that_cannot_be(tmp_path: Path, dataset: str) -> None:
    """`synthetic/...` are the people who do not exist."""
    with pytest.raises(ValidationError):
        folder(tmp_path, dataset=dataset)


def test_a_name_that_is_no_utf8(tmp_path: Path, faces: Path) -> None:
    root = shutil.copytree(faces, tmp_path / "root")
    os.rename(os.fsencode(root / "p00"), os.fsencode(root) + b"/Andr\xe9")
    rows = list(folder(root).rows())
    assert len({row.identity for row in rows}) == 8
    for row in rows:
        row.identity.encode(), row.relative.encode()
    assert folder(root).fingerprint()


def zipped(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def listed(root: Path) -> list[tuple[str, str, bytes]]:
    return [(row.identity, row.relative, row.read()) for row in Folder(root=str(root)).rows()]


@pytest.mark.parametrize("top", ["", "faces\\", "a\\b\\"])
def test_a_zip_with_backslashes(tmp_path: Path, top: str) -> None:
    """As .NET wrote them: folders of their own too; the same rows as with slashes, and that is said."""
    names = ["ann\\1.png", "ann\\2.png", "bo\\1.png"]
    members = [(f"{top}{name}", name.encode()) for name in names]
    other = zipped(tmp_path / "other.zip", (f"{top}ann\\", b""), *members)
    plain = zipped(tmp_path / "plain.zip", *((name.replace("\\", "/"), data) for name, data in members))
    assert listed(other) == listed(plain)
    assert Folder(root=str(other)).fingerprint() == Folder(root=str(plain)).fingerprint()
    remarks = [{remark for row in Folder(root=str(p)).rows() for remark in row.remarks} for p in (other, plain)]
    assert [len(said) for said in remarks] == [1, 0] and "backslashes" in remarks[0].pop()


@pytest.mark.parametrize("name", ["..\\up.png", "ann\\..\\..\\up.png", "\\abs\\up.png", "C:\\ann\\1.png"])
def test_backslashes_that_lead_out_of_a_zip(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"leads out of it|names a drive"):
        listed(zipped(tmp_path / "a.zip", ("ann\\1.png", b"x"), (name, b"x")))


def test_backslashes_that_are_part_of_a_name(tmp_path: Path) -> None:
    """Where others have slashes, or metadata calls the members so."""
    mixed = zipped(tmp_path / "mixed.zip", ("ann/a\\1.png", b"x"), ("bo/1.png", b"y"))
    assert listed(mixed) == [("folder/ann", "ann/a\\1.png", b"x"), ("folder/bo", "bo/1.png", b"y")]
    line = b'{"file_name": "p\\\\1.png", "identity": "Ann"}'
    named = zipped(tmp_path / "named.zip", ("p\\1.png", b"x"), ("metadata.jsonl", line))
    assert listed(named) == [("folder/Ann", "p\\1.png", b"x")]


def test_metadata_with_backslashes(tmp_path: Path) -> None:
    line = b'{"file_name": "p\\\\1.png", "identity": "Ann"}'
    (tmp_path / "faces" / "p").mkdir(parents=True)
    (tmp_path / "faces" / "p" / "1.png").write_bytes(b"x")
    (tmp_path / "faces" / "metadata.jsonl").write_bytes(line)
    turned = zipped(tmp_path / "a.zip", ("faces\\p\\1.png", b"x"), ("faces\\metadata.jsonl", line))
    for root in (tmp_path / "faces", turned):
        assert listed(root) == [("folder/Ann", "p/1.png", b"x")]
        assert all("backslashes" in " ".join(row.remarks) for row in Folder(root=str(root)).rows())
