"""Studies: cells as ordinary recipes, people drawn once for all splits, verdicts, the curve, the page."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from safetensors.numpy import save_file

from drawn import RUNTIME, tiny
from facegan.core.errors import ConfigError
from facegan.evaluation.embedded_faces import faces
from facegan.evaluation.protocols import score
from facegan.metrics import intervals
from facegan.metrics.identification import search_ranks
from facegan.pipeline import graph
from facegan.recipe.comparison import Report
from facegan.recipe.load import cells, load
from facegan.recipe.recipe import Recipe
from facegan.recognition import trial_choice
from facegan.reporting import results
from facegan.reporting.study import efficiency, pooled
from facegan.reporting.study import words as study_words
from facegan.reporting.study.efficiency import reach
from facegan.reporting.study.pooled import StudyFindings
from facegan.runtime.context import Context
from facegan.stages import study

PEOPLE, EACH, TESTED, BOOT = 13, 4, 7, 200
SIGMA = {"real": 0.75, "real+synthetic": 0.75}
ARMS: dict[str, Any] = {"real": {}, "real+synthetic": {"existing": True}}


LICENSES = {"real+synthetic": {1: ["for research | only"], 2: ["own", "CC0"]}}
"""Of the arm in splits 1 and 2; all others are "own"."""


class World:
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
        for variant, better in gain.items():
            for split in splits:
                for arm, sigma in SIGMA.items():
                    folder = self.folder(f"{variant}:{split}:merge:{arm}")
                    summary = {
                        "rows": {"real": 10, "synthetic": 5},
                        "licenses": LICENSES.get(arm, {}).get(split, ["own"]),
                    }
                    (folder / "summary.json").write_text(json.dumps(summary))
                    for seed in seeds:
                        tight = sigma - (better if arm == "real+synthetic" else 0)
                        self._benchmark(f"{variant}:{split}:benchmark:{arm}:{seed}", split, arm, seed, tight)

    def folder(self, name: str) -> Path:
        path = self.root / name.replace(":", "_")
        path.mkdir(parents=True)
        self.inputs[name] = path
        return path

    def _benchmark(self, name: str, split: int, arm: str, seed: int, sigma: float) -> None:
        out = self.folder(name)
        tested = np.sort((np.arange(TESTED) + 3 * split) % PEOPLE)  # neighbours share people; three splits have all
        people = np.repeat(np.arange(TESTED), EACH)
        shared = np.random.default_rng(7)  # a person's photos are the same in every split
        centre, spread = shared.normal(size=(PEOPLE, 6)), shared.normal(size=(PEOPLE, EACH, 6))
        own = np.random.default_rng([seed, split, *arm.encode()]).normal(size=(TESTED, EACH, 6))
        embedding = centre[tested][:, None] + sigma * (spread[tested] + 0.2 * own)
        embedding = embedding.reshape(-1, 6).astype(np.float32)
        scored = score(self.recipe.benchmark.benchmarks, faces(embedding, people))
        (out / "results.json").write_text(json.dumps(scored))
        save_file({"embedding": embedding}, out / "embeddings.safetensors")
        image_id = [f"{person}-{n}" for person in tested for n in range(EACH)]
        blank = {"file": [""] * len(people), "group": [""] * len(people), "acquired": [True] * len(people)}
        rows = {"image_id": image_id, "identity": self.names[tested][people].tolist(), **blank}
        pq.write_table(pa.table(rows), out / "rows.parquet")

    def dump(self) -> dict[str, Any]:
        whole = self.recipe.model_dump(mode="json", exclude={"runtime"})
        assert self.recipe.study is not None
        whole["study"]["claim"] = self.recipe.study.claimed
        return whole

    @cached_property
    def numbers(self) -> StudyFindings:
        return pooled.measure(self.dump(), self.inputs, BOOT, 0, lambda done, total: None)

    def compared(self, variant: str, arm: str = "real+synthetic") -> dict[str, Any]:
        found = self.numbers
        return pooled.comparison(self.dump(), next(v for v in found.variants if v.name == variant), arm)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """No gain in the first variant, a large one in the second; both on the axis."""
    on_axis = {"few": {"x": 3}, "many": {"x": 10}, "off": {"set": {"train_gan.kimg": 1}}}
    gain = {"few": 0.0, "many": 0.35, "off": 0.0}
    return World(tmp_path_factory.mktemp("study"), gain, study={"variants": on_axis, "x_label": "real images"})


def test_people_are_drawn_once_for_all_splits_by_name(world: World) -> None:
    """rank-1 by hand: each split's found and searched photos, weighted by the draws of the people named in it."""
    found = world.numbers.variants[0]
    weights = intervals.person_weights(len(world.names), BOOT, 0)
    assert set(world.names) == {n for s in range(3) for n in _tested(world, s)}, "else the union is smaller"
    expected = []
    for split in range(3):
        of_seeds = []
        for seed in range(3):
            run = pooled.benchmark_runs.load(pooled.cell_inputs(world.inputs, "few", split), "real", seed)
            ranks = search_ranks(run.faces.embedding, run.faces.person, 10)
            hit, searched = np.zeros(PEOPLE), np.zeros(PEOPLE)
            for person, rank in zip(ranks.person, ranks.rank, strict=True):
                place = list(world.names).index(run.names[person])
                hit[place] += rank <= 1
                searched[place] += 1
            of_seeds.append((weights @ hit) / (weights @ searched))
        expected.append(np.mean(of_seeds, axis=0))
    np.testing.assert_allclose(found.stacks["rank-1", "real"][0], expected)
    assert found.n_identities == PEOPLE


