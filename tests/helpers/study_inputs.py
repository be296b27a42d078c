"""Fake benchmark outputs of a study, as the store would hand them over."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from facegan.data import manifest
from facegan.evaluation.embedded_faces import embed_faces
from facegan.evaluation.protocols import score
from facegan.recipe.recipe import Recipe
from facegan.reporting.study import pooled
from facegan.reporting.study.pooled import StudyFindings

PEOPLE, EACH, TESTED, BOOT = 13, 4, 7, 200


SIGMA = {"real": 0.75, "real+synthetic": 0.75}


ARMS: dict[str, Any] = {"real": {}, "real+synthetic": {"existing": True}}


LICENSES = {"real+synthetic": {1: ["for research | only"], 2: ["own", "CC0"]}}
"""Of the arm in splits 1 and 2; all others are "own"."""


def tested_in(split: int) -> np.ndarray:
    """Neighbouring splits share people; three have all."""
    return np.sort((np.arange(TESTED) + 3 * split) % PEOPLE)


class StudyInputs:
    """Fake benchmark outputs of a study: `gain` is how much tighter the arm real+synthetic is, by variant."""

    def __init__(
        self,
        root: Path,
        gain: dict[str, float],
        splits: tuple[int, ...] = (0, 1, 2),
        seeds: tuple[int, ...] = (0, 1, 2),
        **changes: Any,
    ) -> None:
        self.root, self.inputs = root, {}
        self.study = {"splits": splits, "variants": {name: {} for name in gain}, **changes.pop("study", {})}
        self.recipe = Recipe(name="fake", seeds=seeds, study=self.study, arms=ARMS, **changes)
        self.names = np.array([f"d/p{n:02d}" for n in range(PEOPLE)])
        for variant, tighter in gain.items():
            for split in splits:
                self._prepare(f"{variant}:{split}:prepare", split)
                for arm, sigma in SIGMA.items():
                    folder = self.folder(f"{variant}:{split}:merge:{arm}")
                    summary = {
                        "rows": {"real": 10, "synthetic": 5},
                        "licenses": LICENSES.get(arm, {}).get(split, ["own"]),
                    }
                    (folder / "summary.json").write_text(json.dumps(summary))
                    for seed in seeds:
                        spread_of_arm = sigma - (tighter if arm == "real+synthetic" else 0)
                        self._benchmark(f"{variant}:{split}:benchmark:{arm}:{seed}", split, arm, seed, spread_of_arm)

    def folder(self, name: str) -> Path:
        path = self.root / name.replace(":", "_")
        path.mkdir(parents=True)
        self.inputs[name] = path
        return path

    def _prepare(self, name: str, split: int) -> None:
        """A manifest of who is tested in a split, and of those whom it learns from: all others."""
        tested = set(tested_in(split).tolist())
        fixed = {"source": "real", "dataset": "d", "height": 1, "width": 1}
        rows = [
            manifest.row(b"", image_id=f"{p}-{n}", identity=str(self.names[p]), split=kind, **fixed)
            for p in range(PEOPLE)
            for kind, images in [("test", EACH) if p in tested else ("train", 1)]
            for n in range(images)
        ]
        manifest.write(self.folder(name), rows, "prepare", {})

    def _benchmark(self, name: str, split: int, arm: str, seed: int, sigma: float) -> None:
        out = self.folder(name)
        tested = tested_in(split)
        people = np.repeat(np.arange(TESTED), EACH)
        shared = np.random.default_rng(7)  # a person's photos are the same in every split
        centre, spread = shared.normal(size=(PEOPLE, 6)), shared.normal(size=(PEOPLE, EACH, 6))
        seed_noise = np.random.default_rng([seed, split, *arm.encode()]).normal(size=(TESTED, EACH, 6))
        embedding = centre[tested][:, None] + sigma * (spread[tested] + 0.2 * seed_noise)
        embedding = embedding.reshape(-1, 6).astype(np.float32)
        scored = score(self.recipe.benchmark.benchmarks, embed_faces(embedding, people))
        (out / "results.json").write_text(json.dumps(scored))
        save_file({"embedding": embedding}, out / "embeddings.safetensors")
        image_id = [f"{person}-{n}" for person in tested for n in range(EACH)]
        blank = {"file": [""] * len(people), "group": [""] * len(people), "acquired": [True] * len(people)}
        rows = {"image_id": image_id, "identity": self.names[tested][people].tolist(), **blank}
        pq.write_table(pa.table(rows), out / "rows.parquet")

    def dump(self) -> dict[str, Any]:
        data = self.recipe.model_dump(mode="json", exclude={"runtime"})
        assert self.recipe.study is not None
        data["study"]["claim"] = self.recipe.study.claimed
        return data

    @cached_property
    def numbers(self) -> StudyFindings:
        return pooled.measure(self.dump(), self.inputs, BOOT, 0, lambda done, total: None)

    def compared(self, variant: str, arm: str = "real+synthetic") -> dict[str, Any]:
        findings = next(v for v in self.numbers.variants if v.name == variant)
        return pooled.comparison(self.dump(), findings, arm)


def three_variants(root: Path) -> StudyInputs:
    """No gain in the first variant, a large one in the second, both on the axis; a third off the axis."""
    variants = {"few": {"x": 3}, "many": {"x": 10}, "off": {"set": {"train_gan.kimg": 1}}}
    gain = {"few": 0.0, "many": 0.35, "off": 0.0}
    return StudyInputs(root, gain, study={"variants": variants, "x_label": "real images"})
