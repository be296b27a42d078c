"""benchmark: one recognizer on the test people alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from facegan.core.errors import UserError
from facegan.core.files import write_atomic
from facegan.core.types import Embed
from facegan.data import manifest
from facegan.data.dataset import ManifestImages
from facegan.data.preparation.splits import held_back
from facegan.evaluation.embedded_faces import EmbeddedFaces, faces
from facegan.evaluation.options import Benchmark
from facegan.evaluation.protocols import score
from facegan.recognition import trial_choice
from facegan.recognition.embedder import MIRRORED, embed, load_embedder, with_mirror
from facegan.runtime.context import Context
from facegan.runtime.devices import device_of, threads_of
from facegan.training.checkpoints import save_tensors


def run(options: Benchmark, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `results.json` ({label: {metrics, curves}}), `embeddings.safetensors` and `rows.parquet`.

    A test person's image in the quarantine of `prepare` stands in rows and embeddings too, not acquired: it counts
    as an error. What a benchmark reads beside the images is kept with its results. Where the arm had several
    trials, `select` says which recognizer is judged. Raises UserError when a person or an image stands on both
    sides of train and test.
    """
    torch.set_num_threads(threads_of(context.runtime))
    gate(inputs["train"], inputs["test"])
    test = _seen(ManifestImages(inputs["test"], split="test"), options.held_back)
    device = device_of(context.runtime)
    net, _ = load_embedder(judged(inputs), device)
    judged_faces = _faces(options, inputs["test"], test, lambda pixels: embed(net, pixels, options.batch_size, device))
    results: dict[str, Any] = {}
    for number, benchmark in enumerate(options.benchmarks, start=1):
        results |= score([benchmark], judged_faces)
        benchmark.save_files(out)
        context.progress(number, len(options.benchmarks), "benchmarks")
    write_atomic(out / "results.json", json.dumps(results, indent=1).encode())
    _write_rows(out, judged_faces, [] if options.templates else test.image_id.tolist())


def _seen(test: ManifestImages, share: float) -> ManifestImages:
    """The images of the test people who are not held back; raises UserError where fewer than two people are left."""
    kept = set(test.identity) - held_back(set(test.identity), share)
    if share and len(kept) < 2:
        raise UserError(
            f"of {len(set(test.identity))} test people, {len(kept)} are left to measure on",
            fix="set benchmark.held_back lower, or bring more people",
        )
    return test.only(np.flatnonzero([name in kept for name in test.identity])) if share else test


def _faces(options: Benchmark, path: Path, test: ManifestImages, embedded: Embed) -> EmbeddedFaces:
    """The test images with their embeddings, and those that failed without."""
    remarks: tuple[str, ...] = (MIRRORED,) if options.flip else ()
    if options.held_back:
        remarks += (f"{options.held_back:g} of the test people are held back for promotions and not among these",)
    embedding = (with_mirror(embedded) if options.flip else embedded)(test.pixels)
    left = pq.read_table(path / "quarantine.parquet").to_pylist() if (path / "quarantine.parquet").is_file() else []
    failed = [(item["identity"], item["file"]) for item in left if item["split"] == "test"]
    away = held_back({name for name, _ in failed}, options.held_back)
    failed = [item for item in failed if item[0] not in away]
    developed = manifest.read(path, ["identity", "split"]).filter(pc.field("split") != "test")
    others = frozenset(developed["identity"].to_pylist())
    found = faces(embedding, test.identity, test.file.tolist(), test.group.tolist(), failed, others, remarks)
    return found.pooled() if options.templates else found


def _write_rows(out: Path, judged: EmbeddedFaces, image_id: list[str]) -> None:
    """Write `embeddings.safetensors` and, row for row, `rows.parquet`; image_id is null where there is no one image."""
    save_tensors(
        out / "embeddings.safetensors", {"embedding": torch.from_numpy(np.ascontiguousarray(judged.embedding))}
    )
    ids = [*image_id, *[None] * (len(judged.identity) - len(image_id))]
    columns = {name: getattr(judged, name).tolist() for name in ("identity", "file", "group")}
    rows = {"image_id": pa.array(ids, pa.string()), **columns, "acquired": judged.acquired}
    pq.write_table(pa.table(rows), out / "rows.parquet")


def judged(inputs: dict[str, Path]) -> Path:
    """The folder of the recognizer to judge: the only one, or that of the trial which val people chose."""
    if "select" not in inputs:
        return inputs["recognizer"]
    return inputs[f"recognizer:{trial_choice.trial(inputs['select'])}"]


def gate(train: Path, test: Path) -> None:
    """Raise UserError when an identity or the same image bytes are on both sides of train and test."""
    columns = ["identity", "image_id", "source_sha256", "parents"]
    trained = manifest.read(train, columns)
    tested = manifest.read(test, columns, split="test")
    for column, what in (("identity", "people"), ("image_id", "images"), ("source_sha256", "image files")):
        shared = set(trained[column].to_pylist()) & set(tested[column].to_pylist()) - {None}
        if shared:
            raise UserError(
                f"{len(shared)} {what} on both sides of train and test, such as {sorted(shared)[0]}",
                fix="the benchmark would be worthless: remove them from the source, name who is one person in "
                "prepare.same_people (`facegan overlap` finds them), or split it otherwise",
            )
    parents = {parent for row in trained["parents"].to_pylist() for parent in row or []}
    if leaked := parents & set(tested["identity"].to_pylist()):
        raise UserError(
            f"{len(leaked)} test people are parents of synthetic train rows, such as {sorted(leaked)[0]}",
            fix="train the generator on train people alone",
        )
