"""Retraining: a run that begins with the current model, from promotion to promotion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from drawn import Lab, draw_folder, merged, pick, tiny
from facegan.core.errors import ConfigError, UserError
from facegan.pipeline.graph import Node
from facegan.pipeline.run import nodes_of, planned_run
from facegan.promotion.challenger import started_from
from facegan.promotion.promote import Decision, promote
from facegan.promotion.registry import Models
from facegan.recipe.load import in_workdir
from facegan.recipe.recipe import Recipe
from facegan.store.local import Artifact


def variant(root: Path, start: Any, **changes: Any) -> Recipe:
    options: dict[str, Any] = {
        "prepare": {"split": {"train": 0.25, "val": 0.3, "test": 0.45, "by": "hash"}},
        "train_recognizer": {"start": start, "steps": 4, "evaluations": 1},
        "guide": {"start": "random"},
        "arms": {"real": {}, "as-is": {"trials": {"as-is": {"steps": 0}}}} if start else {"real": {}, "half": {}},
        "comparison": {"arm": "real", "baseline": "as-is" if start else "half"},
        "report": {"bootstrap": 200},
        "baselines": {},
    }
    return tiny(root, **merged(options, changes))


def trained(recipe: Recipe, workdir: Path, arm: str = "real") -> tuple[Node, Artifact]:
    node = pick(nodes_of(recipe, workdir, None), "train_recognizer", arm, 0)
    return node, Lab(workdir / "data" / "store").make(node)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Decision]:
    """(faces, working directory, decision) of a first model."""
    top = tmp_path_factory.mktemp("retraining")
    root, workdir = draw_folder(top / "faces", people=20, shots=4), top / "work"
    recipe = variant(root, None)
    trained(recipe, workdir)
    return root, workdir, promote(recipe, workdir)


@pytest.fixture
def workdir(first: tuple[Path, Path, Decision], tmp_path: Path) -> Path:
    return shutil.copytree(first[1], tmp_path / "work", symlinks=True)


def test_each_champion_makes_new_trainings_and_bars_its_people(
    first: tuple[Path, Path, Decision], workdir: Path
) -> None:
    models, recipe = Models(workdir), variant(first[0], "champion", train_recognizer={"lr": 1e-2})
    node, artifact = trained(recipe, workdir)
    assert node.raw == {"weights": models.spec("v1")["files"]["model.safetensors"]}
    assert node.config["start"] == {"kind": "champion"}, "neither a path nor a version"
    spec = json.loads((artifact.path / "embedder.json").read_bytes())
    assert spec["licenses"] == ["licence unknown"] * 2, "the model's own, and no 'weights it started from'"

    judged = promote(recipe.model_copy(update={"promotion": _lenient(recipe)}), workdir)
    summary = json.loads((artifact.path / "summary.json").read_bytes())
    if summary["best_step"]:
        assert (judged.event, judged.version, judged.champion) == ("promoted", "v2", "v1")
        lineage = models.spec("v2")["lineage"]
        assert lineage["weights"] == models.spec("v1")["files"]["model.safetensors"]
        now = pick(nodes_of(recipe, workdir, None), "train_recognizer", "real", 0)
        assert now.key != node.key and now.raw["weights"] == models.spec("v2")["files"]["model.safetensors"]
        assert started_from(models, now.raw["weights"]) == [models.folder("v2"), models.folder("v1")]
        models.decide("rollback", "v1", "a test")
        assert pick(nodes_of(recipe, workdir, None), "train_recognizer", "real", 0).key == node.key
    else:
        pytest.fail("training bettered nothing: choose another lr for this test")


def _lenient(recipe: Recipe) -> Any:
    return recipe.promotion.model_copy(update={"not_worse_by": 1.0})


def test_as_it_is_is_the_champion_and_is_no_new_version(first: tuple[Path, Path, Decision], workdir: Path) -> None:
    recipe, models = variant(first[0], "champion"), Models(workdir)
    _, artifact = trained(recipe, workdir, "as-is")
    champion = load_file(models.folder("v1") / "model.safetensors")
    kept = load_file(artifact.path / "embedder.safetensors")
    assert kept.keys() == champion.keys() and all(kept[name].equal(champion[name]) for name in kept)
    looks = models.looks()
    decision = promote(recipe, workdir, arm="as-is")
    assert (decision.event, decision.version) == ("kept", "v1") and "these are the weights" in decision.why
    assert models.versions() == ["v1"] and models.looks() == looks, "nobody was looked at"
    forced = promote(recipe, workdir, arm="as-is", force="to see its card")
    assert forced.version == "v2"  # with the same weights as v1
    both = {models.folder("v1"), models.folder("v2")}
    assert set(started_from(models, models.spec("v2")["files"]["model.safetensors"])) == both


def test_a_challenger_that_is_worse_is_refused(first: tuple[Path, Path, Decision], workdir: Path) -> None:
    recipe = variant(first[0], "champion", train_recognizer={"lr": 1e-2}, promotion={"limit": 0.0})
    trained(recipe, workdir)
    decision = promote(recipe, workdir)
    assert decision.event == "refused" and Models(workdir).current() == "v1"


def test_without_a_model_it_says_what_to_do(first: tuple[Path, Path, Decision], tmp_path: Path) -> None:
    recipe = variant(first[0], "champion")
    with pytest.raises(UserError, match=r"no current model in .*data/models") as error:
        nodes_of(recipe, tmp_path, None)
    assert "facegan promote" in error.value.fix and "start.otherwise=random" in error.value.fix
    assert not list(tmp_path.iterdir())


def test_otherwise_is_said_aloud(first: tuple[Path, Path, Decision], workdir: Path, tmp_path: Path) -> None:
    """Until there is a model, and no longer; its keys are those of what it names."""
    start = {"kind": "champion", "otherwise": "random"}
    recipe, heard = variant(first[0], start, arms={"as-is": {"trials": {"as-is": {"steps": 1}}}}), list[str]()
    with planned_run(recipe, tmp_path / "new", None, heard.append) as planned:
        begun = pick(planned.nodes, "train_recognizer", "real", 0).options.begins  # type: ignore[attr-defined]
    assert begun.kind == "random" and "no champion in" in heard[0] and "begins with random weights" in heard[0]
    heard.clear()
    with planned_run(recipe, workdir, None, heard.append) as planned:
        with_it = pick(planned.nodes, "train_recognizer", "real", 0)
    without = in_workdir(variant(first[0], "champion"), workdir).train_recognizer
    assert not heard and with_it.options.begins == without.begins  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="steps is 0, but nothing was a recognizer"):
        nodes_of(variant(first[0], start), tmp_path / "new", None)
    with pytest.raises(ConfigError, match="unknown start 'nonsense'"):
        _with_yaml(tmp_path, first[0], "{kind: champion, otherwise: nonsense}")


def _with_yaml(folder: Path, root: Path, start: str) -> Recipe:
    from facegan.recipe.load import load

    sets = ["prepare.source.kind=folder", f"prepare.source.root={root}", f"train_recognizer.start={start}"]
    return load("orl-tiny", sets)


def test_a_champion_that_was_changed_or_is_of_another_network_is_refused(
    first: tuple[Path, Path, Decision], workdir: Path
) -> None:
    other = variant(first[0], "champion", train_recognizer={"embedding_dim": 32})
    with pytest.raises(UserError, match=r"v1: .*|these weights do not fit") as error:
        trained(other, workdir)
    assert "train_recognizer.embedding_dim=16" in error.value.fix
    with open(workdir / "data/models/v1/model.safetensors", "ab") as file:
        file.write(b" ")
    with pytest.raises(UserError, match="was changed"):
        nodes_of(variant(first[0], "champion"), workdir, None)


def test_in_a_variant_of_a_study_it_is_refused(first: tuple[Path, Path, Decision], workdir: Path) -> None:
    study = {"splits": [0], "variants": {"a": {"set": {}}, "b": {"set": {"train_recognizer.start": "champion"}}}}
    recipe = variant(first[0], None, study=study, prepare={"split": {"by": "rank"}})
    with pytest.raises(UserError, match="not in a variant of a study"):
        nodes_of(recipe, workdir, None)
