"""Images that were made to deceive one recognizer, shown to all others: arm by arm, and a pair as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegan.core.types import Embed
from facegan.data.dataset import ManifestImages
from facegan.data.images import encode_png
from facegan.evaluation.protocols import PROTOCOLS, bounds
from facegan.evaluation.protocols.attack import AttackProtocol
from facegan.metrics import intervals
from facegan.metrics.verification import unit_rows
from facegan.recognition.embedder import embed, load_embedder
from facegan.recognition.fitted import is_fitted, load_fitted
from facegan.reporting import sections, words
from facegan.reporting.comparisons import ends
from facegan.reporting.runs import Run

BATCH = 64
SIDE_PX, GAP_PX = 128, 8
ITSELF = "the same network"


@dataclass(frozen=True)
class Verdicts:
    """What one recognizer says of pairs whose first image is changed: cosines (n,) before and after, right and turned.

    right: bool (n,), judged rightly before. turned: of these, wrongly now.
    """

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    right: NDArray[np.bool_]
    turned: NDArray[np.bool_]


@dataclass(frozen=True)
class Transfer:
    """The table of one attack: {"label", "epsilon", "columns", "rows": [{"arm", "cells"}], "remarks"}, and a picture.

    Each cell is {value, ci_low, ci_high, n}: the share of n pairs, judged rightly before, that were turned; n counts
    over all couples of networks. picture: PNG bytes of two pairs with `caption`, None where faces are not shown.
    """

    table: dict[str, Any]
    picture: bytes | None = None
    caption: str = ""


def attacks(recipe: dict[str, Any]) -> list[AttackProtocol]:
    """The attacks among a recipe's benchmarks."""
    specs = [spec for spec in recipe["benchmark"]["benchmarks"] if spec["kind"] == "attack"]
    return [AttackProtocol.model_validate(PROTOCOLS.get("attack").model_validate(spec).model_dump()) for spec in specs]


def collect(
    recipe: dict[str, Any], inputs: dict[str, Path], runs: list[Run], n_boot: int, seed: int, show_faces: bool
) -> list[Transfer]:
    """One table for each attack whose images the benchmarks kept; baselines are shown them too, and make none."""
    found = []
    for attack in attacks(recipe):
        makers = [run for run in runs if "perturbed" in run.faces.probed.get(attack.label, {})]
        judges = [run for run in runs if run.faces.thresholds.get(attack.fmr) is not None and _folder(inputs, run)]
        if not makers or not judges:
            continue
        verdicts = {
            (i, j): verdict for j, run in enumerate(judges) for i, verdict in _judge(inputs, attack, makers, run)
        }
        table = _table(recipe, attack, makers, judges, verdicts, n_boot, seed)
        shown = next((i for i, run in enumerate(makers) if run.arm == recipe["comparison"]["baseline"]), 0)
        own = next((j for j, run in enumerate(judges) if _same(run, makers[shown])), None)
        if not show_faces or own is None:
            found.append(Transfer(table))
            continue
        found.append(Transfer(table, *_picture(inputs, attack, makers[shown], verdicts[shown, own])))
    return found


def _same(one: Run, other: Run) -> bool:
    return (one.arm, one.seed) == (other.arm, other.seed)


def _folder(inputs: dict[str, Path], run: Run) -> Path | None:
    """The recognizer of a run; None where the report was not given its weights."""
    if run.seed is None:
        folder = inputs.get(f"fit_recognizer:{run.arm}")
        return folder if folder is not None and is_fitted(folder) else None
    folder = sections.recognizer(inputs, run.arm, run.seed)
    return folder if folder is not None and (folder / "embedder.json").is_file() else None


def _embedder(folder: Path, run: Run) -> Embed:
    if run.seed is None:
        return load_fitted(folder)
    net, _ = load_embedder(folder)
    return lambda pixels: embed(net, pixels, BATCH)


def _judge(
    inputs: dict[str, Path], attack: AttackProtocol, makers: list[Run], judge: Run
) -> list[tuple[int, Verdicts]]:
    """What one recognizer says of the images of all."""
    folder = _folder(inputs, judge)
    assert folder is not None
    embed_pixels, threshold = _embedder(folder, judge), judge.faces.thresholds[attack.fmr]
    known, person = unit_rows(judge.faces.embedding), judge.faces.person
    verdicts = []
    for i, maker in enumerate(makers):
        probe = maker.faces.probed[attack.label]
        first, second = probe["first"], probe["second"]
        changed = unit_rows(embed_pixels(probe["perturbed"]))
        before, after = ((rows * known[second]).sum(axis=1) for rows in (known[first], changed))
        genuine = person[first] == person[second]
        right = (before >= threshold) == genuine
        verdicts.append((i, Verdicts(before, after, right, right & ((after >= threshold) != genuine))))
    return verdicts


