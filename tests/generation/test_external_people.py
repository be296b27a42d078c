"""People who do not exist, made elsewhere: taken in, cut down, filtered, traced, forgotten."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from drawn import Lab, draw_face, pick, tiny
from facegan.core.errors import ConfigError, UserError
from facegan.data import manifest
from facegan.data.export_faces import export
from facegan.data.images import encode_png
from facegan.data.sources.csv import Csv
from facegan.data.sources.folder import Folder
from facegan.data.sources.manifest import Manifest
from facegan.data.suppression import SuppressionList
from facegan.erasure import lineage
from facegan.generation import thresholds
from facegan.generation.draw import regenerate
from facegan.pipeline import graph
from facegan.recipe.load import load
from facegan.recipe.recipe import Recipe
from facegan.reporting.galleries import collect
from facegan.reporting.study.pooled import VariantFindings
from facegan.reporting.study.words import schedule
from facegan.store.local import Artifact

PEOPLE, SHOTS = 5, 4


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn people whom no other test draws, as another generator's folder."""
    root = tmp_path_factory.mktemp("elsewhere") / "made"
    for person in range(PEOPLE):
        (root / f"e{person}").mkdir(parents=True)
        for shot in range(SHOTS):
            face = draw_face(1000 + person, shot, 60, 60)
            (root / f"e{person}" / f"{shot}.png").write_bytes(encode_png(face))
    return root


def with_external(faces: Path, root: Path, only: bool = True, **options: Any) -> Recipe:
    """The tiny recipe with external people; `only`: none are made here."""
    changes = {"images_per_existing": 0, "new_identities": 0} if only else {}
    source = {"kind": "folder", "root": str(root), "license": "CC-BY-4.0"}
    external = {"source": source, **options}
    arms = {"real": {"real": True}, "real+synthetic": {"real": True, "new": True}}
    return tiny(faces, synthesize={**changes, "external": external}, arms=arms)


def bounds(image: float = -1.1, person: float = 1.1) -> dict[str, dict[str, Any]]:
    return {"image": {"value": image, "how": "given"}, "person": {"value": person, "how": "given"}}


def made(
    lab: Lab, recipe: Recipe, image: float = -1.1, person: float = 1.1, copy: float = 2.0, stage: str = "synthesize"
) -> Artifact:
    """A stage with given bounds, which an untrained guide cannot give."""
    fixed_bounds = bounds(image, person)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thresholds, "calibrate", lambda *_: fixed_bounds)
        patch.setattr(thresholds, "between_strangers_and_train", lambda strangers, *_: strangers)
        patch.setattr(thresholds, "among_many", lambda bound, *_: bound)
        patch.setattr(thresholds, "copy_limit", lambda *_: copy)
        return lab.stage(recipe, stage)


def rows_of(artifact: Artifact) -> list[dict[str, Any]]:
    return manifest.read(artifact.path).to_pylist()


def report_of(artifact: Artifact) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((artifact.path / "filters.json").read_bytes())
    return report


def removed(artifact: Artifact) -> dict[str, tuple[int, int]]:
    return {entry["filter"]: (entry["seen"], entry["removed"]) for entry in report_of(artifact)["counts"]}


def test_they_are_new_people_and_no_others(faces: Path, elsewhere: Path, lab: Lab, tmp_path: Path) -> None:
    artifact = made(lab, with_external(faces, elsewhere))
    assert manifest.validate(artifact.path) == []
    rows = rows_of(artifact)
    assert {row["identity"] for row in rows} == {f"synthetic/external/folder/e{n}" for n in range(PEOPLE)}
    assert len(rows) == PEOPLE * SHOTS == len({row["image_id"] for row in rows})
    for row in rows:
        facts = row["source"], row["dataset"], row["split"], row["height"], row["license"], row["parents"]
        assert facts == ("synthetic", "synthetic", "train", 32, "CC-BY-4.0", [])
        file = json.loads(row["latent"])["file"]
        assert row["identity"].endswith(file.split("/")[0]) and (elsewhere / file).is_file()
        with pytest.raises(UserError, match="made elsewhere"):
            regenerate(artifact.path, row["image_id"], tmp_path / "x.png", lab.store)
    report = report_of(artifact)
    assert report["made"]["external people"] == PEOPLE and report["made"]["new people"] == 0
    assert report["requested"]["images of external people"] == PEOPLE * SHOTS
    assert report["made"]["images of external people"] == PEOPLE * SHOTS
    shown = collect(lab.stage(tiny(faces), "prepare").path, artifact.path, people=2, faces=3)
    assert [[row.kind for row in person.rows] for person in shown.new] == [["synthetic"]] * 2  # no room for parents


