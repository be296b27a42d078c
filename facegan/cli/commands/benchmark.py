"""`facegan benchmark`: any embedder, scored on the user's faces by the code that scores a run's recognizers."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from facegan.cli.commands import compare_embedders as compare
from facegan.cli.commands import import_export
from facegan.console import tables
from facegan.console.progress import ImageCounter
from facegan.console.screen import console
from facegan.core.errors import ConfigError
from facegan.core.files import user_path
from facegan.core.units import format_seconds
from facegan.data import manifest
from facegan.data.pair_lists import read_pairs
from facegan.data.sources import NOBODY, SourceImage, SourceNotes
from facegan.evaluation import asked
from facegan.evaluation.embedded_faces import EmbeddedFaces, OwnPeople
from facegan.evaluation.embedders import FaceEmbedder, ImageEntry, InputOptions, embed_all, entries, face_embedder
from facegan.evaluation.model_figures import ModelFigures
from facegan.evaluation.options import AnyBenchmark
from facegan.evaluation.pair_scores import named_in
from facegan.evaluation.protocols import PROTOCOLS, ProtocolConfig
from facegan.evaluation.score_files import (
    FORMS,
    ScoreFile,
    aligned,
    all_comparisons,
    listed_comparisons,
    read_scores,
    score_pairs_of,
    write_scores,
)
from facegan.runtime.devices import device_of
from facegan.runtime.options import Runtime


@dataclass(frozen=True)
class BenchmarkArguments:
    """The options of the command beside embedder and data; `source` are those of a source."""

    pairs: Path | None = None
    benchmarks: tuple[str, ...] = ()
    split: str | None = None
    flip: bool = False
    templates: bool = False
    batch_size: int = 64
    device: str = "auto"
    source: dict[str, Any] = field(default_factory=dict)
    scores: tuple[Path, ...] = ()
    save_scores: Path | None = None
    score_form: str = "bob"
    det: Path | None = None


def benchmarks(options: BenchmarkArguments) -> list[ProtocolConfig]:
    """The protocols of the options; with --pairs that list alone, without any option all pairs and all searches.

    With files of scores there are no searches.
    """
    specs = [yaml.safe_load(text) for text in options.benchmarks]
    specs = [{"kind": spec} if isinstance(spec, str) else spec for spec in specs]
    if options.pairs is not None:
        specs.insert(0, {"kind": "pairs", "file": str(options.pairs)})
    usual = [{"kind": "verification"}] if options.scores else [{"kind": "verification"}, {"kind": "identification"}]
    specs = specs or usual
    try:
        protocols: list[ProtocolConfig] = TypeAdapter(list[AnyBenchmark]).validate_python(specs)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"][1:])
        raise ConfigError(
            f"--benchmark {option}: {first['msg']}", fix=f"the benchmarks are: {', '.join(PROTOCOLS.load())}"
        ) from None
    for protocol in protocols:
        protocol.fingerprint()  # raises where a file is missing
    return protocols


def images_of(
    word: str, split: str | None, options: dict[str, Any]
) -> tuple[Iterator[ImageEntry], list[tuple[str, str]], SourceNotes | None]:
    """The images at a path, (identity, file) of those that the manifest's own quarantine holds, a source's notes."""
    path = user_path(word)
    if not manifest.is_manifest(path):
        if split is not None:
            raise ConfigError(f"'{path}' is no manifest: it has no split '{split}'", fix="leave --split out")
        source = import_export.source(word, options)
        rows = source.rows()
        first = next(rows, None)  # by now it is known who is whom
        listed = itertools.chain([] if first is None else [first], rows)
        return _with_names(listed, source.notes), [], source.notes

    quarantine = path / "quarantine.parquet"
    quarantined = pq.read_table(quarantine).to_pylist() if quarantine.is_file() else []
    in_split = (row for row in quarantined if row.get("split") and split in (None, row["split"]))
    return entries(path, split), [(row["identity"], row["file"]) for row in in_split], None


def _with_names(rows: Iterable[SourceImage], notes: SourceNotes) -> Iterator[ImageEntry]:
    """The images of somebody: those of nobody that is known cannot be compared, and are counted in the notes."""
    for row in rows:
        if row.identity.endswith(NOBODY):
            notes.leave_out(("image that names nobody", "images that name nobody"), row.relative)
        else:
            yield ImageEntry(row.identity, row.relative, row.group, row.read)


def run(
    embedders: Sequence[str], data: str | None, input_options: InputOptions, options: BenchmarkArguments,
    json_to: str | None,
) -> None:  # fmt: skip
    """Embed, score, and print a table (and JSON); raises UserError as the parts do.

    Several embedders, or files of scores beside them, are compared with the first.
    """
    started = time.monotonic()
    if not (embedders or options.scores):
        raise ConfigError(
            "nothing is given to be scored", fix="give --embedder E (several times to compare) or --scores"
        )
    if embedders and data is None:
        raise ConfigError("an embedder needs faces", fix="give --data: a manifest, a folder of people's folders, a zip")
    if options.score_form not in FORMS:
        raise ConfigError(f"--score-form '{options.score_form}' is not known", fix=f"the forms are: {', '.join(FORMS)}")
    protocols = benchmarks(options)
    if options.score_form != "bob" and options.save_scores is None:
        raise ConfigError("--score-form says how scores are saved, and none are", fix="give --save-scores DIR too")
    if options.det is not None:
        compare.check_det(options.det, protocols)
    labels = compare.labels([*embedders, *map(str, options.scores)])
    out = console(to_stderr=json_to == "-")
    nets = [face_embedder(spec, input_options, device_of(Runtime(device=options.device))) for spec in embedders]
    files = _score_files(options, protocols, out)
    embedded = [_embedded(net, data or "", protocols, options, out, net is nets[0]) for net in nets]
    if files:
        sides = compare.by_scores(files, list(zip(labels, embedded, strict=False)), protocols)
    else:
        sides = compare.by_faces(list(zip(labels, embedded, strict=True)), protocols)
    answers = [_answer(net, faces, side) for net, faces, side in zip(nets, embedded, sides, strict=False)]
    of_files = zip(options.scores, sides[len(nets) :], strict=True)
    answers += [{"scores": str(path), "benchmarks": side.results} for path, side in of_files]
    shared = {"data": data, "flip": options.flip, "templates": options.templates}
    if len(sides) == 1:
        tables.show_benchmark(sides[0].results, out)
        answer = {**answers[0], **shared}
    else:
        tables.show_compared(list(zip(labels, sides, strict=True)), out)
        answer = {**shared, "compared": compare.as_data(answers, sides)}
    _write_scores(options, labels, embedded, files, out)
    if options.det is not None:
        compare.draw_det(options.det, list(zip(labels, sides, strict=True)))
        out.print(f"DET: {options.det}", markup=False, soft_wrap=True)
    images = sum(len(faces.acquired) for faces in embedded)
    out.print(f"{images:,} images in {format_seconds(time.monotonic() - started)}", markup=False)
    tables.write_json(json_to, answer)


def _answer(net: FaceEmbedder, faces: EmbeddedFaces, side: ModelFigures) -> dict[str, Any]:
    return {
        "embedder": net.name,
        "input": net.given,
        "images": len(faces.acquired),
        "failed": int((~faces.acquired).sum()),
        "benchmarks": side.results,
    }


def _score_files(options: BenchmarkArguments, protocols: list[ProtocolConfig], out: Console) -> list[ScoreFile]:
    """The files of scores, all in the order of the first; raises ConfigError for protocols that pairs do not answer."""
    if not options.scores:
        return []
    others = [protocol.kind for protocol in protocols if protocol.kind != "verification"]
    if others:
        raise ConfigError(
            f"scores of pairs cannot answer '{others[0]}'",
            fix="with --scores the pairs are those of the file: give no --pairs, and no --benchmark but verification",
        )
    files = [read_scores(user_path(path)) for path in options.scores]
    for file in files:
        failed = f", {file.failed:,} of them without a score: errors" if file.failed else ""
        out.print(f"{file.name}: {len(file):,} comparisons{failed}", markup=False, soft_wrap=True)
        if remark := file.remark():
            out.print(remark, markup=False, soft_wrap=True)
    return [files[0], *(aligned(files[0], file) for file in files[1:])]


def _embedded(
    net: FaceEmbedder,
    data: str,
    protocols: list[ProtocolConfig],
    options: BenchmarkArguments,
    out: Console,
    is_first: bool,
) -> EmbeddedFaces:
    """The images under one embedder; what was taken for what is printed, of the data once."""
    out.print(f"{net.name} is given {net.given}", markup=False, soft_wrap=True)
    if net.weights:
        out.print(net.weights, markup=False, soft_wrap=True)
    images, failed, notes = images_of(data, options.split, options.source)
    for line in notes.taken if notes is not None and is_first else ():
        out.print(line, markup=False, soft_wrap=True)
    files = [user_path(protocol.file) for protocol in protocols if protocol.kind == "pairs"]  # type: ignore[attr-defined]
    lists = [read_pairs(file) for file in files]
    for file, listed in zip(files, lists, strict=True) if is_first else ():
        out.print(f"{file.name}: {listed.taken()}", markup=False, soft_wrap=True)
    if len(lists) == len(protocols):  # no protocol uses the other images
        is_named = named_in(lists)
        images = (entry for entry in images if is_named(entry.file))
        failed = [item for item in failed if is_named(item[1])]
    with ImageCounter("embedded", bar_title="embedding") as progress:
        faces = embed_all(images, net, options.flip, options.batch_size, failed, progress.at)
    if notes is not None and notes.left_out and is_first:
        out.print(notes.left_out_line(), markup=False, soft_wrap=True)
    faces = faces.pooled() if options.templates else faces
    asking = any(protocol.asks_own_people() for protocol in protocols)
    return replace(faces, own=_own_people(user_path(data), net, options)) if asking else faces


def _own_people(path: Path, net: FaceEmbedder, options: BenchmarkArguments) -> OwnPeople | None:
    """The train and val people of a manifest that has photos held out; None where none are."""

    def embedded(split: str) -> EmbeddedFaces | None:
        there = manifest.read(path, ["identity"], split=split).num_rows
        return embed_all(entries(path, split), net, options.flip, options.batch_size) if there else None

    return asked.own_people(embedded, options.templates) if manifest.is_manifest(path) else None


def _write_scores(
    options: BenchmarkArguments, labels: list[str], embedded: list[EmbeddedFaces], files: list[ScoreFile], out: Console
) -> None:
    """Write each embedder's scores to a file in the folder `save_scores`: of all pairs, or of those that are given."""
    if options.save_scores is None:
        return
    folder = user_path(options.save_scores)
    folder.mkdir(parents=True, exist_ok=True)
    listed = read_pairs(user_path(options.pairs)) if options.pairs is not None else None
    for label, faces in zip(labels, embedded, strict=False):
        if files:
            scores, absent = score_pairs_of(files[0], faces, label), 0
        elif listed is not None:
            scores, absent = listed_comparisons(faces, listed, label)
        else:
            scores, absent = all_comparisons(faces, label), 0
        path = folder / f"{re.sub(r'[^A-Za-z0-9._+-]', '_', label)}.txt"
        write_scores(path, scores, options.score_form)
        without = f"; {absent} pairs of photos that are not here are left out" if absent else ""
        out.print(f"{len(scores):,} scores: {path}{without}", markup=False, soft_wrap=True)
