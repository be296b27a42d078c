"""study: its pages and tables, and cells as ordinary recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from drawn import RUNTIME, tiny
from facegan.pipeline import graph
from facegan.recipe.comparison import Report
from facegan.recipe.load import study_cells
from facegan.recipe.recipe import Recipe
from facegan.runtime.context import Context
from facegan.stages import study
from study_inputs import BOOT, StudyInputs, three_variants


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> StudyInputs:
    return three_variants(tmp_path_factory.mktemp("study"))


def test_the_page_and_the_tables(world: StudyInputs, tmp_path: Path) -> None:
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
    answer = json.loads((tmp_path / "one" / "results.json").read_text())
    assert set(answer["variants"]) == {"few", "many", "off"} and answer["comparison"]["variant"] == "few"
    assert answer["arms"] == answer["variants"]["few"]["arms"]
    assert set(answer["variants"]["many"]["comparisons"]) == {"real+synthetic"}
    assert len(answer["arms"]["real"]["eer"]["per_seed"]) == 3 and len(answer["arms"]["real"]["eer"]["per_split"]) == 3
    table = pq.read_table(tmp_path / "one" / "differences.parquet").to_pylist()
    assert [(r["variant"], r["arm"], r["metric"]) for r in table if r["decides"]] == [("few", "real+synthetic", "eer")]
    text = (tmp_path / "one" / "report.md").read_text()
    advice = text[text.index("## What to do") : text.index("## Every arm")]
    assert "many: Exploratory: this variant" in advice and "few (decides): No gain shown" in advice
    assert "| many | real+synthetic |" in text and " gain |" not in text
    shared = "Splits share 33 % of their train people: their part of the interval is 1.6 times as wide for it."
    assert text.replace("\u00a0", " ").count(shared) == 1 + len(answer["variants"]) + 1  # at the top, of each, limits
    assert {(row["n_splits"], row["train_overlap"]) for row in table} == {(3, 1 / 3)}
    assert {row["verdict"] for row in table if not row["decides"]} == {"exploratory"}
    assert "is as good as arm “real” with more than 10" in advice and "more than 10" in text
    assert "Splits share people" in text and "0 people" not in text
    assert answer["licenses"] == {"real": ["own"], "real+synthetic": ["CC0", "for research | only", "own"]}
    assert "- real+synthetic: CC0; for research \\| only; own\n" in text
    assert "real+synthetic: CC0; for research | only; own</li>" in (tmp_path / "one" / "index.html").read_text()
    assert "Leakage gate" not in text  # nothing synthetic was judged here
    assert str(tmp_path) not in text + (tmp_path / "one" / "index.html").read_text()


def test_the_gates_of_all_splits_stand_on_the_page(tmp_path: Path) -> None:
    world = StudyInputs(tmp_path / "w", {"plain": 0.1, "kept": 0.1})
    for split, (n_copies, largest, bound) in enumerate([(0, 0.90, 0.96), (2, 0.97, 0.95), (0, 0.94, 0.98)]):
        copies = {"copies": n_copies, "images": 40, "largest": largest, "value": bound, "power": {"a": 1.0, "b": 0.9}}
        people = {
            "new": {"people": 10, "matched": split},
            "null": {"people": 6, "matched": 1},
            "power": 0.5 + split / 4,
        }
        gate = {"copies": copies, "people": people, "faults": [{"what": "x"}] * bool(n_copies), "enforced": False}
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
    recipe = small(faces)
    nodes = graph.build(recipe)
    keys = [item.key for item in nodes]
    assert len(keys) == len(set(keys)), "what several cells need is made once"
    ordinary = tiny(faces, prepare={"train_images": 2, "split": {"seed": 1}})
    assert {item.key for item in graph.build(ordinary)[:-1]} <= set(keys)
    assert [(c.variant, c.split) for c in study_cells(recipe)] == [("two", 0), ("all", 0), ("two", 1), ("all", 1)]
    position = {key: number for number, key in enumerate(keys)}
    assert all(position[needed.key] < position[item.key] for item in nodes for needed in item.needs.values())
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


def test_a_recipe_without_a_study_says_nothing_of_it(faces: Path) -> None:
    assert "study" not in graph.build(tiny(faces))[-1].config["recipe"]


def test_a_claim_that_gains_is_told_what_to_do(tmp_path: Path) -> None:
    world = StudyInputs(tmp_path / "w", {"only": 0.35})
    out = tmp_path / "out"
    out.mkdir()
    study.run(Report(bootstrap=BOOT), {"recipe": world.dump()}, dict(world.inputs), out, Context(RUNTIME))
    text = (out / "report.md").read_text()
    assert "only (decides): Train as in arm “real+synthetic”." in text
    assert "That is: " in text and f"; {world.dump()['train_recognizer']['steps']} steps." in text
