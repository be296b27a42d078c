"""`facegan gc`: shows what no recent report and no promoted model needs; removes it on --yes."""

from __future__ import annotations

import contextlib
from pathlib import Path

from facegan.cli.commands.forget import table
from facegan.core.errors import ConfigError
from facegan.core.units import format_bytes
from facegan.erasure.garbage import collect, find
from facegan.store.object_storage import remotes
from facegan.store.workdir import store_of


def collect_garbage(workdir: Path, keep: int, days: float, yes: bool) -> list[str]:
    """Show or remove; return the lines to print. Raises UserError where a run is at work and `yes` is given."""
    store = store_of(workdir)
    if not store.root.is_dir():
        raise ConfigError(f"'{workdir}' has no data/store: no run wrote there", fix="give --workdir")
    with store.alone() if yes else contextlib.nullcontext():
        garbage = find(workdir, keep, days)
        lines = table(garbage.targets)
        total = sum(target.size_bytes for target in garbage.targets)
        freed = collect(garbage) if yes else 0
    lines += [f"{url} was not looked at: other machines may need what lies there" for url in remotes(workdir).values()]
    why = _why(keep, days, garbage.young)
    lines.append(f"{garbage.kept} folders of the store stay, {format_bytes(garbage.kept_bytes)}: {why}")
    if yes:
        removed = f"{len(garbage.targets)} folders and {len(garbage.lock_files)} lock files"
        return [*lines, f"freed {format_bytes(freed)}: {removed} removed"]
    if not garbage.targets and not garbage.lock_files:
        return [*lines, "there is nothing to remove"]
    locks = f" and {len(garbage.lock_files)} lock files" if garbage.lock_files else ""
    return [*lines, f"nothing was changed: the same command with --yes frees {format_bytes(total)}{locks}"]


def _why(keep: int, days: float, young: int) -> str:
    young_note = f"; {young} of them belong to no report but are younger than {days:g} days" if young else ""
    kept_reports = "the last report" if keep == 1 else f"the last {keep} reports"
    return f"{kept_reports} of each recipe, promoted models and what they were made from{young_note}"
