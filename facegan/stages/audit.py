"""audit: the synthetic set under a judge that is not the guide: its card, and the leakage gate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facegan.core.errors import UserError
from facegan.core.files import write_atomic
from facegan.core.types import Embed
from facegan.data.dataset import ManifestImages
from facegan.evaluation.judges import judges_half
from facegan.evaluation.leakage_gate import Copies, faults, membership, near_copies, new_people
from facegan.evaluation.options import Audit
from facegan.evaluation.set_card import JudgedFaces, describe
from facegan.evaluation.whitening_probe import whitening_probe
from facegan.generation.options import Synthesize
from facegan.generation.redraw import Redrawing
from facegan.metrics import set_statistics
from facegan.recognition.embedder import batched
from facegan.reporting import audit
from facegan.reporting.galleries import sheet
from facegan.runtime.context import Context
from facegan.runtime.devices import device_of, threads_of

SHOWN = 6  # faces a row
WEAK = 0.9  # of train people under a new name: the log says when fewer are found


def run(options: Audit, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `card.json`, `gate.json` and, for faults that the gate finds, `copies.png` and `people.png`.

    `inputs` are `manifest` (real rows), `synthetic` and, for a judge trained here, `judge`. Raises UserError
    where the gate fails and `enforce` is set, with both files written before, or where val has too few people.
    """
    torch.set_num_threads(threads_of(context.runtime))
    embed = batched(options.judge.load(inputs.get("judge"), str(device_of(context.runtime))), options.batch_size)
    train, val = (_faces(inputs["manifest"], split, embed) for split in ("train", "val"))
    synthetic = _faces(inputs["synthetic"], None, embed)
    if getattr(options.judge, "people", "train") == "val":
        learned_from = judges_half(val.names)
        val = val.only(np.flatnonzero(~np.isin(val.images.identity.astype(str), learned_from)))
    try:
        thresholds = set_statistics.thresholds(val.embedding, val.person, options.max_fmr)
    except ValueError as error:
        raise UserError(
            f"the judge's thresholds cannot be measured on {len(val.names)} val people: {error}",
            fix="give prepare.split.val a larger share",
        ) from error
    context.say(f"the judge is {options.judge.note()}")
    is_new = ~np.isin(synthetic.images.identity.astype(str), train.names)
    existing, new = (synthetic.only(np.flatnonzero(side)) for side in (~is_new, is_new))
    from_elsewhere = not hasattr(options.judge, "people")  # a recognizer trained here knows some of them
    redrawing = None
    if "generator" in inputs:
        settings = Synthesize.model_validate(extra.get("redraw", {}))
        redrawing = Redrawing(inputs["generator"], train.images, settings, device_of(context.runtime))
    copies = Copies(train, redrawing, options.max_false_alarm)
    gate = {
        "judge": options.judge.note(),
        "thresholds": thresholds,
        "copies": near_copies(synthetic, train, val, copies),
        "membership": membership(synthetic, train, val),
        "people": new_people(new, existing, val, train, options, embed if from_elsewhere else None),
        "enforced": options.enforce,
    }
    gate["faults"] = faults(gate, options)
    write(out / "gate.json", gate)
    pictures(gate, inputs, out)
    card = describe(existing, new, train, val, thresholds, options.neighbours)
    probe = whitening_probe(train.images, new.images, val.images)
    described = {"judge": options.judge.note(), "thresholds": thresholds, **card, "probe": probe}
    write(out / "card.json", described)
    context.say(audit.in_short(described))
    stop(gate, out, context)


def _faces(folder: Path, split: str | None, embed: Embed) -> JudgedFaces:
    images = ManifestImages(folder, split)
    names, person = images.codes()
    return JudgedFaces(images, embed(images.pixels), names, person)


def pictures(gate: dict[str, Any], inputs: dict[str, Path], out: Path) -> None:
    """Pictures of the faults for a person to look at: each synthetic row above its photo or its train person."""
    file_names = {fault.get("picture") for fault in gate["faults"]}
    if "copies.png" in file_names:
        people = audit.closest_pairs(gate, inputs["manifest"], inputs["synthetic"])
        write_atomic(out / "copies.png", sheet(audit.side_by_side(people)))
    if "people.png" in file_names:
        people = audit.closest_people(gate, inputs["manifest"], inputs["synthetic"], SHOWN)
        write_atomic(out / "people.png", sheet(people))


def stop(gate: dict[str, Any], out: Path, context: Context) -> None:
    """Raise UserError for a gate that is not passed and is enforced; log one that is not passed and is not enforced."""
    verdict = audit.verdict(gate)
    for fault in gate["faults"]:
        if not gate["enforced"]:
            context.say(f"the leakage gate: {fault['outcome']}, and is not enforced: {fault['what']}")
    if gate["faults"] and gate["enforced"]:
        what = "; ".join(fault["what"] for fault in gate["faults"])
        fixes = "; or ".join(fault["fix"] for fault in gate["faults"])
        pictures = [str(out / fault["picture"]) for fault in gate["faults"] if "picture" in fault]
        paths = " and ".join(
            [*(f"{path} (faces)" for path in pictures), f"{out / 'gate.json'} (all pairs, by image_id)"]
        )
        said = {"failed": "the leakage gate failed", "cannot tell": "the leakage gate cannot tell, which is no pass"}
        alone = "for the comparison alone, audit.enforce=false goes on, with a set that is not to be handed on"
        raise UserError(f"{said[verdict]}: {what}", fix=f"look at {paths}; {fixes}; {alone}")
    copies, person = gate["copies"], gate["membership"]["person"]
    if not gate["faults"]:
        context.say(
            f"the leakage gate is passed: {copies['images']} images, no near-copy; of each planted kind at least "
            f"{min(copies['power'].values()):.0%} are found"
        )
    context.say(f"who was in it: AUC {person['auc']:.3f} for a person (0.5: the images do not tell, by this attack)")
    if (power := gate["people"]["power_unseen"]) is not None and power < WEAK:
        context.say(f"train people are hard to tell here: {power:.0%} are found when they stand under a new name")


def write(path: Path, values: dict[str, Any]) -> None:
    """Write JSON with floats rounded to six decimals, and null for NaN and infinity."""
    write_atomic(path, json.dumps(_rounded(values), indent=1, allow_nan=False).encode())


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    return value
