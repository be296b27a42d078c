"""Erase what `facegan.forgetting` found: reports and copies first, then the store, what descends before its origin."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from facegan import manifest, quarantine
from facegan.errors import UserError
from facegan.forgetting import Found, leftover
from facegan.forgotten import Forgotten, copies, note
from facegan.store import write_atomic


def erase(found: Found, workdir: Path) -> Forgotten:
    """Put the person on the list, then erase every target; a repeated call goes on where one was stopped.

    Raises UserError, before anything is erased, while a run works in `workdir`.
    """
    with _alone(found, workdir):
        listed = Forgotten.read(workdir).add(found.names | found.photos, workdir)
        for target in found.targets:
            if target.what == "import":
                write_again(target.path, listed)
            elif target.what == "history":
                for path in target.path.iterdir():
                    if path.name != "lock":  # held, so that no run begins meanwhile
                        _remove(path)
            else:
                _remove(target.path)
                if target.what == "report":
                    _unlink_latest(target.path.parent)
        if gone := [path for path in copies(workdir) if not path.exists()]:
            note(workdir, set(copies(workdir)) - set(gone))
    return listed


@contextlib.contextmanager
def _alone(found: Found, workdir: Path) -> Iterator[None]:
    """Raise UserError where a run is at work on what is to be erased, or begins to be."""
    busy = UserError("a run is at work in this working directory", fix="wait for it or stop it, then give this again")
    with contextlib.ExitStack() as stack:
        home = workdir / "data" / "prefect"
        locks = [home / "lock"] if home.is_dir() else []
        for target in found.targets:
            locks.append(target.path.with_name(target.path.name.removesuffix(".incomplete") + ".lock"))
        for path in locks:
            if path.exists() or path.parent == home:
                lock = FileLock(path, mode=0o600)
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    raise busy from None
                if path.parent == home:
                    stack.callback(lock.release)
                else:
                    lock.release()  # a study has more of them than files that may be open
        yield


def _remove(path: Path) -> None:
    """Delete a folder or file; a link is deleted, not what it leads to. Raises OSError where something is left."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _unlink_latest(recipe: Path) -> None:
    """Take away `latest` where it leads nowhere, and the folder of a recipe that has no report left."""
    link = recipe / "latest"
    if link.is_symlink() and not link.exists():
        link.unlink()
    with contextlib.suppress(OSError):
        recipe.rmdir()


def write_again(path: Path, forgotten: Forgotten) -> None:
    """Write an import's manifest, quarantine and summary without the people of the list; delete one of them alone."""

    def theirs(row: dict[str, object]) -> bool:
        words = (row["identity"], row.get("image_id"), row.get("source_sha256"))
        parents = row.get("parents")
        return any(forgotten.knows(str(w)) for w in [*words, *(parents if isinstance(parents, list) else [])] if w)

    fresh, old = leftover(path), leftover(path) / "old"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    images: Counter[str] = Counter()
    licenses: Counter[str] = Counter()

    def others() -> Iterator[dict[str, object]]:
        for row in manifest.iterate(path):
            if not theirs(row):
                images[row["identity"]] += 1
                licenses[row["license"] or "none given"] += 1
                yield row

    manifest.write(fresh, others(), "import", {}, fingerprint="")
    if not images:
        shutil.rmtree(path)
        return
    bad: list[dict[str, str]] = []
    if (path / "quarantine.parquet").is_file():
        bad = [row for row in pq.read_table(path / "quarantine.parquet").to_pylist() if not theirs(row)]
        quarantine.write(fresh, bad)
        os.replace(fresh / "quarantine.parquet", path / "quarantine.parquet")
    if (path / "summary.json").is_file():
        told = json.loads((path / "summary.json").read_bytes())
        told |= {"images": images.total(), "identities": len(images), "quarantined": len(bad)}
        told["licenses"] = dict(sorted(licenses.items()))
        write_atomic(path / "summary.json", json.dumps(told, indent=1).encode())
    os.replace(path / manifest.FOLDER, old)
    os.replace(fresh / manifest.FOLDER, path / manifest.FOLDER)
    shutil.rmtree(fresh)


def beyond(found: Found) -> list[str]:
    """What erasing cannot reach, a sentence each."""
    lines = [
        "the source itself, and copies of it: delete their photos there (runs and imports leave them out meanwhile)",
        "imports and exports made elsewhere or before they were noted: name them with --also",
        "reports, pictures, weights or embeddings copied out of this working directory, and what was trained on them",
        "a Prefect server of your own (PREFECT_API_URL, PREFECT_HOME): delete its flow runs of facegan there",
        "recipe files of yours that name them (prepare.split.frozen), backups, snapshots, and blocks that a disk frees",
    ]
    if found.untold:
        shown = ", ".join(map(str, found.untold[:5])) + (" ..." if len(found.untold) > 5 else "")
        lines.insert(0, f"{len(found.untold)} folders whose origin is gone, so that nothing tells: look at {shown}")
    return lines
