"""Erase what `facegan.erasure.lineage` found: reports first, then the store; descendants before what they come from."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from facegan.core import locks
from facegan.data.suppression import SuppressionList
from facegan.erasure.lineage import OUTSIDE, Descendants
from facegan.promotion.registry import LOCK, Models


def erase(descendants: Descendants, workdir: Path) -> SuppressionList:
    """Put the person on the suppression list, then erase every target; a repeated call continues a stopped one.

    Hold the store alone (`Store.alone`) since before `find`. Raises UserError, before anything is erased, while a
    Prefect server works in `workdir/data/prefect` or a model is promoted.
    """
    with contextlib.ExitStack() as stack:
        for lock in (workdir / "data" / "prefect" / "lock", Models(workdir).root / LOCK):
            if lock.parent.is_dir():
                stack.enter_context(locks.exclusive(lock))
        suppressed = SuppressionList.read(workdir).add(descendants.spelled | descendants.photos, workdir)
        models = [t.path.name for t in descendants.targets if t.what == "model" and not t.unfinished]
        Models(workdir).forget(descendants.names, models)
        for target in descendants.targets:
            if target.what in OUTSIDE:
                continue  # not ours: others' files may lie there
            if target.what == "history":
                for path in target.path.iterdir():
                    if path.name != "lock":  # held, so that no run begins meanwhile
                        remove(path)
            else:
                remove(target.path)
                if target.what == "report":
                    unlink_latest(target.path.parent)
    return suppressed


def remove(path: Path) -> None:
    """Delete a folder or file; a link is deleted, not what it leads to. Raises OSError where something is left."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def unlink_latest(recipe: Path) -> None:
    """Take away `latest` where it leads nowhere, and the folder of a recipe that has no report left."""
    link = recipe / "latest"
    if link.is_symlink() and not link.exists():
        link.unlink()
    with contextlib.suppress(OSError):
        recipe.rmdir()


def out_of_reach(descendants: Descendants) -> list[str]:
    """What erasing cannot reach, a sentence each."""
    lines = [
        "the source itself, and copies of it: delete their photos there (runs and imports leave them out meanwhile)",
        "imports and exports: those that are known to show them are listed above, for you to delete or make again",
        "reports, pictures, weights or embeddings copied out of this working directory, and what was trained on them",
        "a Prefect server of your own (PREFECT_API_URL, PREFECT_HOME): delete its flow runs of facegan there",
        "recipe files of yours that name them (prepare.split.frozen, prepare.same_people)",
        "backups, snapshots, and blocks that a disk frees",
    ]
    if descendants.unknown_origin:
        paths = descendants.unknown_origin
        examples = ", ".join(map(str, paths[:5])) + (" ..." if len(paths) > 5 else "")
        lines.insert(0, f"{len(paths)} folders whose origin is gone, so that nothing tells: look at {examples}")
    return lines
