"""From a finished run to a decision: the challenger becomes a version, is judged with the champion, and is current
or is kept with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from facegan.core.digests import file_sha256
from facegan.core.errors import ConfigError, UserError
from facegan.core.files import write_atomic
from facegan.core.versions import commit, package_versions
from facegan.data.images import to_pixels
from facegan.data.suppression import SuppressionList
from facegan.evaluation.embedded_faces import EmbeddedFaces
from facegan.evaluation.embedders import FaceEmbedder, ImageEntry, InputOptions, embed_all, entries, face_embedder
from facegan.pipeline import graph
from facegan.pipeline.graph import Node
from facegan.promotion import model_card, onnx_export
from facegan.promotion.challenger import (
    Challenger,
    PeopleCompared,
    challenger,
    people_compared,
    started_from,
    write_people,
)
from facegan.promotion.gates import Gate, GateResults, Scale, compare_models
from facegan.promotion.registry import Models, TestSetLooks
from facegan.promotion.thresholds import operating_points
from facegan.recipe.recipe import Recipe
from facegan.recognition.embedder import embed, load_embedder, with_mirror
from facegan.recognition.saved_model import CARD, ONNX, PEOPLE, SPEC, WEIGHTS
from facegan.runtime.devices import device_of
from facegan.store.local import Store
from facegan.store.workdir import store_at

REAL_FACES = 32  # on which the ONNX file is compared
Say = Callable[[str], None]


@dataclass(frozen=True)
class Decision:
    """What became of it. `event`: promoted, refused, or `kept` where there was nothing to decide."""

    event: str
    version: str
    champion: str | None
    why: str
    judgement: GateResults | None = None
    remarks: tuple[str, ...] = ()


def promote(
    recipe: Recipe,
    workdir: Path,
    arm: str | None = None,
    force: str | None = None,
    say: Say = lambda text: None,
    nodes: Sequence[Node] | None = None,
) -> Decision:
    """Make the best recognizer of a finished run the current model, if the gates of `recipe.promotion` hold.

    arm: None takes the comparison's. force: the reason to promote it whatever the gates say; it is put down. nodes:
    those of the run; None: of a run on what the recipe's source holds now. Raises ConfigError for a study, an unknown
    arm or an empty reason, UserError where the run is not finished or nobody may judge.
    """
    if force is not None and not force.strip():
        raise ConfigError("--force needs a reason", fix="it is put down in the history: say why")
    store, models = store_at(workdir, recipe.runtime), Models(workdir)
    with store.in_use(say), models.locked():
        nodes = graph.build(recipe, SuppressionList.read(workdir)) if nodes is None else nodes
        mine = challenger(recipe, arm, list(nodes), store)
        _check_held_back(recipe, mine, nodes, store)
        champion = models.current()
        before = _version_of(models, mine)
        if before is not None and before == champion:
            return Decision("kept", before, champion, "this recognizer is the current model already")
        if force is None and (said := _said_before(models, before, champion, recipe)) is not None:
            return Decision("kept", str(before), champion, f"refused before, and nothing has changed: {said}")
        return _decide(models, mine, champion, before, force, say)


def _check_held_back(recipe: Recipe, mine: Challenger, nodes: Sequence[Node], store: Store) -> None:
    """Raise UserError where people are to be held back whom the run's report has looked at."""
    reported = [
        one for one in nodes if one.stage == "benchmark" and mine.node.key in {n.key for n in one.needs.values()}
    ]
    if recipe.benchmark.held_back and not any(store.has(one.stage, one.key) for one in reported):
        raise UserError(
            f"no report of this run held back {recipe.benchmark.held_back:g} of the test people",
            fix="give `facegan run` the same benchmark.held_back first: those people judge whom no report has seen",
        )


def _version_of(models: Models, mine: Challenger) -> str | None:
    """The version that was made from this recognizer, if any."""
    return next((one for one in models.versions() if models.spec(one)["lineage"]["source"] == mine.source), None)


def _said_before(models: Models, version: str | None, champion: str | None, recipe: Recipe) -> str | None:
    """Why the same model was refused against the same champion by the same gates, so that nobody is looked at again."""
    asked = recipe.promotion.model_dump(mode="json")
    same = [line for line in models.history() if version is not None and line["version"] == version]
    last = same[-1] if same else {}
    people_compared = last.get("judges", {}).get("held_back", 0.0) == recipe.benchmark.held_back
    refused = (
        last.get("event") == "refused"
        and last.get("before") == champion
        and last.get("asked") == asked
        and people_compared
    )
    return str(last["why"]) if refused else None


