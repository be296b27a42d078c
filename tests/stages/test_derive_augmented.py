"""Arms of augmented train photos, with real stages over drawn faces: labels, lineage, forget, export, and the page."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from drawn import RUNTIME, SIZE_PX, Lab, tiny
from facegan.cli.main import main
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.dataset import ManifestImages
from facegan.data.images import decode_pixels
from facegan.data.sources import SOURCES
from facegan.erasure import lineage
from facegan.generation.augmenters import AUGMENTERS
from facegan.generation.draw import regenerate
from facegan.generation.options import Derive
from facegan.pipeline import graph
from facegan.pipeline.disk import check_room
from facegan.promotion.challenger import select_challenger
from facegan.recipe.comparison import Comparison
from facegan.recipe.recipe import Recipe
from facegan.recognition.batches import GROUPS, groups_of
from facegan.reporting.comparisons import is_control
from facegan.runtime.context import Context
from facegan.stages import derive

KINDS = sorted(AUGMENTERS.load())
COMPOSITES = {"swap", "rim"}
TRAINED = {"restore", "cut", "cyclegan"}
OF_ONE = {"degrade", "tone", "moments", *TRAINED}
SHORT = {"channels": 4, "kimg": 0.016, "batch_size": 4}
TRANSLATED = {**SHORT, "per_photo": 1, "least_photos": 4}
BRIEF = {"restore": SHORT, "cut": TRANSLATED, "cyclegan": TRANSLATED, "moments": {"per_photo": 1}}


@pytest.fixture(scope="module")
def augmented(faces: Path) -> Recipe:
    """The tiny recipe with an arm for each augmenter, and nothing that a generator makes."""
    arms = {kind: {"set": {"kind": kind, "per_photo": 2, **BRIEF.get(kind, {})}} for kind in KINDS}
    return tiny(faces, arms={"real": {}, **arms}, comparison={"arm": "swap"})


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_are_more_of_the_same_people(kind: str, augmented: Recipe, shared: Lab, tmp_path: Path) -> None:
    artifact, prepared = shared.stage(augmented, "derive", kind), shared.stage(augmented, "prepare").path
    train = manifest.read(prepared, ["identity", "image_id"], split="train").to_pylist()
    person = {row["image_id"]: row["identity"] for row in train}
    rows = manifest.read(artifact.path).to_pylist()
    assert manifest.validate(artifact.path) == []
    summary = json.loads((artifact.path / "summary.json").read_text())
    per_photo = BRIEF.get(kind, {}).get("per_photo", 2)
    n_used = len(train) - summary.get("photos_left_out", 0)
    assert len(rows) == summary["images"] == per_photo * n_used > per_photo * len(train) / 2
    assert summary["kind"] == kind and summary["identities"] == len(set(person.values()))
    for row in rows:
        latent = json.loads(row["latent"])
        photos = latent["photos"]
        assert latent["derived"] == kind and latent["copy"] in range(per_photo)
        assert (row["split"], row["source"], row["generator"]) == ("train", "synthetic", artifact.fingerprint)
        assert row["identity"] == person[photos[0]] and row["dataset"] == row["identity"].split("/")[0]
        assert row["parents"] == [person[photo] for photo in photos], "all whose photos are in it, train people alone"
        assert sum(row["parent_weights"]) == pytest.approx(1) and len(set(row["parents"])) == len(photos)
        xmp = Image.open(io.BytesIO(row["image"]["bytes"])).info.get("XML:com.adobe.xmp", "")
        assert ("compositeWithTrainedAlgorithmicMedia" in xmp) == (kind in TRAINED)
        assert ('DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/compositeCapture"' in xmp) == (
            kind in COMPOSITES
        )
    assert {len(row["parents"]) for row in rows} == {1 if kind in OF_ONE else 2}

    merged = shared.stage(augmented, "merge", kind).path
    images = ManifestImages(merged)
    groups = Counter(GROUPS[group] for group in groups_of(images))
    assert groups == {"real": len(train), "existing": summary["different_images"]}
    assert sorted(set(images.label.tolist())) == list(range(len(set(person.values())))), "their labels are one"

    row = rows[len(rows) // 2]
    assert regenerate(merged, row["image_id"], tmp_path / "x.png", shared.store), "the same bytes from its columns"
    assert np.array_equal(decode_pixels((tmp_path / "x.png").read_bytes()), decode_pixels(row["image"]["bytes"]))


@pytest.mark.parametrize("stage", ["derive", "merge"])
def test_no_row_leaves_without_the_flag(stage: str, augmented: Recipe, shared: Lab, tmp_path: Path) -> None:
    folder = shared.stage(augmented, stage, "swap").path
    words = ["export", str(folder), "--format", "folder", "--out", str(tmp_path / "out"), "--workdir", str(tmp_path)]
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code != 0 and "--derived" in refused.output and not (tmp_path / "out").exists()
    assert CliRunner().invoke(main, [*words, "--derived"]).exit_code == 0
    exported = SOURCES.get("folder")(root=str(tmp_path / "out"))
    synthetic = Counter(manifest.read(folder, ["source"])["source"].to_pylist())["synthetic"]
    for source in (exported, exported.of_made_up()):  # as photos, and as people made elsewhere
        assert sum("a synthetic image" in _reason(item) for item in source.rows()) == synthetic, "taken for neither"


def _reason(item: object) -> str:
    try:
        item.read()  # type: ignore[attr-defined]
    except Exception as error:
        return str(error)
    return ""


@pytest.mark.parametrize("whose", [0, 1])
def test_forget_of_either_person_takes_the_row(whose: int, augmented: Recipe, shared: Lab, tmp_path: Path) -> None:
    """A set of a single swap is found by the name of the inner face and by that of the frame, and by no other."""
    made = shared.stage(augmented, "derive", "swap").path
    folder = tmp_path / "data" / "store" / "derive" / made.name
    shutil.copytree(made, folder)
    rows = manifest.read(made).to_pylist()
    manifest.write(folder, rows[:1], "derive", {})
    stranger = next(row["identity"] for row in rows if row["identity"] not in rows[0]["parents"])
    found = lineage.find({rows[0]["parents"][whose]}, tmp_path, [])
    assert [target.path for target in found.targets] == [folder] and found.n_synthetic == 1
    assert not lineage.find({stranger}, tmp_path, []).targets


def test_no_generator_is_asked_for(augmented: Recipe, shared: Lab) -> None:
    nodes = graph.build(augmented)
    assert not {node.stage for node in nodes} & {"train_gan", "synthesize", "audit"}
    by_name = {graph.input_name(node): node for node in nodes}
    for kind in KINDS:
        learns = {"guide"} if kind == "restore" else set()
        assert set(by_name[f"derive:{kind}"].needs) == {"manifest"} | learns
        assert by_name[f"merge:{kind}"].needs == {"real": by_name["prepare"], "augmented": by_name[f"derive:{kind}"]}
    shared.stage(augmented, "prepare")
    assert check_room(nodes, shared.store, RUNTIME) is not None


def test_new_people_and_augmented_photos_in_one_arm(faces: Path, shared: Lab) -> None:
    """Of what the generator made the arm's share alone, and all augmented rows."""
    both = {"new": True, "set": {"kind": "degrade"}}
    recipe = tiny(
        faces,
        arms={"real": {}, "new": {"new": True}, "both": both, "made": {**both, "real": False}},
        comparison={"arm": "both"},
    )
    nodes = {graph.input_name(node): node for node in graph.build(recipe)}
    assert set(nodes["merge:both"].needs) == {"real", "synthetic", "augmented"}
    assert nodes["merge:new"].needs.keys() == {"real", "synthetic"} and "audit" in nodes

    def groups(arm: str) -> dict[str, int]:
        return Counter(GROUPS[group] for group in groups_of(ManifestImages(shared.stage(recipe, "merge", arm).path)))

    augmented = json.loads((shared.stage(recipe, "derive", "both").path / "summary.json").read_text())["images"]
    assert groups("both") == {**groups("new"), "existing": augmented} and groups("new")["new"] > 0
    assert check_room(list(nodes.values()), shared.store, RUNTIME) is not None
    assert groups("made") == {"existing": augmented, "new": groups("new")["new"]}
    shown = recipe.model_copy(update={"comparison": Comparison(arm="new")}).model_dump(mode="json")
    assert not is_control(shown, "both"), "it needs a generator: no cheap alternative"
    shown["arms"]["both"]["new"] = False
    assert is_control(shown, "both")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bytes_again(kind: str, augmented: Recipe, shared: Lab, tmp_path: Path) -> None:
    item = next(n for n in graph.build(augmented) if n.stage == "derive" and n.arm == kind)
    first = shared.make(item).path
    out = tmp_path / first.name
    inputs = {name: shared.done[node.key].path for name, node in item.needs.items()}
    derive.run(item.options, item.extra, inputs, out, Context(RUNTIME))
    for name in ("manifest/part-00000.parquet", "summary.json"):
        assert (out / name).read_bytes() == (first / name).read_bytes()


