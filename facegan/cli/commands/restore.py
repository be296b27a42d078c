"""`facegan restore`: poor photos through the network that an arm {kind: restore} has learned."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from facegan.cli.commands.embed import files_of
from facegan.core.errors import ConfigError, UserError
from facegan.core.files import new_folder, write_atomic
from facegan.data.contact_sheet import side_by_side
from facegan.data.images import RETOUCHED, BadImage, decode, encode_png, to_square
from facegan.generation.restoration.network import SPEC, Restorer, load_restorer
from facegan.store.workdir import store_of

SHEET, SHOWN, A_ROW = "side-by-side.png", 60, 4
HOW = (
    "facegan stage derive RECIPE --set comparison.arm=restored "
    "--set 'arms={real: {}, restored: {set: {kind: restore}}}'"
)


def restore(images: Sequence[Path], out: Path, run: str | None, workdir: Path) -> Iterator[str]:
    """Write NAME.png of each photo, restored, and SHEET (degraded beside restored, the first SHOWN); yields lines.

    A photo is cut to its centre square and brought to the side of the run. Raises ConfigError where there is no photo
    or no such run, UserError where no photo can be read or two would have one name.
    """
    folder = find(run, workdir)
    net, files = load_restorer(folder), files_of(images)
    taken: dict[str, Path] = {}
    for file in files:
        if (first := taken.setdefault(f"{file.stem}.png", file)) != file:
            raise UserError(f"'{first}' and '{file}' would both become {file.stem}.png", fix="restore them apart")
    failed: list[str] = []
    shown: list[list[np.ndarray]] = []
    with new_folder(out) as unfinished:
        for name, file in taken.items():
            try:
                poor = read(file, net)
            except (BadImage, OSError) as error:
                failed.append(f"{file}: {error}")
                continue
            better = net.changed(poor)
            write_atomic(unfinished / name, encode_png(better, RETOUCHED))
            if len(shown) < SHOWN:
                shown.append([poor, better])
        if not shown:
            raise UserError(f"none of {len(files)} photos can be read; {failed[0]}", fix="give JPEG, PNG or the like")
        chunks = [shown[start : start + A_ROW] for start in range(0, len(shown), A_ROW)]
        lines = [list(itertools.chain.from_iterable(chunk)) for chunk in chunks]
        write_atomic(unfinished / SHEET, encode_png(side_by_side(lines), RETOUCHED))
    yield from (f"left out: {line}" for line in failed)
    yield f"{len(taken) - len(failed)} photos restored by {folder.name[:12]} at {net.size_px} px: {out}"
    yield f"{out / SHEET}: each photo, and beside it the restored one. A restored face is a guess, no evidence."


def find(run: str | None, workdir: Path) -> Path:
    """The folder of the stage derive that `run` names (the beginning of its fingerprint), or the last that restores.

    Raises ConfigError where there is none or several, UserError where its files were changed.
    """
    store = store_of(workdir)
    made = [path.parent for path in store.root.glob(f"derive/*/{SPEC}") if path.parent.suffix != ".incomplete"]
    found = [folder for folder in made if folder.name.startswith(run or "")]
    if not found:
        there = ", ".join(sorted(folder.name[:12] for folder in made))
        what = f"no restorer '{run}' in '{workdir}'; there are: {there}" if made else f"no restorer in '{workdir}'"
        raise ConfigError(what, fix=f"make one: {HOW}, or give its --workdir")
    if run and len(found) > 1:
        raise ConfigError(f"'{run}' begins {len(found)} fingerprints", fix="give more of it")
    folder = max(found, key=lambda path: (path.joinpath("record.json").stat().st_mtime_ns, path.name))
    hit, reason = store.lookup("derive", folder.name, {})
    if hit is None:
        raise UserError(f"the restorer {folder.name[:12]} is not whole: {reason}", fix="run its recipe again")
    return folder


def read(file: Path, net: Restorer) -> np.ndarray:
    """A photo as the network takes it, (side, side, C) uint8; raises BadImage or OSError."""
    pixels = np.array(to_square(decode(file.read_bytes()), net.size_px, "grey" if net.img_channels == 1 else "rgb"))
    return pixels.reshape(net.size_px, net.size_px, net.img_channels)
