"""Whether a run would fill the disk, before it starts. Imports no torch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from facegan.core.errors import UserError
from facegan.core.units import size
from facegan.pipeline.graph import Node
from facegan.pipeline.plan import nearest, records_of
from facegan.runtime.devices import cores
from facegan.runtime.options import Runtime
from facegan.store.local import Store

SAFETY = 1.2  # expected sizes are those of similar work, not of the same
BYTES_A_VALUE = 0.5  # of a face as PNG: 0.38 of the drawn ones at 32 px, up to 0.6 of photos
IN_WORK = 15  # checkpoints, in sizes of the finished weights: three files, each weights, average, best, two moments
TRAINED = ("train_gan", "train_recognizer")
LITTLE = 10**9  # bytes free below which unknown sizes are worth a warning


def check_room(nodes: list[Node], store: Store, runtime: Runtime) -> str:
    """A warning where it cannot be known whether the disk has room for `nodes`, which are not stored (`graph.unmade`).

    `runtime.jobs` stages work side by side, with checkpoints and shards that go when they end. Raises UserError where
    what is known does not fit: the sizes of similar stages that ran here and, of synthetic images, number and side.
    """
    todo = {item.key: item for item in nodes}
    records = {stage: records_of(store, stage) for stage in {item.stage for item in nodes}}
    sizes: dict[str, int | None] = {}
    for item in nodes:
        sizes[item.key] = _expected(item, store, sizes, records[item.stage])
    factor = {**dict.fromkeys(TRAINED, IN_WORK), "synthesize": 1}  # its shards hold all that comes of them
    working = sorted((factor.get(item.stage, 0) * (sizes[key] or 0) for key, item in todo.items()), reverse=True)
    jobs = runtime.jobs or min(2, cores())
    written = sorted((count or 0 for count in sizes.values()), reverse=True)
    known = sum(written if store.keeps else written[:jobs]) + sum(working[:jobs])
    free, unknown = shutil.disk_usage(store.root).free, list(sizes.values()).count(None)
    if known * SAFETY > free:
        raise UserError(
            f"this run would fill the disk: it writes about {size(known)}, and {size(free)} are free at {store.root}",
            fix="free some space (`facegan gc` shows what no report needs), give another --workdir, or make fewer or "
            "smaller images (synthesize, prepare.size_px)",
        )
    if unknown and free - known < LITTLE:
        return f"{size(free)} are free at {store.root}; how much {unknown} of the stages write is not known"
    return ""


def _expected(
    item: Node, store: Store, sizes: dict[str, int | None], records: list[dict[str, Any]]
) -> int | None:  # fmt: skip
    """Bytes of a stage's outputs, None where nothing tells; `sizes` has those of what it needs and is not stored."""

    def of(needed: Node) -> int | None:
        return sizes[needed.key] if needed.key in sizes else stored(store.folder(needed.stage, needed.key))

    if item.stage == "merge":
        arm = item.extra["arm"]
        real = of(item.needs["real"]) if arm["real"] else 0
        drawn = of(item.needs["synthetic"]) if "synthetic" in item.needs else 0
        return None if real is None or drawn is None else real + drawn
    near, _ = nearest(item, records)
    if item.stage == "synthesize" and (drawn := _drawn(item, store)) is not None:
        return drawn
    return None if near is None else sum(int(entry["bytes"]) for entry in near["outputs"].values())


def _drawn(item: Node, store: Store) -> int | None:
    """Bytes of the images that `synthesize` is asked for; None where images of train people are, before prepare."""
    options, prepare = item.hashed, item.needs["manifest"]
    images = options["new_identities"] * options["images_per_new"]
    if options["images_per_existing"]:
        try:
            summary = json.loads((store.folder("prepare", prepare.key) / "summary.json").read_bytes())
            images += int(summary["splits"]["train"]["identities"]) * options["images_per_existing"]
        except (OSError, ValueError, KeyError, TypeError):
            if not images:
                return None  # what is sure is worth checking, however little it is
    if external := options.get("external"):
        if external["identities"] is None or external["images"] is None:
            return None
        images += external["identities"] * external["images"]
    values = prepare.hashed["size_px"] ** 2 * (3 if prepare.hashed["color"] == "rgb" else 1)
    return int(images * values * BYTES_A_VALUE)


def stored(folder: Path) -> int | None:
    """Bytes of the outputs in a folder of the store, as its record tells."""
    try:
        outputs = json.loads((folder / "record.json").read_bytes())["outputs"]
        return sum(int(entry["bytes"]) for entry in outputs.values())
    except (OSError, ValueError, KeyError, TypeError):
        return None