def test_one_person_is_refused_before_anything_is_written(augmented: Recipe, shared: Lab, tmp_path: Path) -> None:
    rows = manifest.read(shared.stage(augmented, "prepare").path, split="train").to_pylist()
    one = [row for row in rows if row["identity"] == rows[0]["identity"]]
    manifest.write(tmp_path / "prepared", one, "prepare", {})
    inputs, options = {"manifest": tmp_path / "prepared"}, Derive.model_validate({"set": "swap"})
    with pytest.raises(UserError, match="one train person"):
        derive.run(options, {}, inputs, tmp_path / "out", Context(RUNTIME))


def test_domains_are_values_of_a_column_of_the_manifest(augmented: Recipe, shared: Lab, tmp_path: Path) -> None:
    """Photos without a value are left out and counted; a column without values is refused first."""
    rows = manifest.read(shared.stage(augmented, "prepare").path, split="train").to_pylist()
    inputs, said = {"manifest": tmp_path / "prepared"}, list[str]()
    options = Derive.model_validate({"set": {"kind": "cut", **TRANSLATED, "by": "group"}})
    context = Context(RUNTIME, lambda event: said.append(event.text))
    with pytest.raises(UserError, match="values of `group`, and the train photos have 0: none"):
        manifest.write(tmp_path / "prepared", rows, "prepare", {})
        derive.run(options, {}, inputs, tmp_path / "out", context)
    assert not (tmp_path / "out").exists()
    grouped = [{**row, "group": ("indoors", "outdoors", None)[number % 3]} for number, row in enumerate(rows)]
    manifest.write(tmp_path / "prepared", grouped, "prepare", {})
    derive.run(options, {}, inputs, tmp_path / "out", context)
    without = sum(row["group"] is None for row in grouped)
    made = {json.loads(row["latent"])["photos"][0] for row in manifest.read(tmp_path / "out").to_pylist()}
    assert made == {row["image_id"] for row in grouped if row["group"]}
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["photos_left_out"] == without
    assert f"{without} of {len(rows)} train photos left out: of neither domain" in said


