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


def lookup(node: Node, store: Store, artifacts: dict[str, Artifact]) -> tuple[Artifact | None, str]:
    """A verified hit for `node`, or None and why; `artifacts` holds the artifacts of what it needs, by key."""
    missing = [needed.title for needed in node.needs.values() if needed.key not in artifacts]
    if missing:
        return None, f"follows {missing[0]}"
    return store.lookup(node.stage, node.key, {n: artifacts[needed.key] for n, needed in node.needs.items()})


def execute(
    node: Node, store: Store, artifacts: dict[str, Artifact], runtime: Runtime, on_event: OnEvent = silent
) -> Artifact:
    """The artifact of `node`: found in the store and verified, or made now."""
    context = Context(runtime, on_event, node.title, store.root / DECODED, node.raw)
    inputs = {name: artifacts[needed.key] for name, needed in node.needs.items()}

    def work(out: Path) -> None:
        folders = {name: store.fetch(artifact) for name, artifact in inputs.items()}
        stage = importlib.import_module(f"facegan.stages.{node.stage}")
        run: Callable[..., None] = stage.run
        run(node.options, node.extra, folders, out, context)

    version = VERSIONS[node.stage]
    return store.produce(
        node.stage, version, node.config, inputs, node.raw, work, lambda: _environment(node.stage, runtime), context.say
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
