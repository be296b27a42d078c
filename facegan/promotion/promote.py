"""From a finished run to a decision: the challenger becomes a version, is compared with the champion, and is current
or is kept with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from facegan.core.digests import file_sha256
from facegan.core.errors import ConfigError, UserError
from facegan.core.files import write_atomic
from facegan.core.versions import commit, package_versions
from facegan.data import manifest
from facegan.data.image_measures import measure
from facegan.data.images import decode_pixels
from facegan.data.manifest import HELD_OUT
from facegan.data.suppression import SuppressionList
from facegan.evaluation import asked
from facegan.evaluation.embedded_faces import EmbeddedFaces, OwnPeople
from facegan.evaluation.embedders import FaceEmbedder, InputOptions, embed_all, entries, face_embedder
from facegan.evaluation.model_figures import Scale
from facegan.evaluation.protocols import ProtocolConfig
from facegan.pipeline import graph
from facegan.pipeline.graph import Node
from facegan.promotion import model_card, onnx_export
from facegan.promotion.challenger import (
    Challenger,
    PeopleCompared,
    people_compared,
    select_challenger,
    started_from,
    trained_on,
    write_people,
)
from facegan.promotion.gates import Gate, GateResults, compare_models
from facegan.promotion.registry import Models, TestSetLooks
from facegan.promotion.thresholds import operating_points
from facegan.recipe.load import in_workdir
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
    """What became of the challenger. `event`: promoted, refused, or `kept` where there was nothing to decide."""

    event: str
    version: str
    champion: str | None
    why: str
    results: GateResults | None = None
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

    arm: None takes the comparison's. force: the reason to promote it whatever the gates say; it is recorded. nodes:
    those of the run; None: of a run on what the recipe's source holds now. Raises ConfigError for a study, an unknown
    arm or an empty reason, UserError where the run is not finished or there is nobody to compare on.
    """
    if force is not None and not force.strip():
        raise ConfigError("--force needs a reason", fix="it is put down in the history: say why")
    store, models = store_at(workdir, recipe.runtime), Models(workdir)
    with store.in_use(say), models.locked():
        if nodes is None:
            recipe = in_workdir(recipe, workdir)
            nodes = graph.build(recipe, SuppressionList.read(workdir))
        challenger = select_challenger(recipe, arm, list(nodes), store)
        _check_held_back(recipe, challenger, nodes, store)
        champion = models.current()
        version = _version_of(models, challenger)
        if force is None and champion is not None and _same_model(models.spec(champion), challenger):
            why = "nothing that was trained was better on val people: these are the weights of the current model"
            return Decision("kept", champion, champion, why)
        if version is not None and version == champion:
            return Decision("kept", version, champion, "this recognizer is the current model already")
        if force is None and (reason := _earlier_refusal(models, version, champion, recipe)) is not None:
            return Decision("kept", str(version), champion, f"refused before, and nothing has changed: {reason}")
        return _decide(models, challenger, champion, version, force, say)


def _check_held_back(recipe: Recipe, challenger: Challenger, nodes: Sequence[Node], store: Store) -> None:
    """Raise UserError where people are to be held back who are in the run's report."""
    reported = [
        node
        for node in nodes
        if node.stage == "benchmark" and challenger.node.key in {needed.key for needed in node.needs.values()}
    ]
    if recipe.benchmark.held_back and not any(store.has(node.stage, node.key) for node in reported):
        raise UserError(
            f"no report of this run held back {recipe.benchmark.held_back:g} of the test people",
            fix="give `facegan run` the same benchmark.held_back first: those people judge whom no report has seen",
        )


def _same_model(spec: dict[str, Any], challenger: Challenger) -> bool:
    """Whether a recognizer that began with a version is still that one, and sees faces as it does."""
    weights = file_sha256(challenger.folder / "embedder.safetensors")
    began = challenger.node.raw.get("weights") == weights
    return began and spec["files"][WEIGHTS] == weights and spec["preprocessing"] == _preprocessing(challenger.recipe)


def _version_of(models: Models, challenger: Challenger) -> str | None:
    """The version that was made from this recognizer, if any."""
    sources = ((models.spec(version)["lineage"]["source"], version) for version in models.versions())
    return next((version for source, version in sources if source == challenger.source), None)


