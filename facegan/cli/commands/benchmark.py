"""`facegan benchmark`: any embedder, scored on the user's faces by the code that scores a run's recognizers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from pydantic import TypeAdapter, ValidationError

from facegan.cli.commands import import_export
from facegan.console import tables
from facegan.console.progress import ImageCounter
from facegan.console.screen import console
from facegan.core.errors import ConfigError, UserError
from facegan.core.files import user_path
from facegan.core.units import format_seconds
from facegan.data import manifest
from facegan.data.pair_lists import read_pairs
from facegan.data.sources import NOBODY, SourceImage, SourceNotes
from facegan.evaluation.embedders import ImageEntry, InputOptions, embed_all, entries, face_embedder
from facegan.evaluation.options import AnyBenchmark
from facegan.evaluation.pair_scores import named_in
from facegan.evaluation.protocols import PROTOCOLS, ProtocolConfig, score
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


def benchmarks(options: BenchmarkArguments) -> list[ProtocolConfig]:
    """The protocols of the options; with --pairs that list alone, without any option all pairs and all searches."""
    specs = [yaml.safe_load(text) for text in options.benchmarks]
    specs = [{"kind": spec} if isinstance(spec, str) else spec for spec in specs]
    if options.pairs is not None:
        specs.insert(0, {"kind": "pairs", "file": str(options.pairs)})
    specs = specs or [{"kind": "verification"}, {"kind": "identification"}]
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
    embedder: str, data: str, input_options: InputOptions, options: BenchmarkArguments, json_to: str | None
) -> None:
    """Embed, score, and print a table (and JSON); raises UserError as the parts do."""
    started = time.monotonic()
    protocols = benchmarks(options)
    net = face_embedder(embedder, input_options, device_of(Runtime(device=options.device)))
    out = console(to_stderr=json_to == "-")
    out.print(f"{net.name} is given {net.given}", markup=False, soft_wrap=True)
    if net.weights:
        out.print(net.weights, markup=False, soft_wrap=True)
    images, failed, notes = images_of(data, options.split, options.source)
    for line in notes.taken if notes is not None else ():
        out.print(line, markup=False, soft_wrap=True)
    files = [user_path(protocol.file) for protocol in protocols if protocol.kind == "pairs"]  # type: ignore[attr-defined]
    lists = [read_pairs(file) for file in files]
    for file, listed in zip(files, lists, strict=True):
        out.print(f"{file.name}: {listed.taken()}", markup=False, soft_wrap=True)
    if len(lists) == len(protocols):  # no protocol uses the other images
        is_named = named_in(lists)
        images = (entry for entry in images if is_named(entry.file))
        failed = [item for item in failed if is_named(item[1])]
    with ImageCounter("embedded", bar_title="embedding") as progress:
        faces = embed_all(images, net, options.flip, options.batch_size, failed, progress.at)
    if notes is not None and notes.left_out:
        out.print(notes.left_out_line(), markup=False, soft_wrap=True)
    faces = faces.pooled() if options.templates else faces
    try:
        results = score(protocols, faces)
    except ValueError as error:
        raise UserError(f"these faces cannot be benchmarked: {error}") from error
    answer = {
        "embedder": net.name,
        "input": net.given,
        "data": data,
        "images": len(faces.acquired),
        "failed": int((~faces.acquired).sum()),
        "flip": options.flip,
        "templates": options.templates,
        "benchmarks": results,
    }
    tables.show_benchmark(results, out)
    seconds = time.monotonic() - started
    out.print(f"{len(faces.acquired):,} images in {format_seconds(seconds)}", markup=False)
    tables.write_json(json_to, answer)
