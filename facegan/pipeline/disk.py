"""Whether a run would fill the disk, before it starts. Imports no torch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from facegan.core.errors import UserError
from facegan.core.units import format_bytes
from facegan.pipeline.graph import Node
from facegan.pipeline.plan import nearest, records_of
from facegan.recognition.options import Searched
from facegan.runtime.devices import cores
from facegan.runtime.options import Runtime
from facegan.store.local import Store

SAFETY = 1.2  # expected sizes are those of similar work, not of the same
BYTES_A_VALUE = 0.5  # of a face as PNG: 0.38 of the drawn ones at 32 px, up to 0.6 of photos
# Size of the checkpoints, in finished weights: three files, each with weights, average, best and two moments.
CHECKPOINT_FACTOR = 15
TRAINED = ("train_gan", "train_recognizer")
LITTLE = 10**9  # bytes free below which unknown sizes are worth a warning


def check_room(nodes: list[Node], store: Store, runtime: Runtime) -> str:
    """A warning where it cannot be known whether the disk has room for `nodes`, which are not stored (`graph.unmade`).

    `runtime.jobs` stages work side by side, with checkpoints and shards that are deleted when they end. Raises
    UserError where the expected bytes do not fit: from the sizes of similar stages that ran here and, of synthetic
    images, from their number and side.
    """
    by_key = {node.key: node for node in nodes}
    records = {stage: records_of(store, stage) for stage in {node.stage for node in nodes}}
    sizes: dict[str, int | None] = {}
    for node in nodes:
        like = (
            "train_recognizer" if isinstance(node.options, Searched) else node.stage
        )  # a search leaves the chosen one
        sizes[node.key] = _expected_bytes(node, store, sizes, records.get(like, []))
    working = sorted((_factor(node) * (sizes[key] or 0) for key, node in by_key.items()), reverse=True)
    jobs = runtime.jobs or min(2, cores())
    written = sorted((count or 0 for count in sizes.values()), reverse=True)
    expected = sum(written if store.keeps else written[:jobs]) + sum(working[:jobs])
    free, unknown = shutil.disk_usage(store.root).free, list(sizes.values()).count(None)
    if expected * SAFETY > free:
        raise UserError(
            f"this run would fill the disk: it writes about {format_bytes(expected)}, "
            f"and {format_bytes(free)} are free at {store.root}",
            fix="free some space (`facegan gc` shows what no report needs), give another --workdir, or make fewer or "
            "smaller images (synthesize, prepare.size_px)",
        )
    if unknown and free - expected < LITTLE:
        return f"{format_bytes(free)} are free at {store.root}; how much {unknown} of the stages write is not known"
    return ""


def _factor(node: Node) -> int:
    """Bytes that a stage has beside its outputs while it works, in outputs."""
    if isinstance(node.options, Searched):
        return CHECKPOINT_FACTOR + len(node.options.trials)  # each finished trial stays until the end
    # The shards of synthesize are as large as its output.
    return {**dict.fromkeys(TRAINED, CHECKPOINT_FACTOR), "synthesize": 1}.get(node.stage, 0)


def _expected_bytes(
    node: Node, store: Store, sizes: dict[str, int | None], records: list[dict[str, Any]]
) -> int | None:  # fmt: skip
    """Bytes of a stage's outputs, None where unknown; `sizes` has those of the stages it needs that are not stored."""

    def bytes_of(needed: Node) -> int | None:
        return sizes[needed.key] if needed.key in sizes else stored_bytes(store.folder(needed.stage, needed.key))

    if node.stage == "merge":
        arm = node.extra["arm"]
        real = bytes_of(node.needs["real"]) if arm["real"] else 0
        made = [bytes_of(needed) for name, needed in node.needs.items() if name != "real"]
        return None if real is None or None in made else real + sum(size or 0 for size in made)
    if node.stage == "derive" and "synthetic" in node.needs:
        return bytes_of(node.needs["synthetic"])  # as many images of the same side
    if node.stage == "derive" and (classes := node.hashed["set"].get("classes")):
        return _image_bytes(classes * node.hashed["set"]["images_per_class"], node.needs["manifest"])
    if node.stage == "derive":
        real = bytes_of(node.needs["manifest"])  # of all splits, of which train photos are made again
        return None if real is None else real * int(node.hashed["set"]["per_photo"])
    record, _ = nearest(node, records)
    if node.stage == "synthesize" and (synthetic := _synthetic_bytes(node, store)) is not None:
        return synthetic
    return None if record is None else sum(int(entry["bytes"]) for entry in record["outputs"].values())


def _synthetic_bytes(node: Node, store: Store) -> int | None:
    """Bytes of the images that `synthesize` is asked for; None where images of train people are, before prepare."""
    options, prepare = node.hashed, node.needs["manifest"]
    images = options["new_identities"] * options["images_per_new"]
    if options["images_per_existing"]:
        try:
            summary = json.loads((store.folder("prepare", prepare.key) / "summary.json").read_bytes())
            images += int(summary["splits"]["train"]["identities"]) * options["images_per_existing"]
        except (OSError, ValueError, KeyError, TypeError):
            if not images:
                return None  # else the images of new people alone are checked
    if external := options.get("external"):
        if external["identities"] is None or external["images"] is None:
            return None
        images += external["identities"] * external["images"]
    return _image_bytes(images, prepare)


def _image_bytes(images: int, prepare: Node) -> int:
    """Bytes of so many images of the side and color of `prepare`."""
    values = prepare.hashed["size_px"] ** 2 * (3 if prepare.hashed["color"] == "rgb" else 1)
    return int(images * values * BYTES_A_VALUE)


def stored_bytes(folder: Path) -> int | None:
    """Bytes of the outputs in a folder of the store, as its record tells."""
    try:
        outputs = json.loads((folder / "record.json").read_bytes())["outputs"]
        return sum(int(entry["bytes"]) for entry in outputs.values())
    except (OSError, ValueError, KeyError, TypeError):
        return None
