"""Fake stage outputs for the report, as the store would hand them over."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from facegan.data import manifest
from facegan.data.images import encode_png
from facegan.evaluation.embedded_faces import embed_faces
from facegan.evaluation.protocols import PROTOCOLS, score
from facegan.recipe.comparison import Report
from facegan.recipe.recipe import Recipe
from facegan.reporting import results, words
from facegan.reporting.results import Findings
from facegan.runtime.context import Context
from facegan.runtime.options import Runtime
from facegan.stages import report

EVIL = 'x/<script>alert("1")</script>|`[a](b)'


TRAIN, TEST, EACH = 6, 10, 5


def face(rng: np.random.Generator, size_px: int = 16) -> bytes:
    return encode_png(rng.integers(0, 256, (size_px, size_px), dtype=np.uint8))


def fingerprint(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


class ReportInputs:
    """A folder of fake stage outputs, as the store would hand them to the report.

    `spread` is that of a person's photos, by baseline; the arms' is 0.75.
    """

    def __init__(
        self,
        root: Path,
        seeds: tuple[int, ...] = (0, 1, 2),
        gain: float = 0.0,
        spread: dict[str, float] | None = None,
        **recipe: Any,
    ) -> None:
        self.root, self.rng, self.inputs = root, np.random.default_rng(0), {}
        self.recipe = Recipe(name="fake", seeds=seeds, **recipe).model_dump(mode="json", exclude={"runtime"})
        self.names = [f"orl/s{n}" for n in range(1, TRAIN)] + [EVIL]
        self.tested = [f"orl/t{n}" for n in range(TEST)]
        self._prepare()
        if any(arm["existing"] or arm["new"] for arm in self.recipe["arms"].values()):
            self._train_gan()
            self._synthesize()
        for arm, spec in self.recipe["arms"].items():
            self._merge(arm)
            if "set" in spec:
                self._derive(arm, spec["set"]["kind"])
        noise = dict.fromkeys(self.recipe["arms"], 0.75) | {"real+synthetic": 0.75 - gain}
        for arm, sigma in noise.items():
            for seed in seeds:
                if arm in self.recipe["arms"]:
                    self._train_recognizer(arm, seed)
                    self._benchmark(arm, seed, sigma)
        for name, sigma in (spread or {}).items():
            self._fit_recognizer(name)
            self._benchmark(name, None, sigma)
        if "synthesize" in self.inputs:
            self._audit()
            self._merge("guide")
            self._train_recognizer("guide", self.recipe["guide_seed"])

    def folder(self, name: str) -> Path:
        path = self.root / name.split(":")[0] / fingerprint(name)
        path.mkdir(parents=True)
        self.inputs[name] = path
        record = {
            "stage": name.split(":")[0],
            "stage_version": 1,
            "fingerprint": path.name,
            "duration_s": self.rng.random(),
            "device": "a-host-name",
            "packages": {"numpy": "2.0"},
            "inputs": {"prepare": {"fingerprint": fingerprint("prepare")}, "source": {"sha256": "ab" * 32}},
            "outputs": {"a/b.bin": {"sha256": "00", "bytes": 1234}},
        }
        (path / "record.json").write_text(json.dumps(record))
        return path

    def row(self, identity: str, split: str, **more: Any) -> dict[str, Any]:
        more = {"source": "real", **more}
        return manifest.row(
            face(self.rng),
            identity=identity,
            dataset=identity.split("/")[0],
            split=split,
            height=16,
            width=16,
            **more,
        )

    def _prepare(self) -> None:
        out = self.folder("prepare")
        people = [(name, "train") for name in self.names] + [(name, "test") for name in self.tested]
        rows = [self.row(name, split) for name, split in people for _ in range(EACH)]
        manifest.write(out, rows, "prepare", {})
        quarantined = [{"file": "s1/<b>.jpg", "identity": EVIL, "reason": "empty file"}] * 2
        pq.write_table(pa.Table.from_pylist(quarantined), out / "quarantine.parquet")
        splits = {"train": TRAIN, "val": 0, "test": TEST}
        summary = {
            "files": len(rows) + 2,
            "quarantined": 2,
            "splits": {split: {"identities": count, "images": count * EACH} for split, count in splits.items()},
        }
        (out / "summary.json").write_text(json.dumps(summary))

    def _train_gan(self) -> None:
        out = self.folder("train_gan")
        (out / "snapshots").mkdir()
        (out / "snapshots" / "kimg-00001.000.png").write_bytes(face(self.rng))
        (out / "snapshots" / "kimg-00002.000.png").write_bytes(face(self.rng, 48))
        names = ("d", "g", "reconstruction", "kl", "real_logits", "gen_logits", "ada_p", "ada_r")
        lines = [{"nimg": 32 * n, **{k: abs(self.rng.normal()) for k in names}} for n in range(1, 200)]
        for line in lines:
            line["pair_accuracy"] = min(1.0, 0.5 + line["g"] / 5)
        (out / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def _synthesize(self) -> None:
        out = self.folder("synthesize")
        columns = {"source": "synthetic", "generator": "ff", "latent": "[]", "seed": 1}
        old = [self.row(name, "train", parents=[name], **columns) for name in self.names for _ in range(3)]
        parents = [self.names[0], EVIL]
        new = [
            self.row(f"synthetic/new-{n:05d}", "train", parents=parents, **columns) for n in range(12) for _ in range(3)
        ]
        manifest.write(out, old + new, "synthesize", {})
        filters = {
            "thresholds": {"too_close": {"value": 0.4123, "how": "similarity at a false-match rate of 0.01 on val"}},
            "counts": [
                {"filter": "left_identity", "seen": 120, "removed": 37, "why": "far from the robust centre"},
                {"filter": "new people too close to a train person", "seen": 16, "removed": 4, "why": "cosine"},
                {"filter": "images that left their new person", "seen": 40, "removed": 2, "why": "cosine"},
            ],
            "requested": {"new_identities": 14, "images": 60},
            "made": {"new_identities": 12, "new people": 12, "images": 54},
        }
        (out / "filters.json").write_text(json.dumps(filters))

    def _derive(self, arm: str, kind: str) -> None:
        out = self.folder(f"derive:{arm}")
        columns = {"source": "synthetic", "generator": "ff", "latent": "[]", "seed": 1}
        rows = [
            self.row(f"synthetic/derived/{kind}-{n:06d}", "train", parents=[EVIL], **columns)
            for n in range(12)
            for _ in range(3)
        ]
        manifest.write(out, rows, "derive", {})
        like = {"images": 36, "q05": 0.5, "median": 0.75, "q95": 0.875}
        summary = {"kind": kind, "identities": 12, "images": 36, "different_images": 30, "likeness": like}
        (out / "summary.json").write_text(json.dumps(summary))

    def _audit(self) -> None:
        out = self.folder("audit")
        rows = {kind: manifest.read(self.inputs[kind]).to_pylist() for kind in ("prepare", "synthesize")}
        image, photo = rows["synthesize"][-1], rows["prepare"][-1]
        pair = {"image_id": image["image_id"], "identity": image["identity"], "similarity": 0.91234}
        rates = {"people": 12, "matched": 1, "rate": 1 / 12, "centre_rate": 0.25}
        worst = [{"identity": image["identity"], "train_person": EVIL, "likeness": 0.875}]
        gate = {
            "copies": {
                "value": 0.96, "images": 54, "copies": 0, "largest": 0.91234, "real_largest": 0.93, "false_alarm": 0.01,
                "false_alarm_photos": 0.04, "false_alarm_strangers": 0.0, "unseen": [],
                "power": {"unchanged": 1.0, "mirrored": 0.96},
                "closest": [{**pair, "photo": photo["image_id"], "photo_identity": photo["identity"]}],
            },
            "membership": {
                **{what: {"auc": 0.75, "interval": [0.7, 0.8], "null": [0.4, 0.6]} for what in ("photo", "person")},
                "people": 10, "others": 3, "attack": "in place",
            },
            "people": {
                "new": {**rates, "worst": worst}, "null": {**rates, "people": 3, "worst": []},
                "level": 0.75, "power": 0.95, "power_unseen": 0.67, "max_match_rate": 0.02,
            },
            "faults": [{"what": f"1 of 12 new people match a train person, first {EVIL}", "fix": "x"}],
            "enforced": False,
        }  # fmt: skip
        (out / "gate.json").write_text(json.dumps(gate))
        figures = {
            "people": 6,
            "images": 18,
            "eer": 0.12345,
            "kid": -0.01,
            "diversity": None,
            "auc": 0.987,
            "spread": 0.456,
        }
        card = {
            "judge": "a judge of its own",
            "thresholds": {"image": {"value": 0.61234, "n": 1500}},
            "sets": {
                "existing": figures,
                "real train": figures,
                "new": {"people": 0, "images": 0},
                "real val": figures,
            },
            "people": {"existing": [{"identity": EVIL, "cosine": 0.9}], "new": []},
            "probe": {"real": {"eer": 0.1672, "people": 9, "images": 27}, "real and new": None, "new": None},
        }
        (out / "card.json").write_text(json.dumps(card))

    def _merge(self, arm: str) -> None:
        out = self.folder(f"merge:{arm}")
        summary = {
            "arm": self.recipe["arms"].get(arm, {"real": True}),
            "identities": TRAIN,
            "rows": {"real": 30, "synthetic": 0 if arm == "real" else 54},
            "exact_duplicates": 1,
            "near_duplicates": 1,
            "capped": 0,
        }
        (out / "summary.json").write_text(json.dumps(summary))
        pair = {
            "image_id": "a" * 64,
            "other_image_id": "b" * 64,
            "identity": EVIL,
            "other_identity": "orl/s1",
        }
        pairs = [
            {**pair, "kind": "exact", "correlation": 1.0},
            {**pair, "kind": "near", "correlation": 0.985},
        ]
        pq.write_table(pa.Table.from_pylist(pairs), out / "duplicates.parquet")

    def _train_recognizer(self, arm: str, seed: int) -> None:
        out = self.folder(f"train_recognizer:{arm}:{seed}")
        lines: list[dict[str, float]] = [{"nimg": 32 * n, "loss": 9 / n + self.rng.random()} for n in range(1, 60)]
        for line in lines[9::10]:
            line["val_eer"] = 0.3 - line["nimg"] / 20000 + self.rng.random() / 50
        (out / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (out / "summary.json").write_text(json.dumps({"best_step": 50, "steps": 59, "val_eer": 0.2, "images_seen": 1}))

    def _fit_recognizer(self, name: str) -> None:
        chosen = {"hog": {"components": 100, "shrinkage": 0.3, "val_eer": 0.15}}
        summary = {"val_eer": 0.125, "features": chosen, "left_out": {"images": 7, "val_images": 0}}
        (self.folder(f"fit_recognizer:{name}") / "summary.json").write_text(json.dumps(summary))

    def _benchmark(self, arm: str, seed: int | None, sigma: float) -> None:
        out = self.folder(f"benchmark:{arm}" if seed is None else f"benchmark:{arm}:{seed}")
        people = np.repeat(np.arange(TEST), EACH)
        shared = np.random.default_rng(7)  # the same faces for all; a little chance for each recognizer
        centre, spread = shared.normal(size=(TEST, 8)), shared.normal(size=(TEST * EACH, 8))
        seed_noise = np.random.default_rng([seed or 0, *arm.encode()]).normal(size=spread.shape)
        embedding = (centre[people] + sigma * (spread + 0.15 * seed_noise)).astype(np.float32)
        specs = self.recipe["benchmark"]["benchmarks"]
        benchmarks = [PROTOCOLS.get(spec["kind"]).model_validate(spec) for spec in specs]
        results_of = score(benchmarks, embed_faces(embedding, people))
        (out / "results.json").write_text(json.dumps(results_of))
        save_file({"embedding": embedding}, out / "embeddings.safetensors")
        identity = [self.tested[person] for person in people]
        pq.write_table(
            pa.table(
                {
                    "image_id": [f"{n:064d}" for n in range(len(people))],
                    "identity": identity,
                    "file": [""] * len(people),
                    "group": [""] * len(people),
                    "acquired": [True] * len(people),
                }
            ),
            out / "rows.parquet",
        )

    def report(self, name: str = "out", **options: Any) -> Path:
        out = self.root / name
        out.mkdir()
        recipe = copy.deepcopy(self.recipe)
        settings = Report(**{"bootstrap": 300, "identities_shown": 4, "faces_per_identity": 3, **options})
        report.run(settings, {"recipe": recipe}, dict(self.inputs), out, Context(Runtime()))
        return out

    def numbers(self) -> Findings:
        """The findings alone: no figures, no pages."""
        return results.measure(self.recipe, self.inputs, 300, 0, lambda done, total: None)

    def sentence(self, findings: Findings) -> str:
        primary = next(m for m in findings.measures if m.name == findings.comparison["metric"])
        return words.verdict(self.recipe, primary, findings.comparison)


def read(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "results.json").read_text()))
