"""`facegan forget`: of a person who asked for it nothing is left in a working directory, and others stay."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from drawn import Lab, draw_folder, tiny
from facegan.cli.commands import import_export
from facegan.cli.main import main
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.sources import SOURCES
from facegan.data.suppression import LIST, SuppressionList
from facegan.pipeline import graph, publish
from facegan.recipe.recipe import Recipe
from facegan.store import looks
from facegan.store.local import Store
from facegan.store.workdir import store_of

ERASED = "p02"


def facegan(workdir: Path, *words: str | Path) -> Result:
    return CliRunner().invoke(main, [*map(str, words), "--workdir", str(workdir)])


def small(faces: Path) -> Recipe:
    """A whole run that is as short as one can be."""
    return tiny(
        faces,
        arms={"real": {}, "real+synthetic": {"existing": True, "new": True}},
        report={"bootstrap": 200},
        train_recognizer={"steps": 2, "evaluations": 1},
        audit={"enforce": False},
    )


@pytest.fixture(scope="module")
def prepared_workdir(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(faces, working directory) of a prepare, with exports, imports and a history beside its store."""
    top = tmp_path_factory.mktemp("forget")
    faces, workdir = draw_folder(top / "faces"), top / "work"
    store = workdir / "data" / "store"
    prepared = Lab(store).stage(small(faces), "prepare").path
    (faces / ERASED / "broken.png").write_bytes(b"no image")
    assert facegan(workdir, "import", faces, "--out", workdir / "imported").exit_code == 0
    (faces / ERASED / "broken.png").unlink()
    assert facegan(workdir, "export", prepared, "--format", "folder", "--out", workdir / "f").exit_code == 0
    assert facegan(workdir, "export", prepared, "--format", "webdataset", "--out", workdir / "w").exit_code == 0
    assert facegan(workdir, "export", prepared, "--format", "parquet", "--out", workdir / "p").exit_code == 0
    other = draw_folder(top / "others" / "faces", people=12)
    for person in range(8):
        shutil.rmtree(other / f"p{person:02d}")
    assert facegan(workdir, "import", other, "--out", workdir / "other").exit_code == 0
    unfinished = store / "train_gan" / ("0" * 64 + ".incomplete") / "work"
    unfinished.mkdir(parents=True)
    (unfinished / "1.safetensors").write_bytes(b"weights on folder/p02")
    (workdir / "data" / "prefect").mkdir()
    (workdir / "data" / "prefect" / "prefect.db").write_bytes(b"a table that names folder/p02")
    return faces, workdir