def test_some_of_them(faces: Path, elsewhere: Path, lab: Lab) -> None:
    few, more = (
        made(lab, with_external(faces, elsewhere, identities=people, images=images))
        for people, images in ((2, 1), (3, 2))
    )
    one, other = ({(row["identity"], row["image_id"]) for row in rows_of(artifact)} for artifact in (few, more))
    assert len(one) == 2 and len(other) == 6 and one < other  # what a smaller number takes a larger one takes too


def test_beside_those_made_here_who_do_not_change(faces: Path, elsewhere: Path, lab: Lab) -> None:
    plain = made(lab, tiny(faces, synthesize={"seed": 3}))
    both = made(lab, with_external(faces, elsewhere, only=False))
    alone = made(lab, tiny(faces))
    assert plain.fingerprint != alone.fingerprint != both.fingerprint
    own = [{**row, "generator": None} for row in rows_of(alone)]
    assert [{**row, "generator": None} for row in rows_of(both)][: len(own)] == own
    assert len(rows_of(both)) == len(own) + PEOPLE * SHOTS


def test_a_train_person_among_them_is_found(faces: Path, elsewhere: Path, lab: Lab, tmp_path: Path) -> None:
    prepared = lab.stage(tiny(faces), "prepare")
    person = sorted(set(manifest.read(prepared.path, ["identity"], split="train")["identity"].to_pylist()))[0]
    root = tmp_path / "leaky"
    shutil.copytree(elsewhere, root)
    shutil.copytree(faces / person.split("/")[1], root / "nobody")
    recipe = with_external(faces, root)
    near = made(lab, recipe, person=0.9999)  # the same photos have the same centre
    assert removed(near)["external people too close to a train person"][1] >= 1
    assert not any(row["identity"].endswith("nobody") for row in rows_of(near))
    copies = made(Lab(tmp_path / "other"), recipe, copy=0.999)  # by their pixels, whatever the guide says
    assert removed(copies)["near-copies of a train photo"] == (PEOPLE * SHOTS + 5, 5)
    assert {row["identity"] for row in rows_of(copies)} == {f"synthetic/external/folder/e{n}" for n in range(PEOPLE)}


def test_what_cannot_be_read_is_counted(faces: Path, elsewhere: Path, lab: Lab, tmp_path: Path) -> None:
    root = tmp_path / "broken"
    shutil.copytree(elsewhere, root)
    (root / "e0" / "0.png").write_bytes(b"no image")
    artifact = made(lab, with_external(faces, root))
    assert removed(artifact)["external images that cannot be used"] == (PEOPLE * SHOTS, 1)
    assert len(rows_of(artifact)) == PEOPLE * SHOTS - 1
    assert any("not an image" in str(event.text) for event in lab.events)


def test_their_files_are_part_of_the_fingerprint_and_their_place_is_not(
    faces: Path, elsewhere: Path, tmp_path: Path
) -> None:
    def key(root: Path, forgotten: SuppressionList | None = None) -> str:
        return pick(graph.build(with_external(faces, root), forgotten), "synthesize").key

    root = tmp_path / "moved"
    shutil.copytree(elsewhere, root)
    before = key(root)
    assert before == key(elsewhere)
    shown = graph.build(with_external(faces, root))[-1].extra["recipe"]
    assert str(root) not in json.dumps(shown["synthesize"])
    erased = SuppressionList().add(["folder/e1"], tmp_path)
    shutil.rmtree(root / "e1")
    assert key(root) == key(elsewhere, erased) != before


def test_files_that_change_under_a_run_stop_it(faces: Path, elsewhere: Path, lab: Lab, tmp_path: Path) -> None:
    root = tmp_path / "changing"
    shutil.copytree(elsewhere, root)
    nodes = graph.build(with_external(faces, root, identities=2))
    (root / "e4" / "more.png").write_bytes(encode_png(draw_face(2000, 0)))
    with pytest.raises(UserError, match="has changed since this run began"):
        lab.make(pick(nodes, "synthesize"))