def _earlier_refusal(models: Models, version: str | None, champion: str | None, recipe: Recipe) -> str | None:
    """Why the same model was refused before, against the same champion by the same gates; None where it was not.

    It is then not compared again, so that no further look at the test people is counted.
    """
    options = recipe.promotion.model_dump(mode="json")
    decisions = [decision for decision in models.history() if version is not None and decision["version"] == version]
    last = decisions[-1] if decisions else {}
    same_share = last.get("judges", {}).get("held_back", 0.0) == recipe.benchmark.held_back
    refused = (
        last.get("event") == "refused"
        and last.get("before") == champion
        and last.get("asked") == options
        and same_share
    )
    return str(last["why"]) if refused else None


def _decide(
    models: Models, challenger: Challenger, champion: str | None, version: str | None, force: str | None, say: Say
) -> Decision:
    recipe = challenger.recipe
    device = device_of(recipe.runtime)
    ancestors = started_from(models, challenger.node.raw.get("weights"))
    share = recipe.benchmark.held_back
    champion_folder = None if champion is None else models.folder(champion)
    people = people_compared(challenger.prepared, champion_folder, ancestors, share)
    looks = models.look(people.names)  # counted before it is taken
    say(f"embedding {len(people.names)} test people" + (f", by {champion} too" if champion else ""))
    net, spec = load_embedder(challenger.folder, device)
    embedder = _challenger_embedder(
        lambda x: embed(net, x, len(x), device), spec["channels"], spec["size_px"], recipe.benchmark.flip
    )
    faces = embed_all(people.entries(), embedder, failed=people.failed)
    faces = _with_asked(recipe, faces, people, embedder, net, set())
    champion_faces = None
    if champion_folder is not None:
        champion_embedder = face_embedder(str(champion_folder), InputOptions(), device)
        champion_faces = embed_all(people.entries(), champion_embedder, failed=people.failed)
        learned = trained_on(champion_folder)
        champion_faces = _with_asked(recipe, champion_faces, people, champion_embedder, None, learned)
    results = _compare(challenger, faces, champion_faces)
    first = () if champion else (Gate("first model", "passed", "there is no current model to compare with"),)
    results = replace(results, gates=(*_leakage_gates(challenger), *first, *results.gates))
    version = version or _write_version(models, challenger, embedder, faces, results, looks, say)
    event = "promoted" if results.accepted or force is not None else "refused"
    why = f"forced: {force} (against: {results.why})" if force is not None and not results.accepted else results.why
    people_counts = {
        "people": len(people.names),
        "left_out": people.left_out,
        "moved": people.moved,
        "held_back": share,
        **_look_counts(looks),
    }
    options = recipe.promotion.model_dump(mode="json")
    models.decide(event, version, why, forced=force, asked=options, judges=people_counts, judgement=results.as_dict())
    remarks = tuple(_remarks(people, looks, models, version, champion, results, share))
    return Decision(event, version, champion, why, results, remarks)


def _challenger_embedder(embed_batch: Any, channels: int, size_px: int, flip: bool) -> FaceEmbedder:
    color: Literal["grey", "rgb"] = "grey" if channels == 1 else "rgb"
    embed_batch = with_mirror(embed_batch) if flip else embed_batch
    return FaceEmbedder("the challenger", embed_batch, size_px, f"{color}, {size_px} px", color)


def _compare(challenger: Challenger, faces: EmbeddedFaces, champion_faces: EmbeddedFaces | None) -> GateResults:
    recipe = challenger.recipe
    metric = recipe.promotion.metric or recipe.comparison.metric
    scale = Scale(recipe.comparison.confidence, recipe.report.bootstrap, recipe.report.seed)
    protocols = _benchmarks(recipe)
    pooled = recipe.benchmark.templates  # groups are then media of one person, not groups of people
    if pooled:
        faces, champion_faces = _pooled(faces), None if champion_faces is None else _pooled(champion_faces)
    try:
        return compare_models(faces, champion_faces, protocols, recipe.promotion, metric, scale, groups=not pooled)
    except ValueError as error:
        raise UserError(
            f"the test people cannot judge: {error}", fix="more test people, with two photos each"
        ) from error


def _pooled(faces: EmbeddedFaces) -> EmbeddedFaces:
    return replace(faces.pooled(), own=faces.own)


def _benchmarks(recipe: Recipe) -> list[ProtocolConfig]:
    """The benchmarks by which models are compared: of those that read a file, only those that a gate asks for.

    Their file may name other people than those who judge here.
    """
    asked_for = (recipe.promotion.metric or recipe.comparison.metric, *recipe.promotion.limits)
    return [
        item
        for item in recipe.benchmark.benchmarks
        if not any(getattr(item, path) for path in item.paths) or any(item.gives(name) for name in asked_for)
    ]


