"""`facegan overlap`: people who may have two names; a page to look at, and lists to put into a recipe."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from facegan.console.progress import ProgressBar
from facegan.core.errors import ConfigError
from facegan.core.files import user_path, write_private
from facegan.data import manifest
from facegan.data.duplicates import same_person
from facegan.data.duplicates.same_person import Pair
from facegan.data.names import normal
from facegan.data.options import Prepare
from facegan.evaluation.embedders import ImageEntry, InputOptions, embed_all, entries, face_embedder
from facegan.reporting.page import environment
from facegan.runtime.devices import device_of
from facegan.runtime.options import Runtime

PAGE, TABLE, ANSWER, LISTS = "index.html", "overlap.csv", "overlap.json", "overlap.yaml"
PHOTOS_SHOWN = 4  # photos of each identity on the page, the two most similar first
PAIRS_PRINTED = 20


@dataclass(frozen=True)
class OverlapArguments:
    """The options of the command beside manifest and embedder."""

    most: int = 50
    false_alarms: float = 0.1
    decided: Path | None = None
    batch_size: int = 64
    device: str = "auto"


@dataclass(frozen=True)
class People:
    """The real rows of a manifest that could be embedded: number, identity and split of each."""

    row: np.ndarray
    identity: np.ndarray
    split: np.ndarray


def run(
    path: Path, embedder: str, input_options: InputOptions, options: OverlapArguments, out: Path | None
) -> list[str]:
    """Find people with two names in a manifest; write the page and lists below `out`; return the lines to print."""
    path = user_path(path)
    if not path.exists():
        raise ConfigError(f"there is no manifest '{path}'", fix="give a folder that `facegan import` or a stage wrote")
    decided_pairs = decisions(options.decided)
    columns = manifest.read(path, ["identity", "source", "split"])
    net = face_embedder(embedder, input_options, device_of(Runtime(device=options.device)))
    with ProgressBar("overlap", "images") as progress:
        faces = embed_all(
            _entries(path, columns["source"].to_pylist()),
            net,
            batch_size=options.batch_size,
            progress=lambda done: progress.at(done, columns.num_rows),
        )
    acquired = faces.acquired
    row = faces.file[acquired].astype(np.int64)
    people = People(row, faces.identity[acquired], np.asarray(columns["split"].to_pylist(), object)[row])
    pairs = [
        pair
        for pair in same_person.find_pairs(
            faces.embedding[acquired], people.identity, options.most + len(decided_pairs)
        )
        if frozenset(map(normal, (pair.one, pair.other))) not in decided_pairs
    ]
    names = len(np.unique(people.identity))
    answer = {
        "embedder": net.name,
        "images": len(row),
        "failed": int((~acquired).sum()),
        "identities": names,
        "pairs": names * (names - 1) // 2,
        "settled": len(decided_pairs),
        "bound": options.false_alarms,
        "found": [_pair_as_json(pair, people, options.false_alarms) for pair in pairs],
    }
    lines = [*filter(None, [net.weights]), *_lines(answer)]
    if out is not None:
        _write(user_path(out), path, answer, pairs, people)
        lines += ["", f"{out / PAGE} shows them, {out / LISTS} has lists for your recipe; these files show faces"]
    return lines


def decisions(path: Path | None) -> set[frozenset[str]]:
    """The pairs on which a recipe, or the lists that this command wrote, decides; raises ConfigError."""
    if path is None:
        return set()
    try:
        recipe = yaml.safe_load(user_path(path).read_text())
        decided = {
            name: recipe["prepare"][name] for name in ("same_people", "different_people") if name in recipe["prepare"]
        }
        prepare = Prepare.model_validate({name: value or [] for name, value in decided.items()})
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValidationError) as error:
        raise ConfigError(
            f"--decided {path}: no recipe with lists in 'prepare' ({type(error).__name__})",
            fix=f"give a recipe file, or the {LISTS} that `facegan overlap --out` writes",
        ) from error
    groups = (*prepare.same_people, *prepare.different_people)
    return {frozenset(map(normal, (a, b))) for group in groups for a in group for b in group if a != b}


def _entries(path: Path, sources: list[str]) -> Iterator[ImageEntry]:
    """The real images, each with the number of its row as its file; `sources` has one for each row."""
    for number, (entry, source) in enumerate(zip(entries(path), sources, strict=True)):
        if source == "real":
            yield replace(entry, file=str(number))


def _pair_as_json(pair: Pair, people: People, bound: float) -> dict[str, Any]:
    """A pair as JSON: rounded, with the splits that its people stand in."""
    splits = [sorted(set(people.split[people.identity == name])) for name in (pair.one, pair.other)]
    alarms = pair.false_alarms
    return {
        **{name: value for name, value in asdict(pair).items() if name != "photos"},
        "centres": round(pair.centres, 4),
        "closest": round(pair.closest, 4),
        "false_alarms": None if alarms is None else float(f"{alarms:.2g}"),
        "marked": alarms is not None and alarms < bound,
        "across": ("test" in splits[0]) != ("test" in splits[1]),
        "splits": ["/".join(names) for names in splits],
        "photos": [int((people.identity == name).sum()) for name in (pair.one, pair.other)],
        "rows": people.row[list(pair.photos)].tolist(),
    }


def _lines(answer: dict[str, Any]) -> list[str]:
    """The answer as lines for a terminal."""
    marked = [pair for pair in answer["found"] if pair["marked"]]
    counts = f"{answer['images']:,} photos of {answer['identities']:,} identities, {answer['pairs']:,} pairs of them"
    lines = [counts + (f"; {answer['failed']} photos could not be read" if answer["failed"] else "")]
    if answer["settled"]:
        lines.append(f"{answer['settled']} pairs are decided already and left out")
    if answer["identities"] < same_person.FEWEST:
        lines.append(f"fewer than {same_person.FEWEST} identities: too few to say how many pairs are alike by chance")
    lines.append(
        f"{len(marked)} pairs marked: as similar as fewer than {answer['bound']:g} pairs of different people would be"
    )
    if across := sum(pair["across"] for pair in marked):
        lines.append(f"{across} of them with one in test and the other not: the benchmark would be of people it knows")
    printed = answer["found"][:PAIRS_PRINTED]
    if printed:
        lines += ["", "     false alarms  centres  closest  identities"]
    for pair in printed:
        alarms = "?" if pair["false_alarms"] is None else f"{pair['false_alarms']:.2g}"
        notes = [text for text, on in (("spelled alike", pair["spelled"]), ("across test", pair["across"])) if on]
        remark = f"  ({', '.join(notes)})" if notes else ""
        lines.append(
            f"  {'*' if pair['marked'] else ' '} {alarms:>13}  {pair['centres']:7.3f}  {pair['closest']:7.3f}"
            f"  {pair['one']} = {pair['other']}?{remark}"
        )
    n_more = len(answer["found"]) - len(printed)
    return [*lines, *([f"    and {n_more} more"] if n_more else [])]


def _write(out: Path, path: Path, answer: dict[str, Any], pairs: list[Pair], people: People) -> None:
    """The page, a table, JSON and lists for a recipe, for their owner alone."""
    photos = _photos_of_pairs(path, pairs, people)
    page = environment().get_template("overlap.html.j2").render({**answer, "photos": photos, "shown": PHOTOS_SHOWN})
    write_private(out / PAGE, page.encode())
    write_private(out / ANSWER, json.dumps(answer, indent=1).encode())
    table = io.StringIO()
    names = ("marked", "false_alarms", "centres", "closest", "one", "other", "spelled", "across")
    writer = csv.DictWriter(table, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(answer["found"])
    write_private(out / TABLE, table.getvalue().encode())
    write_private(out / LISTS, lists(answer["found"]).encode())


def lists(pairs: list[dict[str, Any]]) -> str:
    """YAML for a recipe: the marked pairs as same_people, joined where they share a name; to be looked at first."""
    groups: list[list[str]] = []
    for pair in (pair for pair in pairs if pair["marked"]):
        joined = [group for group in groups if {pair["one"], pair["other"]} & set(group)]
        names = dict.fromkeys([name for group in joined for name in group] + [pair["one"], pair["other"]])
        groups = [*(group for group in groups if group not in joined), list(names)]
    recipe = {"prepare": {"same_people": groups, "different_people": [], "left_out": []}}
    return (
        "# Look at each pair first. Move those of two people to different_people; to be rid of an identity, name it\n"
        "# in left_out. Then put this into your recipe, and give it to `facegan overlap --decided` for what is left.\n"
    ) + yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=10_000, default_flow_style=None)


def _photos_of_pairs(path: Path, pairs: list[Pair], people: People) -> list[tuple[list[bytes], list[bytes]]]:
    """For each pair the photos of both to show, the most similar ones first."""
    chosen = [
        tuple(_rows_shown(people, name, closest) for name, closest in zip((p.one, p.other), p.photos, strict=True))
        for p in pairs
    ]
    rows = np.asarray(sorted({row for pair in chosen for side in pair for row in side}), np.int64)
    images = (item["image"]["bytes"] for item in manifest.at(path, rows, ["image"]))
    data = dict(zip(rows.tolist(), images, strict=True))
    return [([data[row] for row in first], [data[row] for row in other]) for first, other in chosen]


def _rows_shown(people: People, name: str, closest: int) -> list[int]:
    others = [index for index in np.flatnonzero(people.identity == name).tolist() if index != closest]
    return people.row[[closest, *others][:PHOTOS_SHOWN]].tolist()  # type: ignore[no-any-return]
