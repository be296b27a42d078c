"""The report stage on made-up inputs: numbers, verdicts, escaping, one file that stands alone, same bytes."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from sklearn.metrics import roc_curve

from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.images import encode_png
from facegan.data.options import Align, Prepare
from facegan.data.preparation.quarantine import Rejected, thumbnail
from facegan.evaluation.embedded_faces import faces
from facegan.evaluation.protocols import PROTOCOLS, score
from facegan.recipe.comparison import Report
from facegan.recipe.recipe import Recipe
from facegan.reporting import page, results, words
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


class World:
    """A folder of fake stage outputs, as the store would hand them to the report."""

    def __init__(self, root: Path, seeds: tuple[int, ...] = (0, 1, 2), gain: float = 0.0, **recipe: Any) -> None:
        self.root, self.rng, self.inputs = root, np.random.default_rng(0), {}
        self.recipe = Recipe(name="fake", seeds=seeds, **recipe).model_dump(mode="json", exclude={"runtime"})
        self.names = [f"orl/s{n}" for n in range(1, TRAIN)] + [EVIL]
        self.tested = [f"orl/t{n}" for n in range(TEST)]
        self._prepare()
        if any(arm["existing"] or arm["new"] for arm in self.recipe["arms"].values()):
            self._train_gan()
            self._synthesize()
        for arm in self.recipe["arms"]:
            self._merge(arm)
        noise = dict.fromkeys(self.recipe["arms"], 0.75) | {"real+synthetic": 0.75 - gain}
        for arm, sigma in noise.items():
            for seed in seeds:
                if arm in self.recipe["arms"]:
                    self._train_recognizer(arm, seed)
                    self._benchmark(arm, seed, sigma)
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
        left = [{"file": "s1/<b>.jpg", "identity": EVIL, "reason": "empty file"}] * 2
        pq.write_table(pa.Table.from_pylist(left), out / "quarantine.parquet")
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
        (out / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def _synthesize(self) -> None:
        out = self.folder("synthesize")
        made = {"source": "synthetic", "generator": "ff", "latent": "[]", "seed": 1}
        old = [self.row(name, "train", parents=[name], **made) for name in self.names for _ in range(3)]
        parents = [self.names[0], EVIL]
        new = [
            self.row(f"synthetic/new-{n:05d}", "train", parents=parents, **made) for n in range(12) for _ in range(3)
        ]
        manifest.write(out, old + new, "synthesize", {})
        filters = {
            "thresholds": {"too_close": {"value": 0.4123, "how": "similarity at a false-match rate of 0.01 on val"}},
            "counts": [{"filter": "left_identity", "seen": 120, "removed": 37, "why": "far from the robust centre"}],
            "requested": {"new_identities": 14, "images": 60},
            "made": {"new_identities": 12, "images": 54},
        }
        (out / "filters.json").write_text(json.dumps(filters))

    def _audit(self) -> None:
        out = self.folder("audit")
        rows = {kind: manifest.read(self.inputs[kind]).to_pylist() for kind in ("prepare", "synthesize")}
        made, photo = rows["synthesize"][-1], rows["prepare"][-1]
        pair = {"image_id": made["image_id"], "identity": made["identity"], "similarity": 0.91234}
        rates = {"people": 12, "matched": 1, "rate": 1 / 12, "centre_rate": 0.25}
        worst = [{"identity": made["identity"], "train_person": EVIL, "likeness": 0.875}]
        gate = {
            "copies": {
                "value": 0.96, "images": 54, "copies": 0, "largest": 0.91234, "real_largest": 0.93, "false_alarm": 0.01,
                "power": {"exact": 1.0, "mirrored": 0.875},
                "closest": [{**pair, "photo": photo["image_id"], "photo_identity": photo["identity"]}],
            },
            "people": {
                "new": {**rates, "worst": worst}, "null": {**rates, "people": 3, "worst": []},
                "level": 0.75, "power": 0.95, "power_unseen": 0.67, "max_match_rate": 0.02,
            },
            "faults": [{"what": f"1 of 12 new people match a train person, first {EVIL}", "fix": "x"}],
            "enforced": False,
        }  # fmt: skip
        (out / "gate.json").write_text(json.dumps(gate))
        figures = {"people": 6, "images": 18, "eer": 0.12345, "kid": -0.01, "diversity": None}
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

    def _benchmark(self, arm: str, seed: int, sigma: float) -> None:
        out = self.folder(f"benchmark:{arm}:{seed}")
        people = np.repeat(np.arange(TEST), EACH)
        shared = np.random.default_rng(7)  # the same faces for all; a little chance for each recognizer
        centre, spread = shared.normal(size=(TEST, 8)), shared.normal(size=(TEST * EACH, 8))
        own = np.random.default_rng([seed, *arm.encode()]).normal(size=spread.shape)
        embedding = (centre[people] + sigma * (spread + 0.15 * own)).astype(np.float32)
        specs = self.recipe["benchmark"]["benchmarks"]
        benchmarks = [PROTOCOLS.get(spec["kind"]).model_validate(spec) for spec in specs]
        scored = score(benchmarks, faces(embedding, people))
        (out / "results.json").write_text(json.dumps(scored))
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
        named = next(m for m in findings.measures if m.name == findings.comparison["metric"])
        return words.verdict(self.recipe, named, findings.comparison)


def read(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "results.json").read_text()))


@pytest.fixture(scope="module")
def gained(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Path]:
    world = World(tmp_path_factory.mktemp("gained"), gain=0.35)
    return world, world.report()


def sklearn_eer(embedding: np.ndarray, people: np.ndarray) -> float:
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    i, j = np.triu_indices(len(unit), 1)
    far, tar, _ = roc_curve(people[i] == people[j], (unit @ unit.T)[i, j], drop_intermediate=False)
    place = int(np.argmax(far >= 1 - tar))
    return float(max(min(far[place], 1 - tar[place - 1]), min(far[place - 1], 1 - tar[place - 1])))


def test_numbers_are_those_of_the_embeddings(gained: tuple[World, Path]) -> None:
    world, out = gained
    found = read(out)
    people = np.repeat(np.arange(TEST), EACH)
    assert found["recipe"] == "fake" and list(found["arms"]) == ["real", "real+synthetic", "synthetic"]
    eers = {}
    for arm in ("real", "real+synthetic"):
        folders = [world.inputs[f"benchmark:{arm}:{seed}"] for seed in (0, 1, 2)]
        eers[arm] = [sklearn_eer(load_file(f / "embeddings.safetensors")["embedding"], people) for f in folders]
        entry = found["arms"][arm]["eer"]
        assert entry["per_seed"] == pytest.approx(eers[arm], abs=0.01)
        assert entry["mean"] == pytest.approx(np.mean(entry["per_seed"]))
        assert entry["ci_low"] < entry["mean"] < entry["ci_high"]
    comparison = found["comparison"]
    assert comparison["delta"] == pytest.approx(np.mean(eers["real+synthetic"]) - np.mean(eers["real"]), abs=0.01)
    assert (comparison["n_seeds"], comparison["n_identities"]) == (3, TEST)
    assert (comparison["metric"], comparison["baseline"], comparison["arm"]) == (
        "eer",
        "real",
        "real+synthetic",
    )


def test_the_audit_is_shown(gained: tuple[World, Path]) -> None:
    html, markdown = ((gained[1] / name).read_text() for name in ("index.html", "report.md"))
    for text in (html, markdown):
        assert "a judge of its own" in text and "0.612 (1500 comparisons)" in text and "0.123" in text
        assert "Leakage gate: failed, and not enforced" in text
        assert "none at a similarity of 0.960 or more" in text and "87.5" in text
        assert "1 of 12" in text and "similarity 0.912" in text
    for name in ("closest", "people", "consistency"):
        assert (gained[1] / "figures" / f"audit-{name}.png").is_file() and f"audit-{name}.png" in markdown


def test_gain_loss_and_no_gain(gained: tuple[World, Path], tmp_path: Path) -> None:
    comparison = read(gained[1])["comparison"]
    assert comparison["verdict"] == "gain" and comparison["ci_high"] < 0
    shown = (gained[1] / "index.html").read_text()
    assert "Adding synthetic faces lowered the equal error rate" in shown
    assert "Gain: the synthetic faces helped" in shown
    worse = World(tmp_path / "loss", gain=-0.35)
    findings = worse.numbers()
    assert findings.comparison["verdict"] == "loss" and findings.comparison["ci_low"] > 0
    assert "raised the equal error rate" in worse.sentence(findings)
    same = World(tmp_path / "same", gain=0.0)
    findings = same.numbers()
    comparison = findings.comparison
    assert comparison["verdict"] == "no gain shown" and comparison["ci_low"] < 0 < comparison["ci_high"]
    assert comparison["reason"] and comparison["smallest_detectable"] > 0
    assert same.sentence(findings).endswith(": no gain shown.")


def test_the_better_side_follows_the_metric(tmp_path: Path) -> None:
    findings = World(tmp_path, gain=0.35, comparison={"metric": "rank-1"}).numbers()
    assert findings.comparison["verdict"] == "gain" and findings.comparison["ci_low"] > 0


def test_arms_that_have_not_learned_out_are_named(tmp_path: Path) -> None:
    world = World(tmp_path, gain=0.35)
    comparison, seeds = {"baseline": "real", "arm": "real+synthetic"}, world.recipe["seeds"]
    for seed in seeds[1:]:  # all but one; the rest are best after 50 of 59 steps
        path = world.inputs[f"train_recognizer:real+synthetic:{seed}"] / "summary.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "best_step": 54}))
    page, said = (
        world.report(),
        f"Perhaps not learned out: “real+synthetic” ({len(seeds) - 1} of {len(seeds)} seeds) did",
    )
    assert said in (page / "report.md").read_text() and said in (page / "index.html").read_text()

    def named(evaluations: int = 6, **best: list[int]) -> str:
        rows = [{"arm": arm.replace("_", "+"), "best_step": b, "steps": 60} for arm, bs in best.items() for b in bs]
        return words.learning(rows, comparison, evaluations)

    assert named(real=[50, 54, 60], real_synthetic=[10, 60, 54]) == ""  # one of three; 54 is nine tenths
    assert named(other=[60, 60], real=[10]) == "" and named(evaluations=1, real=[60]) == ""
    both = named(real=[60], real_synthetic=[60, 10])
    assert "“real” (1 of 1 seed) and “real+synthetic” (1 of 2 seeds)" in both


def test_two_seeds_show_no_gain(tmp_path: Path) -> None:
    comparison = World(tmp_path, seeds=(4, 5), gain=0.35).numbers().comparison
    assert comparison["verdict"] == "no gain shown" and comparison["n_seeds"] == 2
    assert "seed" in comparison["reason"] and comparison["reason"] in words.why(comparison)


def test_one_seed_and_no_synthetic_arm(tmp_path: Path) -> None:
    arms = {"a": {"real": True}, "b": {"real": True}}
    world = World(tmp_path, seeds=(3,), arms=arms, comparison={"baseline": "a", "arm": "b"})
    out = world.report()
    assert read(out)["comparison"]["verdict"] == "no gain shown"
    assert "none to show" in (out / "index.html").read_text()
    assert not (out / "figures" / "gan.png").exists()


def test_unresolvable_is_said_and_never_zero(gained: tuple[World, Path]) -> None:
    out = gained[1]
    pairs = TEST * (TEST - 1) // 2 * EACH**2
    entry = read(out)["arms"]["real"]["tar@far=0.001"]
    note = f"not resolvable with {pairs} impostor pairs"
    assert entry["mean"] is None and entry["per_seed"] == [None] * 3 and entry["note"] == note
    assert note in (out / "index.html").read_text() and note in (out / "report.md").read_text()


def test_a_comparison_by_an_unresolvable_metric_is_no_gain(tmp_path: Path) -> None:
    world = World(tmp_path, comparison={"metric": "tar@far=0.001"})
    findings = world.numbers()
    assert findings.comparison["delta"] is None and findings.comparison["verdict"] == "no gain shown"
    assert "not resolvable" in findings.comparison["reason"]
    assert "could not be judged" in world.sentence(findings)


def test_little_picture_keeps_its_marks_inside(gained: tuple[World, Path]) -> None:
    world, _ = gained
    findings = world.numbers()
    strip = page.strip(findings.measures[0], findings.comparison)
    assert strip is not None and strip["better_left"]
    marks = strip["x"]
    assert 0 < marks["low"] < marks["delta"] < marks["high"] < marks["zero"] < strip["width"]
    assert marks["zero"] + 45 < strip["width"] - 60  # half of "no difference", the whole of "worse"


def test_parquet_is_tidy(gained: tuple[World, Path]) -> None:
    table = pq.read_table(gained[1] / "results.parquet")
    assert table.column_names == [
        "arm", "seed", "benchmark", "metric", "operating_point", "value", "ci_low", "ci_high",
        "n_genuine", "n_impostor", "n_identities",
    ]  # fmt: skip
    rows = table.to_pylist()
    keys = {(row["arm"], row["seed"], row["metric"]) for row in rows}
    assert len(keys) == len(rows)
    results = read(gained[1])["arms"]
    assert len(rows) == sum(len(entry["per_seed"]) for arm in results.values() for entry in arm.values())
    eer = next(row for row in rows if (row["arm"], row["seed"], row["metric"]) == ("real", 1, "eer"))
    assert eer["value"] == results["real"]["eer"]["per_seed"][1] and eer["ci_low"] < eer["value"] < eer["ci_high"]
    assert eer["n_identities"] == TEST


class Links(HTMLParser):
    """Collects tags and whatever they refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def test_html_stands_alone_and_escapes(gained: tuple[World, Path]) -> None:
    out = gained[1]
    text = (out / "index.html").read_text()
    page = Links(text)
    assert page.links and all(link.startswith(("data:image/", "#")) for link in page.links)
    assert "script" not in page.tags and "link" not in page.tags and "iframe" not in page.tags
    assert EVIL not in text and "x/&lt;script&gt;" in text
    outside = re.sub(r"data:image/[^\"]*", "", text)
    assert "http://" not in outside and "https://" not in outside and "url(" not in outside
    anchors = {link[1:] for link in page.links if link.startswith("#")}
    assert all(f'id="{anchor}"' in text for anchor in anchors)


