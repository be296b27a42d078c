"""audit: the synthetic set under a judge that is not the guide: its card, and the leakage gate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facegan import card, leakage
from facegan.config import Audit
from facegan.errors import UserError
from facegan.events import Context
from facegan.images import ManifestImages
from facegan.judges import Embed, batched, judges_half
from facegan.reporting import audited
from facegan.reporting.faces import sheet
from facegan.set_card import Faces, describe
from facegan.store import write_atomic
from facegan.training import device_of, threads_of

LISTED = 24  # closest pairs kept for the report
SHOWN = 6  # faces a row


def run(options: Audit, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `card.json`, `gate.json` and, of what the gate does not let pass, `copies.png` and `people.png`.

    `inputs` are `manifest` (real rows), `synthetic` and, for a judge trained here, `judge`. Raises UserError
    where the gate fails and `enforce` is set, with both files written before, or where val has too few people.
    """
    torch.set_num_threads(threads_of(context.runtime))
    embed = batched(options.judge.load(inputs.get("judge"), str(device_of(context.runtime))), options.batch_size)
    train, val = (_faces(inputs["manifest"], split, embed) for split in ("train", "val"))
    synthetic = _faces(inputs["synthetic"], None, embed)
    if getattr(options.judge, "people", "train") == "val":
        known = judges_half(val.names)
        val = val.only(np.flatnonzero(~np.isin(val.images.identity.astype(str), known)))
    try:
        limits = card.thresholds(val.embedding, val.person, options.max_fmr)
    except ValueError as error:
        raise UserError(
            f"the judge's thresholds cannot be measured on {len(val.names)} val people: {error}",
            fix="give prepare.split.val a larger share",
        ) from error
    context.say(f"the judge is {options.judge.note()}")
    fresh = ~np.isin(synthetic.images.identity.astype(str), train.names)
    existing, new = (synthetic.only(np.flatnonzero(side)) for side in (~fresh, fresh))
    gate = {
        "judge": options.judge.note(),
        "thresholds": limits,
        "copies": near_copies(synthetic, train, options),
        "people": new_people(new, existing, val, train, limits, options),
        "enforced": options.enforce,
    }
    gate["faults"] = faults(gate)
    write(out / "gate.json", gate)
    pictures(gate, inputs, out)
    seen = describe(existing, new, train, val, limits, options.neighbours)
    write(out / "card.json", {"judge": options.judge.note(), "thresholds": limits, **seen})
    stop(gate, out, context)


def _faces(folder: Path, split: str | None, embed: Embed) -> Faces:
    images = ManifestImages(folder, split)
    names, person = images.codes()
    return Faces(images, embed(images.pixels), names, person)


def near_copies(synthetic: Faces, train: Faces, options: Audit) -> dict[str, Any]:
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
    new: Faces, existing: Faces, val: Faces, train: Faces, limits: dict[str, Any], options: Audit
) -> dict[str, Any]:
    """Part 2 of the gate: how many new people match a train person.

    Beside it the null, how many val people do, and the power: how many train people match themselves, their
    synthetic images (or, without any, half of their photos) against their photos, and how many val people do, one
    half of their photos against the other.
    """

    def alike(faces: Faces, photos: Faces) -> np.ndarray:
        return leakage.likeness(faces.embedding, faces.person, photos.embedding, photos.person)

    def own(faces: Faces, photos: Faces) -> np.ndarray:
        _, mine, theirs = np.intersect1d(faces.names, photos.names, return_indices=True)
        return np.asarray(alike(faces, photos)[mine, theirs])

    def halves(faces: Faces) -> np.ndarray:
        return own(*(faces.only(side) for side in card.halves(faces.person)))

    known = own(existing, train) if len(existing) else halves(train)
    unseen = halves(val)
    level = leakage.match_level(known, unseen, limits["image"]["value"])

    def rates(faces: Faces) -> dict[str, Any]:
        if len(faces) == 0:
            return {"people": 0, "matched": 0, "rate": 0.0, "centre_rate": 0.0, "worst": []}
        found = alike(faces, train)
        near = card.centres(faces.embedding, faces.person) @ card.centres(train.embedding, train.person).T
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


def pictures(gate: dict[str, Any], inputs: dict[str, Path], out: Path) -> None:
    """What the faults are about, for a person to look at: each synthetic row above its photo or its train person."""
    kinds = {fault["picture"] for fault in gate["faults"]}
    if "copies.png" in kinds:
        people = audited.closest(gate, inputs["manifest"], inputs["synthetic"])
        write_atomic(out / "copies.png", sheet(audited.beside(people)))
    if "people.png" in kinds:
        people = audited.alike(gate, inputs["manifest"], inputs["synthetic"], SHOWN)
        write_atomic(out / "people.png", sheet(people))


def stop(gate: dict[str, Any], out: Path, context: Context) -> None:
    """Raise UserError for a gate that failed and is enforced; say it for one that is not."""
    for fault in gate["faults"]:
        if not gate["enforced"]:
            context.say(f"the leakage gate fails, and is not enforced: {fault['what']}")
    if gate["faults"] and gate["enforced"]:
        what = "; ".join(fault["what"] for fault in gate["faults"])
        fixes = "; or ".join(fault["fix"] for fault in gate["faults"])
        shown = " and ".join(str(out / fault["picture"]) for fault in gate["faults"])
        raise UserError(
            f"the leakage gate failed: {what}",
            fix=f"look at {shown} (faces) and {out / 'gate.json'} (all pairs, by image_id); {fixes}",
        )
    if not gate["faults"]:
        context.say(f"the leakage gate is passed: {gate['copies']['images']} images, no near-copy")
    if (power := gate["people"]["power"]) < 0.5:
        context.say(f"this judge is weak: it finds {power:.0%} of train people when they stand under a new name")


def write(path: Path, values: dict[str, Any]) -> None:
    """JSON with floats to six digits, and null for what is no number."""
    write_atomic(path, json.dumps(_rounded(values), indent=1, allow_nan=False).encode())


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    return value
