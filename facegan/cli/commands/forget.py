"""`facegan forget`: shows what there is of a person and what descends from it; erases it on --yes."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Sequence
from pathlib import Path

from facegan.core.errors import ConfigError, UserError
from facegan.core.units import size
from facegan.data.suppression import LIST, copies
from facegan.erasure.erase import beyond, erase
from facegan.erasure.lineage import OUTSIDE, Target, find, known
from facegan.store.bucket import Bucket
from facegan.store.object_storage import remotes
from facegan.store.workdir import store_of

ALIKE = 0.8
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
    outside = sorted({*copies(workdir), *(path.expanduser().absolute() for path in also)})
    with store_of(workdir).alone() if yes else contextlib.nullcontext():
        buckets = remotes(workdir).values()
        full = [url for url in buckets if Bucket(url).entries("")]
        if full and yes:
            raise UserError(
                f"stages that may show them lie at {full[0]}, where this command does not erase", fix=_EMPTY
            )
        names, alike = named(identity, known(workdir, outside))
        found = find(names, workdir, outside)
        theirs = [target for target in found.targets if target.what != "history" and not target.unfinished]
        if not theirs and not buckets:
            found.targets = []
        told = table(found.targets)
        if yes:
            erase(found, workdir)
    counts = f"{found.photos_of_theirs} photos in the store, {found.synthetic} synthetic images that descend from them"
    lines = [f"{', '.join(sorted(found.names))}: {counts}"]
    lines += told or ["nothing here holds them, or descends from them"]
    lines += [f"{url} may hold them: it has to be emptied before --yes" for url in full]
    if alike:
        lines.append(f"others with a similar name are kept: {', '.join(alike)}")
    if yes:
        erased = sum(1 for target in found.targets if target.what not in OUTSIDE)
        total = f"{erased} folders erased; " if erased else ""
        lines.append(f"{total}they stay out of runs and imports with this --workdir (data/{LIST})")
    lines += ["what this does not reach:", *(f"  - {line}" for line in beyond(found))]
    return lines if yes else [*lines, "nothing was changed: give the same command with --yes to erase"]


def named(identity: str, people: set[str]) -> tuple[set[str], list[str]]:
    """The identities that are meant, and others whose names are similar.

    A name without its dataset stands for the one person who has it; raises ConfigError where several have.
    """
    fitting = {identity} if identity in people or "/" in identity else {
        name for name in people if name.partition("/")[2] == identity
    }  # fmt: skip
    said = identity.rpartition("/")[2]
    near = [one for one in sorted(people - fitting) if _alike(said, one.partition("/")[2]) >= ALIKE][:5]
    if len(fitting) != 1:
        guess = sorted(fitting) or near
        raise ConfigError(
            f"{len(fitting) or 'no'} people are called '{identity}'",
            fix=f"give one of: {', '.join(guess)}" if guess else "give dataset/name, as in a manifest",
        )
    return fitting, near


def _alike(one: str, other: str) -> float:
    """Likeness of two spellings, 0..1 (Ratcliff and Obershelp's, as difflib has it)."""
    return difflib.SequenceMatcher(None, one.casefold(), other.casefold()).ratio()


def table(targets: list[Target]) -> list[str]:
    """A line for each kind of folder and reason: how many, how large, why."""
    groups: dict[tuple[str, str], list[Target]] = {}
    for target in targets:
        groups.setdefault((target.what, target.why), []).append(target)
    lines = []
    for (what, why), group in groups.items():
        rows = sum(target.rows or 0 for target in group)
        more = f" ({rows} rows)" if rows else ""
        lines.append(f"  {len(group):5} x {what:17} {size(sum(t.size_bytes for t in group)):>10}  {why}{more}")
        outside = [target.path for target in group if what in OUTSIDE]
        lines += [f"          {path}" for path in outside]
    return lines
