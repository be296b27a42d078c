"""`facegan embed` and `facegan verify`: the current model on photos."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from facegan.console import tables
from facegan.console.screen import console
from facegan.core.errors import ConfigError, UserError
from facegan.core.files import write_atomic
from facegan.promotion.model import Model
from facegan.promotion.registry import Models

FORMATS = (".npz", ".parquet", ".csv")


def load(workdir: Path, version: str | None, align: bool | None) -> Model:
    """A version of the registry (None: the current one); raises ConfigError where there is none."""
    return Model(Models(workdir).find(version), align)


def embed(photos: Sequence[Path], out: Path | None, model: Model) -> list[str]:
    """Write the photos' embeddings to `out`, or as CSV to standard output; return the photos without one, with why.

    Folders stand for all files below them. Raises ConfigError for a form that is unknown, UserError where no photo
    gives an embedding.
    """
    if out is not None and out.suffix.lower() not in FORMATS:
        raise ConfigError(f"--out {out}: unknown form '{out.suffix}'", fix=f"give a file in {', '.join(FORMATS)}")
    result = model.photos(files_of(photos))
    failed = [f"{file}: {why}" for file, why in result.failed]
    if not result.files:
        raise UserError(f"no photo gives an embedding; {'; '.join(failed[:5])}", fix=_advice(model))
    data = encode_embeddings(result.files, result.embeddings, ".csv" if out is None else out.suffix.lower(), model)
    if out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    else:
        write_atomic(out, data)
        count, dim = result.embeddings.shape
        tables.say(console(), f"{count} embeddings of {dim} numbers by {model.version}: {out}")
    return failed


def encode_embeddings(files: list[str], embeddings: np.ndarray, form: str, model: Model) -> bytes:
    """The bytes of an .npz (files, embedding, model), a .parquet (file, embedding) or a .csv file (file, 0, 1 ...)."""
    if form == ".csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", *range(embeddings.shape[1])])
        rows = zip(files, embeddings, strict=True)
        writer.writerows([file, *(f"{value:.9g}" for value in embedding)] for file, embedding in rows)
        return text.getvalue().encode("utf-8", "surrogateescape")
    buffer = io.BytesIO()
    if form == ".npz":
        np.savez(buffer, files=np.asarray(files), embedding=embeddings, model=np.asarray(model.version))
        return buffer.getvalue()
    values = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel(), pa.float32()), embeddings.shape[1])
    table = pa.table({"file": pa.array(files, pa.string()), "embedding": values})
    pq.write_table(table.replace_schema_metadata({"facegan_model": model.version}), buffer)
    return buffer.getvalue()


def files_of(photos: Sequence[Path]) -> list[Path]:
    """The files, and those below the folders, without hidden ones."""
    files: list[Path] = []
    for path in photos:
        inside = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        files += inside if path.is_dir() else [path]
    if not files:
        raise ConfigError("there is no photo", fix="give files, or folders that hold some")
    return files


def _advice(model: Model) -> str:
    if model.aligner is not None:
        return "give photos that show a face; --no-align where they are cropped already"
    return "give JPEG, PNG or other images that Pillow reads"


def verify(first: Path, second: Path, far: float | None, model: Model) -> tuple[list[str], dict[str, Any]]:
    """Whether two photos show one person: lines to print, and the same as plain data.

    Raises UserError where a photo cannot be read or shows no face, or the FAR has no threshold.
    """
    point = model.threshold(far)
    far = float(point["far"])
    result = model.photos([first, second])
    if result.failed:
        raise UserError("; ".join(f"{file}: {why}" for file, why in result.failed), fix=_advice(model))
    similarity = float(result.embeddings[0] @ result.embeddings[1])
    same = similarity >= point["threshold"]
    chosen, measured = point["chosen_on"], point["measured_on"]
    lines = [
        f"{'same person' if same else 'different people'}: similarity {similarity:.4f}, "
        f"{'at or above' if same else 'below'} the threshold {point['threshold']:.4f} (model {model.version})",
        f"the threshold lets through {far:g} of the pairs of different people: chosen on {chosen['impostor']:,} pairs "
        f"of {chosen['people']} val people; of {measured['impostor']:,} pairs of {measured['people']} test people it "
        f"let {measured['far']:.3g} through, and {measured['tar']:.3g} of {measured['genuine']:,} pairs of one person",
    ]
    answer = {
        "same": same,
        "similarity": similarity,
        "threshold": point["threshold"],
        "far": far,
        "model": model.version,
    }
    return lines, {**answer, "chosen_on": chosen, "measured_on": measured}
