"""`facegan align` and `facegan inspect`: options to the library's words, its answers to lines, with progress."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from facegan.console.screen import ProgressBar
from facegan.core.errors import ConfigError
from facegan.core.files import write_atomic
from facegan.core.options import merge
from facegan.core.units import span
from facegan.data.align_photos import SHEET, TABLE, align
from facegan.data.inspect_manifest import inspect, pictures
from facegan.data.options import Align
from facegan.reporting.page import environment

PAGE = "index.html"


def align_photos(photos: Path, out: Path, size_px: int, sets: list[str]) -> list[str]:
    """Align a folder or zip; return the lines to print. Raises UserError as `facegan.data.align_photos.align`."""
    options, started = _options(sets), time.monotonic()
    with ProgressBar("align", "photos") as counting:
        found = align(photos.expanduser(), out.expanduser(), options, size_px, counting.at)
    seconds = time.monotonic() - started
    lines = [f"  {count:6} {what}" for what, count in found.outcomes.most_common()]
    each = f"{1000 * seconds / max(1, found.photos):.0f} ms each"
    lines.insert(0, f"{found.photos} photos in {span(seconds)}, {each}, by {options.detector.note()}:")
    if found.several:
        lines.append(f"  {found.several} of the aligned photos showed several faces: '{options.faces}' was taken")
    return [*lines, f"{out / SHEET} shows some of each person; {out / TABLE} says what became of each photo"]


def _options(sets: list[str]) -> Align:
    data: dict[str, Any] = {"detector": {"kind": "dlib"}}
    for word in sets:
        path, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--set needs OPTION=VALUE, got '{word}'", fix="for example --set faces=centre")
        layer = yaml.safe_load(value)
        for name in reversed(path.split(".")):
            layer = {name: layer}
        data = merge(data, layer)
    try:
        return Align.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", fix="see docs/use/align.md") from None


def inspect_manifest(path: Path, out: Path | None, check: bool, as_json: bool) -> tuple[list[str], bool]:
    """What there is to print of a manifest, and whether it is sound; writes a page and a contact sheet below `out`."""
    with ProgressBar("inspect", "images") as counting:
        found = inspect(path.expanduser(), check, counting.at)
    sound = not found.get("faults") and not found["unreadable"]
    tables = _tables(found)
    written = []
    if out is not None:
        sheet = pictures(path.expanduser())
        write_atomic(out / SHEET, sheet)
        page = environment().get_template("inspect.html.j2").render({**found, "tables": tables, "sheet": sheet})
        write_atomic(out / PAGE, page.encode())
        written = [f"{out / PAGE} and {out / SHEET} show it"]
    if as_json:
        return [json.dumps(found, indent=1)], sound
    lines = [f"{found['images']} images of {found['identities']} people"]
    for title, rows in tables.items():
        lines += ["", title, *(f"  {name}: {value}" for name, value in rows)]
    return [*lines, *([""] if written else []), *written], sound


def _tables(found: dict[str, Any]) -> dict[str, list[tuple[str, Any]]]:
    """{title: rows of (name, value)} for a person; what there is nothing to say of is left out."""
    near = found["near_duplicates"]
    listed = [(f"{p['identity']} {p['image_id'][:10]}", f"{p['other_identity']} {p['other_image_id'][:10]}")
              for p in near["listed"]]  # fmt: skip
    tables: dict[str, list[tuple[str, Any]]] = {
        "Split": [(k, f"{v['images']} images of {v['identities']} people") for k, v in found["groups"].items()],
        "Images of each person": list((found["images_per_identity"] or {}).items()),
        "Size in px": list(found["sizes"].items()),
        "Format": list(found["formats"].items()),
        "Licence": list(found["licenses"].items()),
        "Dataset": list(found["datasets"].items()),
        "Quality (0 to 1)": list((found["quality"] or {}).items()),
        "Duplicates": [
            ("same bytes as an earlier image", found["exact_duplicates"]),
            ("pairs nearly the same", near["pairs"]),
            ("of these, of two people", near["across"]),
        ],
        "Nearly the same": listed,
        "Quarantine": list((found["quarantine"] or {}).items()),
        "Other": [("with landmarks", found["with_landmarks"]), ("unreadable", found["unreadable"])],
    }
    if "faults" in found:
        tables["Faults"] = [(str(n), fault) for n, fault in enumerate(found["faults"], 1)] or [("none", "it is sound")]
    return {title: rows for title, rows in tables.items() if rows}
