"""Promoted models: who becomes current and who does not, whatever is killed; and what a model says of photos."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner, Result

from command_imports import imported_by
from drawn import Lab, draw_folder, merged, pick, tiny
from facegan.cli.main import main
from facegan.core.errors import ConfigError, UserError
from facegan.data import manifest
from facegan.data.dataset import ManifestImages
from facegan.data.images import decode, encode_png, to_square
from facegan.data.preparation.splits import held_back, splits_of
from facegan.pipeline import graph
from facegan.promotion import challenger as challenging
from facegan.promotion import promote as promote_module
from facegan.promotion.promote import Decision, promote
from facegan.promotion.registry import HISTORY, Models
from facegan.recipe.comparison import Promotion
from facegan.recipe.recipe import Recipe
from facegan.recognition import trial_choice
from facegan.recognition.embedder import embed as embed_by_torch
from facegan.recognition.embedder import load_embedder
from kills import kill, kills_itself
from planted_faces import outcomes


def variant(root: Path, steps: int, **changes: object) -> Recipe:
    options: dict[str, Any] = {
        "prepare": {"split": {"train": 0.25, "val": 0.3, "test": 0.45}},
        "train_recognizer": {"steps": steps, "evaluations": 1},
        "report": {"bootstrap": 200},
        "comparison": {"arm": "real", "baseline": "synthetic"},
        "seeds": [0, 1],
    }
    return tiny(root, **merged(options, changes))


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Decision, Decision]:
    """(faces, working directory, decisions) of a first model and of one that was refused."""
    top = tmp_path_factory.mktemp("models")
    root, workdir = draw_folder(top / "faces", people=16, shots=4), top / "work"
    lab, decisions = Lab(workdir / "data" / "store"), []
    for recipe in (variant(root, 4), variant(root, 6, promotion={"limit": 0.0})):
        for seed in recipe.seeds:
            lab.stage(recipe, "train_recognizer", "real", seed)
        decisions.append(promote(recipe, workdir))
    return root, workdir, decisions[0], decisions[1]


@pytest.fixture
def workdir(promoted: tuple[Path, Path, Decision, Decision], tmp_path: Path) -> Path:
    return shutil.copytree(promoted[1], tmp_path / "work", symlinks=True)


def facegan(workdir: Path, *words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words), "--workdir", str(workdir)])


def test_the_best_seed_becomes_the_first_model(promoted: tuple[Path, Path, Decision, Decision]) -> None:
    root, workdir, first, _ = promoted
    models = Models(workdir)
    assert (first.event, first.version, first.champion, models.current()) == ("promoted", "v1", None, "v1")
    spec, nodes = models.spec("v1"), graph.build(variant(root, 4))
    folders = [workdir / "data/store/train_recognizer" / pick(nodes, "train_recognizer", "real", s).key for s in (0, 1)]
    eers = [json.loads((folder / "summary.json").read_bytes())["val_eer"] for folder in folders]
    best = folders[int(np.argmin(eers))]
    assert spec["lineage"]["recognizer"] == best.name and spec["lineage"]["val_eer"] == min(eers)
    assert (models.folder("v1") / "model.safetensors").read_bytes() == (best / "embedder.safetensors").read_bytes()
    assert spec["lineage"]["stages"].keys() == {
        "prepare",
        "merge:real",
        f"train_recognizer:real:{eers.index(min(eers))}",
    }
    assert spec["licenses"] == ["licence unknown"] and spec["leakage"] is None
    assert spec["judged_on"] == {"people": 7, "images": 28, "confidence": 0.95, "looks": 0}
    text = (models.folder("v1") / "card.md").read_text()
    assert "0% synthetic" in text and "licence unknown" in text and "On 7 test people" in text


def test_of_trials_the_chosen_one_is_promoted_whichever_seed_is_best(
    promoted: tuple[Path, Path, Decision, Decision], tmp_path: Path
) -> None:
    trials = {"trials": {"still": {"lr": 1e-9}, "plain": {}}}
    recipe = variant(
        promoted[0], 6, arms={"real": trials, "synthetic": {"real": False, "new": True, **trials}}, trial_seeds=1
    )
    lab, nodes = Lab(tmp_path / "data" / "store"), graph.build(recipe)
    wanted = [node for node in nodes if node.arm == "real" and node.stage in ("train_recognizer", "select")]
    folders = {node.title: lab.make(node).path for node in wanted}
    decision = promote(recipe, tmp_path)
    lineage = Models(tmp_path).spec(decision.version)["lineage"]
    assert lineage["trial"] == trial_choice.trial(folders["select · real"])
    eers = {
        title: json.loads((folder / "summary.json").read_bytes())["val_eer"]
        for title, folder in folders.items()
        if title.endswith((f"trial {lineage['trial']} · seed 0", "real · seed 1"))
    }
    assert len(eers) == 2 and lineage["val_eer"] == min(eers.values())
    assert lineage["recognizer"] == folders[min(eers, key=eers.__getitem__)].name


def test_what_a_private_training_promises_stands_on_the_card(
    promoted: tuple[Path, Path, Decision, Decision], tmp_path: Path
) -> None:
    pytest.importorskip("opacus")
    arms = {"private": {"trials": {"private": {"privacy": {"noise": 2.0}}}}}
    recipe = variant(
        promoted[0], 4, seeds=[0], arms={"real": {}, **arms}, comparison={"arm": "private", "baseline": "real"}
    )
    Lab(tmp_path / "data" / "store").stage(recipe, "train_recognizer", "private", 0)
    models = Models(tmp_path)
    version = promote(recipe, tmp_path).version
    card = (models.folder(version) / "card.md").read_text()
    assert "## Differential privacy" in card and "Differentially private with epsilon" in card
    assert models.spec(version)["privacy"]["noise"] == 2.0 and "missing" not in models.spec(version)["onnx"]
    plain = Models(promoted[1])
    assert plain.spec("v1")["privacy"] is None and "rivacy" not in (plain.folder("v1") / "card.md").read_text()


def test_a_refused_one_is_kept_with_the_reason(promoted: tuple[Path, Path, Decision, Decision]) -> None:
    root, workdir, _, second = promoted
    models = Models(workdir)
    assert (second.event, second.version, models.current()) == ("refused", "v2", "v1")
    assert second.results is not None and len(second.results.champion) == len(second.results.challenger)
    last = models.history()[-1]
    assert last["event"] == "refused" and "limit 0" in last["why"] and last["judges"]["looks_before"] == 1
    again = promote(variant(root, 6, promotion={"limit": 0.0}), workdir)
    assert again.event == "kept" and "refused before" in again.why
    assert promote(variant(root, 4), workdir).why == "this recognizer is the current model already"
    assert len(models.history()) == 2 and set(models.looks().values()) == {2}, "nobody was looked at again"


def test_a_forced_one_is_put_down_and_rolled_back(
    workdir: Path, promoted: tuple[Path, Path, Decision, Decision]
) -> None:
    recipe, models = variant(promoted[0], 6), Models(workdir)
    with pytest.raises(ConfigError, match="needs a reason"):
        promote(recipe, workdir, force=" ")
    decision = promote(recipe, workdir, force="the demo is today")
    assert decision.version == models.current() == "v2" and models.versions() == ["v1", "v2"]
    last = models.history()[-1]
    assert last["forced"] == "the demo is today" and last["event"] == "promoted" and last["judges"]["looks_before"] == 2
    listed = facegan(workdir, "models")
    assert listed.exit_code == 0 and "the demo is today" in listed.output
    assert "v1 is current again" in facegan(workdir, "rollback").output and models.current() == "v1"


def test_a_model_may_take_the_place_of_one_like_it(
    workdir: Path, promoted: tuple[Path, Path, Decision, Decision]
) -> None:
    decision = promote(variant(promoted[0], 6, promotion={"not_worse_by": 1.0}), workdir)
    assert decision.event == "promoted" and outcomes(decision.results) == {"not worse by 1": "passed"}  # type: ignore[arg-type]


def test_a_promotion_that_is_killed_leaves_the_old_model_and_can_be_given_again(
    workdir: Path, promoted: tuple[Path, Path, Decision, Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, models = variant(promoted[0], 6, promotion={"not_worse_by": 1.0}), Models(workdir)
    shutil.rmtree(models.folder("v2"))
    for name in ("compare_models", "write_people", "model_card.text", "Models.decide"):
        with monkeypatch.context() as patch:
            patch.setattr(f"facegan.promotion.promote.{name}", kill)
            kills_itself(lambda: promote(recipe, workdir), name)
        assert models.current() == "v1" and len(models.history()) == 2, name
    assert models.versions() == ["v1", "v3"], "whole, but nothing was decided"
    assert "not judged" in facegan(workdir, "models").output
    decision = promote(recipe, workdir)
    assert (decision.event, models.current(), models.versions()) == ("promoted", "v3", ["v1", "v3"])
    assert not [path for path in models.root.iterdir() if path.name.endswith(".incomplete")]


def test_people_who_changed_sides_do_not_judge(workdir: Path, promoted: tuple[Path, Path, Decision, Decision]) -> None:
    recipe = variant(promoted[0], 5)
    split = recipe.prepare.split.model_copy(update={"seed": 1})
    moved = recipe.model_copy(update={"prepare": recipe.prepare.model_copy(update={"split": split}), "seeds": (0,)})
    lab = Lab(workdir / "data" / "store")
    prepared = lab.stage(moved, "prepare").path
    lab.stage(moved, "train_recognizer", "real", 0)
    before = {
        row["identity"]: row["split"]
        for row in pq.read_table(Models(workdir).folder("v1") / "people.parquet").to_pylist()
    }
    test = set(ManifestImages(prepared, "test").identity)
    developed = {name for name in test if before[name] != "test"}
    decision = promote(moved, workdir)
    people_counts = Models(workdir).history()[-1]["judges"]
    assert (
        developed and people_counts["left_out"] == len(developed) and people_counts["people"] == len(test - developed)
    )
    assert people_counts["moved"] == sum(split == "test" for name, split in before.items() if name not in test)
    assert any("left out: an earlier model (v1) was developed on them" in remark for remark in decision.remarks)


def test_people_of_the_weights_that_it_started_from_do_not_judge(
    workdir: Path, promoted: tuple[Path, Path, Decision, Decision]
) -> None:
    models = Models(workdir)
    files = models.spec("v1")["files"]
    assert challenging.started_from(models, files["model.safetensors"]) == [models.folder("v1")]
    assert challenging.started_from(models, "0" * 64) == [] == challenging.started_from(models, None)
    other = variant(promoted[0], 4).prepare.split.model_copy(update={"seed": 1})
    recipe = variant(promoted[0], 4, prepare={"split": other.model_dump()})
    prepared = Lab(workdir / "data" / "store").stage(recipe, "prepare").path
    everybody = challenging.people_compared(prepared, None)
    fewer = challenging.people_compared(prepared, None, [models.folder("v1")])
    assert everybody.left_out == 0 < fewer.left_out and len(fewer.names) + fewer.left_out == len(everybody.names)
    photos = {entry.identity for entry in fewer.entries()}
    assert photos == set(fewer.names)


def test_people_held_back_judge_promotions_and_no_report_looks_at_them(
    tmp_path: Path, promoted: tuple[Path, Path, Decision, Decision]
) -> None:
    recipe = variant(promoted[0], 4, benchmark={"held_back": 0.5})
    lab = Lab(tmp_path / "data" / "store")
    prepared = lab.stage(recipe, "prepare").path
    test = {name for name, where in splits_of(prepared).items() if where == "test"}
    reported = set(pq.read_table(lab.stage(recipe, "benchmark").path / "rows.parquet")["identity"].to_pylist())
    judging = set(challenging.people_compared(prepared, None, share=0.5).names)
    assert len(reported) > 1 and len(judging) > 1
    assert reported | judging == test and not reported & judging
    assert judging <= held_back(test | {"folder/new"}, 0.8)  # a larger share takes none away, nor do people who come
    results = json.loads((lab.stage(recipe, "benchmark").path / "results.json").read_bytes())
    assert "0.5 of the test people are held back" in json.dumps(results)
    with pytest.raises(UserError, match=r"no report of this run held back 0\.4"):
        promote(variant(promoted[0], 4, benchmark={"held_back": 0.4}), promoted[1])
    with pytest.raises(ValueError, match="set people of that one to test"):
        variant(promoted[0], 4, benchmark={"held_back": 0.5, "benchmarks": [{"kind": "pairs", "file": "x.csv"}]})
    with pytest.raises(UserError, match="test people, 0 are left to measure on"):
        lab.stage(variant(promoted[0], 4, benchmark={"held_back": 0.999999}), "benchmark")


def test_groups_attacks_and_membership_are_measured_gated_and_on_the_card(
    workdir: Path, promoted: tuple[Path, Path, Decision, Decision]
) -> None:
    specs = [
        {"kind": "verification"},
        {"kind": "groups", "parts": 2, "fmr": 0.4, "least_people": 2},
        {"kind": "attack", "fmr": 0.4, "pairs": 20, "steps": 2, "restarts": 1, "bisections": 2},
        {"kind": "membership"},
    ]
    limits = {"groups/fmr:*": 1.0, "attack/dodging-median": 1000.0, "membership/auc": 0.0}
    recipe = variant(promoted[0], 6, benchmark={"benchmarks": specs}, promotion={"limits": limits, "not_worse_by": 1})
    decision = promote(recipe, workdir)
    assert decision.event == "refused" and decision.results is not None
    figures = {figure.name: figure for figure in decision.results.challenger}
    for name in ("groups/fmr:dark", "attack/dodging-median", "membership/auc"):
        assert figures[name].value is not None and figures[name].low is not None, figures[name].note
    gates = outcomes(decision.results)
    assert gates["limit groups/fmr:dark 1"] == "cannot tell"  # five people
    assert "limit groups/fmr:bright 1" in gates
    assert gates["limit attack/dodging-median 1000"] == "failed"  # higher is better
    assert gates["limit membership/auc 0"] in ("failed", "cannot tell")
    champion = {figure.name: figure for figure in decision.results.champion}
    assert champion["groups/fmr:dark"].value is not None and champion["membership/auc"].value is None
    fresh = shutil.copytree(promoted[1], workdir.parent / "fresh", symlinks=True)
    shutil.rmtree(fresh / "data" / "models")
    first = promote(recipe.model_copy(update={"promotion": Promotion()}), fresh)
    text = (Models(fresh).folder(first.version) / "card.md").read_text()
    parts = {part.split("\n")[0]: part for part in text.split("\n## ")}
    assert "| groups/fmr:dark |" in parts["Groups"] and "| attack/dodging-median |" in parts["Attacks"]
    assert "| membership/auc |" in parts["What it tells of its train people"]
    assert "| eer |" in parts["How well it does"] and "membership" not in parts["How well it does"]
    plain = (Models(promoted[1]).folder("v1") / "card.md").read_text()
    assert "## Attacks\n\nNot asked" in plain and "None is a guarantee" in plain


def test_own_people_are_asked_of_both_models_by_photos_that_neither_saw(
    promoted: tuple[Path, Path, Decision, Decision], tmp_path: Path
) -> None:
    """Both have the figures of their own runs' reports, and a gate on one holds for champion and challenger alike."""
    specs = [{"kind": "verification"}, {"kind": "enrolled", "fpir": [0.4], "far": [0.1], "fmr": 0.3}]
    options: dict[str, Any] = {
        "prepare": {"held_out": 1, "split": {"train": 0.375, "val": 0.25, "test": 0.375}},
        "benchmark": {"benchmarks": specs},
        "seeds": [0],
    }
    gates = {"metric": "enrolled/rank-1", "not_worse_by": 1.0, "limits": {"enrolled/fnmr@val-fmr=0.3": 1.0}}
    first = variant(promoted[0], 4, **options)
    second = variant(promoted[0], 6, **options, promotion=gates)
    lab, reported, decisions = Lab(tmp_path / "data" / "store"), [], []
    for recipe in (first, second):
        results = json.loads((lab.stage(recipe, "benchmark", "real", 0).path / "results.json").read_bytes())
        reported.append({metric["name"]: metric["value"] for metric in results["enrolled"]["metrics"]})
        decisions.append(promote(recipe, tmp_path))
    results = decisions[1].results
    assert results is not None and len(reported[0]) == 5
    for figures, values in ((results.champion, reported[0]), (results.challenger, reported[1])):
        of_own = {figure.name: figure for figure in figures if figure.name in values}
        assert {name: figure.value for name, figure in of_own.items()} == pytest.approx(values)
        assert of_own["enrolled/rank-1"].low is not None
    assert outcomes(results) == {"not worse by 1": "passed", "limit enrolled/fnmr@val-fmr=0.3 1": "passed"}
    difference = next(figure for figure in results.differences if figure.name == "enrolled/rank-1")
    assert difference.value == pytest.approx(reported[1]["enrolled/rank-1"] - reported[0]["enrolled/rank-1"])
    assert "| enrolled/rank-1 |" in (Models(tmp_path).folder("v1") / "card.md").read_text()
    prepared = lab.stage(second, "prepare").path
    assert challenging.people_compared(prepared, Models(tmp_path).folder("v1")).learned == frozenset()

    # A champion that was trained on all photos: none is left to search by, and the gate cannot tell.
    held_out = manifest.read(prepared, ["image_id"], split="held_out")["image_id"].to_pylist()
    path = Models(tmp_path).folder(decisions[1].version) / "people.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["held_out"]), path)
    assert challenging.people_compared(prepared, path.parent).learned == set(held_out)
    third = variant(promoted[0], 7, **options, promotion={"metric": "enrolled/rank-1"})
    lab.stage(third, "train_recognizer", "real", 0)
    refused = promote(third, tmp_path)
    assert refused.event == "refused" and "none that an earlier model was not trained on" in refused.why
    assert any(f"{len(held_out)} held-out photos are not searched by" in remark for remark in refused.remarks)


