"""synthesize: new images of the train people and new people, filtered by the guide."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facegan import leakage, licences, manifest
from facegan.casting import Casting
from facegan.config import Synthesize
from facegan.embedder import embed, load_embedder
from facegan.errors import UserError
from facegan.events import Context
from facegan.external_people import ExternalPeople
from facegan.gans.networks.base import Generator
from facegan.gans.networks.io import load_generator, to_tensor
from facegan.images import ManifestImages
from facegan.metrics import pair_scores, threshold_at_far
from facegan.shards import Desk
from facegan.shots import digest, leave, shoot, whole
from facegan.store import WORK, write_atomic
from facegan.studio import Studio, robust_centre, robust_centres
from facegan.training import device_of, threads_of


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
        place = leave(studio, folder / "basis.safetensors", inputs) if engine.remote else studio
        desk = Desk(folder, engine, partial(shoot, place, threads), whole)
        if desk.stored:
            context.say(f"goes on from {len(desk.stored)} finished shards")
        casting = Casting(desk, studio, spec["identities"], inputs["generator"].name, context)
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


def prepared(
    options: Synthesize, inputs: dict[str, Path], G: Generator, names: list[str], device: torch.device
) -> tuple[Studio, dict[str, Any]]:
    """The studio, with all that is measured once on real photos, and the thresholds for the report."""
    guide, _ = load_embedder(inputs["guide"], device)
    train = ManifestImages(inputs["manifest"], split="train")
    val = ManifestImages(inputs["manifest"], split="val")
    person = np.asarray([names.index(name) for name in train.identity])
    donors, copy = encode_all(G, train, person, options, device), copy_limit(train, person)
    embedding = embed(guide, train.pixels, options.batch_size, device)
    centres = robust_centres(embedding, person)
    strangers, who = embed(guide, val.pixels, options.batch_size, device), val.codes()[1]
    thresholds = calibrate(strangers, who, options.max_fmr)
    bound = between(thresholds["person"], embedding, person, centres)
    thresholds["person"] = among_many(bound, robust_centres(strangers, who), centres)
    studio = Studio(
        G=G,
        guide=guide,
        donors=donors,
        donor_person=person,
        photos=leakage.grey(train.pixels),
        centres=centres,
        options=options,
        device=device,
        copy=copy,
        person=thresholds["person"]["value"],
        image=thresholds["image"]["value"],
    )
    return studio, thresholds


def copy_limit(train: ManifestImages, person: np.ndarray) -> float:
    """The similarity that one real photo in a hundred has with another of its person: new images stay below it.

    The audit's own threshold lies higher: it stops what is surely a copy, this leaves out what might be.
    """
    try:
        return leakage.copy_bound(train.pixels, person, max_false_alarm=0.01).real
    except ValueError as error:
        raise UserError(
            f"near-copies cannot be told from new photos: {error}", fix="raise prepare.min_images to 2 or more"
        ) from error


def calibrate(embedding: np.ndarray, codes: np.ndarray, max_fmr: float) -> dict[str, Any]:
    """Thresholds from val people: the cosine that a share `max_fmr` of their impostor comparisons exceeds.

    `image` compares images with images; `person` compares the centres of two disjoint halves of people's
    images with each other, as new people's centres are compared.
    """
    pairs = pair_scores(embedding, codes)
    impostors = pairs.score[~pairs.genuine]
    photos = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    photos = [places for places in photos if len(places) >= 2]
    if len(photos) < 2:
        raise UserError(
            "the filters need two val people or more, with two images each",
            fix="give prepare.split.val a larger share",
        )
    first, second = (np.stack([robust_centre(embedding[places[half::2]]) for places in photos]) for half in (0, 1))
    centre = (first @ second.T)[~np.eye(len(photos), dtype=bool)]
    how = f"exceeded by {max_fmr:.2%} of {len(impostors)} comparisons of different val people under the guide"
    how_centre = f"exceeded by at most {max_fmr:.2%} of {len(centre)} comparisons of val people's centres"
    return {
        "image": {"value": threshold_at_far(impostors, max_fmr), "how": how},
        "person": {"value": threshold_at_far(centre, max_fmr), "how": how_centre},
    }


def between(
    strangers: dict[str, Any], embedding: np.ndarray, person: np.ndarray, centres: np.ndarray
) -> dict[str, Any]:
    """The person threshold, moved half way from where strangers end to where the train people begin.

    Strangers' cosines alone are too low a bound: the guide has learned the train people and pulls everything
    towards them that descends from them, so that nearly no mixture keeps it. They begin where 95 % of train photos
    (N, d) are with their person's centre.
    """
    begin = float(np.quantile(np.einsum("nd,nd->n", embedding, centres[person]), 0.05))
    if begin <= strangers["value"]:
        return strangers
    how = f"half way from {strangers['value']:.3f}, {strangers['how']}, to {begin:.3f}, reached by 95 % of train photos"
    return {"value": (strangers["value"] + begin) / 2, "how": f"{how} with their person's centre"}


def among_many(bound: dict[str, Any], strangers: np.ndarray, centres: np.ndarray) -> dict[str, Any]:
    """The person threshold, raised to how close half of real strangers come to the train person nearest to them.

    Among many train people everybody resembles somebody: a bound on pairs then turns down nearly all people, real ones
    too. `strangers` (val people, d) and `centres` (train people, d) are unit rows.
    """
    nearest = float(np.median((strangers @ centres.T).max(axis=1)))
    if nearest <= bound["value"]:
        return bound
    how = f"half of {len(strangers)} val people are as close to one of {len(centres)} train people"
    return {"value": nearest, "how": f"{how}; among fewer it would be {bound['value']:.3f}, {bound['how']}"}


@torch.no_grad()
def encode_all(
    G: Generator, train: ManifestImages, person: np.ndarray, options: Synthesize, device: torch.device
) -> np.ndarray | None:
    """Variation codes of all real train images (N, z_dim), or None for a generator without an encoder."""
    found = []
    for start in range(0, len(train), options.batch_size):
        part = slice(start, start + options.batch_size)
        w = G.codes()[torch.from_numpy(person[part]).to(device)]
        z = G.encode(to_tensor(train.pixels[part]).to(device), w)
        if z is None:
            return None
        found.append(z.cpu().numpy())
    return np.concatenate(found)