def test_from_photos_to_the_page(faces: Path, shared: Lab) -> None:
    arms = {"real": {}, "swapped": {"set": "swap"}, "ringed": {"set": "rim"}}
    recipe = tiny(
        faces,
        arms=arms,
        comparison={"arm": "swapped"},
        report={"bootstrap": 200},
        train_recognizer={"steps": 2, "evaluations": 1, "use": {"existing": 0.5}},
    )
    out = shared.stage(recipe, "report").path
    answer, page = json.loads((out / "results.json").read_text()), (out / "index.html").read_text()
    assert answer["comparison"]["arm"] == "swapped" and answer["arms"]["swapped"]["eer"]["mean"] is not None
    assert answer["best_control"]["arm"] == "ringed" and "classical+synthetic" in answer["baselines"]
    assert "ringed (control)" in page and "swapped (control)" not in page
    assert "their inner faces in photos of other people" in page and "No arm has synthetic images" not in page
    for name in ("swapped", "ringed"):
        picture = Image.open(io.BytesIO((out / "figures" / f"faces-control-{name}.png").read_bytes()))
        assert picture.height > 3 * SIZE_PX
    challenger = select_challenger(recipe, None, graph.build(recipe), shared.store)
    assert challenger.arm == "swapped" and challenger.leakage is None, "it may be promoted: no generator took part"