def test_an_unfinished_run_and_a_failed_audit(
    tmp_path: Path, workdir: Path, promoted: tuple[Path, Path, Decision, Decision]
) -> None:
    with pytest.raises(UserError, match="is not finished: train_recognizer · real · seed 0"):
        promote(variant(promoted[0], 7), workdir)
    with pytest.raises(ConfigError, match="no arm 'nobody'"):
        promote(variant(promoted[0], 4), workdir, arm="nobody")
    nodes = graph.build(variant(promoted[0], 4))
    done = Lab(workdir / "data" / "store").make(pick(nodes, "train_recognizer", "real", 0))
    (tmp_path / "gate.json").write_text(json.dumps({"judge": "j", "faults": [{"what": "2 near-copies"}]}))
    challenger = promote_module.Challenger(
        variant(promoted[0], 4), "real", None, nodes[0], 0.1, {nodes[0].key: done}, tmp_path
    )
    (gate,) = promote_module._leakage_gates(challenger)
    assert gate.outcome == "failed" and gate.blocks and gate.why == "2 near-copies"


def test_embed_gives_what_the_network_gives(
    workdir: Path, promoted: tuple[Path, Path, Decision, Decision], tmp_path: Path
) -> None:
    root = promoted[0]
    photos = [root / "p00" / "0.png", root / "p01" / "2.png"]
    spec = Models(workdir).spec("v1")
    net, _ = load_embedder(workdir / "data/store/train_recognizer" / spec["lineage"]["recognizer"])
    pixels = [np.asarray(to_square(decode(path.read_bytes()), 32, "grey"))[:, :, None] for path in photos]
    expected = embed_by_torch(net, np.stack(pixels), 2)
    assert facegan(workdir, "embed", *photos, "--out", tmp_path / "e.npz").exit_code == 0
    assert np.load(tmp_path / "e.npz")["embedding"] == pytest.approx(expected, abs=1e-5)
    assert facegan(workdir, "embed", *photos, "--out", tmp_path / "e.parquet").exit_code == 0
    assert np.asarray(pq.read_table(tmp_path / "e.parquet")["embedding"].to_pylist()) == pytest.approx(
        expected, abs=1e-5
    )
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    printed = facegan(workdir, "embed", *photos, broken, tmp_path / "gone.png")
    rows = list(csv.reader(printed.stdout.splitlines()))
    assert printed.exit_code == 1 and [row[0] for row in rows[1:]] == list(map(str, photos))
    assert np.asarray([row[1:] for row in rows[1:]], float) == pytest.approx(expected, abs=1e-5)
    assert "not an image" in printed.stderr and "gone.png: No such file" in printed.stderr
    assert facegan(workdir, "embed", broken).exit_code == 1
    assert facegan(workdir, "embed", photos[0], "--out", tmp_path / "e.txt").exit_code == 2


