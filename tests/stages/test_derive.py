"""derive, merge and what reads a derived set, with real stages over drawn faces."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from drawn import RUNTIME, Lab, tiny
from facegan.cli.main import main
from facegan.core.errors import ConfigError, UserError
from facegan.data import manifest
from facegan.data.dataset import ManifestImages
from facegan.data.images import decode_pixels
from facegan.data.sources import SOURCES
from facegan.erasure import lineage
from facegan.generation.controls import CONTROLS
from facegan.generation.draw import regenerate
from facegan.generation.options import Derive
from facegan.pipeline import graph
from facegan.pipeline.disk import check_room
from facegan.promotion.challenger import select_challenger
from facegan.recipe.recipe import Recipe
from facegan.recognition.batches import GROUPS, groups_of
from facegan.runtime.context import Context
from facegan.stages import derive

KINDS = sorted(CONTROLS.load())


@pytest.fixture(scope="module")
def controlled(faces: Path) -> Recipe:
    """The tiny recipe with an arm for each control."""
    plain = {"real": {}, "real+synthetic": {"new": True}}
    return tiny(faces, arms={**plain, **{kind: {"set": {"kind": kind}} for kind in KINDS}})


@pytest.fixture(scope="module")
def new_rows(controlled: Recipe, shared: Lab) -> list[dict[str, object]]:
    rows = manifest.read(shared.stage(controlled, "synthesize").path).to_pylist()
    return [row for row in rows if row["identity"].startswith(manifest.NEW)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_stands_in_the_place_of_new_people(
    kind: str, controlled: Recipe, shared: Lab, new_rows: list[dict[str, object]], tmp_path: Path
) -> None:
    artifact = shared.stage(controlled, "derive", kind)
    rows = manifest.read(artifact.path).to_pylist()
    assert manifest.validate(artifact.path) == []
    assert {row["split"] for row in rows} == {"train"} and {row["source"] for row in rows} == {"synthetic"}
    sizes = Counter(row["identity"] for row in rows)
    assert sorted(sizes.values()) == sorted(Counter(row["identity"] for row in new_rows).values())
    assert all(name.startswith(f"{manifest.DERIVED}{kind}-") for name in sizes)
    train = manifest.read(shared.stage(controlled, "prepare").path, ["identity"], split="train")
    people = set(train["identity"].to_pylist())
    parents = {parent for row in rows for parent in row["parents"]}
    assert parents <= people and bool(parents) == (kind != "texture")
    assert {row["generator"] for row in rows} == {artifact.fingerprint}
    summary = json.loads((artifact.path / "summary.json").read_text())
    assert summary["images"] == len(rows) and summary["different_images"] == len({row["image_id"] for row in rows})
    like = summary["likeness"]
    assert -1 <= like["q05"] <= like["median"] <= like["q95"] <= 1.0001
    if kind == "duplicates":
        assert like["q05"] > 0.99, "they are the photos"

    merged = shared.stage(controlled, "merge", kind).path
    assert manifest.validate(merged) == []
    images = ManifestImages(merged)
    groups = Counter(GROUPS[group] for group in groups_of(images))
    assert groups == {"real": train.num_rows, "new": len(rows)}, "no row is lost, repeated photos neither"
    assert json.loads((merged / "summary.json").read_text())["identities"] == len(people) + len(sizes)

    with pytest.raises(UserError, match="the stage derive") as refused:
        regenerate(artifact.path, rows[0]["image_id"], tmp_path / "x.png", shared.store)
    assert kind in str(refused.value)
    where = ["--out", str(tmp_path / "out"), "--workdir", str(tmp_path)]
    words = ["export", str(artifact.path), "--format", "folder", *where]
    refusal = CliRunner().invoke(main, words)
    assert refusal.exit_code != 0 and "--derived" in refusal.output and not (tmp_path / "out").exists()
    assert CliRunner().invoke(main, [*words, "--derived"]).exit_code == 0
    again = SOURCES.get("folder")(root=str(tmp_path / "out")).of_made_up()
    assert all("no new person" in str(_refusal(item)) for item in again.rows()), "as people made elsewhere: refused"


def _refusal(item: object) -> Exception:
    with pytest.raises(Exception) as refused:
        item.read()  # type: ignore[attr-defined]
    return refused.value


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bytes_again(kind: str, controlled: Recipe, shared: Lab, tmp_path: Path) -> None:
    item = next(n for n in graph.build(controlled) if n.stage == "derive" and n.arm == kind)
    first = shared.make(item).path
    out = tmp_path / first.name
    inputs = {name: shared.done[node.key].path for name, node in item.needs.items()}
    derive.run(item.options, item.extra, inputs, out, Context(RUNTIME))
    for name in ("manifest/part-00000.parquet", "summary.json"):
        assert (out / name).read_bytes() == (first / name).read_bytes()


def test_pixel_mix_takes_the_shares_of_the_people_it_stands_for(controlled: Recipe, shared: Lab) -> None:
    """Each image lies between the photos of the parents, nearer to those with larger shares."""
    item = next(n for n in graph.build(controlled) if n.stage == "derive" and n.arm == "pixel_mix")
    rows = manifest.read(shared.make(item).path).to_pylist()
    synthetic = manifest.read(shared.stage(controlled, "synthesize").path).to_pylist()
    parents_of = {row["identity"]: set(row["parents"]) for row in synthetic if row["identity"].startswith(manifest.NEW)}
    mixed = {row["identity"]: set(row["parents"]) for row in rows}
    for (_, parents), (_, lent) in zip(sorted(parents_of.items()), sorted(mixed.items()), strict=True):
        assert lent <= parents
    train = ManifestImages(shared.stage(controlled, "prepare").path, split="train")
    mean = train.pixels.astype(float).mean(axis=0)
    wanted = np.mean([np.linalg.norm(photo - mean) for photo in train.pixels.astype(float)])
    lengths = [np.linalg.norm(decode_pixels(row["image"]["bytes"]).astype(float) - mean) for row in rows]
    assert np.mean(lengths) == pytest.approx(wanted, rel=0.25), "as far from the mean as photos are"


def test_forget_finds_what_a_control_has_of_a_person(controlled: Recipe, shared: Lab, tmp_path: Path) -> None:
    import shutil

    for kind in KINDS:
        shared.stage(controlled, "merge", kind)
    store = tmp_path / "data" / "store"
    store.parent.mkdir()
    shutil.copytree(shared.store.finished, store)
    rows = manifest.read(shared.stage(controlled, "prepare").path, ["identity"], split="train")
    person = sorted(set(rows["identity"].to_pylist()))[0]
    targets = {target.path.name for target in lineage.find({person}, tmp_path, []).targets}
    for kind in KINDS:
        for stage in ("derive", "merge"):
            assert shared.stage(controlled, stage, kind).fingerprint in targets, (stage, kind)


def test_no_new_people_is_said_in_words(controlled: Recipe, shared: Lab, tmp_path: Path) -> None:
    synthetic = tmp_path / "synthetic"
    rows = manifest.read(shared.stage(controlled, "synthesize").path).to_pylist()
    manifest.write(synthetic, [r for r in rows if not r["identity"].startswith(manifest.NEW)], "synthesize", {})
    inputs = {"manifest": shared.stage(controlled, "prepare").path, "synthetic": synthetic}
    with pytest.raises(UserError, match="no new people"):
        derive.run(Derive.model_validate({"set": "warp"}), {}, inputs, tmp_path / "out", Context(RUNTIME))


def test_a_control_is_not_promoted(controlled: Recipe, shared: Lab) -> None:
    with pytest.raises(ConfigError, match="'warp' is a control") as refused:
        select_challenger(controlled, "warp", graph.build(controlled), shared.store)
    assert "promote another: real, real+synthetic" in str(refused.value.fix)


def test_nodes_of_a_control(controlled: Recipe) -> None:
    nodes = graph.build(controlled)
    by_name = {graph.input_name(node): node for node in nodes}
    for kind in KINDS:
        needs = by_name[f"derive:{kind}"].needs
        assert set(needs) == {"manifest", "synthetic"}
        assert by_name[f"merge:{kind}"].needs["synthetic"] is by_name[f"derive:{kind}"]
    assert by_name["merge:real+synthetic"].needs["synthetic"].stage == "synthesize"
    audit = next(node for node in nodes if node.stage == "audit")
    assert audit.needs["synthetic"].stage == "synthesize", "the gate judges sets that claim new people alone"


def test_a_control_alone_brings_the_new_people_that_it_equals(faces: Path, shared: Lab) -> None:
    recipe = tiny(faces, arms={"real": {}, "real+synthetic": {"set": "warp"}, "synthetic": {}})
    assert {"synthesize", "derive", "audit"} <= {node.stage for node in graph.build(recipe)}
    assert check_room(graph.build(recipe), shared.store, RUNTIME) is not None


def test_from_photos_to_the_page(faces: Path, shared: Lab) -> None:
    arms = {"real": {}, "real+synthetic": {"new": True}, "mixed": {"set": "pixel_mix"}}
    changes = {"steps": 2, "evaluations": 1, "use": {"new": 0.5, "own_head": True}}
    recipe = tiny(faces, arms=arms, report={"bootstrap": 200}, train_recognizer=changes, audit={"enforce": False})
    out = shared.stage(recipe, "report").path
    answer = json.loads((out / "results.json").read_text())
    best = answer["best_control"]
    assert (best["arm"], best["kind"]) == ("mixed", "pixel_mix") and best["mean"] == answer["arms"]["mixed"]["eer"][
        "mean"
    ]
    assert best["delta"] == pytest.approx(answer["arms"]["real+synthetic"]["eer"]["mean"] - best["mean"])
    assert (out / "figures" / "faces-control-mixed.png").is_file() and "mixed (control)" in (
        out / "index.html"
    ).read_text()


SIZED = {"kind": "warp", "classes": 5, "images_per_class": 3}


def test_a_set_of_its_own_size_needs_no_generator(faces: Path, lab: Lab) -> None:
    recipe = tiny(
        faces, arms={"real": {}, "warp": {"set": SIZED}},
        comparison={"arm": "warp"}, synthesize={"new_identities": 0, "images_per_existing": 0}, baselines={},
    )  # fmt: skip
    stages = {node.stage for node in graph.build(recipe)}
    assert "derive" in stages and not stages & {"train_gan", "synthesize", "audit"}
    rows = manifest.read(lab.stage(recipe, "derive", "warp").path, ["identity"]).to_pylist()
    assert sorted(Counter(row["identity"] for row in rows).values()) == [3] * 5
    merged = json.loads((lab.stage(recipe, "merge", "warp").path / "summary.json").read_text())
    people = len(
        set(manifest.read(lab.stage(recipe, "prepare").path, ["identity"], split="train")["identity"].to_pylist())
    )
    assert merged["identities"] == people + 5
    lab.stage(recipe, "train_recognizer", "warp", 0)
    chosen = select_challenger(recipe, None, graph.build(recipe), lab.store)
    assert chosen.arm == "warp" and chosen.leakage is None, "what was asked about may be promoted"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "warp", "classes": 5}, "go together"),
        ({"kind": "duplicates", "images_per_class": 5}, "go together"),
        ({"kind": "pixel_mix", "classes": 5, "images_per_class": 3}, "classes"),
    ],
)
def test_sizes_that_cannot_be(faces: Path, given: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tiny(faces, arms={"control": {"set": given}})