def _with_asked(
    recipe: Recipe, faces: EmbeddedFaces, people: PeopleCompared, embedder: FaceEmbedder, net: Any, learned: set[str]
) -> EmbeddedFaces:
    """The faces with what benchmarks ask for beside embeddings, on the people who are compared.

    net: None for a champion, who is not attacked, and not asked for its train people, again. learned: the names of
    those who set no threshold, having been learned from.
    """
    benchmarks = _benchmarks(recipe)
    measures, rates = asked.measures_of(benchmarks), asked.rates_of(benchmarks)
    asks_network, asks_train = (
        any(getattr(b, ask)() for b in benchmarks) for ask in ("asks_network", "asks_train_people")
    )
    if rates:
        val = [entry for entry in entries(people.prepared, "val") if entry.identity not in learned]
        val_faces = embed_all(val, embedder) if val else None
        thresholds = {} if val_faces is None else asked.thresholds_on(val_faces, rates)
        faces = replace(faces, thresholds=thresholds)
    if any(benchmark.asks_own_people() for benchmark in benchmarks):
        faces = replace(faces, own=_own_people(recipe, people, embedder, learned))
    if not (measures or (net is not None and (asks_network or asks_train))):
        return faces
    pixels = np.stack([decode_pixels(entry.read()) for entry in people.entries()])
    unseen = np.full(len(faces.identity) - len(pixels), np.nan)
    faces = replace(faces, measured={name: np.append(measure(name, pixels), unseen) for name in measures})
    if net is None:
        return faces
    train = embed_all(entries(people.prepared, "train"), embedder) if asks_train else None
    found = asked.probed(benchmarks, faces, pixels, net if net.has_gradient else None, train)
    return replace(faces, probed=found)


def _own_people(
    recipe: Recipe, people: PeopleCompared, embedder: FaceEmbedder, learned: set[str]
) -> OwnPeople | None:  # fmt: skip
    """Train people of the challenger, and their held-out photos that no earlier model was trained on.

    learned: the names of val people who set no threshold.
    """

    def embedded(split: str) -> EmbeddedFaces | None:
        rows = manifest.read(people.prepared, ["identity", "image_id"], split=split)
        names = set(rows["identity"].to_pylist()) - (learned if split == "val" else set())
        without = people.learned if split == HELD_OUT else frozenset()
        there = any(
            name in names and photo not in without
            for name, photo in zip(rows["identity"].to_pylist(), rows["image_id"].to_pylist(), strict=True)
        )
        return embed_all(entries(people.prepared, split, names, without), embedder) if there else None

    return asked.own_people(embedded, recipe.benchmark.templates, people.quarantined)


def _leakage_gates(challenger: Challenger) -> list[Gate]:
    """The audit's gate, where synthetic rows took part."""
    if challenger.leakage is None:
        return []
    faults = [fault["what"] for fault in challenger.leakage["faults"]]
    return [Gate("leakage", "failed" if faults else "passed", "; ".join(faults) or "audit passed", blocks=bool(faults))]


def _write_version(
    models: Models,
    challenger: Challenger,
    embedder: FaceEmbedder,
    test_faces: EmbeddedFaces,
    results: GateResults,
    looks: TestSetLooks,
    say: Say,
) -> str:
    """Make the version's folder: weights, ONNX file, description, card, and who was in its manifest."""
    net, network_spec = load_embedder(challenger.folder)
    val_faces = embed_all(entries(challenger.prepared, "val"), embedder, failed=[])
    try:
        thresholds = operating_points(val_faces, test_faces)
    except ValueError as error:
        raise UserError(
            f"no threshold can be chosen on the val people: {error}", fix="raise prepare.split.val"
        ) from error
    say("writing the model as safetensors and ONNX")

    def write(folder: Path, version: str) -> None:
        write_atomic(folder / WEIGHTS, (challenger.folder / "embedder.safetensors").read_bytes())
        faces = np.stack(
            [decode_pixels(entry.read()) for entry in islice(entries(challenger.prepared, "val"), REAL_FACES)]
        )
        onnx = onnx_export.write(folder / ONNX, net, challenger.recipe.benchmark.flip, faces)
        write_people(challenger.prepared, folder / PEOPLE)
        files = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
        spec = {"version": version, **_spec(challenger, network_spec, results, looks), "thresholds": thresholds}
        spec |= {"onnx": onnx, "files": files}
        write_atomic(folder / SPEC, json.dumps(spec, indent=1, allow_nan=False).encode())
        write_atomic(folder / CARD, model_card.text(spec).encode())

    return models.add(write)