def test_another_runs_people_keep_their_parents(faces: Path, lab: Lab, tmp_path: Path) -> None:
    first = made(lab, tiny(faces))
    first_rows = rows_of(first)
    new = [row for row in first_rows if row["identity"].startswith(manifest.NEW)]
    assert len(new) == 9 < len(first_rows)
    source = {"kind": "manifest", "root": str(first.path)}
    recipe = tiny(faces, synthesize={"images_per_existing": 0, "new_identities": 0, "external": {"source": source}})
    taken = rows_of(made(lab, recipe))
    assert sorted(row["image_id"] for row in taken) == sorted(row["image_id"] for row in new)  # not decoded anew
    told = {row["image_id"]: (row["parents"], row["parent_weights"]) for row in new}
    assert all((row["parents"], row["parent_weights"]) == told[row["image_id"]] for row in taken)
    assert all(row["identity"].startswith("synthetic/external/new-") for row in taken)
    # Whoever is erased takes along who descends from them.
    parent = taken[0]["parents"][0]
    listed = SuppressionList().add([parent], tmp_path).without(Manifest(root=str(first.path)).of_made_up()).rows()
    assert {row.identity for row in listed if row.parents} == {
        row["identity"] for row in new if parent not in row["parents"]
    }


@pytest.mark.parametrize("form", ["parquet", "webdataset", "folder"])
def test_what_is_exported_keeps_its_lineage(faces: Path, lab: Lab, tmp_path: Path, form: str) -> None:
    first = made(lab, tiny(faces))
    new = {row["image_id"]: row for row in rows_of(first) if row["identity"].startswith(manifest.NEW)}
    export(first.path, form, tmp_path / "out")
    source = {"kind": form, "root": str(tmp_path / "out")}
    theirs = {"images_per_existing": 0, "new_identities": 0, "external": {"source": source}}
    artifact = made(lab, tiny(faces, synthesize=theirs))
    taken = rows_of(artifact)
    assert {row["image_id"] for row in taken} == new.keys()
    for row in taken:
        exported = new[row["image_id"]]
        assert all(row[key] == exported[key] for key in ("parents", "parent_weights", "generator"))
        assert len(row["parent_weights"]) == len(row["parents"]) > 0
    # Images of train people, which it refuses, take nobody's place and are counted.
    assert report_of(artifact)["requested"]["external people"] == 3 == report_of(artifact)["made"]["external people"]
    assert removed(artifact)["external images that cannot be used"] == (12 + 9, 12)


def test_who_lent_the_generator_a_face_takes_its_people_along(faces: Path, tmp_path: Path) -> None:
    lab = Lab(tmp_path / "data" / "store")
    first = made(lab, tiny(faces))
    source = {"kind": "manifest", "root": str(first.path)}
    theirs = {"images_per_existing": 0, "new_identities": 0, "external": {"source": source}}
    second = made(lab, tiny(faces, prepare={"split": {"seed": 5}}, synthesize=theirs))  # by other train people
    assert {row["generator"] for row in rows_of(second)} == {first.record["inputs"]["generator"]["fingerprint"]}
    generator = lab.store.folder("train_gan", rows_of(second)[0]["generator"])
    targets = lineage._erased(lineage.Descendants({"nobody/at-all"}), list(lineage.folders_of(lab.store.root)))
    assert second.path not in [target.path for target in targets]
    record = json.loads((generator / "record.json").read_bytes())
    record["config"]["named"] = "nobody/at-all"
    (generator / "record.json").write_text(json.dumps(record))
    targets = lineage._erased(lineage.Descendants({"nobody/at-all"}), list(lineage.folders_of(lab.store.root)))
    assert second.path in [target.path for target in targets]


def test_they_are_forgotten_under_either_name(faces: Path, elsewhere: Path, tmp_path: Path) -> None:
    lab = Lab(tmp_path / "data" / "store")
    artifact = made(lab, with_external(faces, elsewhere))
    for name in ("folder/e1", "synthetic/external/folder/e1"):
        erasure = lineage.find({name}, tmp_path, [])
        assert artifact.path in [target.path for target in erasure.targets] and erasure.names == {name}
        without = SuppressionList().add(erasure.spelled, tmp_path / name.replace("/", "-"))
        recipe = with_external(faces, elsewhere)
        again = Lab(tmp_path / name.replace("/", "-"))
        with pytest.MonkeyPatch.context() as patch:
            for what, bound in (("calibrate", bounds()), ("copy_limit", 2.0)):
                patch.setattr(thresholds, what, lambda *_, bound=bound: bound)
            patch.setattr(thresholds, "between_strangers_and_train", lambda strangers, *_: strangers)
            patch.setattr(thresholds, "among_many", lambda bound, *_: bound)
            remaining = rows_of(again.make(pick(graph.build(recipe, without), "synthesize")))
        assert {row["identity"] for row in remaining} == {
            f"synthetic/external/folder/e{n}" for n in range(PEOPLE) if n != 1
        }


