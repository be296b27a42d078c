"""`facegan forget`: shows what there is of a person and what descends from it; erases it on --yes."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Sequence
from pathlib import Path

from facegan.core.errors import ConfigError, UserError
from facegan.core.files import user_path
from facegan.core.units import format_bytes
from facegan.data.names import normal
from facegan.data.suppression import LIST, recorded_copies
from facegan.erasure.erase import erase, out_of_reach
from facegan.erasure.lineage import OUTSIDE, Target, find, known_identities
from facegan.store.bucket import Bucket
from facegan.store.object_storage import remotes
from facegan.store.workdir import store_of

MIN_SIMILARITY = 0.8
_EMPTY = (
    "delete all that lies there (`aws s3 rm --recursive`; older versions too, where the bucket keeps them), then give "
    "this again; runs make anew what they need"
)


def forget_person(identity: str, workdir: Path, also: Sequence[Path], yes: bool) -> list[str]:
    """Show or erase; return the lines to print. Raises UserError where a table cannot be read or a run is at work."""
    if not (workdir / "data" / "store").is_dir():
        raise ConfigError(f"'{workdir}' has no data/store: no run wrote there", fix="give --workdir")
    if missing := [path for path in also if not path.exists()]:
        raise ConfigError(f"--also {missing[0]}: there is nothing", fix="give the folder of an import or export")
    outside = sorted({*recorded_copies(workdir), *(user_path(path).absolute() for path in also)})
    with store_of(workdir).alone() if yes else contextlib.nullcontext():
        buckets = remotes(workdir).values()
        occupied = [url for url in buckets if Bucket(url).entries("")]
        if occupied and yes:
            raise UserError(
                f"stages that may show them lie at {occupied[0]}, where this command does not erase", fix=_EMPTY
            )
        names, similar = resolve_identity(identity, known_identities(workdir, outside))
        descendants = find(names, workdir, outside)
        targets = [target for target in descendants.targets if target.what != "history" and not target.unfinished]
        if not targets and not buckets:
            descendants.targets = []
        listing = table(descendants.targets)
        if yes:
            erase(descendants, workdir)
    lines = [
        f"{', '.join(sorted(descendants.names))}: {descendants.n_photos} photos in the store, "
        f"{descendants.n_synthetic} synthetic images that descend from them"
    ]
    lines += listing or ["nothing here holds them, or descends from them"]
    lines += [f"{url} may hold them: it has to be emptied before --yes" for url in occupied]
    if similar:
        lines.append(f"others with a similar name are kept: {', '.join(similar)}")
    if yes:
        erased = sum(1 for target in descendants.targets if target.what not in OUTSIDE)
        total = f"{erased} folders erased; " if erased else ""
        lines.append(f"{total}they stay out of runs and imports with this --workdir (data/{LIST})")
    lines += ["what this does not reach:", *(f"  - {line}" for line in out_of_reach(descendants))]
    return lines if yes else [*lines, "nothing was changed: give the same command with --yes to erase"]


def resolve_identity(identity: str, people: set[str]) -> tuple[set[str], list[str]]:
    """The identities that are meant, and others whose names are similar.

    A name without its dataset stands for the one person who has it; raises ConfigError where several have.
    """
    wanted = normal(identity)
    matches = {name for name in people if normal(name) == wanted}  # in each form in which an earlier version kept it
    if not matches and "/" in identity:
        matches = {identity}
    matches = matches or {name for name in people if normal(name.partition("/")[2]) == wanted}
    name = identity.rpartition("/")[2]
    others = ((_spelling_similarity(name, other.partition("/")[2]), other) for other in sorted(people - matches))
    similar = [other for similarity, other in others if similarity >= MIN_SIMILARITY][:5]
    if len(set(map(normal, matches))) != 1:
        suggestions = sorted(matches) or similar
        raise ConfigError(
            f"{len(matches) or 'no'} people are called '{identity}'",
            fix=f"give one of: {', '.join(suggestions)}" if suggestions else "give dataset/name, as in a manifest",
        )
    return matches, similar


def _spelling_similarity(first: str, second: str) -> float:
    """Likeness of two spellings, 0..1 (Ratcliff and Obershelp's, as difflib has it)."""
    return difflib.SequenceMatcher(None, first.casefold(), second.casefold()).ratio()


def table(targets: list[Target]) -> list[str]:
    """A line for each kind of folder and reason: how many, how large, why."""
    groups: dict[tuple[str, str], list[Target]] = {}
    for target in targets:
        groups.setdefault((target.what, target.why), []).append(target)
    lines = []
    for (what, why), group in groups.items():
        rows = sum(target.rows or 0 for target in group)
        row_note = f" ({rows} rows)" if rows else ""
        lines.append(
            f"  {len(group):5} x {what:17} {format_bytes(sum(t.size_bytes for t in group)):>10}  {why}{row_note}"
        )
        outside = [target.path for target in group if what in OUTSIDE]
        lines += [f"          {path}" for path in outside]
    return lines