def _decide(
    models: Models, mine: Challenger, champion: str | None, before: str | None, force: str | None, say: Say
) -> Decision:
    recipe = mine.recipe
    device = device_of(recipe.runtime)
    earlier = started_from(models, mine.node.raw.get("weights"))
    share = recipe.benchmark.held_back
    who = people_compared(mine.prepared, None if champion is None else models.folder(champion), earlier, share)
    looks = models.look(who.names)  # counted before it is taken
    say(f"embedding {len(who.names)} test people" + (f", by {champion} too" if champion else ""))
    net, said = load_embedder(mine.folder, device)
    own = _external(lambda x: embed(net, x, len(x), device), said["channels"], said["size_px"], recipe.benchmark.flip)
    faces = _embedded(who.entries(), own, who.failed)
    theirs = (
        None
        if champion is None
        else _embedded(who.entries(), face_embedder(str(models.folder(champion)), InputOptions(), device), who.failed)
    )
    found = _judged(faces, theirs, mine)
    first = () if champion else (Gate("first model", "passed", "there is no current model to compare with"),)
    found = replace(found, gates=(*_leakage(mine), *first, *found.gates))
    version = before or _write(models, mine, own, faces, found, looks, say)
    event = "promoted" if found.accepted or force is not None else "refused"
    why = f"forced: {force} (against: {found.why})" if force is not None and not found.accepted else found.why
    told = {"people": len(who.names), "left_out": who.left_out, "moved": who.moved, "held_back": share, **_seen(looks)}
    asked = recipe.promotion.model_dump(mode="json")
    models.decide(event, version, why, forced=force, asked=asked, judges=told, judgement=found.told())
    return Decision(
        event, version, champion, why, found, tuple(_remarks(who, looks, models, version, champion, found, share))
    )


def _external(run: Any, channels: int, size_px: int, flip: bool) -> FaceEmbedder:
    color = "grey" if channels == 1 else "rgb"
    return FaceEmbedder("the challenger", with_mirror(run) if flip else run, size_px, f"{color}, {size_px} px", color)  # type: ignore[arg-type]


def _embedded(found: Iterator[ImageEntry], by: FaceEmbedder, failed: list[tuple[str, str]]) -> EmbeddedFaces:
    return embed_all(found, by, failed=failed)


def _judged(faces: EmbeddedFaces, theirs: EmbeddedFaces | None, mine: Challenger) -> GateResults:
    recipe = mine.recipe
    metric = recipe.promotion.metric or recipe.comparison.metric
    scale = Scale(recipe.comparison.confidence, recipe.report.bootstrap, recipe.report.seed)
    used = [one for one in recipe.benchmark.benchmarks if not one.paths or metric in one.names()]
    pooled = recipe.benchmark.templates  # groups are then media of one person, not groups of people
    if pooled:
        faces, theirs = faces.pooled(), None if theirs is None else theirs.pooled()
    try:
        return compare_models(faces, theirs, used, recipe.promotion, metric, scale, groups=not pooled)
    except ValueError as error:
        raise UserError(
            f"the test people cannot judge: {error}", fix="more test people, with two photos each"
        ) from error


def _leakage(mine: Challenger) -> list[Gate]:
    """The audit's gate, where synthetic rows took part."""
    if mine.leakage is None:
        return []
    faults = [fault["what"] for fault in mine.leakage["faults"]]
    return [Gate("leakage", "failed" if faults else "passed", "; ".join(faults) or "audit passed", blocks=bool(faults))]


def _write(
    models: Models,
    mine: Challenger,
    own: FaceEmbedder,
    faces: EmbeddedFaces,
    found: GateResults,
    looks: TestSetLooks,
    say: Say,
) -> str:
    """Make the version's folder: weights, ONNX file, description, card, and who was in its manifest."""
    net, said = load_embedder(mine.folder)
    val = _embedded(entries(mine.prepared, "val"), own, [])
    try:
        thresholds = operating_points(val, faces)
    except ValueError as error:
        raise UserError(
            f"no threshold can be chosen on the val people: {error}", fix="raise prepare.split.val"
        ) from error
    say("writing the model as safetensors and ONNX")

    def write(folder: Path, version: str) -> None:
        write_atomic(folder / WEIGHTS, (mine.folder / "embedder.safetensors").read_bytes())
        real = np.stack([to_pixels(entry.read()) for entry in islice(entries(mine.prepared, "val"), REAL_FACES)])
        onnx = onnx_export.write(folder / ONNX, net, mine.recipe.benchmark.flip, real)
        write_people(mine.prepared, folder / PEOPLE)
        files = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
        spec = {"version": version, **_spec(mine, said, found, looks), "thresholds": thresholds}
        spec |= {"onnx": onnx, "files": files}
        write_atomic(folder / SPEC, json.dumps(spec, indent=1, allow_nan=False).encode())
        write_atomic(folder / CARD, model_card.text(spec).encode())

    return models.add(write)


