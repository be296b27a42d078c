"""A watched source reports each content once, when its files have stopped changing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from drawn import draw_face, draw_folder
from facegan.core.errors import UserError
from facegan.data.images import encode_png
from facegan.data.source_changes import SourceChange, SourceWatch
from facegan.data.sources.folder import Folder
from facegan.data.suppression import SuppressionList

QUIET_S = 10.0


class Watched:
    """A folder of faces that is watched, and a clock that stands still."""

    def __init__(self, tmp_path: Path, faces: Path) -> None:
        self.root, self.workdir, self.now = tmp_path / "root", tmp_path / "work", 0.0
        shutil.copytree(faces, self.root)
        self.start()

    def start(self) -> None:
        """A process that watches; the one before is gone."""
        source = Folder(root=str(self.root))
        self.watch = SourceWatch(source, self.workdir, "retrain", QUIET_S, lambda: self.now)

    def after(self, seconds: float) -> SourceChange | None:
        """What it finds so many seconds later."""
        self.now += seconds
        return self.watch.look()

    def settled(self) -> SourceChange | None:
        """What it finds when nothing moves any more."""
        self.after(1)
        return self.after(QUIET_S)

    def add(self, name: str, shot: int = 7, person: int = 0) -> Path:
        """One more photo."""
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_png(draw_face(person, shot)))
        return path


@pytest.fixture
def watched(tmp_path: Path, faces: Path) -> Watched:
    """One whose first content is known."""
    watched_folder = Watched(tmp_path, faces)
    assert watched_folder.settled() is None and watched_folder.watch.files == 40
    return watched_folder


def test_a_new_photo_is_told_once(watched: Watched) -> None:
    assert watched.settled() is None
    watched.add("p00/7.png")
    change = watched.settled()
    assert change is not None and (change.new, change.gone) == (1, 0)
    assert change.fingerprint == Folder(root=str(watched.root)).fingerprint()
    assert watched.settled() == change, "until it was told"
    watched.watch.told()
    assert watched.settled() is None and watched.watch.files == 41


def test_a_photo_that_is_still_being_copied_is_not_told(watched: Watched) -> None:
    data = encode_png(draw_face(9, 0))
    path = watched.root / "p09" / "0.png"
    path.parent.mkdir()
    for end in range(0, len(data), len(data) // 5):
        path.write_bytes(data[:end])
        assert watched.after(QUIET_S - 1) is None
    path.write_bytes(data)
    assert watched.after(QUIET_S - 1) is None and watched.after(QUIET_S - 1) is None
    change = watched.after(1)
    assert change is not None and change.new == 1


def test_what_moves_while_it_is_read_is_not_told(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.add("p00/7.png")
    entries = Folder.entries

    def slow(source: Folder) -> list[tuple[str, ...]]:
        listed = entries(source)
        watched.add("p00/8.png", shot=8)
        return listed

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "entries", slow)
        assert watched.settled() is None
    change = watched.settled()
    assert change is not None and change.new == 2


def test_removed_and_changed_photos_are_told(watched: Watched) -> None:
    (watched.root / "p00" / "0.png").unlink()
    change = watched.settled()
    assert change is not None and (change.new, change.gone) == (0, 1)
    watched.watch.told()
    times = os.stat(watched.root / "p01" / "0.png")
    path = watched.add("p01/0.png", shot=9, person=1)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as `cp -p` leaves it
    change = watched.settled()
    assert change is not None and (change.new, change.gone) == (1, 1)


def test_the_same_content_touched_copied_or_hidden_is_no_news(watched: Watched) -> None:
    for path in watched.root.rglob("*.png"):
        path.write_bytes(path.read_bytes())
    watched.add("p00/.hidden.png")
    assert watched.settled() is None
    shutil.rmtree(watched.root / "p00")
    assert watched.after(1) is None
    shutil.copytree(watched.root / "p01", watched.root / "p00")
    change = watched.settled()
    assert change is not None, "another's photos are not the same content"


@pytest.mark.parametrize("told", [False, True])
def test_nothing_is_lost_or_told_twice_over_an_end_of_the_process(watched: Watched, told: bool) -> None:
    watched.add("p00/7.png")
    change = watched.settled()
    if told:
        watched.watch.told()
    watched.start()
    assert watched.settled() == (None if told else change)
    watched.start()
    watched.add("p00/8.png", shot=8)
    if not told:
        assert watched.settled() == change, "the first before the second"
        watched.watch.told()
    second = watched.settled()
    assert second is not None and change is not None and second.new == 1 and second.id != change.id


def test_what_arrives_while_nobody_watches_is_told(watched: Watched) -> None:
    watched.add("p08/0.png", person=8)
    watched.start()
    change = watched.settled()
    assert change is not None and change.new == 1


def test_a_source_that_is_away_is_said_once_and_is_no_news(watched: Watched) -> None:
    away = watched.root.rename(watched.root.with_name("away"))
    watched.after(1)
    with pytest.raises(UserError, match="is not there"):
        watched.after(QUIET_S)
    assert watched.settled() is None
    away.rename(watched.root)
    assert watched.settled() is None


def test_another_source_is_known_as_it_is_found(watched: Watched, tmp_path: Path) -> None:
    watched.root = draw_folder(tmp_path / "other", people=6)
    watched.start()
    assert watched.settled() is None and watched.watch.files == 30
    watched.add("p00/9.png", shot=9)
    assert watched.settled() is not None


def test_begin_takes_what_is_there_as_known_at_once(tmp_path: Path, faces: Path) -> None:
    folder = Watched(tmp_path, faces)
    folder.watch.begin()
    folder.add("p00/7.png")
    folder.start()
    folder.watch.begin()
    assert folder.settled() is not None, "what was known stays known"


def test_who_was_erased_is_gone_and_never_new(watched: Watched) -> None:
    SuppressionList().add({"folder/p00"}, watched.workdir)
    change = watched.settled()
    assert change is not None and (change.new, change.gone) == (0, 5)
    watched.watch.told()
    watched.add("p00/7.png")
    assert watched.settled() is None
    (state,) = (watched.workdir / "data" / "watch").iterdir()
    assert "p00" not in state.read_text() and state.stat().st_mode & 0o077 == 0
