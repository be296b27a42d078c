"""An empty database is kept once, laid into homes without one, and never holds what ran or a key."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.service import blank_database as blank

SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE alembic_version (version_num TEXT);
INSERT INTO alembic_version VALUES ('head');
CREATE TABLE flow (name TEXT);
CREATE TABLE configuration (key TEXT);
INSERT INTO configuration VALUES ('ENCRYPTION_KEY');
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is not there yet."""
    monkeypatch.setenv(blank.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def home(folder: Path, statement: str = "") -> Path:
    """A home whose server has started."""
    folder.mkdir()
    with closing(sqlite3.connect(folder / blank.NAME)) as database:
        database.executescript(SCHEMA + statement)
    return folder


def rows(folder: Path, table: str) -> list[str]:
    """The first column of a table of a home's database."""
    with closing(sqlite3.connect(folder / blank.NAME)) as database:
        return [row[0] for row in database.execute(f"SELECT * FROM {table}")]


def test_what_a_first_server_made_is_laid_for_the_next(tmp_path: Path) -> None:
    first, second = home(tmp_path / "first"), tmp_path / "second"
    second.mkdir()
    assert blank.lay(second, {}) and not list(second.iterdir()), "nothing is kept yet: the server makes its own"
    blank.keep(first)
    assert not blank.lay(second, {})
    assert rows(second, "alembic_version") == ["head"] and rows(second, "configuration") == []
    assert rows(first, "configuration") == ["ENCRYPTION_KEY"], "only read"
    assert not blank.lay(first, {}) and rows(first, "configuration") == ["ENCRYPTION_KEY"], "there is one"


def test_a_database_in_which_something_ran_is_not_kept(tmp_path: Path, cache: Path) -> None:
    blank.keep(home(tmp_path / "used", "INSERT INTO flow VALUES ('facegan');"))
    assert not cache.exists()


@pytest.mark.parametrize("data", [b"", b"not a database", b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_one_is_passed_over_and_replaced(tmp_path: Path, cache: Path, data: bytes) -> None:
    blank.keep(home(tmp_path / "before"))
    next(cache.iterdir()).write_bytes(data)
    other = tmp_path / "other"
    other.mkdir()
    assert blank.lay(other, {}) and not (other / blank.NAME).exists()
    blank.keep(home(tmp_path / "first"))
    assert not blank.lay(other, {}) and rows(other, "alembic_version") == ["head"]


def test_nothing_is_laid_where_another_database_is_asked_for(tmp_path: Path) -> None:
    blank.keep(home(tmp_path / "first"))
    env = {"PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://u@h/d"}
    other = tmp_path / "other"
    other.mkdir()
    assert not blank.lay(other, env) and not list(other.iterdir())
    assert not blank.lay(other, dict.fromkeys(env, f"sqlite+aiosqlite:///{other / blank.NAME}"))
    assert rows(other, "alembic_version") == ["head"]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, cache: Path) -> None:
    cache.write_bytes(b"a file where the folder should be")
    blank.keep(home(tmp_path / "first"))
    other = tmp_path / "other"
    other.mkdir()
    assert blank.lay(other, {})


def test_nothing_is_kept_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blank.keep(home(tmp_path / "first"))
    monkeypatch.delenv(blank.CACHE)
    other = tmp_path / "other"
    other.mkdir()
    assert blank.template() is None and not blank.lay(other, {}) and not list(other.iterdir())
