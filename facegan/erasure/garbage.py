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
    """What may go, in the order to remove it: `targets`; lock files that nobody needs; what stays, counted."""

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
    promoted = roots(workdir)
    new, old = reports(workdir, keep, promoted)
    wanted = _reached(folders, promoted.union(*map(behind_report, new)))
    told = _reached(folders, set().union(*map(behind_report, old)))
    since = time.time() - days * DAY_S
    finished = [one for one in folders if one.record is not None]
    young = {one.path.name for one in finished if one.path.name not in wanted | told and _written(one.path) > since}
    wanted |= _reached(folders, young)
    found = Garbage(young=len(young))
    for folder in folders:
        target = _target(folder, wanted, told, since)
        if target is None:
            found.kept += 1
            found.kept_bytes += Target(folder.path, "", "").size_bytes
        else:
            found.targets.append(target)
    gone = {target.path for target in found.targets}
    found.targets += [Target(path, "report", "older than those that are kept") for path in old]
    found.targets += fetched(workdir)
    for lock in sorted((workdir / "data" / "store").glob("*/*.lock")):
        made, unfinished = lock.with_suffix(""), lock.with_suffix(".incomplete")
        needed = any(path.exists() and path not in gone for path in (made, unfinished))
        if not needed and locks.free(lock):
            found.lock_files.append(lock)
    return found


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
        found = [path for path in recipe.iterdir() if FINGERPRINT.fullmatch(path.name) and not path.is_symlink()]
        found.sort(key=lambda path: (path.resolve() == latest, _written(path)), reverse=True)
        new += found[:keep]
        new += [path for path in found[keep:] if path.name in promoted]
        old += [path for path in found[keep:] if path.name not in promoted]
    return new, old


def roots(workdir: Path) -> set[str]:
    """The fingerprints that models in the registry name, anywhere in `data/models/**/model.json`.

    Raises UserError where one cannot be read: what it needs would be taken for garbage.
    """
    named: set[str] = set()
    for path in (workdir / "data" / "models").glob("**/model.json"):
        try:
            named.update(FINGERPRINT.findall(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {error}", fix="mend it or remove that model") from error
    return named


def _reached(folders: list[OutputFolder], roots: set[str]) -> set[str]:
    """The fingerprints `roots` and of all that they were made from, as the records tell (weights by their sha256)."""
    made = {one.path.name: one for one in folders if one.record is not None}
    writers: dict[str, set[str]] = {}
    for name, one in made.items():
        for sha256 in one.outputs:
            writers.setdefault(sha256, set()).add(name)
    reached: set[str] = set()
    left = list(roots)
    while left:
        key = left.pop()
        if key not in reached:
            reached.add(key)
            if key in made:
                left += [*made[key].parents, *(name for sha in made[key].files for name in writers.get(sha, ()))]
    return reached


def _target(folder: OutputFolder, wanted: set[str], told: set[str], since: float) -> Target | None:
    """The folder as something to remove, with the reason; None where it is kept."""
    key, path, what = folder.path.name.removesuffix(".incomplete"), folder.path, folder.path.parent.name
    if folder.path.name != key:
        if not locks.free(path.with_name(f"{key}.lock")):
            return None  # a stage is at work in it
        if path.with_name(key).exists():
            return Target(path, what, UNREADABLE)
        return None if _written(path) > since else Target(path, what, STOPPED)
    if folder.record is None:
        return Target(path, what, UNREADABLE)
    if key in wanted:
        return None
    return Target(path, what, OLD if key in told else LOOSE)


def _written(folder: Path) -> float:
    """When the newest of what lies in a folder was written, in seconds since 1970."""
    return max((status.st_mtime for status in statuses(folder)), default=0.0)


def collect(found: Garbage, on_removed: Callable[[Target], None] = lambda _: None) -> int:
    """Remove all that was found and return the bytes; hold the store alone (`Store.alone`) since before `find`."""
    freed = 0
    for target in found.targets:
        size = target.size_bytes
        remove(target.path)
        freed += size
        if target.what == "report":
            unlink_latest(target.path.parent)
        on_removed(target)
    for lock in found.lock_files:
        lock.unlink(missing_ok=True)
    return freed