def test_verify_says_same_or_different_and_how_far_to_trust_it(
    workdir: Path, promoted: tuple[Path, Path, Decision, Decision]
) -> None:
    one, other = promoted[0] / "p00" / "0.png", promoted[0] / "p01" / "0.png"
    same = facegan(workdir, "verify", one, one)  # it resolves no 0.01, and so takes the strictest that it does
    assert same.exit_code == 0 and same.output.startswith("same person: similarity 1.0000")
    answer = json.loads(facegan(workdir, "verify", one, other, "--far", "0.1", "--json", "-").stdout)
    assert answer["same"] == (answer["similarity"] >= answer["threshold"]) and answer["model"] == "v1"
    assert (answer["chosen_on"]["impostor"], answer["measured_on"]["impostor"]) == (10 * 16, 21 * 16)
    unresolved = facegan(workdir, "verify", one, other, "--far", "0.001")
    assert unresolved.exit_code == 1 and "no threshold for FAR 0.001" in unresolved.output
    assert facegan(workdir, "verify", one, promoted[0] / "none.png", "--far", "0.1").exit_code == 1
    with open(workdir / "data/models/v1/model.safetensors", "ab") as file:
        file.write(b" ")
    (workdir / "data/models/v1/model.onnx").unlink(missing_ok=True)
    spoiled = facegan(workdir, "verify", one, other, "--far", "0.1")
    assert spoiled.exit_code == 1 and ("was changed" in spoiled.output or "is missing" in spoiled.output)


