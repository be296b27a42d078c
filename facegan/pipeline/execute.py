"""One node of a run: found in the store, or made by its stage."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from facegan.core.versions import commit as git_commit
from facegan.core.versions import package_versions
from facegan.data.preparation.photo_cache import FOLDER as DECODED
from facegan.pipeline.graph import Node
from facegan.runtime.context import Context, OnEvent, silent
from facegan.runtime.options import Runtime
from facegan.stages import VERSIONS
from facegan.store.local import Artifact, Store


def lookup(item: Node, store: Store, done: dict[str, Artifact]) -> tuple[Artifact | None, str]:
    """A verified hit for `item`, or None and why; `done` holds the artifacts of what it needs, by key."""
    missing = [needed.title for needed in item.needs.values() if needed.key not in done]
    if missing:
        return None, f"follows {missing[0]}"
    return store.lookup(item.stage, item.key, {n: done[needed.key] for n, needed in item.needs.items()})


def execute(
    item: Node, store: Store, done: dict[str, Artifact], runtime: Runtime, on_event: OnEvent = silent
) -> Artifact:
    """The artifact of `item`: found in the store and verified, or made now."""
    context = Context(runtime, on_event, item.title, store.root / DECODED, item.raw)
    inputs = {name: done[needed.key] for name, needed in item.needs.items()}

    def work(out: Path) -> None:
        folders = {name: store.fetch(artifact) for name, artifact in inputs.items()}
        stage = importlib.import_module(f"facegan.stages.{item.stage}")
        run: Callable[..., None] = stage.run
        run(item.options, item.extra, folders, out, context)

    version = VERSIONS[item.stage]
    return store.produce(
        item.stage, version, item.config, inputs, item.raw, work, lambda: _environment(item.stage, runtime), context.say
    )


def _environment(stage: str, runtime: Runtime) -> dict[str, Any]:
    """Where the outputs were made, for the record: read when the work is done, with torch where it took torch."""
    import sys

    torch = sys.modules.get("torch")
    threads, device = (torch.get_num_threads() if torch else 1), runtime.device
    if torch and device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        "device": device,
        "threads": threads,
        **({"nproc_per_node": runtime.nproc_per_node} if runtime.nproc_per_node > 1 else {}),
        **({"engine": runtime.engine.kind} if stage == "synthesize" and runtime.engine.kind != "local" else {}),
        **({"batch_gpu": runtime.batch_gpu} if runtime.batch_gpu else {}),
        "packages": package_versions(),
        "commit": git_commit(),
    }
