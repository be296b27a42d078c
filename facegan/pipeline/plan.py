"""What a run would do: each stage's state in the store and why, time and disk to expect. Imports no torch."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from facegan.core.digests import canonical
from facegan.pipeline.execute import lookup
from facegan.pipeline.graph import Node
from facegan.recognition.options import Searched
from facegan.recognition.search import most_images
from facegan.store.local import WORK, Artifact, Store


@dataclass(frozen=True)
class Planned:
    """One stage of a plan; `seconds` and `size_bytes` are those of the most similar earlier run, if any."""

    item: Node
    state: str  # cached | stale | to run | partly done
    why: str
    seconds: float | None
    size_bytes: int | None


def survey(nodes: list[Node], store: Store) -> list[tuple[Node, Artifact | None, str]]:
    """Each node with its verified artifact, or None and why not."""
    artifacts: dict[str, Artifact] = {}
    rows = []
    for item in nodes:
        artifact, why = lookup(item, store, artifacts)
        if artifact is not None:
            artifacts[item.key] = artifact
        rows.append((item, artifact, why))
    return rows


def plan(nodes: list[Node], store: Store) -> list[Planned]:
    """The state of each node, in order."""
    records = {stage: records_of(store, stage) for stage in {item.stage for item in nodes}}
    return [_planned(item, hit, why, store, records) for item, hit, why in survey(nodes, store)]


def _planned(
    item: Node, hit: Artifact | None, why: str, store: Store, records: dict[str, list[dict[str, Any]]]
) -> Planned:
    if hit is not None:
        return Planned(item, "cached", "verified", 0.0, 0)
    record, changes = nearest(item, records[item.stage])
    seconds = None if record is None else float(record["duration_s"])
    if isinstance(item.options, Searched):
        images = most_images(item.options)
        why += f"; {len(item.options.trials)} trials, at most {images:,} images"
        seconds = _search_seconds(item, images, records.get("train_recognizer", []))
        record, changes = None if record is None or "rungs" not in record["config"] else record, []
    elif item.as_chosen and item.needs["select"].extra.get("seed") == item.seed:
        seconds = 0.0  # taken over from the search
    size = None if record is None else sum(int(entry["bytes"]) for entry in record["outputs"].values())
    folder = store.folder(item.stage, item.key)
    unfinished = store.unfinished(item.stage, item.key) / WORK
    if unfinished.is_dir() and any(unfinished.iterdir()):
        return Planned(item, "partly done", "goes on from its last checkpoint", seconds, size)
    if folder.exists():
        kept = ", and is kept if that comes out the same" if why.startswith("follows") else ""
        return Planned(item, "stale", why + kept, seconds, size)
    if changes:
        return Planned(item, "stale", f"changed: {', '.join(changes)}", seconds, size)
    return Planned(item, "to run", why, seconds, size)


def _search_seconds(item: Node, images: int, trainings: list[dict[str, Any]]) -> float | None:
    """Seconds of a search with so many images, at the speed of the most similar training; None where there is none."""
    alone = [record for record in trainings if record["config"].get("steps")]
    trial, hashed = next(iter(item.hashed["trials"].items()))
    like = replace(item, stage="train_recognizer", options=item.options.trials[trial], hashed=hashed)  # type: ignore[attr-defined]
    record, _ = nearest(like, alone)
    if record is None:
        return None
    return float(record["duration_s"]) * images / (record["config"]["steps"] * record["config"]["batch_size"])


def records_of(store: Store, stage: str) -> list[dict[str, Any]]:
    """The readable records of a stage, newest first, one of each config."""
    folder = store.finished / stage
    paths = [path for path in folder.glob("*/record.json") if not path.parent.name.endswith(".incomplete")]
    records: dict[str, dict[str, Any]] = {}
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime, path), reverse=True):
        try:
            record = json.loads(path.read_bytes())
            record["duration_s"], record["outputs"]
            records.setdefault(canonical(record["config"]), {**record, "flat": _flat(record["config"])})
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return list(records.values())


def nearest(item: Node, records: list[dict[str, Any]]) -> tuple[dict[str, Any] | None, list[str]]:
    """The earlier record whose config differs least, the newest of equals; and what changed since, in words.

    The changes are listed only for the same work: a recognizer of this seed, a merge of this arm. Trials and the cells
    of a study differ in their options, so that it is unknown which of them ran before: no changes are listed. A
    recognizer whose trial is chosen on val people is like any of its trials.
    """
    trials = list(item.hashed["trials"].values()) if item.as_chosen else []
    if item.as_chosen and isinstance(item.needs["select"].options, Searched):
        trials = trials[:1]  # of many the recipe's own
    configs = [_flat(config) for config in (item.config, *({**trial, **item.extra} for trial in trials))]
    best: tuple[dict[str, Any] | None, list[str]] = (None, [])
    for record, config in itertools.product(records, configs):
        earlier = record["flat"]
        changes = [
            f"{name} {_short(earlier.get(name))} -> {_short(config.get(name))}"
            for name in sorted(earlier.keys() | config.keys())
            if earlier.get(name) != config.get(name)
        ]
        if best[0] is None or _distance(changes) < _distance(best[1]):
            best = (record, changes)
    closest, changes = best
    other_work = (
        item.cell
        or item.trial
        or item.as_chosen
        or any(change.startswith(("seed ", "arm.", "set.kind ")) for change in changes)
    )
    return closest, [] if other_work or item.stage in ("report", "study") else changes


def _distance(changes: list[str]) -> tuple[int, int]:
    """How much differs: another seed is the same work, and only decides between equals."""
    return sum(not change.startswith("seed ") for change in changes), len(changes)


def _flat(value: Any, above: str = "") -> dict[str, Any]:
    """{dotted path: leaf}."""
    if isinstance(value, dict) and value:
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{above}{key}.").items()}
    return {above.rstrip("."): value}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 30 else text[:27] + "..."


def expected_s(plans: list[Planned], jobs: int) -> tuple[float, int]:
    """Seconds until the end with `jobs` stages side by side, and of how many stages the time is unknown."""
    ends: dict[str, float] = {}
    free_at = [0.0] * max(1, jobs)
    for stage in plans:
        ready = max((ends.get(needed.key, 0.0) for needed in stage.item.needs.values()), default=0.0)
        if stage.item.key in ends or stage.state == "cached":
            ends.setdefault(stage.item.key, ready)
            continue
        slot = min(range(len(free_at)), key=free_at.__getitem__)
        ends[stage.item.key] = free_at[slot] = max(ready, free_at[slot]) + (stage.seconds or 0.0)
    return max(ends.values(), default=0.0), sum(stage.seconds is None for stage in plans)


def disk(plans: list[Planned], workdir: Path) -> tuple[int, int, int]:
    """Bytes to expect, of how many stages they are unknown, bytes free where the store lies."""
    existing = next(folder for folder in [workdir, *workdir.parents] if folder.is_dir())
    sizes = [stage.size_bytes for stage in plans]
    return sum(size or 0 for size in sizes), sizes.count(None), shutil.disk_usage(existing).free