def _tested(world: World, split: int) -> list[str]:
    rows = pq.read_table(world.inputs[f"few:{split}:benchmark:real:0"] / "rows.parquet")
    return list(rows["identity"].to_pylist())


def test_the_difference_is_that_of_splits_paired(world: World) -> None:
    found = next(v for v in world.numbers.variants if v.name == "many")
    arm, base = found.points["eer", "real+synthetic"], found.points["eer", "real"]
    assert arm.shape == (3, 3)
    told = world.compared("many")
    assert told["delta"] == pytest.approx((arm - base).mean())
    assert told["per_split"] == pytest.approx((arm - base).mean(axis=1).tolist())
    assert told["relative_percent"] == pytest.approx(100 * told["delta"] / base.mean())
    pair = found.stacks["eer", "real+synthetic"], found.stacks["eer", "real"]
    expected = intervals.paired_difference(pair[0][0], pair[1][0], pair[0][1], pair[1][1], PEOPLE)
    assert (told["ci_low"], told["ci_high"]) == (expected.ci_low, expected.ci_high)
    assert (told["n_splits"], told["n_seeds"], told["n_identities"]) == (3, 3, PEOPLE)
    assert told["verdict"] == "gain" and world.compared("few")["verdict"] == "no gain shown"


@pytest.mark.parametrize(
    ("splits", "seeds", "reason"), [((0, 1), (0, 1, 2), "three splits"), ((0, 1, 2), (0, 1), "three seeds")]
)
def test_too_few_splits_or_seeds_give_no_verdict(
    tmp_path: Path, splits: tuple[int, ...], seeds: tuple[int, ...], reason: str
) -> None:
    told = World(tmp_path, {"a": 0.5}, splits, seeds).compared("a")
    assert told["verdict"] == "no gain shown" and reason in told["reason"]


def test_a_study_of_one_split_says_what_a_report_says(tmp_path: Path) -> None:
    world = World(tmp_path, {"a": 0.3}, splits=(5,))
    own = pooled.cell_inputs(world.inputs, "a", 5)
    report = results.measure(world.dump(), own, BOOT, 0, lambda done, total: None)
    told = world.compared("a")
    assert world.numbers.unit == "seed"
    assert {k: told[k] for k in report.comparison} == report.comparison


def test_a_variant_like_the_first_differs_from_it_by_nothing(world: World) -> None:
    few, many, off = world.numbers.variants
    same, other = pooled.from_first(world.dump(), few, off), pooled.from_first(world.dump(), few, many)
    assert same is not None and (same.delta, same.low, same.high) == (0, 0, 0)
    assert other is not None and other.high is not None and other.high < 0
    assert other.delta == pytest.approx(world.compared("many")["delta"] - world.compared("few")["delta"])


