"""People of a synthetic set worked on in any process: what it is told, what it hands back, and both as bytes."""

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
        pa.field("images", pa.list_(pa.struct([("png", pa.binary()), ("latent", pa.string())])), nullable=False),
    ]
)
PACKAGES = ("facegan", "torch", "timm", "numpy", "pillow")  # of those that make the images
_alone = threading.Lock()


@dataclass(frozen=True)
class SynthesizerJob:
    """A studio as another process opens it: where generator, guide and basis lie, and with what it must agree."""

    generator: str
    guide: str
    basis: str
    options: str  # of synthesize, as JSON
    device: str
    versions: tuple[tuple[str, str], ...]


def make_people(
    studio: Synthesizer | SynthesizerJob, threads: int, orders: list[PersonRequest], made: np.ndarray | None = None
) -> bytes:
    """The shots of a shard, packed: the same bytes in whichever process. `made`: see `Synthesizer.take`.

    One shard at a time in a process, with as many threads as the stage has; torch's own number is put back after.
    """
    with _alone:
        before = torch.get_num_threads()
        try:
            with threadpool_limits(threads):
                torch.set_num_threads(threads)
                found = studio if isinstance(studio, Synthesizer) else synthesizer_of(studio)
                return pack_results([found.take(order, made) for order in orders])
        finally:
            torch.set_num_threads(before)


def pack_results(shots: list[PersonResult]) -> bytes:
    """Shots as Parquet, with the sha256 (32 bytes) of what follows before it."""
    rows = [
        {
            "near": shot.near,
            "centre": shot.centre,
            "removed": json.dumps(shot.removed),
            "images": [{"png": png, "latent": latent} for png, latent in shot.images],
        }
        for shot in shots
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    return hashlib.sha256(data).digest() + data


def unpack_results(data: bytes) -> list[PersonResult]:
    """The shots of `pack`."""
    table = pq.read_table(pa.BufferReader(pa.py_buffer(data)[32:]))
    return [
        PersonResult(
            [(image["png"], image["latent"]) for image in row["images"]],
            [(name, seen, removed, why) for name, seen, removed, why in json.loads(row["removed"])],
            np.asarray(row["centre"], np.float32),
            row["near"],
        )
        for row in table.to_pylist()
    ]


def is_whole(data: bytes) -> bool:
    """Whether bytes are those that `pack` gave."""
    return hashlib.sha256(data[32:]).digest() == data[:32]


def basis(studio: Synthesizer) -> dict[str, np.ndarray]:
    """What a studio holds beside its networks, by name."""
    found = {
        "donor_person": studio.donor_person,
        "photos": studio.photos,
        "centres": studio.centres,
        "bounds": np.asarray([studio.copy, studio.person, studio.image], np.float64),
    }
    if studio.donors is not None:
        found["donors"] = studio.donors
    return {name: np.ascontiguousarray(value) for name, value in found.items()}


def digest(studio: Synthesizer, inputs: dict[str, str], threads: int) -> str:
    """sha256 (hex) of all that shards depend on: where it is another, those of an earlier run are of no use."""
    found = hashlib.sha256()
    facts = {**inputs, "options": studio.options.model_dump(mode="json"), "device": str(studio.device)}
    found.update(canonical({**facts, "threads": threads, "versions": versions()}).encode())
    for name, value in sorted(basis(studio).items()):
        found.update(f"{name} {value.dtype} {value.shape}".encode())
        found.update(value.data)
    return found.hexdigest()


def versions() -> dict[str, str]:
    """The packages that make the images, as they are in this process."""
    return {name: number for name, number in package_versions().items() if name in PACKAGES}


def write_job(studio: Synthesizer, path: Path, inputs: dict[str, Path]) -> SynthesizerJob:
    """Write a studio's basis to `path`, for other processes; what they are to be told.

    Raises UserError when the disk is full.
    """
    write_atomic(path, save(basis(studio)))
    return SynthesizerJob(
        generator=str(inputs["generator"].absolute()),
        guide=str(inputs["guide"].absolute()),
        basis=str(path.absolute()),
        options=studio.options.model_dump_json(),
        device=str(studio.device),
        versions=tuple(sorted(versions().items())),
    )


@lru_cache(maxsize=1)
def synthesizer_of(job: SynthesizerJob) -> Synthesizer:
    """The studio of a job, in this process; the last one is kept, as the next shard most often needs it again.

    Raises UserError where this process does not see the files, has other versions, or lacks the device.
    """
    options = Synthesize.model_validate_json(job.options)
    host, ours = socket.gethostname(), versions()
    if other := [f"{name} {version}" for name, version in job.versions if ours.get(name) != version]:
        raise UserError(
            f"the worker on {host} does not have {', '.join(other)}: its images would have other bytes",
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
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    copy, person, image = held.pop("bounds").tolist()
    return Synthesizer(
        G=G,
        guide=guide,
        donors=held.get("donors"),
        donor_person=held["donor_person"],
        photos=held["photos"],
        centres=held["centres"],
        options=options,
        device=device,
        copy=copy,
        person=person,
        image=image,
    )