def test_without_a_model_it_says_so(tmp_path: Path) -> None:
    for words in (["embed", "x.png"], ["verify", "x.png", "y.png"], ["rollback"]):
        done = facegan(tmp_path, *words)
        assert done.exit_code == 2 and "no current model" in done.output, words
    assert facegan(tmp_path, "models").exit_code == 0 and list(tmp_path.iterdir()) == []


def test_a_photo_without_a_face(workdir: Path, tmp_path: Path) -> None:
    pytest.importorskip("dlib")
    pytest.importorskip("face_recognition_models")
    (tmp_path / "wall.png").write_bytes(encode_png(np.full((64, 64), 99, np.uint8)))
    done = facegan(workdir, "embed", tmp_path / "wall.png", "--align")
    assert done.exit_code == 1 and "no face found" in done.output


def test_forget_takes_the_models_too(workdir: Path, promoted: tuple[Path, Path, Decision, Decision]) -> None:
    shown = facegan(workdir, "forget", "p03")
    assert "2 x model" in shown.output and Models(workdir).current() == "v1"
    who = next(iter(Models(workdir).looks()))
    done = facegan(workdir, "forget", who, "--yes")
    assert done.exit_code == 0, done.output
    models = Models(workdir)
    assert models.versions() == [] and models.current() is None and not (models.root / "current").is_symlink()
    assert who not in models.looks() and who.encode() not in (models.root / HISTORY).read_bytes()
    assert [line["event"] for line in models.history()[-2:]] == ["erased", "erased"]