def _table(
    recipe: dict[str, Any],
    attack: AttackProtocol,
    makers: list[Run],
    judges: list[Run],
    verdicts: dict[tuple[int, int], Verdicts],
    n_boot: int,
    seed: int,
) -> dict[str, Any]:
    faces = makers[0].faces
    weights = intervals.person_weights(len(makers[0].names), n_boot, seed)
    columns, confidence = list(dict.fromkeys(run.arm for run in judges)), recipe["comparison"]["confidence"]
    by_arm: dict[str, dict[str, Any]] = {}
    remarks = []
    for arm in dict.fromkeys(run.arm for run in makers):
        cells = {}
        for column in (ITSELF, *columns):
            couples = [
                (i, j)
                for i, maker in enumerate(makers)
                for j, judge in enumerate(judges)
                if maker.arm == arm and _same(maker, judge) == (column == ITSELF) and column in (ITSELF, judge.arm)
            ]
            cells[column] = _cell(attack, makers, couples, verdicts, weights, len(makers[0].names), confidence)
        by_arm[arm] = cells
    for arm, cells in by_arm.items():
        for other in by_arm.values():
            own, transferred = cells[ITSELF]["value"], other.get(arm, {}).get("value")
            if own is not None and transferred is not None and transferred > own:
                remarks.append(
                    f"Images made on another network turn more pairs of “{arm}” than its own do: its gradient misleads "
                    "the attacker, and its other figures flatter it."
                )
                break
    people = len(np.unique(faces.person[np.concatenate([m.faces.probed[attack.label]["first"] for m in makers])]))
    return {
        "label": attack.label,
        "epsilon": attack.transfer,
        "people": people,
        "columns": [ITSELF, *columns],
        "rows": [{"arm": arm, "cells": cells} for arm, cells in by_arm.items()],
        "remarks": remarks,
    }


def _cell(
    attack: AttackProtocol,
    makers: list[Run],
    couples: list[tuple[int, int]],
    verdicts: dict[tuple[int, int], Verdicts],
    weights: NDArray[np.int32],
    n_people: int,
    confidence: float,
) -> dict[str, Any]:
    """The share turned, over all couples of networks, with its interval over people: pairs weigh as their people."""
    turned, right = np.zeros((2, len(weights)))
    counts = np.zeros(2, np.int64)
    for i, j in couples:
        probe, verdict = makers[i].faces.probed[attack.label], verdicts[i, j]
        one, other = (makers[i].faces.person[probe[name]] for name in ("first", "second"))
        weight = weights[:, one] * np.where(one == other, 1.0, weights[:, other])
        turned += weight @ verdict.turned
        right += weight @ verdict.right
        counts += int(verdict.turned.sum()), int(verdict.right.sum())
    if not counts[1]:
        return {"value": None, "ci_low": None, "ci_high": None, "n": 0}
    value = counts[0] / counts[1]
    with np.errstate(invalid="ignore"):
        replicates = (turned / right)[None]
    found = intervals.single_interval(replicates, [value], n_people, confidence, bounds("rate"))
    low, high = ends(found)
    return {"value": float(value), "ci_low": low, "ci_high": high, "n": int(counts[1])}


def _picture(
    inputs: dict[str, Path], attack: AttackProtocol, maker: Run, verdict: Verdicts
) -> tuple[bytes | None, str]:
    """The first pair of either side that was turned: photo, change, changed, enrolled photo; and what it shows."""
    probe, faces = maker.faces.probed[attack.label], maker.faces
    genuine = faces.person[probe["first"]] == faces.person[probe["second"]]
    pairs = [int(rows[0]) for side in (genuine, ~genuine) if len(rows := np.flatnonzero(side & verdict.turned))]
    if not pairs:
        return None, ""
    test = ManifestImages(inputs["prepare"], split="test")
    at = {image_id: row for row, image_id in enumerate(test.image_id)}
    enlarged = 127 / attack.transfer
    lines, said = [], []
    for pair in pairs:
        ids = [maker.image_id[probe[name][pair]] for name in ("first", "second")]
        if not all(name in at for name in ids):
            return None, ""
        photo, enrolled = (test.pixels[at[name]] for name in ids)
        changed = probe["perturbed"][pair]
        difference = np.clip(127.5 + enlarged * (changed.astype(np.float64) - photo), 0, 255).astype(np.uint8)
        lines.append(np.hstack([_framed(image) for image in (photo, difference, changed, enrolled)]))
        who = "one person" if genuine[pair] else "two people"
        said.append(f"{who}: cosine {words.number(verdict.before[pair])}, then {words.number(verdict.after[pair])}")
    threshold = words.number(faces.thresholds[attack.fmr])
    caption = (
        f"Photo, change ({enlarged:.0f} times as large, grey is none), changed photo, enrolled photo; "
        f"{'; '.join(said)}; accepted from {threshold}. At most {attack.transfer:g}/255, arm “{maker.arm}”, seed "
        f"{maker.seed}: the first pair of each kind that was turned."
    )
    return encode_png(np.vstack(lines)), caption


def _framed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image (H, W, C) in colour, enlarged by whole steps towards SIDE_PX, with a white rim at right and below."""
    times = max(1, SIDE_PX // image.shape[0])
    colour = np.broadcast_to(image, (*image.shape[:2], 3)).repeat(times, axis=0).repeat(times, axis=1)
    return np.pad(colour, ((0, GAP_PX), (0, GAP_PX), (0, 0)), constant_values=255)


def as_rows(transfers: list[Transfer]) -> list[dict[str, Any]]:
    """The tables as text for the pages, with the name of each picture."""
    shown = []
    for transfer in transfers:
        table = transfer.table
        rows = [
            {
                "arm": row["arm"],
                "cells": [
                    {
                        "value": words.number(row["cells"][column]["value"]),
                        "interval": words.interval(row["cells"][column]["ci_low"], row["cells"][column]["ci_high"]),
                        "n": row["cells"][column]["n"],
                    }
                    for column in table["columns"]
                ],
            }
            for row in table["rows"]
        ]
        name = f"{table['label']}-pairs" if transfer.picture else ""
        shown.append({**table, "rows": rows, "picture": transfer.picture, "name": name, "caption": transfer.caption})
    return shown