def test_reach_by_hand() -> None:
    x = np.array([2.0, 4.0, 10.0])
    falling = np.array([[0.3], [0.2], [0.1]])
    for target, expected in ((0.25, 3.0), (0.2, 4.0), (0.15, 7.0), (0.1, 10.0), (0.05, np.inf), (0.3, 2.0), (0.9, 2.0)):
        assert reach(x, falling, np.array([target]), "lower")[0] == pytest.approx(expected)
        assert reach(x, 1 - falling, np.array([1 - target]), "higher")[0] == pytest.approx(expected)
    bumpy = np.array([[0.3], [0.35], [0.1]])  # worse before it gets better: the first place that is good enough
    assert reach(x, bumpy, np.array([0.25]), "lower")[0] == pytest.approx(4 + 6 * 0.1 / 0.25)
    both = reach(x, np.hstack([falling, falling]), np.array([0.25, 0.05]), "lower")
    assert both.tolist() == [3.0, np.inf]


def test_what_the_arm_is_worth_at_the_measured_points(world: World) -> None:
    curve = efficiency.measure(world.dump(), world.numbers)
    assert curve is not None and [w.x for w in curve.worth] == [3, 10]
    last = curve.worth[1]  # a large gain at the largest x: beyond all that was measured
    assert np.isinf(last.equals) and study_words.x_text(last.equals, curve) == "more than 10"
    assert study_words.x_interval(last, curve) == "more than 10"
    for worth in curve.worth:
        assert worth.low is not None and worth.high is not None and worth.low <= worth.equals <= worth.high


