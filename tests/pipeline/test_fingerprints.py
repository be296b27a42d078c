"""The keys of today, written down: whoever changes one makes everybody's finished stages anew, and has to mean it.

`make fingerprints` writes the file anew; a CHANGELOG line then names the stages whose keys changed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from facegan import stages
from facegan.data.options import Prepare
from facegan.generation import shard_worker
from facegan.generation.augmenters import AUGMENTERS
from facegan.generation.controls import CONTROLS
from facegan.generation.options import Synthesize
from facegan.pipeline.graph import build
from facegan.recipe.load import load, shipped
from facegan.recognition.starts import dlib
from facegan.stages import prepare

PINNED = Path(__file__).parent / "fingerprints.txt"
PACKAGES = {"facegan": "1", "torch": "2", "numpy": "3"}  # in the place of those that are installed


def draw_sources(root: Path) -> None:
    """LFW's lists and folders, a folder of faces and dlib's weights below `root/data`, whose bytes nobody decodes."""
    folder = root / "data" / "lfw"
    for number in range(8):
        for people in (folder / "lfw", root / "data" / "faces"):
            path = people / f"P{number}" / f"P{number}_0001.jpg"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"photo %d" % number)
    develop = "1\nP0\t1\t1\nP1\t1\tP2\t1\n"
    test = "1\nP4\t1\t1\nP5\t1\tP6\t1\n"
    for name, pairs in {"pairsDevTrain.txt": develop, "pairsDevTest.txt": test, "pairs.txt": test}.items():
        (folder / name).write_text(pairs)
    (root / "data" / dlib.WEIGHTS).write_bytes(b"weights")


@contextlib.contextmanager
def any_machine() -> Iterator[None]:
    """Package versions, and weights that come with a package, that are the same whatever is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dlib, "model_file", lambda name: Path("data", name))
        for module in (prepare, shard_worker):
            patch.setattr(module, "package_versions", lambda: PACKAGES)
        yield


def keys() -> dict[str, str]:
    """{recipe · node: fingerprint} of every shipped recipe and set, and the keys of the photo cache and a shard."""
    pinned = {}
    with any_machine():
        for name in shipped():
            for node in build(load(name)):
                pinned[f"{name} · {node.title}"] = node.key
        for family, registry in (("control", CONTROLS), ("augmenter", AUGMENTERS)):
            for kind in registry.load():
                nodes = build(load("orl-tiny", [f"arms.{kind}.set={kind}"]))
                pinned |= {f"{family} · {n.title}": n.key for n in nodes if n.arm == kind and n.seed is None}
        aligned = {"kind": "landmarks"}
        for name, changes in {"plain": {}, "aligned": {"align": {"detector": aligned}}}.items():
            pinned[f"photo cache · {name}"] = prepare.photo_cache_key(Prepare.model_validate(changes))
        pinned["shard"] = shard_worker.digest(synthesizer(), {"generator": "g", "guide": "h"}, threads=2)
    return pinned


def synthesizer() -> Any:
    """What the digest of a shard looks at."""
    return SimpleNamespace(
        options=Synthesize(), device="cpu", donor_person=np.arange(3), photos=np.ones((3, 4), np.float32),
        centres=np.ones((3, 2), np.float32), donors=np.ones((3, 5), np.float32), axes=None,
        copy_threshold=0.5, person_threshold=0.25, image_threshold=0.125,
    )  # fmt: skip


def read() -> dict[str, str]:
    """What is pinned."""
    lines = PINNED.read_text(encoding="utf-8").splitlines()
    return {title: key for title, _, key in (line.rpartition("  ") for line in lines)}


def test_no_key_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_sources(tmp_path)
    monkeypatch.chdir(tmp_path)
    now, then = keys(), read()
    assert {stage for stage in stages.STAGES if any(f"· {stage}" in title for title in then)} == set(stages.STAGES)
    changed = [title for title in then if now.get(title) != then[title]]
    assert not changed, f"{len(changed)} of {len(then)} keys changed, first: {changed[:3]}"
    assert now.keys() == then.keys(), f"not pinned yet: {sorted(now.keys() - then.keys())[:3]}"


def main() -> None:
    """Write the file anew."""
    with tempfile.TemporaryDirectory() as root:
        draw_sources(Path(root))
        os.chdir(root)
        lines = [f"{title}  {key}" for title, key in keys().items()]
    PINNED.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
