"""synthesize: new images of the train people and new people, filtered by the guide."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from facegan.core.errors import UserError
from facegan.core.files import write_atomic
from facegan.data import licences, manifest
from facegan.generation.external_people import ExternalPeople
from facegan.generation.gans.networks.saved import load_generator
from facegan.generation.options import Synthesize
from facegan.generation.people import SyntheticPeople
from facegan.generation.shard_worker import digest, is_whole, make_people, write_job
from facegan.generation.thresholds import prepared
from facegan.runtime.context import Context
from facegan.runtime.devices import device_of, threads_of
from facegan.runtime.shards import ShardQueue
from facegan.store.local import WORK


def run(options: Synthesize, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `manifest/` (synthetic train rows) and `filters.json` (thresholds, counts, requested, made).

    `inputs` are `manifest` (real rows), `generator` and `guide`. What cannot be filled within the bounded
    number of attempts is reported. `runtime.engine` works on the shards, of which each that is done is kept in `work/`.
    Raises UserError when nothing at all is left.
    """
    threads = threads_of(context.runtime)
    torch.set_num_threads(threads)
    device = device_of(context.runtime)
    G, spec = load_generator(inputs["generator"], device)
    drawn = options.model_copy(update={"external": None})
    studio, thresholds = prepared(drawn, inputs, G, spec["identities"], device)
    license_ = licences.inherited(licences.names([*licences.of(inputs["manifest"], "train"), *spec["licenses"]]))
    key = digest(studio, {name: path.name for name, path in inputs.items()}, threads)
    folder = out / WORK / "shards" / key
    with context.runtime.engine.open(context.say) as engine:
        place = write_job(studio, folder / "basis.safetensors", inputs) if engine.remote else studio
        desk = ShardQueue(folder, engine, partial(make_people, place, threads), is_whole)
        if desk.stored:
            context.say(f"goes on from {len(desk.stored)} finished shards")
        casting = SyntheticPeople(desk, studio, spec["identities"], inputs["generator"].name, context)
        # What the generator learned from, and the photos that lend variation, pass on their licence.
        rows: Iterator[dict[str, Any]] = ({**row, "license": license_} for row in casting.rows())
        requested = {
            "images of train people": len(spec["identities"]) * options.images_per_existing,
            "new people": options.new_identities,
            "images of new people": options.new_identities * options.images_per_new,
        }
        if options.external is not None:
            elsewhere = ExternalPeople(options.external, studio, options.seed, casting.tally, context)
            requested |= elsewhere.requested()
            rows = itertools.chain(rows, elsewhere.rows(spec["size_px"], spec["channels"], out))
        manifest.write(out, rows, "synthesize", {name: path.name for name, path in inputs.items()})
    made = casting.made | (elsewhere.made if options.external is not None else {})
    if not any(made.values()):
        raise UserError(
            f"no synthetic image was left (asked for {requested})",
            fix="raise synthesize.max_fmr or max_attempts, or train the generator for longer",
        )
    counts = list(casting.tally.counts.values())
    report = {"thresholds": thresholds, "counts": counts, "requested": requested, "made": made}
    write_atomic(out / "filters.json", json.dumps(report, indent=1).encode())
    context.table(counts, "what the filters removed")
    for what, wanted in requested.items():
        if made[what] < wanted:
            context.say(f"made {made[what]} of {wanted} {what}: the filters removed the rest")