def test_the_command_shows_both_models_and_every_gate(
    workdir: Path, promoted: tuple[Path, Path, Decision, Decision]
) -> None:
    for name, limit in (("first", None), ("second", 0.0)):
        recipe = variant(promoted[0], 4 if limit is None else 6, promotion={"limit": limit})
        (workdir / f"{name}.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    shutil.rmtree(workdir / "data" / "models")
    first = facegan(workdir, "promote", workdir / "first.yaml")
    assert first.exit_code == 0 and "v1 is promoted: it is current now" in first.output, first.output
    second = facegan(workdir, "promote", workdir / "second.yaml", "--json", workdir / "answer.json")
    assert second.exit_code == 1 and "Traceback" not in second.output, second.output
    for words in (
        "champion v1",
        "challenger v2",
        "limit 0",
        "refuses",
        "v2 is refused and kept",
        "current: v1",
        "2nd time",
    ):
        assert words in second.output, words
    answer = json.loads((workdir / "answer.json").read_text())
    assert (answer["event"], answer["current"], answer["judgement"]["accepted"]) == ("refused", "v1", False)


def test_with_onnx_a_photo_is_embedded_without_torch(
    workdir: Path, promoted: tuple[Path, Path, Decision, Decision]
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    assert imported_by("embed", promoted[0] / "p00" / "0.png", "--workdir", workdir) == set()