@pytest.fixture
def spoiled(prepared_workdir: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the working directory; what is noted of imports and exports leads to the copy."""
    faces, workdir = prepared_workdir
    copied = tmp_path / "work"
    shutil.copytree(workdir, copied, symlinks=True)
    noted = copied / "data" / "copies.json"
    noted.write_text(noted.read_text().replace(str(workdir), str(copied)))
    return faces, copied


def contents(workdir: Path) -> Iterator[tuple[Path, bytes]]:
    """Everything that lies there, and what is packed or compressed also unpacked."""
    for path in sorted(workdir.rglob("*")):
        yield path, str(path).encode()
        if path.is_file():
            yield path, path.read_bytes()
        if path.suffix == ".parquet" and path.is_file():
            for row in pq.read_table(path).to_pylist():
                image = row.get("image") or {"bytes": row.get("jpeg")}
                yield path, repr(row).encode()
                yield path, image["bytes"] or b""
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                yield from ((path, file.read()) for m in tar if (file := tar.extractfile(m)) is not None)


def traces(faces: Path, workdir: Path, who: str) -> set[str]:
    """Where in the working directory a person's name, file names, photos or their sha256 stand."""
    photos = [path.read_bytes() for path in (faces / who).iterdir()]
    lab = Lab(workdir / "elsewhere")  # the prepared images, by their own bytes
    rows = list(manifest.iterate(lab.stage(small(faces), "prepare").path))
    photos += [row["image"]["bytes"] for row in rows if row["identity"] == f"folder/{who}"]
    shutil.rmtree(workdir / "elsewhere")
    words = [f"folder/{who}".encode(), f"{who}/".encode(), *photos]
    words += [hashlib.sha256(photo).hexdigest().encode() for photo in photos]
    hits = ((path, word) for path, data in contents(workdir) for word in words if word in data)
    return {
        path.relative_to(workdir).parts[0 if path.relative_to(workdir).parts[0] != "data" else 1] for path, _ in hits
    }


def test_after_it_nothing_is_left_and_others_are(spoiled: tuple[Path, Path]) -> None:
    faces, workdir = spoiled
    assert traces(faces, workdir, ERASED) >= {"store", "imported", "f", "w", "p", "prefect"}
    before = {path: path.read_bytes() for path in (workdir / "other").rglob("*") if path.is_file()}
    done = facegan(workdir, "forget", f"folder/{ERASED}", "--yes")
    assert done.exit_code == 0, done.output
    assert traces(faces, workdir, ERASED) == {"imported", "f", "w", "p"}, "told of, and left to the user"
    assert all(str(workdir / name) in done.output for name in ("imported", "f", "w", "p"))
    assert before == {path: path.read_bytes() for path in (workdir / "other").rglob("*") if path.is_file()}
    for name in ("imported", "f", "w", "p"):
        shutil.rmtree(workdir / name)
    assert traces(faces, workdir, ERASED) == set()
    again = facegan(workdir, "forget", f"folder/{ERASED}", "--yes")
    assert again.exit_code == 0 and "nothing here holds them" in again.output
    assert (workdir / "data" / LIST).stat().st_mode & 0o077 == 0


def test_a_later_run_and_import_work_without_them(spoiled: tuple[Path, Path], tmp_path: Path) -> None:
    faces, workdir = spoiled
    facegan(workdir, "forget", ERASED, "--yes")
    for name in ("imported", "f", "w", "p"):
        shutil.rmtree(workdir / name)
    fewer = shutil.copytree(faces, tmp_path / "fewer")
    shutil.rmtree(fewer / ERASED)
    keys = [item.key for item in graph.build(small(faces), SuppressionList.read(workdir))]
    assert keys == [item.key for item in graph.build(small(fewer))], "as though the source had never held them"
    lab = Lab(workdir / "data" / "store")
    prepared = lab.make(graph.build(small(faces), SuppressionList.read(workdir))[0])
    same = Lab(tmp_path / "store").stage(small(fewer), "prepare")
    assert prepared.record["outputs"] == same.record["outputs"]
    (faces / "renamed").mkdir(exist_ok=True)
    try:
        for path in (faces / ERASED).iterdir():  # their photos under another name are known by their bytes
            shutil.copy(path, faces / "renamed")
        assert facegan(workdir, "import", faces, "--out", workdir / "later").exit_code == 0
    finally:
        shutil.rmtree(faces / "renamed")
    assert traces(faces, workdir, ERASED) == set()
    assert len(manifest.read(workdir / "later", ["identity"])) == 35


def test_it_only_shows_without_yes(spoiled: tuple[Path, Path]) -> None:
    _, workdir = spoiled
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    shown = facegan(workdir, "forget", ERASED)
    assert shown.exit_code == 0 and "--yes" in shown.output and "the source itself" in shown.output
    for what in ("prepare", "train_gan", "import", "export", "history"):
        assert f" x {what}" in shown.output, what
    assert "5 photos in the store" in shown.output and "(6 rows)" in shown.output
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}