def _spec(
    challenger: Challenger, network_spec: dict[str, Any], results: GateResults, looks: TestSetLooks
) -> dict[str, Any]:
    """`model.json` but for what is measured while it is written."""
    recipe = challenger.recipe
    summary = json.loads((challenger.train / "summary.json").read_bytes())
    real, synthetic = summary["rows"]["real"], summary["rows"]["synthetic"]
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "network": {name: network_spec[name] for name in ("options", "channels", "size_px")},
        "embedding_dim": network_spec["options"]["embedding_dim"],
        "similarity": "cosine",
        "preprocessing": _preprocessing(recipe),
        "training": {
            "people": summary["identities"],
            "real_images": real,
            "synthetic_images": synthetic,
            "synthetic_share": synthetic / max(1, real + synthetic),
        },
        "licenses": network_spec.get("licenses", []),
        "privacy": network_spec.get("privacy"),
        "metrics": [asdict(figure) for figure in results.challenger],
        "judged_on": {
            "people": results.people,
            "images": results.images,
            "confidence": recipe.comparison.confidence,
            "looks": looks.most,
        },
        "benchmarks": {item.label: item.identifying() for item in _benchmarks(recipe)},
        "leakage": _leakage_summary(challenger.leakage),
        "lineage": _lineage(challenger),
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


def _leakage_summary(leakage: dict[str, Any] | None) -> dict[str, Any] | None:
    if leakage is None:
        return None
    faults = [fault["what"] for fault in leakage["faults"]]
    return {"judge": leakage["judge"], "faults": faults, "membership": leakage.get("membership")}


def _lineage(challenger: Challenger) -> dict[str, Any]:
    stages = challenger.stages
    return {
        "source": challenger.source,
        "recipe": challenger.recipe.name,
        "arm": challenger.arm,
        "trial": challenger.trial,
        "seed": challenger.node.seed,
        "val_eer": challenger.val_eer,
        "recognizer": challenger.node.key,
        "manifest": stages["prepare"],
        "weights": challenger.node.raw.get("weights"),
        "generator": stages.get("train_gan"),
        "audit": None if challenger.audit is None else challenger.audit.name,
        "stages": stages,
        "commit": commit(),
        "packages": package_versions(),
        "options": challenger.recipe.model_dump(mode="json", exclude={"runtime"}),
    }


def _look_counts(looks: TestSetLooks) -> dict[str, int]:
    return {"looked_at_before": looks.seen, "looks_before": looks.most}


def _remarks(
    people: PeopleCompared,
    looks: TestSetLooks,
    models: Models,
    version: str,
    champion: str | None,
    results: GateResults,
    share: float,
) -> Iterator[str]:
    """Sentences to print beside the figures."""
    how_often = f"{looks.seen} of them for the {_ordinal(looks.most + 1)} time" if looks.seen else "for the first time"
    report_looked = (
        "they are held back: the run's report has not looked at them"
        if share
        else "the run's report has looked at them too"
    )
    yield f"{looks.people} test people judged, {how_often} in this registry; {report_looked}"
    if people.left_out:
        whose = champion or "that of its weights"
        yield f"{people.left_out} test people were left out: an earlier model ({whose}) was developed on them"
    if people.learned:
        yield f"{len(people.learned)} held-out photos are not searched by: an earlier model was trained on them"
    if people.moved:
        yield f"{people.moved} people who were test people of {champion} now are train or val people: they do not judge"
    if champion and not any(gate.name.startswith("group") for gate in results.gates):
        yield "no group was asked: the manifest names none"
    new_input, champion_input = (models.spec(name)["preprocessing"] for name in (version, champion or version))
    if (new_input["size_px"], new_input["color"]) != (champion_input["size_px"], champion_input["color"]):
        yield (
            f"images are stored at {new_input['size_px']} px in {new_input['color']}; {champion} was given them "
            f"resized to {champion_input['size_px']} px in {champion_input['color']}"
        )
    if missing := models.spec(version)["onnx"].get("missing"):
        yield f"no ONNX file: {missing}"


def _ordinal(n: int) -> str:
    return f"{n}{'th' if 10 < n % 100 < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"
