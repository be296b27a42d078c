"""People of a synthetic set made in any process: a synthesizer sent to it, results sent back, both as bytes."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from safetensors.numpy import save
from threadpoolctl import threadpool_limits

from facegan.core.digests import canonical
from facegan.core.errors import UserError
from facegan.core.files import write_atomic
from facegan.core.versions import package_versions
from facegan.generation.gans.networks.saved import load_generator
from facegan.generation.options import Synthesize
from facegan.generation.synthesizer import PersonRequest, PersonResult, Synthesizer
from facegan.recognition.embedder import load_embedder
from facegan.runtime.devices import device_of
from facegan.runtime.options import Runtime

SCHEMA = pa.schema(
    [
        pa.field("near", pa.bool_(), nullable=False),
        pa.field("centre", pa.list_(pa.float32()), nullable=False),
        pa.field("removed", pa.string(), nullable=False),
        pa.field(
            "images",
            pa.list_(pa.struct([("png", pa.binary()), ("latent", pa.string()), ("lender", pa.int32())])),
            nullable=False,
        ),
    ]
)
PACKAGES = ("facegan", "torch", "timm", "numpy", "pillow")  # of those that make the images
_one_shard = threading.Lock()


@dataclass(frozen=True)
class SynthesizerJob:
    """A synthesizer for another process to open: paths of generator, guide and basis, and the versions it must have."""

    generator: str
    guide: str
    basis: str
    options: str  # of synthesize, as JSON
    device: str
    versions: tuple[tuple[str, str], ...]


def make_people(
    synthesizer: Synthesizer | SynthesizerJob,
    threads: int,
    requests: list[PersonRequest],
    accepted: np.ndarray | None = None,
) -> bytes:
    """The results of a shard, packed: the same bytes in every process. `accepted`: see `Synthesizer.make_person`.

    One shard at a time in a process, with as many threads as the stage has; torch's number is restored at the end.
    """
    with _one_shard:
        previous_threads = torch.get_num_threads()
        try:
            with threadpool_limits(threads):
                torch.set_num_threads(threads)
                worker = synthesizer if isinstance(synthesizer, Synthesizer) else synthesizer_of(synthesizer)
                return pack_results([worker.make_person(request, accepted) for request in requests])
        finally:
            torch.set_num_threads(previous_threads)


def pack_results(results: list[PersonResult]) -> bytes:
    """Results as Parquet, preceded by its sha256 (32 bytes)."""
    rows = [
        {
            "near": result.near,
            "centre": result.centre,
            "removed": json.dumps(result.removed),
            "images": [{"png": png, "latent": latent, "lender": lender} for png, latent, lender in result.images],
        }
        for result in results
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    return hashlib.sha256(data).digest() + data


def unpack_results(data: bytes) -> list[PersonResult]:
    """The results that `pack_results` packed."""
    table = pq.read_table(pa.BufferReader(pa.py_buffer(data)[32:]))
    return [
        PersonResult(
            [(image["png"], image["latent"], image["lender"]) for image in row["images"]],
            [(name, seen, removed, why) for name, seen, removed, why in json.loads(row["removed"])],
            np.asarray(row["centre"], np.float32),
            row["near"],
        )
        for row in table.to_pylist()
    ]


def is_whole(data: bytes) -> bool:
    """Whether bytes are as `pack_results` returned them."""
    return hashlib.sha256(data[32:]).digest() == data[:32]


def basis(synthesizer: Synthesizer) -> dict[str, np.ndarray]:
    """The arrays of a synthesizer beside its networks, by name."""
    arrays = {
        "donor_person": synthesizer.donor_person,
        "photos": synthesizer.photos,
        "centres": synthesizer.centres,
        "bounds": np.asarray(
            [synthesizer.copy_threshold, synthesizer.person_threshold, synthesizer.image_threshold], np.float64
        ),
    }
    if synthesizer.donors is not None:
        arrays["donors"] = synthesizer.donors
    return {name: np.ascontiguousarray(value) for name, value in arrays.items()}


def digest(synthesizer: Synthesizer, inputs: dict[str, str], threads: int) -> str:
    """sha256 (hex) of all that shards depend on: shards of another digest are of no use."""
    sha256 = hashlib.sha256()
    facts = {**inputs, "options": synthesizer.options.model_dump(mode="json"), "device": str(synthesizer.device)}
    sha256.update(canonical({**facts, "threads": threads, "versions": versions()}).encode())
    for name, value in sorted(basis(synthesizer).items()):
        sha256.update(f"{name} {value.dtype} {value.shape}".encode())
        sha256.update(value.data)
    return sha256.hexdigest()


def versions() -> dict[str, str]:
    """Versions of the packages that make the images, in this process."""
    return {name: number for name, number in package_versions().items() if name in PACKAGES}


def write_job(synthesizer: Synthesizer, path: Path, inputs: dict[str, Path]) -> SynthesizerJob:
    """Write a synthesizer's basis to `path`, for other processes; returns their job.

    Raises UserError when the disk is full.
    """
    write_atomic(path, save(basis(synthesizer)))
    return SynthesizerJob(
        generator=str(inputs["generator"].absolute()),
        guide=str(inputs["guide"].absolute()),
        basis=str(path.absolute()),
        options=synthesizer.options.model_dump_json(),
        device=str(synthesizer.device),
        versions=tuple(sorted(versions().items())),
    )


@lru_cache(maxsize=1)
def synthesizer_of(job: SynthesizerJob) -> Synthesizer:
    """The synthesizer of a job, in this process; the last one is cached, as the next shard most often needs it again.

    Raises UserError where this process does not see the files, has other versions, or lacks the device.
    """
    options = Synthesize.model_validate_json(job.options)
    host, installed = socket.gethostname(), versions()
    if missing := [f"{name} {version}" for name, version in job.versions if installed.get(name) != version]:
        raise UserError(
            f"the worker on {host} does not have {', '.join(missing)}: its images would have other bytes",
            fix="install the same versions in the workers' environment (constraints.txt) and start them again",
        )
    for path in (job.generator, job.guide, job.basis):
        if not Path(path).exists():
            raise UserError(
                f"the worker on {host} does not see {path}",
                fix="give a --workdir on a file system that all workers mount at the same path, or use "
                "runtime.engine=local",
            )
    device = device_of(Runtime(device=job.device))
    G, _ = load_generator(Path(job.generator), device)
    guide, _ = load_embedder(Path(job.guide), device)
    with safe_open(job.basis, framework="np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    copy_threshold, person_threshold, image_threshold = arrays.pop("bounds").tolist()
    return Synthesizer(
        G=G,
        guide=guide,
        donors=arrays.get("donors"),
        donor_person=arrays["donor_person"],
        photos=arrays["photos"],
        centres=arrays["centres"],
        options=options,
        device=device,
        copy_threshold=copy_threshold,
        person_threshold=person_threshold,
        image_threshold=image_threshold,
    )
