"""The thresholds of the filters of a synthetic set, measured once on real photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from facegan.core.errors import UserError
from facegan.data.dataset import ManifestImages
from facegan.generation.gans.networks.base import Generator
from facegan.generation.options import Synthesize
from facegan.generation.synthesizer import Synthesizer
from facegan.metrics import leakage
from facegan.metrics.set_statistics import robust_centre, robust_centres
from facegan.metrics.verification import pair_scores, threshold_at_far
from facegan.recognition.embedder import embed, load_embedder
from facegan.training.tensors import to_input


def prepare_synthesizer(
    options: Synthesize, inputs: dict[str, Path], G: Generator, names: list[str], device: torch.device
) -> tuple[Synthesizer, dict[str, Any]]:
    """The synthesizer, with all that is measured once on real photos, and the thresholds for the report."""
    guide, _ = load_embedder(inputs["guide"], device)
    train = ManifestImages(inputs["manifest"], split="train")
    val = ManifestImages(inputs["manifest"], split="val")
    person = np.asarray([names.index(name) for name in train.identity])
    donors, copy_threshold = encode_all(G, train, person, options, device), copy_limit(train, person)
    embedding = embed(guide, train.pixels, options.batch_size, device)
    centres = robust_centres(embedding, person)
    val_embedding, val_person = embed(guide, val.pixels, options.batch_size, device), val.codes()[1]
    thresholds = calibrate(val_embedding, val_person, options.max_fmr)
    person_threshold = between_strangers_and_train(thresholds["person"], embedding, person, centres)
    thresholds["person"] = among_many(person_threshold, robust_centres(val_embedding, val_person), centres)
    synthesizer = Synthesizer(
        G=G,
        guide=guide,
        donors=donors,
        donor_person=person,
        photos=leakage.grey(train.pixels),
        centres=centres,
        options=options,
        device=device,
        copy_threshold=copy_threshold,
        person_threshold=thresholds["person"]["value"],
        image_threshold=thresholds["image"]["value"],
    )
    return synthesizer, thresholds


def copy_limit(train: ManifestImages, person: np.ndarray) -> float:
    """The similarity that one real photo in a hundred has with another of its person: new images stay below it.

    The audit's threshold is higher: it refuses what is surely a copy, this one leaves out what might be one.
    """
    similarity = leakage.nearest_other(leakage.grey(train.pixels), person)
    similarity = similarity[similarity > -1]
    if len(similarity) == 0:
        raise UserError(
            "near-copies cannot be told from new photos: no train person has two photos",
            fix="raise prepare.min_images to 2 or more",
        )
    return float(np.quantile(similarity, 0.99, method="higher"))


def calibrate(embedding: np.ndarray, codes: np.ndarray, max_fmr: float) -> dict[str, Any]:
    """Thresholds from val people: the cosine that a share `max_fmr` of their impostor comparisons exceeds.

    `image` compares images with images; `person` compares the centres of two disjoint halves of people's
    images with each other, as new people's centres are compared.
    """
    pairs = pair_scores(embedding, codes)
    impostors = pairs.score[~pairs.genuine]
    person_rows = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    person_rows = [rows for rows in person_rows if len(rows) >= 2]
    if len(person_rows) < 2:
        raise UserError(
            "the filters need two val people or more, with two images each",
            fix="give prepare.split.val a larger share",
        )
    first, second = (np.stack([robust_centre(embedding[rows[half::2]]) for rows in person_rows]) for half in (0, 1))
    centre = (first @ second.T)[~np.eye(len(person_rows), dtype=bool)]
    how = f"exceeded by {max_fmr:.2%} of {len(impostors)} comparisons of different val people under the guide"
    how_centre = f"exceeded by at most {max_fmr:.2%} of {len(centre)} comparisons of val people's centres"
    return {
        "image": {"value": threshold_at_far(impostors, max_fmr), "how": how},
        "person": {"value": threshold_at_far(centre, max_fmr), "how": how_centre},
    }


def between_strangers_and_train(
    strangers: dict[str, Any], embedding: np.ndarray, person: np.ndarray, centres: np.ndarray
) -> dict[str, Any]:
    """The person threshold, moved half way from that of strangers to the cosine at which the train people begin.

    Strangers' cosines alone are too low a bound: the guide has learned the train people and draws everything that
    descends from them towards them, so that nearly no mixture passes. Train people begin at the cosine with their
    person's centre that 95 % of train photos (N, d) reach.
    """
    train_cosine = float(np.quantile(np.einsum("nd,nd->n", embedding, centres[person]), 0.05))
    if train_cosine <= strangers["value"]:
        return strangers
    how = f"half way from {strangers['value']:.3f}, {strangers['how']}, to {train_cosine:.3f}, reached by 95 % of "
    return {"value": (strangers["value"] + train_cosine) / 2, "how": f"{how}train photos with their person's centre"}


def among_many(bound: dict[str, Any], strangers: np.ndarray, centres: np.ndarray) -> dict[str, Any]:
    """The person threshold, raised to how close half of real strangers come to the train person nearest to them.

    Among many train people everybody resembles somebody: a bound on pairs then rejects nearly all people, real ones
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
    encoded = []
    for start in range(0, len(train), options.batch_size):
        rows = slice(start, start + options.batch_size)
        w = G.codes()[torch.from_numpy(person[rows]).to(device)]
        z = G.encode(to_input(train.pixels[rows]).contiguous().to(device), w)
        if z is None:
            return None
        encoded.append(z.cpu().numpy())
    return np.concatenate(encoded)