def _spec(mine: Challenger, said: dict[str, Any], found: GateResults, looks: TestSetLooks) -> dict[str, Any]:
    """`model.json` but for what is measured while it is written."""
    recipe = mine.recipe
    summary = json.loads((mine.train / "summary.json").read_bytes())
    real, synthetic = summary["rows"]["real"], summary["rows"]["synthetic"]
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "network": {name: said[name] for name in ("options", "channels", "size_px")},
        "embedding_dim": said["options"]["embedding_dim"],
        "similarity": "cosine",
        "preprocessing": _preprocessing(recipe),
        "training": {
            "people": summary["identities"],
            "real_images": real,
            "synthetic_images": synthetic,
            "synthetic_share": synthetic / max(1, real + synthetic),
        },
        "licenses": said.get("licenses", []),
        "metrics": [asdict(one) for one in found.challenger],
        "judged_on": {
            "people": found.people,
            "images": found.images,
            "confidence": recipe.comparison.confidence,
            "looks": looks.most,
        },
        "leakage": _told(mine.leakage),
        "lineage": _lineage(mine),
    }


def _preprocessing(recipe: Recipe) -> dict[str, Any]:
    prepare = recipe.prepare
    return {
        "size_px": prepare.size_px,
        "color": prepare.color,
        "align": None if prepare.align is None else prepare.align.model_dump(mode="json"),
        "resize": "aligned crop" if prepare.align else "centre square, Lanczos",
        "input": "NCHW float32, (x - 127.5) / 127.5 of 0..255",
        "mean": 127.5,
        "scale": 127.5,
        "flip": recipe.benchmark.flip,
        "output": "unit length" + (", of image and mirror image added" if recipe.benchmark.flip else ""),
    }


def _told(leakage: dict[str, Any] | None) -> dict[str, Any] | None:
    if leakage is None:
        return None
    return {"judge": leakage["judge"], "faults": [fault["what"] for fault in leakage["faults"]]}


def _lineage(mine: Challenger) -> dict[str, Any]:
    stages = mine.stages
    return {
        "source": mine.source,
        "recipe": mine.recipe.name,
        "arm": mine.arm,
        "trial": mine.trial,
        "seed": mine.node.seed,
        "val_eer": mine.val_eer,
        "recognizer": mine.node.key,
        "manifest": stages["prepare"],
        "weights": mine.node.raw.get("weights"),
        "generator": stages.get("train_gan"),
        "audit": None if mine.audit is None else mine.audit.name,
        "stages": stages,
        "commit": commit(),
        "packages": package_versions(),
        "options": mine.recipe.model_dump(mode="json", exclude={"runtime"}),
    }


def _seen(looks: TestSetLooks) -> dict[str, int]:
    return {"looked_at_before": looks.seen, "looks_before": looks.most}


def _remarks(
    who: PeopleCompared, looks: TestSetLooks, models: Models, version: str, champion: str | None, found: GateResults,
    share: float,
) -> Iterator[str]:  # fmt: skip
    """What must be said beside the figures."""
    times = f"{looks.seen} of them for the {_ordinal(looks.most + 1)} time" if looks.seen else "for the first time"
    also = (
        "they are held back: the run's report has not looked at them"
        if share
        else "the run's report has looked at them too"
    )
    yield f"{looks.people} test people judged, {times} in this registry; {also}"
    if who.left_out:
        whose = champion or "that of its weights"
        yield f"{who.left_out} test people were left out: an earlier model ({whose}) was developed on them"
    if who.moved:
        yield f"{who.moved} people who were test people of {champion} now are train or val people: they do not judge"
    if champion and not any(gate.name.startswith("group") for gate in found.gates):
        yield "no group was asked: the manifest names none"
    mine, theirs = (models.spec(one)["preprocessing"] for one in (version, champion or version))
    if (mine["size_px"], mine["color"]) != (theirs["size_px"], theirs["color"]):
        yield (
            f"images are stored at {mine['size_px']} px in {mine['color']}; {champion} was given them resized to "
            f"{theirs['size_px']} px in {theirs['color']}"
        )
    if missing := models.spec(version)["onnx"].get("missing"):
        yield f"no ONNX file: {missing}"


def _ordinal(n: int) -> str:
    return f"{n}{'th' if 10 < n % 100 < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"
