"""Prefect's empty database, kept for working directories to come: to migrate one takes ten seconds of processor time.

It is kept in the folder FACEGAN_CACHE, for nothing is written outside a working directory unasked. It may be deleted at
any time, and holds tables and Prefect's own kinds of blocks alone: a database in which anything has run is not kept.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from facegan.core.errors import UserError
from facegan.core.files import user_path, write_atomic

NAME = "prefect.db"  # in PREFECT_HOME, where no other database is asked for
CACHE = "FACEGAN_CACHE"
UNKEPT = (OSError, UserError, sqlite3.Error)  # no space, no rights, a file that is none: the server makes its own
OTHERS = ("PREFECT_API_DATABASE_", "PREFECT_SERVER_DATABASE_")


def template() -> Path | None:
    """The file that is kept, of the installed Prefect, as a version's tables are its own; None: not asked for."""
    folder = os.environ.get(CACHE)
    return user_path(folder) / f"prefect-{version('prefect')}.db" if folder else None


def lay(home: Path, env: Mapping[str, str]) -> bool:
    """Lay the kept database into a home without one, for a server with this environment.

    Returns whether the server will make one that is worth `keep`ing.
    """
    kept = template()
    elsewhere = [url for name, url in env.items() if name.startswith(OTHERS) and not url.endswith(str(home / NAME))]
    if kept is None or elsewhere or (home / NAME).exists():
        return False
    with contextlib.suppress(*UNKEPT):
        write_atomic(home / NAME, kept.read_bytes())
        with closing(sqlite3.connect(home / NAME)) as laid:
            versions = laid.execute("SELECT count(*) FROM alembic_version").fetchone()
            if (versions, laid.execute("PRAGMA quick_check").fetchone()) == ((1,), ("ok",)):
                return False
    (home / NAME).unlink(missing_ok=True)
    return True


def keep(home: Path) -> None:
    """Keep the database of a server that has just started for the first time; where that cannot be, nothing is kept."""
    kept = template()
    assert kept is not None, "`lay` said so"
    with (
        contextlib.suppress(*UNKEPT),
        closing(sqlite3.connect(f"{(home / NAME).resolve().as_uri()}?mode=ro", uri=True)) as database,
        closing(sqlite3.connect(":memory:")) as blank,
    ):
        database.backup(blank)
        if blank.execute("SELECT count(*) FROM flow").fetchone() == (0,):
            blank.execute("DELETE FROM configuration")  # keys of its own, if it has made any
            blank.commit()
            kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(kept, blank.serialize())