def test_a_stopped_erasure_goes_on(spoiled: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    faces, workdir = spoiled
    real, calls = shutil.rmtree, []

    def fails_later(path: Path, *rest: object, **options: object) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise OSError(5, "the disk is gone")
        real(path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("facegan.erasure.erase.shutil.rmtree", fails_later)
    assert facegan(workdir, "forget", ERASED, "--yes").exit_code == 1
    monkeypatch.undo()
    assert facegan(workdir, "forget", f"folder/{ERASED}", "--yes").exit_code == 0
    assert traces(faces, workdir, ERASED) == {"imported", "f", "w", "p"}


def test_nothing_outside_is_touched(spoiled: tuple[Path, Path]) -> None:
    faces, workdir = spoiled
    facegan(workdir, "import", faces, "--out", workdir)  # refused, but noted
    (workdir / "thesis.tex").write_text("mine")
    before = sorted(path for path in (workdir / "imported").rglob("*"))
    done = facegan(workdir, "forget", ERASED, "--yes", "--also", workdir)
    assert done.exit_code == 0, done.output
    assert (workdir / "thesis.tex").read_text() == "mine" and sorted((workdir / "imported").rglob("*")) == before


@pytest.mark.slow
def test_of_a_whole_run_nothing_is_left(faces: Path, tmp_path: Path) -> None:
    recipe, workdir = small(faces), tmp_path / "work"
    lab = Lab(workdir / "data" / "store")
    nodes = graph.build(recipe)
    last = lab.make(nodes[-1])
    publish.export(recipe, last, publish.stage_rows(nodes, [lab.done[item.key] for item in nodes]), workdir)
    looked = (workdir / "data" / looks.LEDGER).read_bytes()
    synthetic = next(artifact.path for artifact in lab.done.values() if artifact.stage == "synthesize")
    assert facegan(workdir, "export", synthetic, "--format", "parquet", "--out", workdir / "p").exit_code == 0
    names = manifest.read(synthetic, ["identity"])["identity"].to_pylist()
    who = next(name for name in names if not name.startswith(manifest.NEW))
    done = facegan(workdir, "forget", who, "--yes", "--also", workdir / "p")
    assert done.exit_code == 0, done.output
    left = {path.parent.parent.name for path in (workdir / "data" / "store").glob("*/*/record.json")}
    assert not left and not list((workdir / "reports").rglob("*")) and str(workdir / "p") in done.output
    shutil.rmtree(workdir / "p")
    assert traces(faces, workdir, who.partition("/")[2]) == set()
    assert (workdir / "data" / looks.LEDGER).read_bytes() == looked, "how often they were judged stays known"
    assert not any(name.encode() in looked for name in names)


def test_it_waits_for_nobody(spoiled: tuple[Path, Path]) -> None:
    _, workdir = spoiled
    store = workdir / "data" / "store"
    with Store(store).in_use():  # as a run has it between two stages
        done = facegan(workdir, "forget", ERASED, "--yes")
    assert (
        done.exit_code == 1 and "at work in this working directory" in done.output and str(os.getpid()) in done.output
    )
    assert next(store.glob("prepare/*/record.json")) and not (workdir / "data" / LIST).exists()


@pytest.mark.parametrize("command", ["import", "export"])
def test_it_notices_an_import_and_an_export_under_way(
    spoiled: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Their folder is there only when they end: erasing meanwhile would not list it."""
    faces, workdir = spoiled
    work = {"import": import_export.import_, "export": import_export.export}[command]
    meanwhile: list[Result] = []

    def under_way(*arguments: Any, **options: Any) -> Any:
        meanwhile.append(facegan(workdir, "forget", ERASED, "--yes"))
        return work(*arguments, **options)

    monkeypatch.setattr(import_export, "import_" if command == "import" else "export", under_way)
    words = [faces] if command == "import" else [workdir / "imported", "--format", "folder"]
    assert facegan(workdir, command, *words, "--out", tmp_path / "late").exit_code == 0
    (result,) = meanwhile
    assert result.exit_code == 1 and "at work in this working directory" in result.output
    after = facegan(workdir, "forget", ERASED, "--yes")
    assert after.exit_code == 0 and str(tmp_path / "late") in after.output


def test_an_import_waits_for_it_and_then_knows_whom_to_leave_out(spoiled: tuple[Path, Path], tmp_path: Path) -> None:
    faces, workdir = spoiled
    with ThreadPoolExecutor(1) as pool:
        with store_of(workdir).alone():
            begun = pool.submit(import_export.bring_in, [str(faces)], tmp_path / "late", {}, workdir)
            time.sleep(0.3)
            assert not begun.done()
            SuppressionList.read(workdir).add([f"folder/{ERASED}"], workdir)
        begun.result(60)
    assert f"folder/{ERASED}" not in manifest.read(tmp_path / "late", ["identity"])["identity"].to_pylist()


def test_a_name_that_is_nobodys_is_not_guessed(spoiled: tuple[Path, Path]) -> None:
    _, workdir = spoiled
    done = facegan(workdir, "forget", "po2", "--yes")
    assert done.exit_code == 2 and "folder/p02" not in done.output.partition("->")[0]


def test_a_list_that_names_nobody_in_a_source_changes_no_key(faces: Path, tmp_path: Path) -> None:
    suppressed = SuppressionList().add(["folder/somebody else", "0" * 64], tmp_path)
    assert suppressed == SuppressionList.read(tmp_path) and suppressed.knows("folder/somebody else")
    assert b"somebody" not in (tmp_path / "data" / LIST).read_bytes()
    plain, with_list = graph.build(tiny(faces)), graph.build(tiny(faces), suppressed)
    assert [item.key for item in plain] == [item.key for item in with_list]
    source = SOURCES.get("folder")(root=str(faces))
    assert [row.relative for row in suppressed.without(source).rows()] == [row.relative for row in source.rows()]
    everybody = suppressed.add({row.identity for row in source.rows()}, tmp_path)
    with pytest.raises(UserError, match="nobody but people who were erased"):
        list(everybody.without(source).rows())


def test_a_spoiled_list_stops_a_run(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / LIST).write_text('{"salt": ""}')
    with pytest.raises(UserError, match="they would come back"):
        SuppressionList.read(tmp_path)
