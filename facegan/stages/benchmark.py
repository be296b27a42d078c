"""benchmark: one recognizer on the test people alone."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from facegan import manifest
from facegan.checkpoint import save_tensors
from facegan.config import Benchmark
from facegan.embedder import embed, load_embedder
from facegan.errors import UserError
from facegan.events import Context
from facegan.images import ManifestImages
from facegan.store import write_atomic
from facegan.training import device_of, threads_of


def run(options: Benchmark, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `results.json` ({kind: {metrics, curves}}), `embeddings.safetensors` and `rows.parquet`.

    Where the arm had several trials, `select` says which recognizer is judged. Raises UserError when a person or
    an image stands on both sides of train and test.
    """
    torch.set_num_threads(threads_of(context.runtime))
    gate(inputs["train"], inputs["test"])
    test = ManifestImages(inputs["test"], split="test")
    device = device_of(context.runtime)
    net, _ = load_embedder(judged(inputs), device)
    embedding = embed(net, test.pixels, options.batch_size, device)
    _, codes = test.codes()
    results = {}
    for number, benchmark in enumerate(options.benchmarks, start=1):
        result = benchmark.run(embedding, codes)
        results[benchmark.kind] = {"metrics": [asdict(m) for m in result.metrics], "curves": result.curves}
        context.progress(number, len(options.benchmarks), "benchmarks")
    write_atomic(out / "results.json", json.dumps(results, indent=1).encode())
    save_tensors(out / "embeddings.safetensors", {"embedding": torch.from_numpy(embedding)})
    rows = pa.table({"image_id": test.image_id.tolist(), "identity": test.identity.tolist()})
    pq.write_table(rows, out / "rows.parquet")


def judged(inputs: dict[str, Path]) -> Path:
    """The folder of the recognizer to judge: the only one, or that of the trial which val people chose."""
    if "select" not in inputs:
        return inputs["recognizer"]
    return inputs[f"recognizer:{json.loads((inputs['select'] / 'choice.json').read_bytes())['trial']}"]


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
                fix="the benchmark would be worthless: remove them from the source or split it otherwise",
            )
    parents = {parent for row in trained["parents"].to_pylist() for parent in row or []}
    if leaked := parents & set(tested["identity"].to_pylist()):
        raise UserError(
            f"{len(leaked)} test people are parents of synthetic train rows, such as {sorted(leaked)[0]}",
            fix="train the generator on train people alone",
        )
