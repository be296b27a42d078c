"""What a run would do: each stage's state in the store and why, time and disk to expect. Imports no torch."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facegan.core.digests import canonical
from facegan.pipeline.execute import lookup
from facegan.pipeline.graph import Node
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
    done: dict[str, Artifact] = {}
    found = []
    for item in nodes:
        artifact, why = lookup(item, store, done)
        if artifact is not None:
            done[item.key] = artifact
        found.append((item, artifact, why))
    return found


def plan(nodes: list[Node], store: Store) -> list[Planned]:
    """The state of each node, in order."""
    records = {stage: records_of(store, stage) for stage in {item.stage for item in nodes}}
    return [_planned(item, hit, why, store, records[item.stage]) for item, hit, why in survey(nodes, store)]


def _planned(item: Node, hit: Artifact | None, why: str, store: Store, records: list[dict[str, Any]]) -> Planned:
    if hit is not None:
        return Planned(item, "cached", "verified", 0.0, 0)
    near, changes = nearest(item, records)
    seconds = None if near is None else float(near["duration_s"])
    size = None if near is None else sum(int(entry["bytes"]) for entry in near["outputs"].values())
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

    What changed is told only of the same piece of work: a recognizer of this seed, a merge of this arm. Trials and
    the cells of a study differ in their options: which of them was there before cannot be told. What is trained as
    val people choose is like any of its trials.
    """
    trials = item.hashed["trials"].values() if item.as_chosen else ()
    each = [_flat(config) for config in (item.config, *({**trial, **item.extra} for trial in trials))]
    best: tuple[dict[str, Any] | None, list[str]] = (None, [])
    for record, wanted in itertools.product(records, each):
        had = record["flat"]
        changes = [
            f"{name} {_short(had.get(name))} -> {_short(wanted.get(name))}"
            for name in sorted(had.keys() | wanted.keys())
            if had.get(name) != wanted.get(name)
        ]
        if best[0] is None or _far(changes) < _far(best[1]):
            best = (record, changes)
    near, changes = best
    other = item.cell or item.trial or item.as_chosen or any(change.startswith(("seed ", "arm.")) for change in changes)
    return near, [] if other or item.stage in ("report", "study") else changes


def _far(changes: list[str]) -> tuple[int, int]:
    """How much differs: another seed is the same work, and decides between equals alone."""
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
    free = [0.0] * max(1, jobs)
    for one in plans:
        ready = max((ends.get(needed.key, 0.0) for needed in one.item.needs.values()), default=0.0)
        if one.item.key in ends or one.state == "cached":
            ends.setdefault(one.item.key, ready)
            continue
        place = min(range(len(free)), key=free.__getitem__)
        ends[one.item.key] = free[place] = max(ready, free[place]) + (one.seconds or 0.0)
    return max(ends.values(), default=0.0), sum(one.seconds is None for one in plans)


def disk(plans: list[Planned], workdir: Path) -> tuple[int, int, int]:
    """Bytes to expect, of how many stages they are unknown, bytes free where the store lies."""
    there = next(folder for folder in [workdir, *workdir.parents] if folder.is_dir())
    sizes = [one.size_bytes for one in plans]
    return sum(size or 0 for size in sizes), sizes.count(None), shutil.disk_usage(there).free