def test_a_source_of_photos_is_read_as_before(faces: Path, lab: Lab) -> None:
    artifact = made(lab, tiny(faces))
    plain = Manifest(root=str(artifact.path))
    assert not plain.made_up and plain.of_made_up().made_up and plain == plain.model_copy()
    for row in plain.rows():
        with pytest.raises(OSError, match="synthetic image"):
            row.read()
    folder = Folder(root=str(faces))
    assert folder.fingerprint() == folder.of_made_up().fingerprint()


def test_arms_may_live_on_them_alone(faces: Path, elsewhere: Path) -> None:
    arms = {"real": {"real": True}, "real+synthetic": {"real": False, "new": True}}
    own = {"images_per_existing": 0, "new_identities": 0}
    with pytest.raises(ValueError, match="synthesize makes none"):
        tiny(faces, synthesize=own, arms=arms)
    source = {"kind": "folder", "root": str(elsewhere)}
    assert tiny(faces, synthesize={**own, "external": {"source": source}}, arms=arms).synthesize.external is not None


def test_a_table_of_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,identity,source,parents\na.png,ada,synthetic,\nb.png,bo,synthetic,\n")
    source = Csv(root=str(tmp_path / "list.csv"))
    assert {row.identity for row in source.of_made_up().rows()} == {"csv/ada", "csv/bo"}
    assert {row.identity for row in source.rows()} == {"csv/?"}  # as photos they are none


def test_its_place_is_in_no_study(faces: Path, elsewhere: Path) -> None:
    source = {"kind": "folder", "root": str(elsewhere)}
    sets = {"synthesize.external": {"source": source}, "synthesize.new_identities": 0}
    study = {"splits": [0], "variants": {"ours": {}, "theirs": {"set": sets}}}
    shown = graph.build(tiny(faces, study=study))[-1].extra["recipe"]
    assert str(elsewhere) not in json.dumps(shown)
    assert shown["study"]["variants"]["theirs"]["set"]["synthesize.external"] == {"source": {"kind": "folder"}}
    theirs = VariantFindings("theirs", None, 0, (), {}, {}, {"real+synthetic": Counter()}, {}, 0.0)
    assert "all people of the external source" in schedule(shown, theirs, "real+synthetic")


def test_by_the_command_line(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(elsewhere.parent)
    sets = ["synthesize.external.source.kind=folder", f"synthesize.external.source.root={elsewhere.name}"]
    external = load("orl-quick", sets).synthesize.external
    assert external is not None and getattr(external.source, "root", None) == str(elsewhere)  # from wherever it is run
    with pytest.raises(ConfigError, match="external"):
        load("orl-quick", ["synthesize.external.identities=3"])  # of which source?


def test_weights_that_do_not_fit_the_parents_are_refused_and_an_older_manifest_has_none(
    faces: Path, lab: Lab, tmp_path: Path
) -> None:
    new = next(row for row in rows_of(made(lab, tiny(faces))) if row["identity"].startswith(manifest.NEW))
    bad = {**new, "parent_weights": [0.5] * (len(new["parents"]) + 1)}
    manifest.write(tmp_path, [new, bad], "synthesize", {})
    kept, refused = Manifest(root=str(tmp_path)).of_made_up().rows()
    assert kept.parent_weights == pytest.approx(new["parent_weights"]) and kept.parents == tuple(new["parents"])
    with pytest.raises(OSError, match="its parent_weights are not a number for each of its"):
        refused.read()
    part = next((tmp_path / "manifest").glob("part-*.parquet"))
    table = pq.read_table(part)
    older = {**table.schema.metadata, b"schema_version": b"1.0"}
    pq.write_table(table.drop_columns(["parent_weights"]).replace_schema_metadata(older), part)
    assert [row.parent_weights for row in Manifest(root=str(tmp_path)).of_made_up().rows()] == [(), ()]
