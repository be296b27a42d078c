"""The search of an arm's options as a stage: what it trains, writes and takes up again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from drawn import Lab, pick, tiny
from facegan.core.errors import UserError
from facegan.pipeline import graph, plan
from facegan.pipeline.graph import Node
from facegan.recipe.recipe import Recipe
from facegan.recognition import training, trial_choice
from facegan.reporting import sections
from facegan.runtime.context import Event
from facegan.store.local import WORK

SEARCH = {
    "trials": 4, "eta": 2, "rungs": 2,
    "space": {"budget": [0.5, 1], "batch_size": [4, 8], "lr": [1e-3, 2e-2], "augment": {"as": {}, "no": {"flip": 0}}},
}  # fmt: skip


def searched(faces: Path, **changes: Any) -> Recipe:
    """Two arms, four trials each: on 24 images, then two on 48."""
    arms = {"real": {}, "real+synthetic": {"existing": True, "new": True}}
    return tiny(faces, **{"arms": arms, "search": SEARCH, "seeds": [0, 1], "audit": {"enforce": False}, **changes})


def select_of(recipe: Recipe, arm: str = "real") -> Node:
    return pick(graph.build(recipe), "select", arm)


@pytest.fixture(scope="module")
def undisturbed(faces: Path, shared: Lab) -> Path:
    """What the search of arm real leaves."""
    return shared.make(select_of(searched(faces))).path


class Stop(Exception):
    """Raised in the middle of a search, as a crash would come."""


def stop_at(images: float) -> Callable[[Event], None]:
    def on_event(event: Event) -> None:
        if event.kind == "progress" and event.unit == "images" and event.done >= images:
            raise Stop

    return on_event


def test_one_node_an_arm_and_every_seed_trains_what_it_chose(faces: Path) -> None:
    nodes = graph.build(searched(faces))
    select = pick(nodes, "select", "real")
    assert set(select.needs) == {"train", "val"} and select.needs["train"].stage == "merge"
    assert [(n.stage, n.seed) for n in nodes if n.arm == "real"] == [
        ("merge", None), ("select", None), ("train_recognizer", 0), ("train_recognizer", 1), ("benchmark", 0),
        ("benchmark", 1),
    ]  # fmt: skip
    assert all(n.needs["select"] is select for n in nodes if n.stage == "train_recognizer" and n.arm == "real")
    plain = graph.build(searched(faces, search=None))
    assert [n.key for n in plain if n.stage in ("merge", "synthesize")] == [
        n.key for n in nodes if n.stage in ("merge", "synthesize")
    ]


def test_an_arm_may_name_the_search_that_all_have(faces: Path) -> None:
    both = {"real": {"search": SEARCH}, "real+synthetic": {"existing": True, "new": True, "search": SEARCH}}
    named = searched(faces, arms=both, search=None)
    keys = [n.key for n in graph.build(searched(faces))][:-1]
    assert [n.key for n in graph.build(named)][:-1] == keys  # all but the report, which shows the recipe


def test_the_least_error_of_the_last_rung_is_chosen(undisturbed: Path) -> None:
    choice = trial_choice.read(undisturbed)
    found = choice["search"]
    assert [(rung["images"], len(rung["val_eer"])) for rung in found["rungs"]] == [(24, 4), (48, 2)]
    first, last = (rung["val_eer"] for rung in found["rungs"])
    assert set(last) == set(sorted(first, key=lambda name: (first[name], list(first).index(name)))[:2])
    assert choice["trial"] == min(last, key=lambda name: (last[name], list(last).index(name)))
    rows = pq.read_table(undisturbed / "trials.parquet").to_pylist()
    assert {(row["trial"], row["rung"]): row["val_eer"] for row in rows} == {
        (name, number): error for number, rung in enumerate((first, last)) for name, error in rung.items()
    }
    assert found["images"] == sum(row["images"] for row in rows if not row["again"]) <= 4 * 24 + 2 * 48
    assert all(row["images"] <= found["rungs"][row["rung"]]["images"] for row in rows)
    kept = json.loads((undisturbed / "recognizer" / "summary.json").read_bytes())
    assert kept["val_eer"] == last[choice["trial"]] and not (undisturbed / WORK).exists()


def test_the_searching_seed_takes_over_what_training_would_make(
    faces: Path, shared: Lab, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = searched(faces)
    node = pick(graph.build(recipe), "train_recognizer", "real", 0)
    taken = shared.make(node)
    monkeypatch.setattr(trial_choice, "trained", lambda folder, seed: None)
    assert lab.make(node).record["outputs"] == taken.record["outputs"]
    other = shared.make(pick(graph.build(recipe), "train_recognizer", "real", 1))
    assert other.output_digest() != taken.output_digest()
    options = json.loads((other.path / "embedder.json").read_bytes())["options"]
    assert options == json.loads((taken.path / "embedder.json").read_bytes())["options"]


@pytest.mark.parametrize("images", [20, 30, 100, 150, 185])
def test_a_stopped_search_ends_with_the_same_bytes(
    faces: Path, lab: Lab, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, images: float
) -> None:
    node, begun = select_of(searched(faces)), []
    with pytest.raises(Stop):
        lab.make(node, stop_at(images))
    work = lab.store.unfinished(node.stage, node.key) / WORK
    finished = {path.parent.name for path in work.glob("*/summary.json")}
    train = training.train

    def watched(options: Any, extra: Any, inputs: Any, out: Path, context: Any) -> None:
        begun.append(out.name)
        train(options, extra, inputs, out, context)

    monkeypatch.setattr(training, "train", watched)
    resumed = lab.make(node)
    assert resumed.state == "resumed" and not finished & set(begun), "what was finished is not trained again"
    assert len(begun) == len(set(begun)) and (images == 20 or finished)
    expected = {path.relative_to(undisturbed): path.read_bytes() for path in undisturbed.rglob("*") if path.is_file()}
    for name, data in expected.items():
        if str(name) != "record.json":
            assert (resumed.path / name).read_bytes() == data, name
    assert set(resumed.record["outputs"]) == {str(name) for name in expected if str(name) != "record.json"}


def test_a_trial_that_diverges_loses(faces: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    space = {"lr": [1e30], "batch_size": [4, 8], "warmup": [0]}
    recipe = searched(faces, search={"trials": 3, "eta": 2, "rungs": 1, "space": space})
    found = trial_choice.read(lab.make(select_of(recipe)).path)
    assert found["trial"] == "own" and found["search"]["rungs"][0]["val_eer"]["t1"] is None
    rows = sections.searches({"arms": ["real"], "seeds": [0]}, {"select:real": lab.done[select_of(recipe).key].path})
    assert rows is not None and [row["errors"] for row in rows["rows"]][1:] == ["–", "–"]

    space = {"lr": [1e30, 1e29], "batch_size": [4]}
    every = searched(
        faces, train_recognizer={"lr": 1e30, "warmup": 0}, search={"trials": 3, "rungs": 1, "space": space}
    )
    with pytest.raises(UserError, match=r"no trial of this arm could be trained: all diverged, 3 of them") as error:
        lab.make(select_of(every))
    assert "search.space.lr" in error.value.fix


def test_progress_counts_the_images_of_all_trials(faces: Path, lab: Lab) -> None:
    lab.make(select_of(searched(faces)))
    told = [event for event in lab.events if event.kind == "progress" and event.title == "select · real"]
    done = [event.done for event in told]
    assert done == sorted(done) and {event.total for event in told} == {192} and done[-1] == 192
    assert any("at most 192 images in all" in event.text for event in lab.events)


def test_a_plan_knows_what_a_search_will_take(faces: Path, shared: Lab) -> None:
    other = searched(faces, search=None)
    shared.make(pick(graph.build(other), "train_recognizer", "real", 0))
    nodes = graph.build(searched(faces, search={**SEARCH, "seed": 5}))
    rows = {(row.item.stage, row.item.arm, row.item.seed): row for row in plan.plan(nodes, shared.store)}
    row = rows["select", "real", None]
    assert row.state == "to run" and row.why.endswith("; 4 trials, at most 192 images") and row.seconds
    assert rows["train_recognizer", "real", 0].seconds == 0 and rows["train_recognizer", "real", 1].seconds


def test_the_report_shows_what_was_tried(faces: Path, shared: Lab) -> None:
    nodes = graph.build(searched(faces))
    text = (shared.make(nodes[-1]).path / "report.md").read_text()
    folders = {name: shared.done[needed.key].path for name, needed in nodes[-1].needs.items()}
    for arm in ("real", "real+synthetic"):
        choice = trial_choice.read(folders[f"select:{arm}"])
        lines = [line for line in text.splitlines() if line.startswith(f"| {arm} | ") and "batch\\_size" in line]
        lines += [line for line in text.splitlines() if line.startswith(f"| {arm} | ") and "recipe's own" in line]
        assert len(lines) == 4 and sum(f"**{choice['trial']}**" in line for line in lines) == 1
        last = choice["search"]["rungs"][-1]["val_eer"][choice["trial"]]
        assert math.isfinite(last) and any(f"{last:.3f}**" in line for line in lines)
    assert "4 on 24 images, then 2 on 48 images each at most" in text
    assert (shared.make(nodes[-1]).path / "index.html").read_text().count("options that differ") == 1


def test_a_study_searches_for_each_split_and_says_what_was_chosen(faces: Path, shared: Lab) -> None:
    """Its cells are those of the plain recipe, and so made already."""
    recipe = searched(faces, study={"splits": [0], "variants": {"all": {}}})
    nodes = graph.build(recipe)
    made = shared.make(nodes[-1])
    selects = {n.arm: shared.make(n).path for n in nodes if n.stage == "select"}
    assert {n.key for n in nodes if n.stage == "select"} == {
        n.key for n in graph.build(searched(faces)) if n.stage == "select"
    }
    text, answer = (made.path / "report.md").read_text(), json.loads((made.path / "results.json").read_bytes())
    for arm in recipe.arms:
        trial = trial_choice.trial(selects[arm])
        assert answer["variants"]["all"]["chosen"][arm] == {trial: 1}
        options, name = sections.tried(recipe.model_dump(mode="json"), arm, trial)
        assert recipe.settings(arm)[trial].options == options
        assert f"{name.replace('_', chr(92) + '_')} (1 of 1)" in text
    assert "Split 0. All arms searched the same space" in text
    assert (made.path / "index.html").read_text().count("options that differ") == 1


def test_ranks_search_as_one_process_does(faces: Path, shared: Lab, lab: Lab) -> None:
    """But for the rounding of their sums."""
    node = select_of(searched(faces, search={**SEARCH, "trials": 2, "rungs": 1}))
    lab.runtime = lab.runtime.model_copy(update={"nproc_per_node": 2})
    one, two = (trial_choice.read(each.make(node).path)["search"] for each in (shared, lab))
    (first,), (second,) = ([rung["val_eer"] for rung in found.pop("rungs")] for found in (one, two))
    assert one == two and list(second) == list(first)
    assert list(second.values()) == pytest.approx(list(first.values()), abs=0.1)
