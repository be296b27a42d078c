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
    """Part 1 of the gate: which synthetic images are copies of a training photo, and how well copies are detected."""
    photos = leakage.grey(train.images.pixels)
    similarity, nearest_photo = leakage.closest(leakage.grey(synthetic.images.pixels), photos)
    real_similarity = leakage.nearest_other(photos, train.person)
    try:
        bound = leakage.copy_bound(train.images.pixels, train.person, options.max_false_alarm)
    except ValueError as error:
        raise UserError(
            f"near-copies cannot be told from new photos: {error}", fix="raise prepare.min_images to 2 or more"
        ) from error
    order = np.argsort(-similarity, kind="stable")[: max(LISTED, int((similarity >= bound.value).sum()))]
    return {
        **bound._asdict(),
        "images": len(similarity),
        "copies": int((similarity >= bound.value).sum()),
        "largest": float(similarity.max()),
        "median": float(np.median(similarity)),
        "real_median": float(np.median(real_similarity)),
        "real_largest": float(real_similarity.max()),
        "closest": [
            {
                "image_id": str(synthetic.images.image_id[n]),
                "identity": str(synthetic.images.identity[n]),
                "photo": str(train.images.image_id[nearest_photo[n]]),
                "photo_identity": str(train.images.identity[nearest_photo[n]]),
                "similarity": float(similarity[n]),
            }
            for n in order
        ],
    }


def new_people(
    new: JudgedFaces,
    existing: JudgedFaces,
    val: JudgedFaces,
    train: JudgedFaces,
    thresholds: dict[str, Any],
    options: Audit,
) -> dict[str, Any]:
    """Part 2 of the gate: how many new people match a train person.

    Beside it the null: how many val people do. And the power: how many train people match themselves, by their
    synthetic images (or, without any, half of their photos) against their photos, and how many val people do, by
    one half of their photos against the other.
    """

    def likeness(faces: JudgedFaces, photos: JudgedFaces) -> np.ndarray:
        return leakage.likeness(faces.embedding, faces.person, photos.embedding, photos.person)

    def own_likeness(faces: JudgedFaces, photos: JudgedFaces) -> np.ndarray:
        _, rows, columns = np.intersect1d(faces.names, photos.names, return_indices=True)
        return np.asarray(likeness(faces, photos)[rows, columns])

    def halves(faces: JudgedFaces) -> np.ndarray:
        return own_likeness(*(faces.only(side) for side in set_statistics.halves(faces.person)))

    seen = own_likeness(existing, train) if len(existing) else halves(train)
    unseen = halves(val)
    level = leakage.match_level(seen, unseen, thresholds["image"]["value"])

    def rates(faces: JudgedFaces) -> dict[str, Any]:
        if len(faces) == 0:
            return {"people": 0, "matched": 0, "rate": 0.0, "centre_rate": 0.0, "worst": []}
        likenesses = likeness(faces, train)
        centre_similarity = (
            set_statistics.centres(faces.embedding, faces.person)
            @ set_statistics.centres(train.embedding, train.person).T
        )
        largest, nearest = likenesses.max(axis=1), likenesses.argmax(axis=1)
        return {
            **leakage.summary(likenesses, level),
            "centre_rate": float((centre_similarity >= thresholds["centre"]["value"]).any(axis=1).mean()),
            "worst": [
                {"identity": faces.names[n], "train_person": train.names[nearest[n]], "likeness": float(largest[n])}
                for n in np.argsort(-largest, kind="stable")[:LISTED]
            ],
        }

    return {
        "new": rates(new),
        "null": rates(val),
        "level": level,
        "power": float((seen >= level).mean()),
        "power_unseen": float((unseen >= level).mean()),
        "max_match_rate": options.max_match_rate,
    }


def faults(gate: dict[str, Any]) -> list[dict[str, str]]:
    """What the gate does not let pass, each {what: the value and its bound, picture: a file, fix: what to do}."""
    failures = []
    copies, people = gate["copies"], gate["people"]
    if copies["copies"]:
        worst = copies["closest"][0]
        failures.append(
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
        failures.append(
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
    return failures
