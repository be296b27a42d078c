"""The recognizer of a finished run that may become current, what it descends from, and the people it is compared on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from facegan.core.digests import digest
from facegan.core.errors import ConfigError, UserError
from facegan.data import manifest
from facegan.data.manifest import HELD_OUT
from facegan.data.preparation.splits import held_back
from facegan.evaluation.embedders import ImageEntry, entries
from facegan.generation.controls import ControlConfig
from facegan.pipeline import execute, graph
from facegan.pipeline.graph import Node
from facegan.promotion.registry import Models
from facegan.recipe.recipe import Recipe
from facegan.recognition import trial_choice
from facegan.recognition.saved_model import PEOPLE, WEIGHTS
from facegan.store.local import Artifact, Store

COLUMNS = ["identity", "image_id", "source_sha256", "split"]


@dataclass(frozen=True)
class Challenger:
    """One recognizer of an arm, with the finished stages that it descends from, by key."""

    recipe: Recipe
    arm: str
    trial: str | None  # None where the arm has but one
    node: Node
    val_eer: float
    artifacts: dict[str, Artifact]
    audit: Path | None

    @property
    def folder(self) -> Path:
        """Its train_recognizer."""
        return self.artifacts[self.node.key].path

    @property
    def prepared(self) -> Path:
        """The manifest with val and test people."""
        return self.artifacts[self.node.needs["val"].key].path

    @property
    def train(self) -> Path:
        """The arm's manifest."""
        return self.artifacts[self.node.needs["train"].key].path

    @property
    def source(self) -> str:
        """What makes it this model and no other: the recognizer, and how images pass through it."""
        return digest({"recognizer": self.node.key, "flip": self.recipe.benchmark.flip})

    @property
    def stages(self) -> dict[str, str]:
        """{name of a stage: fingerprint} of itself and of all that it descends from."""
        fingerprints: dict[str, str] = {}
        queue = [self.node]
        while queue:
            node = queue.pop()
            if node.key not in fingerprints.values():
                fingerprints[graph.input_name(node)] = node.key
                queue += node.needs.values()
        return dict(sorted(fingerprints.items()))

    @cached_property
    def leakage(self) -> dict[str, Any] | None:
        """`gate.json` of the audit, None for an arm without rows of a generator."""
        return None if self.audit is None else dict(json.loads((self.audit / "gate.json").read_bytes()))


def select_challenger(recipe: Recipe, arm: str | None, nodes: list[Node], store: Store) -> Challenger:
    """The best recognizer of an arm on val people, the first of equals; `nodes` are those of the recipe's graph.

    Raises ConfigError for a study or an unknown arm, UserError where its stages are not all finished and unchanged.
    """
    if recipe.study is not None:
        raise ConfigError(f"'{recipe.name}' is a study of many runs", fix="promote an ordinary recipe: study: null")
    arm = arm or recipe.comparison.arm
    if arm not in recipe.arms:
        raise ConfigError(f"there is no arm '{arm}'", fix=f"the arms are: {', '.join(recipe.arms)}")
    is_derived = isinstance(recipe.arms[arm].set, ControlConfig)
    if is_derived and arm != recipe.comparison.arm:
        others = (name for name, other in recipe.arms.items() if not isinstance(other.set, ControlConfig))
        raise ConfigError(
            f"arm '{arm}' is a control beside the comparison, which asks about '{recipe.comparison.arm}': it is not "
            "promoted",
            fix=f"promote another: {', '.join(others)}; or ask about it beforehand: comparison.arm={arm}",
        )
    generated = recipe.arms[arm].generated and not is_derived
    candidates = [node for node in nodes if node.arm == arm and node.stage in ("train_recognizer", "select")]
    audits = [node for node in nodes if node.stage == "audit" and generated]
    artifacts = _finished([*candidates, *audits], nodes, store, recipe)
    trial = _trial(candidates, artifacts)
    recognizers = [n for n in candidates if n.stage == "train_recognizer" and n.trial in (None, trial)]
    scored = [(_val_eer(artifacts[node.key].path), node) for node in recognizers]
    val_eer, best = min(scored, key=lambda score: score[0])
    if not math.isfinite(val_eer):
        raise UserError(f"no recognizer of arm '{arm}' could be trained: all diverged", fix="lower train_recognizer.lr")
    return Challenger(recipe, arm, trial, best, val_eer, artifacts, artifacts[audits[0].key].path if audits else None)


def _finished(targets: list[Node], nodes: list[Node], store: Store, recipe: Recipe) -> dict[str, Artifact]:
    """The verified artifacts of some nodes and of all that they need."""
    keys: set[str] = {node.key for node in targets}
    for node in reversed(nodes):
        if node.key in keys:
            keys |= {needed.key for needed in node.needs.values()}
    artifacts: dict[str, Artifact] = {}
    for node in (n for n in nodes if n.key in keys):
        artifact, why = execute.lookup(node, store, artifacts)
        if artifact is None:
            raise UserError(
                f"the run of '{recipe.name}' is not finished: {node.title}, {why}",
                fix="`facegan run` with the same recipe and options, then give this again",
            )
        artifacts[node.key] = artifact
    for key in {needed.key for node in targets for needed in (node, *node.needs.values())}:
        store.fetch(artifacts[key])
    return artifacts