def test_the_page_and_the_tables(world: World, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        options = Report(bootstrap=BOOT)
        study.run(options, {"recipe": world.dump()}, dict(world.inputs), tmp_path / name, Context(RUNTIME))
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert [p.as_posix() for p in files] == [
        "differences.parquet", "figures/efficiency.png", "figures/variants.png", "index.html", "report.md",
        "results.json", "results.parquet",
    ]  # fmt: skip
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
    told = json.loads((tmp_path / "one" / "results.json").read_text())
    assert set(told["variants"]) == {"few", "many", "off"} and told["comparison"]["variant"] == "few"
    assert told["arms"] == told["variants"]["few"]["arms"]
    assert set(told["variants"]["many"]["comparisons"]) == {"real+synthetic"}
    assert len(told["arms"]["real"]["eer"]["per_seed"]) == 3 and len(told["arms"]["real"]["eer"]["per_split"]) == 3
    table = pq.read_table(tmp_path / "one" / "differences.parquet").to_pylist()
    assert [(r["variant"], r["arm"], r["metric"]) for r in table if r["decides"]] == [("few", "real+synthetic", "eer")]
    text = (tmp_path / "one" / "report.md").read_text()
    advice = text[text.index("## What to do") : text.index("## Every arm")]
    assert "many: Train as in arm “real+synthetic”." in advice and "few (decides): No gain shown" in advice
    assert "That is: " in advice and f"; {world.dump()['train_recognizer']['steps']} steps." in advice
    assert "is as good as arm “real” with more than 10" in advice and "more than 10" in text
    assert "Splits share people" in text and "0 people" not in text
    assert told["licenses"] == {"real": ["own"], "real+synthetic": ["CC0", "for research | only", "own"]}
    assert "- real+synthetic: CC0; for research \\| only; own\n" in text
    assert "real+synthetic: CC0; for research | only; own</li>" in (tmp_path / "one" / "index.html").read_text()
    assert "Leakage gate" not in text  # nothing synthetic was judged here
    assert str(tmp_path) not in text + (tmp_path / "one" / "index.html").read_text()


def test_each_arm_is_told_what_its_own_val_people_chose(tmp_path: Path) -> None:
    cells = []
    for split, picked in enumerate([("a", "b"), ("a", "a"), ("b", "b")]):
        own = {}
        for arm, trial in zip(("real", "other"), picked, strict=True):
            own[f"select:{arm}"] = tmp_path / f"{split}{arm}"
            own[f"select:{arm}"].mkdir()
            trial_choice.write(own[f"select:{arm}"], trial, {})
        cells.append(own)
    found = pooled._chosen_trials({"arms": {"real": {}, "other": {}, "plain": {}}}, cells)
    assert found == {"real": {"a": 2, "b": 1}, "other": {"a": 1, "b": 2}, "plain": {}}


def test_the_gates_of_all_splits_stand_on_the_page(tmp_path: Path) -> None:
    world = World(tmp_path / "w", {"plain": 0.1, "kept": 0.1})
    for split, (found, largest, bound) in enumerate([(0, 0.90, 0.96), (2, 0.97, 0.95), (0, 0.94, 0.98)]):
        copies = {"copies": found, "images": 40, "largest": largest, "value": bound, "power": {"a": 1.0, "b": 0.9}}
        people = {
            "new": {"people": 10, "matched": split},
            "null": {"people": 6, "matched": 1},
            "power": 0.5 + split / 4,
        }
        gate = {"copies": copies, "people": people, "faults": [{"what": "x"}] * bool(found), "enforced": False}
        (world.folder(f"kept:{split}:audit") / "gate.json").write_text(json.dumps(gate))
    out = tmp_path / "out"
    out.mkdir()
    study.run(Report(bootstrap=BOOT), {"recipe": world.dump()}, dict(world.inputs), out, Context(RUNTIME))
    text = (out / "report.md").read_text()
    lines = text[text.index("## Leakage gate") : text.index("## Licences")].splitlines()
    assert [line.replace("\u00a0", " ") for line in lines if line.startswith("| ")][1:] == [
        "| kept | 2 of 3 | 2 of 120 | 0.970 (threshold 0.950) | 90 % | 3 of 30 | 3 of 18 | 50 % to 100 % |"
    ]
    assert "Leakage gate" in (out / "index.html").read_text()


def small(faces: Path, **changes: Any) -> Recipe:
    variants = {"two": {"set": {"prepare.train_images": 2}, "x": 2}, "all": {"x": 5}}
    return tiny(faces, study={"splits": [0, 1], "variants": variants}, **changes)


def test_cells_are_ordinary_recipes_whose_results_are_shared(faces: Path) -> None:
    whole = small(faces)
    nodes = graph.build(whole)
    keys = [item.key for item in nodes]
    assert len(keys) == len(set(keys)), "what several cells need is made once"
    ordinary = tiny(faces, prepare={"train_images": 2, "split": {"seed": 1}})
    assert {item.key for item in graph.build(ordinary)[:-1]} <= set(keys)
    assert [(c.variant, c.split) for c in cells(whole)] == [("two", 0), ("all", 0), ("two", 1), ("all", 1)]
    place = {key: number for number, key in enumerate(keys)}
    assert all(place[needed.key] < place[item.key] for item in nodes for needed in item.needs.values())
    assert nodes[-1].stage == "study" and not any(item.stage == "report" for item in nodes)
    assert nodes[0].title == "prepare · two · split 0"
    assert len({item.title for item in nodes}) == len(nodes)


def test_variants_that_change_what_comes_late_share_what_comes_early(faces: Path) -> None:
    variants = {"plain": {}, "more": {"set": {"synthesize.images_per_new": 4}}}
    nodes = graph.build(tiny(faces, study={"splits": [0], "variants": variants}))
    stages = [item.stage for item in nodes]
    assert (stages.count("prepare"), stages.count("train_gan"), stages.count("synthesize")) == (1, 1, 2)
    assert [n.arm for n in nodes if n.stage == "benchmark"].count("real") == 1
    assert nodes[-1].needs["more:0:benchmark:real:0"] is nodes[-1].needs["plain:0:benchmark:real:0"]


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ({"prepare.train_imags": 3}, "variant 'v' of the study: prepare.train_imags: unknown key"),
        ({"train_gan.kimg": -1}, "train_gan.kimg: should be greater than 0, got -1"),
        ({"seeds": [1]}, "sets seeds, which all variants share"),
        ({"trial_seeds": 1}, "sets trial_seeds, which all variants share"),
        ({"prepare.split.seed": 3}, "sets prepare.split.seed, which all variants share"),
        ({"arms.extra": {"real": True}}, "has the arms real, real\\+synthetic, synthetic, extra"),
    ],
)
def test_variants_that_cannot_work_are_refused(tmp_path: Path, variant: dict[str, Any], words: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(json.dumps({"extends": "orl-tiny", "study": {"variants": {"v": {"set": variant}}}}))
    with pytest.raises(ConfigError, match=words):
        load(str(path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"splits": [1, 1]}, "distinct"),
        ({"splits": []}, "at least 1"),
        ({"claim": "b"}, "names variant 'b', but the variants are: a"),
        ({"variants": {"a": {"x": 1}, "b": {"x": 1}}}, "the same x"),
    ],
)
def test_impossible_studies_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Recipe.model_validate({"study": {"variants": {"a": {}}, **changes}})


def test_a_recipe_without_a_study_says_nothing_of_it(faces: Path) -> None:
    assert "study" not in graph.build(tiny(faces))[-1].config["recipe"]
