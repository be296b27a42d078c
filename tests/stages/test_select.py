"""Trials: options tried for each arm, chosen on val people; test people have no say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from drawn import RUNTIME, Lab, pick, tiny
from facegan.core.errors import UserError
from facegan.core.options import Options
from facegan.data import manifest
from facegan.data.dataset import ManifestImages
from facegan.data.images import encode_png
from facegan.pipeline import graph
from facegan.recipe.recipe import Recipe
from facegan.recognition import trial_choice
from facegan.recognition.embedder import embed, load_embedder
from facegan.reporting import sections
from facegan.runtime.context import Context
from facegan.stages import select

CPU = torch.device("cpu")
TRIALS = {"plain": {}, "turned": {"augment": {"rotate_deg": 40}}}


def tried(faces: Path, **changes: Any) -> Recipe:
    """Two arms without synthetic rows, two trials each."""
    arms = {"real": {"trials": TRIALS}, "other": {"trials": {"a": {"lr": 1e-2}, "b": {}}}}
    comparison = {"baseline": "real", "arm": "other"}
    return tiny(faces, arms=arms, comparison=comparison, seeds=[0, 1], **changes)


def chosen(root: Path, values: dict[str, list[float]]) -> dict[str, Any]:
    """What select makes of the EERs of each trial's seeds."""
    inputs = {}
    for trial, of_seeds in values.items():
        for seed, value in enumerate(of_seeds):
            inputs[f"{trial}:{seed}"] = folder = root / trial / str(seed)
            folder.mkdir(parents=True)
            (folder / "summary.json").write_text(json.dumps({"val_eer": value}))
    extra = {"trials": list(values), "seeds": list(range(len(of_seeds)))}
    select.run(Options(), extra, inputs, root, Context(RUNTIME))
    return trial_choice.read(root)


def test_the_least_mean_over_seeds_is_chosen(tmp_path: Path) -> None:
    choice = chosen(tmp_path, {"a": [0.1, 0.4], "b": [0.2, 0.2], "c": [0.3, 0.3]})
    assert choice["trial"] == "b"
    assert choice["val_eer"]["a"] == {"per_seed": [0.1, 0.4], "mean": 0.25}


def test_of_equal_trials_the_first_is_chosen(tmp_path: Path) -> None:
    assert chosen(tmp_path, {"z": [0.1, 0.3], "a": [0.3, 0.1]})["trial"] == "z"


def test_a_diverged_trial_cannot_win(tmp_path: Path) -> None:
    choice = chosen(tmp_path, {"a": [0.01, float("inf")], "b": [0.4, 0.4]})
    assert choice["trial"] == "b" and choice["val_eer"]["a"] == {"per_seed": [0.01, None], "mean": None}
    with pytest.raises(UserError, match="all diverged"):
        chosen(tmp_path / "all", {"a": [float("nan")]})


def test_one_trial_leaves_the_graph_as_it_was(faces: Path) -> None:
    plain = tiny(faces)
    arms = {name: {**arm.model_dump(), "trials": {"only": {}}} for name, arm in plain.arms.items()}
    named = tiny(faces, arms=arms)
    keys = [item.key for item in graph.build(plain)][:-1]
    assert [item.key for item in graph.build(named)][:-1] == keys  # all but the report, which shows the recipe
    assert not any(item.stage == "select" or item.trial for item in graph.build(plain))
    assert "trials" not in pick(graph.build(plain), "merge", "real").config["arm"]


def test_guide_and_judge_may_be_trained_otherwise(faces: Path) -> None:
    plain, other = tiny(faces), tiny(faces, guide={"steps": 3, "augment": {"flip": 0}})
    nodes = {item.title: item for item in graph.build(other)}
    for item in (item for item in graph.build(plain) if item.stage == "train_recognizer"):
        now, before = nodes[item.title].config, item.config
        if item.arm in ("guide", "judge"):
            assert now == {**before, "steps": 3, "augment": {**before["augment"], "flip": 0}}
        else:
            assert now == before


def test_trials_share_what_they_can_and_differ_where_they_must(faces: Path) -> None:
    nodes = graph.build(tried(faces))
    recognizers = [item for item in nodes if item.stage == "train_recognizer"]
    assert [(r.arm, r.trial, r.seed) for r in recognizers[:4]] == [
        ("real", "plain", 0), ("real", "plain", 1), ("real", "turned", 0), ("real", "turned", 1)
    ]  # fmt: skip
    assert recognizers[2].config["augment"] == {**recognizers[0].config["augment"], "rotate_deg": 40}
    assert recognizers[0].key == recognizers[6].key, "the same options on the same faces are the same work"
    assert recognizers[2].title == "train_recognizer · real · trial turned · seed 0"
    assert recognizers[0].key == pick(graph.build(tiny(faces)), "train_recognizer", "real", 0).key
    judge = pick(nodes, "benchmark", "real", 1)
    assert set(judge.needs) == {"select", "recognizer:plain", "recognizer:turned", "train", "test"}
    assert {judge.needs[f"recognizer:{trial}"].seed for trial in TRIALS} == {1}
    assert "select:real" in nodes[-1].needs and "train_recognizer:real:turned:1" in nodes[-1].needs