def _trial(nodes: list[Node], artifacts: dict[str, Artifact]) -> str | None:
    return next((trial_choice.trial(artifacts[node.key].path) for node in nodes if node.stage == "select"), None)


def _val_eer(folder: Path) -> float:
    value = json.loads((folder / "summary.json").read_bytes())["val_eer"]
    return math.inf if value is None or not math.isfinite(value) else float(value)


def write_people(prepared: Path, path: Path) -> None:
    """Write everybody in a run's manifest, the photos by sha256: later models are compared on none of train and val."""
    pq.write_table(manifest.read(prepared, [*COLUMNS, HELD_OUT]), path, compression="zstd")


@dataclass(frozen=True)
class PeopleCompared:
    """The people on whom models are compared: in the training of neither.

    `names` of them, `failed` (identity, file) of their images that the quarantine holds. `left_out`: test people of the
    challenger on whom the champion, or a model that the challenger started from, was developed. `moved`: test people of
    the champion on whom the challenger was. learned: image_ids of the photos held out of the challenger's training that
    are among those of the champion, or of such a model. quarantined: photos of train people that could not be used.
    """

    prepared: Path
    names: list[str]
    failed: list[tuple[str, str]]
    left_out: int = 0
    moved: int = 0
    learned: frozenset[str] = frozenset()
    quarantined: int = 0

    def entries(self) -> Iterator[ImageEntry]:
        """Their images, in the manifest's order."""
        return entries(self.prepared, "test", set(self.names))


def people_compared(
    prepared: Path, champion: Path | None, started_from: Sequence[Path] = (), share: float = 0.0
) -> PeopleCompared:  # fmt: skip
    """The test people of the challenger's manifest less those on whom the champion was developed, by name and by photo.

    champion, started_from: folders of versions; those that the challenger's weights started from bar people too.
    share: of the test people, who are held back for this; only they are then compared on; 0: all are. Raises UserError
    where nobody is left.
    """
    table = manifest.read(prepared, COLUMNS)
    test = _people(table, "test")
    test = held_back(test, share) if share else test
    rows = [row for row in table.to_pylist() if row["identity"] in test]
    held_out = manifest.read(prepared, COLUMNS, split=HELD_OUT).to_pylist()
    barred: set[str] = set()
    learned: set[str] = set()
    moved: set[str] = set()
    for folder in {*started_from, *([champion] if champion else [])}:
        earlier = pq.read_table(folder / PEOPLE)
        developed = {name: _people(earlier, "train", name) | _people(earlier, "val", name) for name in COLUMNS[:-1]}
        barred |= {row["identity"] for row in rows if any(row[name] in values for name, values in developed.items())}
        learned |= _learned(held_out, earlier)
        if folder == champion:
            moved = _people(earlier, "test") & (_people(table, "train") | _people(table, "val"))
    names = sorted(test - barred)
    if not names:
        raise UserError(
            f"none of {len(test)} test people{' who are held back' * bool(share)} may judge"
            + (": an earlier model was developed on all of them" if test else ""),
            fix="keep people in their split (prepare.split.frozen), or give new ones"
            + (", or raise benchmark.held_back" if share else ""),
        )
    quarantine = prepared / "quarantine.parquet"
    quarantined = pq.read_table(quarantine).to_pylist() if quarantine.is_file() else []
    failed = [(image["identity"], image["file"]) for image in quarantined if image["split"] == "test"]
    if share:
        held_back_names = held_back({column for column, _ in failed}, share)
        failed = [image for image in failed if image[0] in held_back_names]
    failed = [image for image in failed if image[0] not in barred]
    of_train = sum(image["split"] == "train" for image in quarantined)
    return PeopleCompared(prepared, names, failed, len(barred), len(moved), frozenset(learned), of_train)


def _learned(held_out: list[dict[str, Any]], earlier: pa.Table) -> set[str]:
    """The image_ids of the photos that are among those that a model was developed on.

    earlier: as `write_people` wrote it; where it does not say what was held out, nothing was.
    """
    is_learned = pc.is_in(earlier["split"], pa.array(["train", "val"]))
    if HELD_OUT in earlier.column_names:
        is_learned = pc.and_(is_learned, pc.invert(pc.fill_null(earlier[HELD_OUT], False)))
    rows = earlier.filter(is_learned)
    seen = {name: set(rows[name].to_pylist()) - {None} for name in ("image_id", "source_sha256")}
    return {photo["image_id"] for photo in held_out if any(photo[name] in values for name, values in seen.items())}


def trained_on(folder: Path) -> set[str]:
    """The names of the train people of a version."""
    return _people(pq.read_table(folder / PEOPLE), "train")


def started_from(models: Models, weights: str | None) -> list[Path]:
    """The versions whose weights, by sha256, a recognizer started from, and those that they started from in turn.

    Several may have the same weights: one that began with another, and was not bettered by its training.
    """
    specs = {version: models.spec(version) for version in models.versions()}
    found: list[str] = []
    queue = [weights]
    while queue:
        weights = queue.pop()
        same = [name for name, spec in specs.items() if spec["files"][WEIGHTS] == weights and name not in found]
        found += same
        queue += [specs[name]["lineage"]["weights"] for name in same]
    return [models.folder(version) for version in found]


def _people(table: pa.Table, split: str, column: str = "identity") -> set[str]:
    return set(table.filter(pc.field("split") == split)[column].unique().to_pylist()) - {None}
