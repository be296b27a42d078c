"""What in a working directory no recent report and no promoted model was made from, by the records: `facegan gc`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from facegan.core import locks
from facegan.core.errors import UserError
from facegan.erasure.erase import remove, unlink_latest
from facegan.erasure.lineage import OutputFolder, Target, behind_report, fetched, folders_of, statuses

DAY_S = 86400.0
FINGERPRINT = re.compile(r"\b[0-9a-f]{64}\b")
OLD, LOOSE, STOPPED, UNREADABLE = (
    "only of older reports",
    "of no report: a run up to a stage, or one that was stopped",
    "unfinished: the same command would go on from it",
    "finished since, or nothing tells what it is",
)


@dataclass
class Garbage:
    """What may be removed: `targets`, in that order, and lock files that nobody needs; what stays, counted."""

    targets: list[Target] = field(default_factory=list)
    lock_files: list[Path] = field(default_factory=list)
    kept: int = 0
    kept_bytes: int = 0
    young: int = 0


def find(workdir: Path, keep: int, days: float) -> Garbage:
    """What neither the last `keep` reports of each recipe nor a model in `data/models` was made from.

    What belongs to no report at all (a run up to a stage, one that was stopped, checkpoints) is kept for `days`
    after it was written, and what a running stage writes is kept always.
    """
    folders = list(folders_of(workdir / "data" / "store"))
    promoted = promoted_fingerprints(workdir)
    new_reports, old_reports = reports(workdir, keep, promoted)
    kept = _reached(folders, promoted.union(*map(behind_report, new_reports)))
    old_keys = _reached(folders, set().union(*map(behind_report, old_reports)))
    since = time.time() - days * DAY_S
    in_no_report = [f for f in folders if f.record is not None and f.path.name not in kept | old_keys]
    young_keys = {folder.path.name for folder in in_no_report if _newest_mtime(folder.path) > since}
    kept |= _reached(folders, young_keys)
    garbage = Garbage(young=len(young_keys))
    for folder in folders:
        target = _target_of(folder, kept, old_keys, since)
        if target is None:
            garbage.kept += 1
            garbage.kept_bytes += Target(folder.path, "", "").size_bytes
        else:
            garbage.targets.append(target)
    removed = {target.path for target in garbage.targets}
    garbage.targets += [Target(path, "report", "older than those that are kept") for path in old_reports]
    garbage.targets += fetched(workdir)
    for lock in sorted((workdir / "data" / "store").glob("*/*.lock")):
        finished, unfinished = lock.with_suffix(""), lock.with_suffix(".incomplete")
        needed = any(path.exists() and path not in removed for path in (finished, unfinished))
        if not needed and locks.free(lock):
            garbage.lock_files.append(lock)
    return garbage


def reports(workdir: Path, keep: int, promoted: set[str]) -> tuple[list[Path], list[Path]]:
    """The folders of reports that are kept (of each recipe the last `keep`, and of `promoted` models), and the others.

    Last is what `latest` leads to, then by the time when the folder was written. `reports/published` is the user's.
    """
    new: list[Path] = []
    old: list[Path] = []
    for recipe in sorted(
        path for path in (workdir / "reports").glob("*") if path.is_dir() and path.name != "published"
    ):
        latest = (recipe / "latest").resolve()
        folders = [path for path in recipe.iterdir() if FINGERPRINT.fullmatch(path.name) and not path.is_symlink()]
        folders.sort(key=lambda path: (path.resolve() == latest, _newest_mtime(path)), reverse=True)
        new += folders[:keep]
        new += [path for path in folders[keep:] if path.name in promoted]
        old += [path for path in folders[keep:] if path.name not in promoted]
    return new, old


def promoted_fingerprints(workdir: Path) -> set[str]:
    """The fingerprints that models in the registry name, anywhere in `data/models/**/model.json`.

    Raises UserError where one cannot be read: what it needs would be taken for garbage.
    """
    fingerprints: set[str] = set()
    for path in (workdir / "data" / "models").glob("**/model.json"):
        try:
            fingerprints.update(FINGERPRINT.findall(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {error}", fix="mend it or remove that model") from error
    return fingerprints


def _reached(folders: list[OutputFolder], fingerprints: set[str]) -> set[str]:
    """`fingerprints` and those of all that they were made from, as the records tell (weights by their sha256)."""
    by_key = {folder.path.name: folder for folder in folders if folder.record is not None}
    writers: dict[str, set[str]] = {}
    for name, folder in by_key.items():
        for sha256 in folder.outputs:
            writers.setdefault(sha256, set()).add(name)
    reached: set[str] = set()
    queue = list(fingerprints)
    while queue:
        key = queue.pop()
        if key not in reached:
            reached.add(key)
            if key in by_key:
                queue += [*by_key[key].parents, *(name for sha in by_key[key].files for name in writers.get(sha, ()))]
    return reached


def _target_of(folder: OutputFolder, kept: set[str], old_keys: set[str], since: float) -> Target | None:
    """The folder as something to remove, with the reason; None where it is kept."""
    key, path, what = folder.path.name.removesuffix(".incomplete"), folder.path, folder.path.parent.name
    if folder.path.name != key:
        if not locks.free(path.with_name(f"{key}.lock")):
            return None  # a stage is at work in it
        if path.with_name(key).exists():
            return Target(path, what, UNREADABLE)
        return None if _newest_mtime(path) > since else Target(path, what, STOPPED)
    if folder.record is None:
        return Target(path, what, UNREADABLE)
    if key in kept:
        return None
    return Target(path, what, OLD if key in old_keys else LOOSE)


def _newest_mtime(folder: Path) -> float:
    """When the newest file in a folder was written, in seconds since 1970."""
    return max((status.st_mtime for status in statuses(folder)), default=0.0)


def collect(garbage: Garbage, on_removed: Callable[[Target], None] = lambda _: None) -> int:
    """Remove all of `garbage`; return the bytes freed. Hold the store alone (`Store.alone`) since before `find`."""
    freed = 0
    for target in garbage.targets:
        size = target.size_bytes
        remove(target.path)
        freed += size
        if target.what == "report":
            unlink_latest(target.path.parent)
        on_removed(target)
    for lock in garbage.lock_files:
        lock.unlink(missing_ok=True)
    return freed
