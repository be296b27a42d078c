"""The leakage gate: near-copies of train photos, and new people who are train people."""

from __future__ import annotations

from typing import Any

import numpy as np

from facegan.core.errors import UserError
from facegan.evaluation.options import Audit
from facegan.evaluation.set_card import JudgedFaces
from facegan.metrics import leakage, set_statistics

LISTED = 24  # closest pairs kept for the report


def near_copies(synthetic: JudgedFaces, train: JudgedFaces, options: Audit) -> dict[str, Any]:
    """Part 1 of the gate: which synthetic images are copies of a training photo, and how well that can be told."""
    photos = leakage.grey(train.images.pixels)
    score, place = leakage.closest(leakage.grey(synthetic.images.pixels), photos)
    real = leakage.nearest_other(photos, train.person)
    try:
        bound = leakage.copy_bound(train.images.pixels, train.person, options.max_false_alarm)
    except ValueError as error:
        raise UserError(
            f"near-copies cannot be told from new photos: {error}", fix="raise prepare.min_images to 2 or more"
        ) from error
    order = np.argsort(-score, kind="stable")[: max(LISTED, int((score >= bound.value).sum()))]
    return {
        **bound._asdict(),
        "images": len(score),
        "copies": int((score >= bound.value).sum()),
        "largest": float(score.max()),
        "median": float(np.median(score)),
        "real_median": float(np.median(real)),
        "real_largest": float(real.max()),
        "closest": [
            {
                "image_id": str(synthetic.images.image_id[n]),
                "identity": str(synthetic.images.identity[n]),
                "photo": str(train.images.image_id[place[n]]),
                "photo_identity": str(train.images.identity[place[n]]),
                "similarity": float(score[n]),
            }
            for n in order
        ],
    }


def new_people(
    new: JudgedFaces,
    existing: JudgedFaces,
    val: JudgedFaces,
    train: JudgedFaces,
    limits: dict[str, Any],
    options: Audit,
) -> dict[str, Any]:
    """Part 2 of the gate: how many new people match a train person.

    Beside it the null, how many val people do, and the power: how many train people match themselves, their
    synthetic images (or, without any, half of their photos) against their photos, and how many val people do, one
    half of their photos against the other.
    """

    def alike(faces: JudgedFaces, photos: JudgedFaces) -> np.ndarray:
        return leakage.likeness(faces.embedding, faces.person, photos.embedding, photos.person)

    def own(faces: JudgedFaces, photos: JudgedFaces) -> np.ndarray:
        _, mine, theirs = np.intersect1d(faces.names, photos.names, return_indices=True)
        return np.asarray(alike(faces, photos)[mine, theirs])

    def halves(faces: JudgedFaces) -> np.ndarray:
        return own(*(faces.only(side) for side in set_statistics.halves(faces.person)))

    known = own(existing, train) if len(existing) else halves(train)
    unseen = halves(val)
    level = leakage.match_level(known, unseen, limits["image"]["value"])

    def rates(faces: JudgedFaces) -> dict[str, Any]:
        if len(faces) == 0:
            return {"people": 0, "matched": 0, "rate": 0.0, "centre_rate": 0.0, "worst": []}
        found = alike(faces, train)
        near = (
            set_statistics.centres(faces.embedding, faces.person)
            @ set_statistics.centres(train.embedding, train.person).T
        )
        best, with_whom = found.max(axis=1), found.argmax(axis=1)
        return {
            **leakage.summary(found, level),
            "centre_rate": float((near >= limits["centre"]["value"]).any(axis=1).mean()),
            "worst": [
                {"identity": faces.names[n], "train_person": train.names[with_whom[n]], "likeness": float(best[n])}
                for n in np.argsort(-best, kind="stable")[:LISTED]
            ],
        }

    return {
        "new": rates(new),
        "null": rates(val),
        "level": level,
        "power": float((known >= level).mean()),
        "power_unseen": float((unseen >= level).mean()),
        "max_match_rate": options.max_match_rate,
    }


def faults(gate: dict[str, Any]) -> list[dict[str, str]]:
    """What the gate does not let pass: {what was found against which bound, the picture of it, what to do}."""
    found = []
    copies, people = gate["copies"], gate["people"]
    if copies["copies"]:
        worst = copies["closest"][0]
        found.append(
            {
                "what": f"{copies['copies']} of {copies['images']} synthetic images are near-copies of a training "
                f"photo (similarity {copies['value']:.3f} or more; the largest is {worst['similarity']:.3f}, "
                f"{worst['image_id'][:12]} of {worst['identity']} with {worst['photo'][:12]} of "
                f"{worst['photo_identity']})",
                "picture": "copies.png",
                "fix": "borrow more variation (synthesize.borrowed, variation_noise), train the generator for "
                "less long (train_gan.kimg), or lower audit.max_false_alarm knowingly",
            }
        )
    new, null = people["new"], people["null"]
    if new["rate"] > people["max_match_rate"]:
        worst = new["worst"][0]
        found.append(
            {
                "what": f"{new['matched']} of {new['people']} new people match a train person "
                f"({new['rate']:.1%}, above audit.max_match_rate {people['max_match_rate']:.1%}; of "
                f"{null['people']} real val people {null['matched']} do), first {worst['identity']} with "
                f"{worst['train_person']}: mean cosine {worst['likeness']:.3f}, a match from {people['level']:.3f}",
                "picture": "people.png",
                "fix": "mix more people into a new one (synthesize.identities.parents), lower synthesize.max_fmr, or "
                "raise audit.max_match_rate knowingly",
            }
        )
    return found