def test_the_chosen_trial_is_judged_and_shown(shared: Lab, faces: Path) -> None:
    recipe = tried(faces)
    nodes = graph.build(recipe)
    report = shared.make(nodes[-1])
    folders = {name: shared.done[needed.key].path for name, needed in nodes[-1].needs.items()}
    test = ManifestImages(folders["prepare"], split="test")
    rows = sections.trials(recipe.model_dump(mode="json"), folders)
    assert [(r["trial"], r["options"]) for r in rows if r["arm"] == "real"] == [
        ("plain", "–"), ("turned", "augment.rotate_deg 40")
    ]  # fmt: skip
    assert [(r["trial"], r["options"]) for r in rows if r["arm"] == "other"] == [("a", "lr 0.01"), ("b", "–")]
    for arm in recipe.arms:
        assert [r["trial"] for r in rows if r["arm"] == arm and r["chosen"]] == [sections.choice(folders, arm)["trial"]]
        winner = sections.recognizer(folders, arm, 1)
        assert winner is not None
        net, _ = load_embedder(winner, CPU)
        expected = embed(net, test.pixels, recipe.benchmark.batch_size, CPU)
        judged = load_file(folders[f"benchmark:{arm}:1"] / "embeddings.safetensors")["embedding"]
        np.testing.assert_array_equal(judged, expected)
    assert "augment.rotate\\_deg 40" in (report.path / "report.md").read_text()


def test_few_seeds_may_try_and_the_others_train_what_was_chosen(shared: Lab, faces: Path) -> None:
    every, few = graph.build(tried(faces)), graph.build(tried(faces, trial_seeds=1))
    assert {n.key for n in few if n.stage == "train_recognizer" and n.trial} == {
        n.key for n in every if n.stage == "train_recognizer" and n.seed == 0
    }, "a trial is the same work however many seeds try it"
    assert [n.title for n in few if n.stage == "train_recognizer" and n.arm == "other" and n.seed == 1] == [
        "train_recognizer · other · seed 1"
    ]
    shared.make(few[-1])
    folders = {name: shared.done[needed.key].path for name, needed in few[-1].needs.items()}
    for arm in ("real", "other"):
        trial = trial_choice.trial(folders[f"select:{arm}"])
        assert len(sections.choice(folders, arm)["val_eer"][trial]["per_seed"]) == 1
        alone = next(n for n in every if (n.stage, n.arm, n.trial, n.seed) == ("train_recognizer", arm, trial, 1))
        kept = sections.recognizer(folders, arm, 1)
        assert kept is not None and kept != shared.make(alone).path
        assert (kept / "embedder.safetensors").read_bytes() == (
            shared.make(alone).path / "embedder.safetensors"
        ).read_bytes()
        first = sections.recognizer(folders, arm, 0)
        assert first == folders[f"train_recognizer:{arm}:{trial}:0"]


def test_what_the_other_seeds_train_depends_on_every_trial(faces: Path) -> None:
    def last(**trial: Any) -> str:
        arms = {name: {"trials": {"plain": {}, "turned": trial}} for name in ("real", "other")}
        recipe = tiny(faces, arms=arms, comparison={"baseline": "real", "arm": "other"}, seeds=[0, 1], trial_seeds=1)
        return pick(graph.build(recipe), "train_recognizer", "real", 1).key

    assert last(lr=0.01) != last(lr=0.02)


def test_test_people_choose_nothing(shared: Lab, faces: Path, tmp_path: Path) -> None:
    """With noise in the place of every test photo, the same trials are chosen and the same weights kept."""
    prepared = shared.stage(tried(faces), "prepare").path
    rows = manifest.read(prepared, ["identity", "split"]).to_pylist()
    tested = {row["identity"].split("/")[1] for row in rows if row["split"] == "test"}
    shutil.copytree(faces, tmp_path / "faces")
    noise = np.random.default_rng(0)
    for path in (tmp_path / "faces").rglob("*.png"):
        if path.parent.name in tested:
            path.write_bytes(encode_png(noise.integers(0, 256, (48, 44), dtype=np.uint8)))
    one, two = graph.build(tried(faces)), graph.build(tried(tmp_path / "faces"))
    changed = set()
    for ours, theirs in zip(one[:-1], two[:-1], strict=True):
        same = shared.make(ours).output_digest() == shared.make(theirs).output_digest()
        changed |= set() if same else {ours.stage}
        assert same or ours.stage in ("prepare", "merge", "benchmark"), ours.title
    assert "benchmark" in changed and "select" in {item.stage for item in one}
