"""benchmark: one recognizer on the test people alone."""

from __future__ import annotations

import json
from dataclasses import replace
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
from facegan.data.dataset import KEEP_BYTES, ManifestImages
from facegan.data.image_measures import measure
from facegan.data.preparation.splits import held_back
from facegan.evaluation import asked
from facegan.evaluation.embedded_faces import EmbeddedFaces, OwnPeople, embed_faces
from facegan.evaluation.options import Benchmark
from facegan.evaluation.protocols import score
from facegan.recognition import trial_choice
from facegan.recognition.embedder import MIRRORED, batched, embed, load_embedder, with_mirror
from facegan.recognition.fitted import is_fitted, load_fitted
from facegan.recognition.frozen_features import FrozenFeatures
from facegan.runtime.context import Context
from facegan.runtime.devices import device_of, threads_of
from facegan.training.checkpoints import save_tensors

AT_ONCE = 4096  # photos of train people decoded at once


def run(options: Benchmark, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `results.json` ({label: {metrics, curves}}), `embeddings.safetensors` and `rows.parquet`.

    A test person's image in the quarantine of `prepare` is in rows and embeddings too, not acquired: it counts as an
    error. Files that a benchmark reads beside the images are kept with its results; thresholds of val people that it
    asks for are in `thresholds.json`, photos of the train people in `embeddings-own.safetensors` and
    `rows-own.parquet`. Where the arm had several trials, `select` says which recognizer is judged.
    Raises UserError when a person or an image is on both sides of train and test.
    """
    torch.set_num_threads(threads_of(context.runtime))
    check_disjoint(inputs["train"], inputs["test"])
    test = _without_held_back(ManifestImages(inputs["test"], split="test"), options.held_back)
    device = device_of(context.runtime)
    embed_pixels = _embedder(chosen_recognizer(inputs), options.batch_size, device, context)
    test_faces = _embedded_faces(options, inputs["test"], test, embed_pixels)
    if thresholds := _val_thresholds(options, inputs["test"], embed_pixels):
        test_faces = replace(test_faces, thresholds=thresholds)
        write_atomic(out / "thresholds.json", json.dumps({str(k): v for k, v in thresholds.items()}).encode())
    if any(benchmark.asks_own_people() for benchmark in options.benchmarks):
        test_faces = replace(test_faces, own=_own_people(options, inputs["test"], embed_pixels))
    asks_train = any(benchmark.asks_train_people() for benchmark in options.benchmarks)
    train = _of_split(options, inputs["test"], "train", embed_pixels) if asks_train else None
    test_faces = _probed(options, chosen_recognizer(inputs), test, test_faces, train, out, device)
    test_faces = _looked(options, inputs, embed_pixels, test, test_faces, out)
    results: dict[str, Any] = {}
    for done, benchmark in enumerate(options.benchmarks, start=1):
        results |= score([benchmark], test_faces)
        benchmark.save_files(out)
        context.progress(done, len(options.benchmarks), "benchmarks")
    write_atomic(out / "results.json", json.dumps(results, indent=1).encode())
    _write_rows(out, test_faces, [] if options.templates else test.image_id.tolist())
    if test_faces.own is not None:
        _write_rows(out, test_faces.own.faces, [], "-own", {"side": test_faces.own.side.tolist()})


def _embedder(folder: Path, batch_size: int, device: torch.device, context: Context) -> Embed:
    """The embedder of a recognizer that was trained, or fitted."""
    if is_fitted(folder):
        return load_fitted(folder)
    net, _ = load_embedder(folder, device)
    features = FrozenFeatures(net.backbone, net.made_of, device, context) if net.is_fitted else None
    return lambda pixels: embed(net, pixels, batch_size, device, features)


def _without_held_back(test: ManifestImages, share: float) -> ManifestImages:
    """Images of the test people who are not held back; raises UserError where fewer than two people remain."""
    people = set(test.identity) - held_back(set(test.identity), share)
    if share and len(people) < 2:
        raise UserError(
            f"of {len(set(test.identity))} test people, {len(people)} are left to measure on",
            fix="set benchmark.held_back lower, or bring more people",
        )
    return test.only(np.flatnonzero([name in people for name in test.identity])) if share else test


def _embedded_faces(options: Benchmark, path: Path, test: ManifestImages, embed_pixels: Embed) -> EmbeddedFaces:
    """The test images with their embeddings, and the failed ones without."""
    remarks: tuple[str, ...] = (MIRRORED,) if options.flip else ()
    if options.held_back:
        remarks += (f"{options.held_back:g} of the test people are held back for promotions and not among these",)
    embedding = (with_mirror(embed_pixels) if options.flip else embed_pixels)(test.pixels)
    failed = _quarantined(path, "test")
    held = held_back({name for name, _ in failed}, options.held_back)
    failed = [item for item in failed if item[0] not in held]
    other_rows = manifest.read(path, ["identity", "split"]).filter(pc.field("split") != "test")
    developed_on = frozenset(other_rows["identity"].to_pylist())
    test_faces = embed_faces(
        embedding, test.identity, test.file.tolist(), test.group.tolist(), failed, developed_on, remarks
    )
    unseen = np.full(len(failed), np.nan)
    measured = {name: np.append(measure(name, test.pixels), unseen) for name in asked.measures_of(options.benchmarks)}
    test_faces = replace(test_faces, measured=measured)
    return test_faces.pooled() if options.templates else test_faces


def _probed(
    options: Benchmark,
    recognizer: Path,
    test: ManifestImages,
    faces: EmbeddedFaces,
    train: EmbeddedFaces | None,
    out: Path,
    device: torch.device,
) -> EmbeddedFaces:
    """The faces with what benchmarks find with network or train people, written to `probe-LABEL.safetensors` too."""
    network = None
    if any(benchmark.asks_network() for benchmark in options.benchmarks) and not is_fitted(recognizer):
        net, _ = load_embedder(recognizer, device)
        network = net if net.has_gradient else None
    found = asked.probed(options.benchmarks, faces, test.pixels, network, train)
    for label, arrays in found.items():
        _save_probe(out, label, arrays)
    return replace(faces, probed=found)


def _of_split(options: Benchmark, path: Path, split: str, embed_pixels: Embed, templates: bool = True) -> EmbeddedFaces:
    """The images of a split of the source, embedded as test images are; single ones without `templates`."""
    images = ManifestImages(path, split=split, keep_bytes=KEEP_BYTES)
    embedding = batched(with_mirror(embed_pixels) if options.flip else embed_pixels, AT_ONCE)(images.pixels)
    faces = embed_faces(embedding, images.identity, images.file.tolist(), images.group.tolist())
    return faces.pooled() if options.templates and templates else faces


def _looked(
    options: Benchmark,
    inputs: dict[str, Path],
    embed_pixels: Embed,
    test: ManifestImages,
    faces: EmbeddedFaces,
    out: Path,
) -> EmbeddedFaces:
    """The faces with what benchmarks find in other images, written to `probe-LABEL.safetensors` too."""
    probed = dict(faces.probed)
    folders = {"prepared": inputs["test"], "train": inputs["train"]}
    for benchmark in options.benchmarks:
        if benchmark.asks_images():
            found = probed[benchmark.label] = benchmark.look(embed_pixels, test, folders, faces)
            _save_probe(out, benchmark.label, found)
    return replace(faces, probed=probed)


def _save_probe(out: Path, label: str, found: dict[str, np.ndarray]) -> None:
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in found.items()}
    save_tensors(out / f"probe-{label}.safetensors", tensors)


def _val_thresholds(options: Benchmark, path: Path, embed_pixels: Embed) -> dict[float, float]:
    """{FMR: the threshold of that rate on val people} of the rates that benchmarks ask for and val people resolve."""
    rates = asked.rates_of(options.benchmarks)
    if not rates or "val" not in manifest.read(path, ["split"])["split"].unique().to_pylist():
        return {}
    return asked.thresholds_on(_of_split(options, path, "val", embed_pixels), rates)


def _own_people(options: Benchmark, path: Path, embed_pixels: Embed) -> OwnPeople | None:
    """The photos of train people, trained on and held out, and of val people."""

    def embedded(split: str) -> EmbeddedFaces | None:
        there = manifest.read(path, ["identity"], split=split).num_rows
        return _of_split(options, path, split, embed_pixels, templates=False) if there else None

    return asked.own_people(embedded, options.templates, len(_quarantined(path, "train")))


def _quarantined(path: Path, split: str) -> list[tuple[str, str]]:
    """(identity, file) of the photos of a split's people that prepare could not use."""
    quarantine = path / "quarantine.parquet"
    rows = pq.read_table(quarantine).to_pylist() if quarantine.is_file() else []
    return [(row["identity"], row["file"]) for row in rows if row["split"] == split]


def _write_rows(
    out: Path, faces: EmbeddedFaces, image_id: list[str], suffix: str = "", columns: dict[str, Any] | None = None
) -> None:
    """Write `embeddings.safetensors` and, row for row, `rows.parquet`; image_id is null for a failed image or a
    template."""
    tensors = {"embedding": torch.from_numpy(np.ascontiguousarray(faces.embedding))}
    save_tensors(out / f"embeddings{suffix}.safetensors", tensors)
    ids = [*image_id, *[None] * (len(faces.identity) - len(image_id))]
    named = {name: getattr(faces, name).tolist() for name in ("identity", "file", "group")}
    rows = {"image_id": pa.array(ids, pa.string()), **named, "acquired": faces.acquired, **faces.measured}
    pq.write_table(pa.table({**rows, **(columns or {})}), out / f"rows{suffix}.parquet")


def chosen_recognizer(inputs: dict[str, Path]) -> Path:
    """The folder of the recognizer to judge: the only one, or that of the trial which val people chose."""
    if "select" not in inputs:
        return inputs["recognizer"]
    return inputs[f"recognizer:{trial_choice.trial(inputs['select'])}"]


def check_disjoint(train: Path, test: Path) -> None:
    """Raise UserError when an identity or the same image bytes are on both sides of train and test.

    Photos that are held out are of train people, and no such overlap; but none may be among the train rows.
    """
    columns = ["identity", "image_id", "source_sha256", "parents"]
    train_rows = manifest.read(train, columns)
    test_rows = manifest.read(test, columns, split="test")
    for column, what in (("identity", "people"), ("image_id", "images"), ("source_sha256", "image files")):
        shared = set(train_rows[column].to_pylist()) & set(test_rows[column].to_pylist()) - {None}
        if shared:
            raise UserError(
                f"{len(shared)} {what} on both sides of train and test, such as {sorted(shared)[0]}",
                fix="the benchmark would be worthless: remove them from the source, name who is one person in "
                "prepare.same_people (`facegan overlap` finds them), or split it otherwise",
            )
    held_out = set(manifest.read(test, ["image_id"], split=manifest.HELD_OUT)["image_id"].to_pylist())
    if both := held_out & set(train_rows["image_id"].to_pylist()):
        raise UserError(
            f"{len(both)} photos that are held out are trained on, such as {sorted(both)[0][:12]}",
            fix="the same picture stands under several names or in several arms: see prepare.left_out_photos",
        )
    parents = {parent for row in train_rows["parents"].to_pylist() for parent in row or []}
    if leaked := parents & set(test_rows["identity"].to_pylist()):
        raise UserError(
            f"{len(leaked)} test people are parents of synthetic train rows, such as {sorted(leaked)[0]}",
            fix="train the generator on train people alone",
        )
