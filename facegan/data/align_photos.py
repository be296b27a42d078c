"""`facegan align`: un-aligned photos to a folder of aligned faces, with a contact sheet and what was left out."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from facegan.core.errors import ConfigError
from facegan.core.files import write_atomic
from facegan.data import contact_sheet
from facegan.data.contact_sheet import evenly_chosen
from facegan.data.images import BadImage, decode, encode_png, to_eight_bits
from facegan.data.options import Align
from facegan.data.preparation.alignment import Aligner
from facegan.data.preparation.quality import measure
from facegan.data.sources.folder import Folder

SHEET, TABLE = "contact-sheet.png", "align.csv"
COLUMNS = ("file", "identity", "outcome", "face_px", "quality", "written")
MEGAPIXELS = 100


@dataclass
class Outcome:
    """What came of it: photos by outcome (`aligned` or the reason), and how many showed several faces."""

    outcomes: Counter[str] = field(default_factory=Counter)
    several: int = 0
    photos: int = 0
    taken: list[str] = field(default_factory=list)


def align(
    root: Path,
    out: Path,
    options: Align,
    size_px: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    level: int | None = None,
    identity_column: str | None = None,
) -> Outcome:
    """Write `out/PERSON/NAME.png` (size_px, RGB), `out/align.csv` and `out/contact-sheet.png`.

    The faces lie in a folder that the source `folder` reads: its own files lie beside the people. Raises ConfigError
    when `out` holds anything, UserError as the source and the detector do.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"'{out}' is not empty", fix="give a folder that is empty or not there yet")
    source = Folder(root=str(root), level=level, identity_column=identity_column)
    rows = list(source.rows())
    aligner, result = Aligner(options), Outcome(photos=len(rows), taken=source.notes.lines())
    thumbnails: dict[str, list[Image.Image]] = {
        name: [] for name in evenly_chosen(sorted({r.identity for r in rows}), contact_sheet.PEOPLE)
    }
    table, taken = io.StringIO(), set[str]()
    writer = csv.DictWriter(table, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for number, row in enumerate(rows, start=1):
        line: dict[str, object] = {"file": row.relative, "identity": row.identity}
        try:
            photo = to_eight_bits(decode(row.read(), MEGAPIXELS), "rgb")
            aligned = aligner(photo, row.landmarks, size_px)
        except (BadImage, OSError) as error:
            line["outcome"] = str(error)
        else:
            pixels, name = np.asarray(aligned.image), _free(row.relative, taken)
            write_atomic(out / name, encode_png(pixels))
            score = measure(pixels, aligned.landmarks).score
            line |= {
                "outcome": "aligned",
                "face_px": f"{aligned.face_px:.1f}",
                "quality": f"{score:.3f}",
                "written": name,
            }
            if len(thumbnails.get(row.identity, [None] * contact_sheet.EACH)) < contact_sheet.EACH:
                thumbnails[row.identity].append(contact_sheet.thumbnail(aligned.image))
        result.outcomes[str(line["outcome"])] += 1
        writer.writerow(line)
        progress(number, len(rows))
    result.several = aligner.several
    write_atomic(out / TABLE, table.getvalue().encode())
    by_person = {name.split("/", 1)[1]: images for name, images in thumbnails.items() if images}
    write_atomic(out / SHEET, contact_sheet.sheet(by_person))
    return result


def _free(relative: str, taken: set[str]) -> str:
    """`person/1.png` for `person/1.jpg`; with the old ending too where that is taken (`person/1.bmp.png`)."""
    plain = PurePosixPath(relative).with_suffix(".png").as_posix()
    name = plain if plain not in taken else f"{relative}.png"
    taken.add(name)
    return name