def test_markdown_escapes_and_its_figures_are_there(gained: tuple[World, Path]) -> None:
    text = (gained[1] / "report.md").read_text()
    body = text.split("## Config")[0]
    assert "<script>" not in body and "&lt;script&gt;" in body
    figures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert "figures/arms.png" in figures and "figures/faces-new.png" in figures
    assert all((gained[1] / name).is_file() for name in figures)


def test_without_faces_the_pages_hold_figures_alone(gained: tuple[World, Path]) -> None:
    """For faces that may not be published: the numbers stay, no photo and no synthetic face is left."""
    world, out = gained
    bare = world.report("bare", show_faces=False)
    names = {path.name for path in (out / "figures").iterdir()}
    assert {path.name for path in (bare / "figures").iterdir()} == names - {
        "faces-existing.png", "faces-new.png", "samples.png",
        "audit-closest.png", "audit-people.png", "audit-consistency.png",
    }  # fmt: skip
    pages = [(bare / name).read_text() for name in ("index.html", "report.md")]
    assert all("shows no faces" in text and "report.show_faces" in text for text in pages)
    shown = pages[0].count("data:image/"), (out / "index.html").read_text().count("data:image/")
    assert shown[0] == len(list((bare / "figures").iterdir())) < shown[1]
    assert "face of" not in pages[0] and "figures/faces" not in pages[1] and "samples.png" not in pages[1]
    assert "figures/audit" not in pages[1] and "near-copies of training photos" in pages[1]
    assert "people who do not exist, made by" in pages[0]  # how many there were is still said
    assert read(bare) == read(out)


