"""`facegan align` and `facegan inspect`: arguments to options, results to lines, with progress."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from facegan.cli.commands.import_export import source
from facegan.console.progress import ProgressBar
from facegan.core.errors import ConfigError
from facegan.core.files import user_path, write_atomic
from facegan.core.options import merge
from facegan.core.units import format_seconds
from facegan.data.align_photos import SHEET, TABLE, align
from facegan.data.inspect_manifest import inspect, pictures
from facegan.data.manifest import is_manifest
from facegan.data.names import alike_lines, spelled_alike
from facegan.data.options import Align
from facegan.data.preparation import quarantine
from facegan.data.sources import NOBODY, SOURCES, SourceConfig
from facegan.recipe.load import read_value
from facegan.reporting.page import environment

PAGE = "index.html"
PEOPLE_SHOWN = 20


def align_photos(
    photos: Path, out: Path, size_px: int, sets: list[str], level: int | None = None, identity_column: str | None = None
) -> list[str]:
    """Align a folder or zip; return the lines to print. Raises UserError as `facegan.data.align_photos.align`."""
    options, started = _options(sets), time.monotonic()
    with ProgressBar("align", "photos") as progress:
        result = align(user_path(photos), user_path(out), options, size_px, progress.at, level, identity_column)
    seconds = time.monotonic() - started
    lines = [f"  {count:6} {what}" for what, count in result.outcomes.most_common()]
    per_photo = f"{1000 * seconds / max(1, result.photos):.0f} ms each"
    lines.insert(0, f"{result.photos} photos in {format_seconds(seconds)}, {per_photo}, by {options.detector.note()}:")
    if result.several:
        lines.append(f"  {result.several} of the aligned photos showed several faces: '{options.faces}' was taken")
    return [
        *lines,
        *result.taken,
        f"{out / SHEET} shows some of each person; {out / TABLE} says what became of each photo",
    ]


def _options(sets: list[str]) -> Align:
    data: dict[str, Any] = {"detector": {"kind": "dlib"}}
    for word in sets:
        path, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--set needs OPTION=VALUE, got '{word}'", fix="for example --set faces=centre")
        layer = read_value(Align, path.split("."), value, data)
        for name in reversed(path.split(".")):
            layer = {name: layer}
        data = merge(data, layer)
    try:
        return Align.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", fix="see docs/use/align.md") from None


def inspect_faces(
    word: str, out: Path | None, check: bool, as_json: bool, options: dict[str, Any]
) -> tuple[list[str], bool]:
    """`inspect_manifest` of a manifest; else whom the source that `word` names would be taken for, and True."""
    path = user_path(word)
    if is_manifest(path) or not (":" in word or path.exists() or word in SOURCES.load()):
        return inspect_manifest(path, out, check, as_json)
    if out is not None or check:
        raise ConfigError(f"'{word}' is no manifest: --out and --validate are of one", fix="facegan import makes one")
    answer = inspect_source(source(word, options))
    if as_json:
        return [json.dumps(answer, indent=1)], True
    return source_lines(answer), True


def inspect_source(faces: SourceConfig) -> dict[str, Any]:
    """Who would be whom; raises UserError as `rows`.

    images, identities, images_per_identity {name: images}, examples {name: file}, taken (lines), left_out {what:
    entries}, refused {reason: images} as far as it is known before a photo is read, spelled_alike (groups).
    """
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    refused: Counter[str] = Counter()
    remarks: Counter[str] = Counter()
    for row in faces.rows():
        remarks.update(row.remarks)
        if row.identity.endswith(NOBODY):
            try:
                row.read()
            except OSError as error:
                refused[quarantine.reason(error)] += 1
            continue
        counts[row.identity] += 1
        examples.setdefault(row.identity, row.relative)
    return {
        "images": counts.total(),
        "identities": len(counts),
        "images_per_identity": dict(sorted(counts.items())),
        "examples": examples,
        "taken": [*faces.notes.taken, *(f"{remark} ({count:,} images)" for remark, count in remarks.items())],
        "left_out": {several: count for (_, several), count in faces.notes.left_out.items()},
        "left_out_line": faces.notes.left_out_line(),
        "refused": dict(refused.most_common()),
        "spelled_alike": [list(group) for group in spelled_alike(counts)],
    }


def source_lines(answer: dict[str, Any]) -> list[str]:
    """The answer of `inspect_source` as lines for a terminal."""
    people: dict[str, int] = answer["images_per_identity"]
    lines = [f"{answer['images']:,} images of {answer['identities']:,} people", *answer["taken"]]
    lines += [answer["left_out_line"]] if answer["left_out_line"] else []
    lines += alike_lines(people)
    lines += [f"{count:,} x {reason}" for reason, count in answer["refused"].items()]
    shown = list(people.items())[:PEOPLE_SHOWN]
    lines += ["", *(f"  {name}: {count:,} images, such as {answer['examples'][name]}" for name, count in shown)]
    return [*lines, *([f"  and {len(people) - len(shown):,} more"] if len(people) > len(shown) else [])]


def inspect_manifest(path: Path, out: Path | None, check: bool, as_json: bool) -> tuple[list[str], bool]:
    """The lines to print of a manifest, and whether it is sound; writes a page and a contact sheet below `out`."""
    with ProgressBar("inspect", "images") as progress:
        result = inspect(user_path(path), check, progress.at)
    sound = not result.get("faults") and not result["unreadable"]
    tables = _tables(result)
    note = []
    if out is not None:
        sheet = pictures(user_path(path))
        write_atomic(out / SHEET, sheet)
        page = environment().get_template("inspect.html.j2").render({**result, "tables": tables, "sheet": sheet})
        write_atomic(out / PAGE, page.encode())
        note = [f"{out / PAGE} and {out / SHEET} show it"]
    if as_json:
        return [json.dumps(result, indent=1)], sound
    lines = [f"{result['images']} images of {result['identities']} people"]
    for title, rows in tables.items():
        lines += ["", title, *(f"  {name}: {value}" for name, value in rows)]
    return [*lines, *([""] if note else []), *note], sound


def _tables(result: dict[str, Any]) -> dict[str, list[tuple[str, Any]]]:
    """{title: rows of (name, value)} to print; empty tables are left out."""
    near_duplicates = result["near_duplicates"]
    listed = [(f"{pair['identity']} {pair['image_id'][:10]}", f"{pair['other_identity']} {pair['other_image_id'][:10]}")
              for pair in near_duplicates["listed"]]  # fmt: skip
    tables: dict[str, list[tuple[str, Any]]] = {
        "Split": [(k, f"{v['images']} images of {v['identities']} people") for k, v in result["groups"].items()],
        "Images of each person": list((result["images_per_identity"] or {}).items()),
        "Size in px": list(result["sizes"].items()),
        "Format": list(result["formats"].items()),
        "Licence": list(result["licenses"].items()),
        "Dataset": list(result["datasets"].items()),
        "Quality (0 to 1)": list((result["quality"] or {}).items()),
        "Duplicates": [
            ("same bytes as an earlier image", result["exact_duplicates"]),
            ("pairs nearly the same", near_duplicates["pairs"]),
            ("of these, of two people", near_duplicates["across"]),
        ],
        "Nearly the same": listed,
        "Quarantine": list((result["quarantine"] or {}).items()),
        "Other": [(name.replace("_", " "), result[name]) for name in ("with_landmarks", "held_out", "unreadable")],
    }
    if "faults" in result:
        tables["Faults"] = [(str(n), fault) for n, fault in enumerate(result["faults"], 1)] or [("none", "it is sound")]
    return {title: rows for title, rows in tables.items() if rows}
