"""synthesize: new images of the train people and new people, filtered by the guide."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facegan import leakage, licences, manifest
from facegan.config import Synthesize
from facegan.embedder import embed, load_embedder
from facegan.errors import UserError
from facegan.events import Context
from facegan.gans.networks.base import Generator
from facegan.gans.networks.io import load_generator, to_tensor
from facegan.images import ManifestImages, encode_png
from facegan.metrics import pair_scores, threshold_at_far
from facegan.store import write_atomic
from facegan.synthesis import draw, latent_json
from facegan.training import device_of, subseed, threads_of


@dataclass
class Tally:
    """How many each filter saw and removed."""

    counts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, seen: int, removed: int, why: str) -> None:
        """Count `removed` of `seen` under a filter."""
        entry = self.counts.setdefault(name, {"filter": name, "seen": 0, "removed": 0, "why": why})
        entry["seen"] += seen
        entry["removed"] += removed


@dataclass
class Studio:
    """Generator, guide and donors of variation: draws and judges images."""

    G: Generator
    guide: torch.nn.Module
    donors: np.ndarray | None  # variation codes of real train images (N, z_dim); None: N(0, 1)
    donor_person: np.ndarray
    options: Synthesize
    device: torch.device
    photos: np.ndarray  # real train images, grey (N, 64, 64), by row as `donor_person`
    copy: float  # the similarity from which an image is a near-copy of a photo: see facegan.leakage

    def variation(self, count: int, people: Sequence[int], weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Variation codes (count, z_dim): a photo of each of `people`, blended, turned towards photos of others."""
        if self.donors is None:
            return rng.standard_normal((count, self.G.z_dim)).astype(np.float32)
        photos = [rng.choice(np.flatnonzero(self.donor_person == person), count) for person in people]
        strangers = np.flatnonzero(~np.isin(self.donor_person, people))
        other = self.donors[rng.choice(strangers if len(strangers) else len(self.donors), count)]
        own = self.G.blend(np.stack([self.donors[photo] for photo in photos]), weights)
        options = self.options
        return self.G.vary(own, other, options.borrowed, options.variation_noise, rng).astype(np.float32)

    def shoot(self, code: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images of one person (N, H, W, C) uint8 and the guide's embeddings of them (N, embedding_dim)."""
        pixels = draw(self.G, np.repeat(code[None], len(z), axis=0), z, self.options.batch_size)
        return pixels, embed(self.guide, pixels, self.options.batch_size, self.device)

    def fresh(self, pixels: np.ndarray, people: Sequence[int], tally: Tally) -> np.ndarray:
        """Which images (N,) bool are no near-copy of a photo of the people they descend from."""
        near, _ = leakage.closest(leakage.grey(pixels), self.photos[np.isin(self.donor_person, people)])
        copies = near >= self.copy
        tally.add("near-copies of a train photo", len(pixels), int(copies.sum()), f"similarity from {self.copy:.3f}")
        return ~copies


def run(options: Synthesize, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `manifest/` (synthetic train rows) and `filters.json` (thresholds, counts, requested, made).

    `inputs` are `manifest` (real rows), `generator` and `guide`. What cannot be filled within the bounded
    number of attempts is reported. Raises UserError when nothing at all is left.
    """
    torch.set_num_threads(threads_of(context.runtime))
    device = device_of(context.runtime)
    G, spec = load_generator(inputs["generator"], device)
    guide, _ = load_embedder(inputs["guide"], device)
    train = ManifestImages(inputs["manifest"], split="train")
    val = ManifestImages(inputs["manifest"], split="val")
    person = np.asarray([spec["identities"].index(name) for name in train.identity])
    donors = encode_all(G, train, person, options, device)
    studio = Studio(G, guide, donors, person, options, device, leakage.grey(train.pixels), copy_limit(train, person))
    train_embedding = embed(guide, train.pixels, options.batch_size, device)
    centres = robust_centres(train_embedding, person)
    thresholds = calibrate(embed(guide, val.pixels, options.batch_size, device), val.codes()[1], options.max_fmr)
    thresholds["person"] = between(thresholds["person"], train_embedding, person, centres)
    tally = Tally()

    generator = inputs["generator"].name
    rows = existing_people(studio, spec["identities"], centres, thresholds, tally, generator, context)
    made_existing = len(rows)
    new_rows, new_people = new_identities(studio, spec["identities"], centres, thresholds, tally, generator, context)
    rows += new_rows
    requested = {
        "images of train people": len(spec["identities"]) * options.images_per_existing,
        "new people": options.new_identities,
        "images of new people": options.new_identities * options.images_per_new,
    }
    made = {
        "images of train people": made_existing,
        "new people": new_people,
        "images of new people": len(new_rows),
    }
    if not rows:
        raise UserError(
            f"no synthetic image was left (asked for {requested})",
            fix="raise synthesize.max_fmr or max_attempts, or train the generator for longer",
        )
    license_ = licences.inherited(licences.of(inputs["manifest"], "train"))
    rows = [{**row, "license": license_} for row in rows]  # of the photos that the generator learned from
    manifest.write(out, rows, "synthesize", {name: path.name for name, path in inputs.items()})
    counts = list(tally.counts.values())
    report = {"thresholds": thresholds, "counts": counts, "requested": requested, "made": made}
    write_atomic(out / "filters.json", json.dumps(report, indent=1).encode())
    context.table(counts, "what the filters removed")
    for what, wanted in requested.items():
        if made[what] < wanted:
            context.say(f"made {made[what]} of {wanted} {what}: the filters removed the rest")


def existing_people(
    studio: Studio, names: list[str], centres: np.ndarray, thresholds: dict[str, Any], tally: Tally, generator: str,
    context: Context,
) -> list[dict[str, Any]]:  # fmt: skip
    """The best images of each train person, by closeness to the person's real centre under the guide.

    An image no closer to its person than strangers' photos are to each other has left its person.
    """
    stranger = thresholds["image"]["value"]
    options = studio.options
    rows: list[dict[str, Any]] = []
    if options.images_per_existing == 0:
        return rows
    codes = studio.G.codes().detach().cpu().numpy()
    candidates = round(options.images_per_existing * options.oversample)
    for number, name in enumerate(names):
        seed = subseed("existing", options.seed, name)
        z = studio.variation(candidates, [number], np.ones(1), np.random.default_rng(seed))
        pixels, embedding = studio.shoot(codes[number], z)
        new = studio.fresh(pixels, [number], tally)
        score = np.where(new, embedding @ centres[number], -2)
        left, fresh = int((score[new] <= stranger).sum()), int(new.sum())
        tally.add("images that left their train person", fresh, left, f"cosine up to {stranger:.3f}")
        kept = best(score, options.images_per_existing, stranger)
        why = "more candidates than wanted: those least like their person under the guide"
        tally.add("surplus images of train people", fresh - left, fresh - left - len(kept), why)
        for index in kept:
            latent = latent_json(codes[number], z[index], index, options.batch_size)
            rows.append(_row(pixels[index], name, [name], seed, latent, generator))
        context.progress(number + 1, len(names), "train people")
    return rows


def new_identities(
    studio: Studio, names: list[str], centres: np.ndarray, thresholds: dict[str, Any], tally: Tally, generator: str,
    context: Context,
) -> tuple[list[dict[str, Any]], int]:  # fmt: skip
    """Images of people who do not exist, and how many such people; proposals are bounded."""
    options = studio.options
    rng = np.random.default_rng(subseed("new", options.seed))
    codes = studio.G.codes().detach().cpu().numpy()
    limit, stranger = thresholds["person"]["value"], thresholds["image"]["value"]
    rows: list[dict[str, Any]] = []
    taken, proposals = centres, options.new_identities * options.max_attempts
    for attempt in range(proposals):
        made = len(taken) - len(centres)
        if made == options.new_identities:
            break
        try:
            proposal = options.identities.propose(codes, 1, rng)[0]
        except ValueError as error:
            fix = "change synthesize.identities, or give prepare.split.train a larger share"
            raise UserError(f"no new person can be proposed: {error}", fix) from error
        seed = subseed("new", options.seed, attempt)
        candidates = round(options.images_per_new * options.oversample)
        z = studio.variation(candidates, proposal.parents, proposal.weights, np.random.default_rng(seed))
        pixels, embedding = studio.shoot(proposal.code, z)
        centre = robust_centre(embedding)
        near_real, near_new = (centres @ centre).max(), (taken[len(centres) :] @ centre).max(initial=-1.0)
        tally.add("new people too close to a train person", 1, int(near_real > limit), f"cosine above {limit:.3f}")
        if near_real > limit:
            continue
        tally.add("new people too close to each other", 1, int(near_new > limit), f"cosine above {limit:.3f}")
        if near_new > limit:
            continue
        # A blend in which no photo weighs half is a copy of none: the audit looks again.
        heavy = [person for person, share in zip(proposal.parents, proposal.weights, strict=True) if share >= 0.5]
        new = studio.fresh(pixels, heavy, tally) if heavy else np.ones(candidates, bool)
        score = np.where(new, embedding @ centre, -2)
        left, fresh = int((score[new] <= stranger).sum()), int(new.sum())
        tally.add("images that left their new person", fresh, left, f"cosine up to {stranger:.3f}")
        kept = best(score, options.images_per_new, stranger)
        why = "more candidates than wanted: those least like the rest of their person under the guide"
        tally.add("surplus images of new people", fresh - left, fresh - left - len(kept), why)
        if len(kept) == 0:
            continue
        name, parents = f"synthetic/new-{made:06d}", [names[p] for p in proposal.parents]
        for index in kept:
            latent = latent_json(proposal.code, z[index], index, options.batch_size)
            rows.append(_row(pixels[index], name, parents, seed, latent, generator))
        taken = np.concatenate([taken, centre[None]])
        context.progress(made + 1, options.new_identities, "new people")
    return rows, len(taken) - len(centres)


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


def robust_centre(embedding: np.ndarray) -> np.ndarray:
    """The centre of unit embeddings (N, d), each weighted by its closeness to the plain mean: (d,), length 1."""
    mean = embedding.mean(axis=0)
    weight = np.clip(embedding @ mean / max(float(np.linalg.norm(mean)), 1e-8), 0, None) ** 2 + 1e-6
    centre = weight @ embedding
    return np.asarray(centre / max(float(np.linalg.norm(centre)), 1e-8), np.float32)


def robust_centres(embedding: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The robust centre of each person 0 .. max(codes): (people, d)."""
    return np.stack([robust_centre(embedding[codes == code]) for code in range(int(codes.max()) + 1)])


def best(score: np.ndarray, count: int, above: float) -> np.ndarray:
    """Places of the `count` highest scores that are greater than `above`, in ascending order of place."""
    order = np.argsort(-score, kind="stable")[:count]
    return np.sort(order[score[order] > above])


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


def _row(
    pixels: np.ndarray, identity: str, parents: list[str], seed: int, latent: str, generator: str
) -> dict[str, Any]:
    return manifest.row(
        encode_png(pixels),
        identity=identity,
        source="synthetic",
        dataset=identity.split("/")[0],
        split="train",
        height=pixels.shape[0],
        width=pixels.shape[1],
        generator=generator,
        seed=seed,
        latent=latent,
        parents=parents,
    )
