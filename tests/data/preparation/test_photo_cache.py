"""The photo cache: only new photos are decoded, to the same bytes; several preparations may write the same at once."""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from drawn import Lab, draw_face, draw_folder, pick, tiny
from facegan.data import manifest
from facegan.data.images import encode_png
from facegan.data.preparation import photo, photo_cache
from facegan.data.preparation.photo_cache import PhotoCache, PreparedPhoto
from facegan.pipeline import graph
from facegan.store.local import Artifact

ROUNDS = 150


def keep(folder: Path, together: Barrier) -> None:
    """Write a file a round, with the same content and at the same moment as the other process."""
    for number in range(ROUNDS):
        cache = PhotoCache(None, print)
        cache.folder = folder
        cache.add(str(number), PreparedPhoto(png=bytes(20_000)))
        together.wait(60)
        cache.flush()


def test_two_preparations_may_write_the_same_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(2)
    processes = [context.Process(target=keep, args=(tmp_path, together)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    messages: list[str] = []
    cache = PhotoCache(tmp_path, messages.append)
    assert not messages and {path.suffix for path in tmp_path.iterdir()} == {".parquet"}
    assert all(cache.find(str(number)) == PreparedPhoto(png=bytes(20_000)) for number in range(ROUNDS))


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the photos that prepare decodes."""
    seen: list[int] = []
    decode = photo.decode

    def counted(data: bytes, *options: Any) -> Image.Image:
        seen.append(len(data))
        return decode(data, *options)

    monkeypatch.setattr(photo, "decode", counted)
    return seen


def files(artifact: Artifact) -> dict[str, bytes]:
    paths = [path for path in artifact.path.rglob("*") if path.is_file() and path.name != "record.json"]
    return {path.relative_to(artifact.path).as_posix(): path.read_bytes() for path in paths}


def grown(faces: Path, root: Path) -> Path:
    """The 40 photos of `faces`; 6 more: of two people, of a new one, and of one of whom there is but one photo."""
    shutil.copytree(faces, root)
    for person, shots in ((0, (7, 8)), (3, (7,)), (8, (0, 1)), (9, (0,))):
        (root / f"p{person:02d}").mkdir(exist_ok=True)
        for shot in shots:
            (root / f"p{person:02d}" / f"{shot}.png").write_bytes(encode_png(draw_face(person, shot)))
    (root / "p00" / "broken.jpg").write_bytes(b"no photo")
    (root / "p01" / "again.png").write_bytes((root / "p01" / "0.png").read_bytes())
    return root


def test_only_what_is_new_is_decoded_to_the_same_bytes(lab: Lab, faces: Path, tmp_path: Path, count: list[int]) -> None:
    lab.stage(tiny(faces), "prepare")
    assert len(count) == 40
    more = tiny(grown(faces, tmp_path / "more"))
    count.clear()
    after = lab.stage(more, "prepare")
    assert len(count) == 6 + 1, "and the broken one, which may be whole another time"
    assert any("41 of 48 images had been decoded before" in event.text for event in lab.events)
    count.clear()
    fresh = Lab(tmp_path / "fresh").stage(more, "prepare")
    assert len(count) == 47 and files(after) == files(fresh)
    count.clear()
    fewer = tiny(more.prepare.source.root, prepare={"min_images": 1, "train_images": 2, "split": {"seed": 3}})
    lab.stage(fewer, "prepare")
    assert len(count) == 1, "what does not decide a photo's bytes costs none of them"
    lab.stage(tiny(faces, prepare={"size_px": 48}), "prepare")
    assert len(count) == 41


@pytest.mark.parametrize("when", [0, 25, 46])
def test_a_run_that_was_killed_goes_on(
    lab: Lab, faces: Path, tmp_path: Path, count: list[int], monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    more = tiny(grown(faces, tmp_path / "more"))
    fresh = Lab(tmp_path / "fresh").stage(more, "prepare")
    monkeypatch.setattr(photo_cache, "ROWS", 10)
    counted = photo.decode

    def killed(*arguments: Any) -> Image.Image:
        if len(count) == when:
            raise KeyboardInterrupt
        return counted(*arguments)

    count.clear()
    with monkeypatch.context() as patch:
        patch.setattr(photo, "decode", killed)
        with pytest.raises(KeyboardInterrupt):
            lab.stage(more, "prepare")
    count.clear()
    assert files(lab.stage(more, "prepare")) == files(fresh)
    assert 47 - when <= len(count) <= 47 - when + 10


def test_what_was_changed_is_not_used(lab: Lab, faces: Path, tmp_path: Path, count: list[int]) -> None:
    lab.stage(tiny(faces), "prepare")
    (path,) = (lab.store.root / photo_cache.FOLDER).glob("*/*.parquet")
    assert path.parent.stat().st_mode & 0o077 == 0
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "png", pa.array(table["png"].to_pylist()[::-1])), path)
    more = tiny(grown(faces, tmp_path / "more"))
    count.clear()
    after = lab.stage(more, "prepare")
    assert len(count) == 47 and any("was changed" in event.text for event in lab.events)
    assert files(after) == files(Lab(tmp_path / "fresh").stage(more, "prepare"))


def test_a_photo_is_known_by_its_bytes_not_by_what_a_source_says(
    lab: Lab, faces: Path, tmp_path: Path, count: list[int]
) -> None:
    """A manifest that says that its images were made from files of another person."""
    rows = []
    for person in range(8):
        for shot in range(5):
            data = encode_png(draw_face(person + 20, shot))
            claimed = hashlib.sha256((faces / f"p{person:02d}" / f"{shot}.png").read_bytes()).hexdigest()
            facts = {"identity": f"d/p{person}", "dataset": "d", "split": manifest.UNASSIGNED, "source": "real"}
            rows.append(manifest.row(data, f"{person}/{shot}.png", **facts, source_sha256=claimed, height=48, width=44))
    manifest.write(tmp_path / "lies", rows, "import", {})
    other = tiny(faces, prepare={"source": {"kind": "manifest", "root": str(tmp_path / "lies")}})
    lab.stage(other, "prepare")
    count.clear()
    after = lab.stage(tiny(faces), "prepare")
    assert len(count) == 40 and files(after) == files(Lab(tmp_path / "fresh").stage(tiny(faces), "prepare"))


def test_landmarks_that_steer_the_crop_count(lab: Lab, faces: Path, tmp_path: Path, count: list[int]) -> None:
    def source(shift: int) -> Path:
        root = draw_folder(tmp_path / f"marked{shift}")
        points = [[14 + shift, 18], [30, 18], [22, 26], [16, 36], [28, 36]]
        lines = [f'{{"file_name": "p{p:02d}/{s}.png", "landmarks": {points}}}' for p in range(8) for s in range(5)]
        (root / "metadata.jsonl").write_text("\n".join(lines))
        return root

    align = {"align": {"detector": {"kind": "landmarks"}, "min_face_px": 10}}
    first, second = (lab.stage(tiny(source(shift), prepare=align), "prepare") for shift in (0, 4))
    assert len(count) == 80 and files(first) != files(second)
    bare = lab.stage(tiny(grown(tmp_path / "marked0", tmp_path / "more"), prepare=align), "prepare")
    assert len(count) == 80 + 6 + 1 + 1, "the copy has no landmarks, so that it is another photo"
    fresh = Lab(tmp_path / "fresh").stage(tiny(tmp_path / "more", prepare=align), "prepare")
    assert files(bare) == files(fresh) and "rejected.parquet" in files(bare)


def test_it_is_in_no_fingerprint(faces: Path, lab: Lab) -> None:
    key = pick(graph.build(tiny(faces)), "prepare").key
    lab.stage(tiny(faces), "prepare")
    assert pick(graph.build(tiny(faces)), "prepare").key == key