def test_no_paths_times_or_hosts(gained: tuple[World, Path]) -> None:
    world, out = gained
    for path in (out / "index.html", out / "report.md", out / "results.json"):
        text = path.read_text()
        assert str(world.root) not in text and "a-host-name" not in text and "duration" not in text


def test_same_inputs_same_bytes(gained: tuple[World, Path]) -> None:
    world, out = gained
    again = world.report("again")
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((out / name).read_bytes() == (again / name).read_bytes() for name in files)


def test_metric_that_too_few_people_left_unmeasured(tmp_path: Path) -> None:
    ranks = {"kind": "identification", "ranks": [1, 500]}
    benchmark = {"benchmarks": [{"kind": "verification"}, ranks]}
    world = World(tmp_path, comparison={"metric": "rank-500"}, benchmark=benchmark)
    with pytest.raises(UserError, match=r"'rank-500'(.|\n)*eer, tar@far=0.1"):
        world.numbers()


def test_other_test_images_are_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    path = world.inputs["benchmark:synthetic:2"] / "rows.parquet"
    table = pq.read_table(path)
    ids = [f"{n + 1:064d}" for n in range(table.num_rows)]
    pq.write_table(table.set_column(0, "image_id", pa.array(ids)), path)
    with pytest.raises(UserError, match="other test images"):
        world.numbers()


def test_photos_without_a_usable_face_are_counted_and_shown(tmp_path: Path) -> None:
    world = World(tmp_path)
    folder = world.inputs["prepare"]
    found = Rejected()
    for number in range(15):
        entry = {"file": f"<i>{number}.jpg", "identity": EVIL, "reason": "no face found"}
        found.add(entry, thumbnail(Image.new("RGB", (300, 200), (number, 80, 90))))
    found.several = 3
    found.write(folder)
    summary = json.loads((folder / "summary.json").read_text())
    options = Prepare(align=Align())
    (folder / "summary.json").write_text(json.dumps({**summary, "faces": found.summary(options, 40)}))
    shown, bare = world.report("shown"), world.report("bare", show_faces=False)
    for out in (shown, bare):
        html, text = (out / "index.html").read_text(), (out / "report.md").read_text()
        assert "no face found" in html and "| no face found | 15 |" in text and "| usable | 40 |" in text
        assert "aligned by dlib" in text and "3 of the photos showed several faces" in html
    assert (shown / "index.html").read_text().count(".jpg: no face found") == 12  # not all fifteen
    assert ".jpg: no face found" not in (bare / "index.html").read_text()
    assert "<i>" not in (shown / "index.html").read_text()
