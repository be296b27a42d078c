"""synthesize: new images of the train people and new people, filtered by the guide."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from facegan.core.errors import UserError
from facegan.core.files import write_atomic
from facegan.data import licences, manifest
from facegan.data.dataset import ManifestImages
from facegan.generation.external_people import ExternalPeople
from facegan.generation.gans.networks.saved import load_generator
from facegan.generation.options import Synthesize
from facegan.generation.people import SyntheticPeople
from facegan.generation.shard_worker import digest, is_whole, make_people, write_job
from facegan.generation.strangers import Strangers
from facegan.generation.thresholds import prepare_synthesizer
from facegan.reporting.galleries import first_faces, first_grid
from facegan.runtime.context import Context
from facegan.runtime.devices import device_of, threads_of
from facegan.runtime.shards import ShardQueue
from facegan.store.local import WORK


def run(options: Synthesize, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `manifest/` (synthetic train rows), `filters.json` (thresholds, counts, requested, made) and `first.png`.

    `first.png` shows an image of each of the first new people, by their number; there is none without new people.

    `inputs` are `manifest` (real rows), `generator` and `guide`. What cannot be filled within the bounded
    number of attempts is reported. `runtime.engine` works on the shards; finished ones are kept in `work/`.
    Raises UserError when no image is left.
    """
    started, threads = time.monotonic(), threads_of(context.runtime)
    torch.set_num_threads(threads)
    device = device_of(context.runtime)
    G, spec = load_generator(inputs["generator"], device)
    own_options = options.model_copy(update={"external": None})
    synthesizer, thresholds = prepare_synthesizer(own_options, inputs, G, spec["identities"], device)
    strangers = None
    if options.unlike == "cross_fitted" and options.new_identities:
        context.say("fits the maps that say who resembles a train person, each without some of the people")
        train, val = (ManifestImages(inputs["manifest"], split=split) for split in ("train", "val"))
        strangers = Strangers(synthesizer.guide, train, val, device, context.runtime)
        thresholds["unlike"] = {"value": strangers.value, "how": strangers.how}
    license_ = licences.inherited(licences.names([*licences.of(inputs["manifest"], "train"), *spec["licenses"]]))
    shards_digest = digest(synthesizer, {name: path.name for name, path in inputs.items()}, threads)
    folder = out / WORK / "shards" / shards_digest
    with context.runtime.engine.open(context.say) as engine:
        job = write_job(synthesizer, folder / "basis.safetensors", inputs) if engine.remote else synthesizer
        queue = ShardQueue(folder, engine, partial(make_people, job, threads), is_whole)
        if queue.stored:
            context.say(f"goes on from {len(queue.stored)} finished shards")
        people = SyntheticPeople(queue, synthesizer, spec["identities"], inputs["generator"].name, context, strangers)
        # Images inherit the licences of what the generator learned from and of the photos that lend variation.
        rows: Iterator[dict[str, Any]] = ({**row, "license": license_} for row in people.rows())
        requested = {
            "images of train people": len(spec["identities"]) * options.images_per_existing,
            "new people": options.new_identities,
            "images of new people": options.new_identities * options.images_per_new,
        }
        if options.external is not None:
            external_people = ExternalPeople(options.external, synthesizer, options.seed, people.filter_counts, context)
            requested |= external_people.requested()
            rows = itertools.chain(rows, external_people.rows(spec["size_px"], spec["channels"], out))
        manifest.write(out, rows, "synthesize", {name: path.name for name, path in inputs.items()})
    made = people.made | (external_people.made if options.external is not None else {})
    if not any(made.values()):
        raise UserError(
            f"no synthetic image was left (asked for {requested})",
            fix="raise synthesize.max_fmr or max_attempts, or train the generator for longer",
        )
    counts = list(people.filter_counts.counts.values())
    report = {"thresholds": thresholds, "counts": counts, "requested": requested, "made": made}
    write_atomic(out / "filters.json", json.dumps(report, indent=1).encode())
    context.table(counts, "what the filters removed")
    show_first(out, context)
    context.say(f"{images_of(made)} images kept, {images_of(made) / (time.monotonic() - started):.1f} a second")
    for name, count in requested.items():
        if made[name] < count:
            context.say(f"made {made[name]} of {count} {name}: the filters removed the rest")


def images_of(made: dict[str, int]) -> int:
    """How many images were made, of all kinds of people."""
    return sum(count for name, count in made.items() if name.startswith("images"))


def show_first(out: Path, context: Context) -> None:
    """Write and report the grid of the first new people."""
    names = set(manifest.read(out, ["identity"])["identity"].to_pylist())
    faces = first_faces(out, [name for name in names if name.startswith(manifest.NEW)])
    if faces:
        write_atomic(out / "first.png", first_grid(faces))
        context.image(out / "first.png", f"the first {len(faces)} new people by their number, an image of each")
