"""audit: a clean set passes, planted leaks stop the run, and what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image
from scipy.linalg import eigh

from drawn import RUNTIME, Lab, draw_face, draw_folder, pick, tiny
from facegan.core.errors import UserError
from facegan.core.types import Embed
from facegan.data import manifest
from facegan.data.dataset import ManifestImages
from facegan.data.images import encode_png
from facegan.evaluation.judges import JudgeConfig, judges_half
from facegan.evaluation.options import Audit
from facegan.evaluation.set_card import SETS
from facegan.evaluation.whitening_probe import SETS as SETS_PROBED
from facegan.generation.options import TrainGan
from facegan.metrics.planted import KINDS, REDRAWN
from facegan.metrics.verification import unit_rows
from facegan.pipeline import graph
from facegan.recipe.recipe import Recipe
from facegan.reporting.audit import collect
from facegan.runtime.context import Context
from facegan.stages import audit

PEOPLE, SHOTS = 20, 5
STRANGERS = (337, 301, 318, 322, 328, 331, 332, 316, 345, 349)  # who are like no train person
Rows = list[dict[str, Any]]


def shot(person: int, number: int) -> np.ndarray:
    """A drawn face (32, 32, 1) uint8."""
    face = Image.fromarray(draw_face(person, number, 48, 48)).resize((32, 32), Image.Resampling.LANCZOS)
    return np.asarray(face)[..., None]


@cache
def fisherfaces() -> tuple[np.ndarray, np.ndarray]:
    """Mean face (1024,) and axes (1024, 12) that tell 300 other drawn people apart (Belhumeur et al. 1997)."""
    people, shots, n_axes = 300, 6, 200
    faces = np.stack([shot(1000 + p, n) for p in range(people) for n in range(shots)]).reshape(people * shots, -1) / 255
    mean = faces.mean(0)
    axes = np.linalg.svd(faces - mean, full_matrices=False)[2][:n_axes].T
    codes = ((faces - mean) @ axes).reshape(people, shots, n_axes)
    within = (codes - codes.mean(1, keepdims=True)).reshape(-1, n_axes)
    spread = within.T @ within / len(within) + 1e-3 * codes.reshape(-1, n_axes).var(0).mean() * np.eye(n_axes)
    return mean, axes @ eigh(np.cov(codes.mean(1).T), spread)[1][:, :-13:-1]


class Fisher(JudgeConfig):
    """A judge that knows drawn faces, and none of those in the test."""

    kind: Literal["fisher"] = "fisher"

    def note(self) -> str:
        return "Fisherfaces of other people"

    def load(self, recognizer: Path | None, device: str) -> Embed:
        mean, axes = fisherfaces()
        return lambda pixels: unit_rows(((pixels.reshape(len(pixels), -1) / 255 - mean) @ axes).astype(np.float32))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Lab, dict[str, Path]]:
    """Drawn people, prepared."""
    root = tmp_path_factory.mktemp("audit")
    recipe = tiny(draw_folder(root / "faces", PEOPLE, SHOTS))
    lab = Lab(root / "store")
    return recipe, lab, {"manifest": lab.stage(recipe, "prepare").path}


def row(pixels: np.ndarray, identity: str) -> dict[str, Any]:
    columns = {"source": "synthetic", "generator": "f", "latent": "{}", "seed": 1, "parents": []}
    return manifest.row(
        encode_png(pixels), identity=identity, dataset="d", split="train", height=32, width=32, **columns
    )


def clean(photos: ManifestImages) -> Rows:
    """New shots of the train people, and people whom nobody has seen."""
    names = sorted(set(photos.identity))
    old = [row(shot(int(name[-2:]), 50 + n), name) for name in names for n in range(4)]
    new = [row(shot(person, n), f"synthetic/new-{p:06d}") for p, person in enumerate(STRANGERS) for n in range(4)]
    return old + new


@pytest.fixture(autouse=True)
def kinds_of_small_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """All kinds but one: JPEG takes from a drawn face of 32 px what tells it from others."""
    monkeypatch.delitem(KINDS, "JPEG from quality 40")
    monkeypatch.setattr("facegan.metrics.planted.MOST", 12)  # photos of each kind: fewer are quicker


def run_audit(inputs: dict[str, Path], rows: Rows, out: Path, **options: Any) -> dict[str, Any]:
    """The gate as the stage writes it; raises what the stage raises."""
    manifest.write(out / "synthetic", rows, "synthesize", {})
    settings = Audit(max_false_alarm=0.05, **options).model_copy(update={"judge": Fisher()})
    audit.run(settings, {}, {**inputs, "synthetic": out / "synthetic"}, out, Context(RUNTIME))
    return dict(json.loads((out / "gate.json").read_text()))


def written_and_let_pass(out: Path) -> dict[str, Any]:
    """The gate that stopped a run, as it was written: where it is not enforced its faults are told, and no more."""
    gate = json.loads((out / "gate.json").read_text())
    told: list[str] = []
    audit.stop({**gate, "enforced": False}, out, Context(RUNTIME, lambda event: told.append(event.text)))
    assert gate["faults"] and sum("and is not enforced" in line for line in told) == len(gate["faults"])
    return dict(gate)


def test_a_clean_set_passes_and_is_described(ground: tuple[Recipe, Lab, dict[str, Path]], tmp_path: Path) -> None:
    _, _, inputs = ground
    photos = ManifestImages(inputs["manifest"], "train")
    gate = run_audit(inputs, clean(photos), tmp_path)
    assert gate["faults"] == [] and gate["copies"]["copies"] == 0 and gate["people"]["new"]["matched"] == 0
    assert set(gate["copies"]["power"]) == set(KINDS) and min(gate["copies"]["power"].values()) >= 0.95
    assert gate["copies"]["false_alarm"] <= 0.05 and gate["copies"]["unseen"] == []
    assert 0 <= gate["membership"]["person"]["auc"] <= 1 and gate["membership"]["others"] == PEOPLE // 4
    assert gate["people"]["power"] >= 0.5 and gate["people"]["null"]["people"] == PEOPLE // 4
    card = json.loads((tmp_path / "card.json").read_text())
    assert list(card["sets"]) == list(SETS)
    assert card["sets"]["existing"]["people"] == PEOPLE // 2 and card["sets"]["new"]["images"] == 40
    for figures in card["sets"].values():
        assert figures["spread"] > 0 and 0 <= figures["auc"] <= 1 and figures["kid unseen"] is not None
        assert 0 <= figures["eer"] <= 0.5 and 0 <= figures["coverage"] <= 1 and figures["distinguishable"] >= 1
    assert card["sets"]["new"]["diversity"] is None and 0 <= card["sets"]["existing"]["diversity"] <= 1
    assert card["sets"]["real val"]["spread"] == 1 and all(0 <= fit["eer"] < 0.5 for fit in card["probe"].values())
    counts = {name: (fit["people"], fit["images"]) for name, fit in card["probe"].items()}
    assert counts == {"real": (10, 50), "real and new": (20, 90), "new": (10, 40)}
    near = card["sets"]["existing"]["nearest person"], card["sets"]["new"]["nearest person"]
    assert near[0] > near[1]  # the one set is of the train people, the other is not
    first = (tmp_path / "gate.json").read_bytes(), (tmp_path / "card.json").read_bytes()
    run_audit(inputs, clean(photos), tmp_path)
    assert first == ((tmp_path / "gate.json").read_bytes(), (tmp_path / "card.json").read_bytes())


@pytest.mark.parametrize("kind", ["mirrored", "turned 2 to 10 degrees"])
def test_a_leaked_photo_stops_the_run(ground: tuple[Recipe, Lab, dict[str, Path]], tmp_path: Path, kind: str) -> None:
    """Under the name of its own person, and as an image of a new one."""
    _, _, inputs = ground
    photos = ManifestImages(inputs["manifest"], "train")
    leaks = KINDS[kind](photos.pixels[[7, 12]])
    leaked = {str(photos.identity[7]): leaks[0], "synthetic/new-000003": leaks[1]}
    with pytest.raises(UserError, match=r"leakage gate failed: .*2 of \d+ synthetic images are near-copies") as error:
        run_audit(inputs, [*clean(photos), *(row(leak, name) for name, leak in leaked.items())], tmp_path)
    assert all(str(tmp_path / name) in error.value.fix for name in ("gate.json", "copies.png"))
    closest = json.loads((tmp_path / "gate.json").read_text())["copies"]["closest"][:2]
    photos_found = {pair["identity"]: pair["photo"] for pair in closest}
    assert photos_found == dict(zip(leaked, photos.image_id[[7, 12]], strict=True))
    assert photos.image_id[7][:12] in str(error.value) or photos.image_id[12][:12] in str(error.value)
    assert Image.open(tmp_path / "copies.png").height > 2 * 64  # a line of images above a line of photos
    assert not (tmp_path / "people.png").exists()


def test_a_train_person_under_a_new_name_stops_the_run(
    ground: tuple[Recipe, Lab, dict[str, Path]], tmp_path: Path
) -> None:
    _, _, inputs = ground
    photos = ManifestImages(inputs["manifest"], "train")
    known = str(photos.identity[0])
    same = [row(shot(int(known[-2:]), 80 + n), "synthetic/new-000099") for n in range(4)]  # fresh photos
    with pytest.raises(UserError, match="1 of 11 new people match a train person") as error:
        run_audit(inputs, clean(photos) + same, tmp_path)
    assert f"synthetic/new-000099 with {known}" in str(error.value) and "audit.max_match_rate" in error.value.fix
    assert str(tmp_path / "people.png") in error.value.fix and (tmp_path / "people.png").is_file()
    gate = written_and_let_pass(tmp_path)
    assert gate["people"]["new"]["worst"][0]["train_person"] == known
    named, bare = (collect(inputs["manifest"], tmp_path / "synthetic", tmp_path, each).gate for each in (2, 0))
    assert known in str(named) and known not in str(bare) and "1 of 11" in str(bare)  # no face: no name
    assert run_audit(inputs, clean(photos) + same, tmp_path, max_match_rate=0.1)["faults"] == []


def test_a_kind_that_is_not_seen_is_no_pass(
    ground: tuple[Recipe, Lab, dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, inputs = ground
    rows = clean(ManifestImages(inputs["manifest"], "train"))
    monkeypatch.setitem(KINDS, "painted over", lambda pixels: np.full_like(pixels, 127))
    with pytest.raises(UserError, match=r"cannot tell, which is no pass: .*painted over \(0% found\)"):
        run_audit(inputs, rows, tmp_path)
    gate = written_and_let_pass(tmp_path)
    assert [fault["outcome"] for fault in gate["faults"]] == ["cannot tell"] and not (tmp_path / "copies.png").exists()
    assert collect(inputs["manifest"], tmp_path / "synthetic", tmp_path, 2).gate["verdict"].startswith("cannot tell")


def test_membership_may_be_bounded(ground: tuple[Recipe, Lab, dict[str, Path]], tmp_path: Path) -> None:
    _, _, inputs = ground
    rows = clean(ManifestImages(inputs["manifest"], "train"))[: 4 * PEOPLE // 2]  # of train people alone
    with pytest.raises(UserError, match=r"tells who was in it: AUC [01]\.\d+ for a person"):
        run_audit(inputs, rows, tmp_path, max_membership=0.51)


def test_the_generators_own_redrawing_is_planted(ground: tuple[Recipe, Lab, dict[str, Path]], tmp_path: Path) -> None:
    recipe, lab, inputs = ground
    changed = recipe.model_copy(update={"train_gan": TrainGan.model_validate({"gan": {"kind": "morphable"}})})
    generator = lab.stage(changed, "train_gan").path
    gate = run_audit({**inputs, "generator": generator}, clean(ManifestImages(inputs["manifest"], "train")), tmp_path,
                     enforce=False)  # fmt: skip
    assert 0 <= gate["copies"]["power"][REDRAWN] <= 1 and set(gate["copies"]["power"]) == {*KINDS, REDRAWN}


def test_only_new_or_only_existing_people(ground: tuple[Recipe, Lab, dict[str, Path]], tmp_path: Path) -> None:
    _, _, inputs = ground
    rows = clean(ManifestImages(inputs["manifest"], "train"))
    for number, new_only in enumerate((True, False)):
        chosen = [r for r in rows if r["identity"].startswith("synthetic/") == new_only]
        gate = run_audit(inputs, chosen, tmp_path / str(number), max_match_rate=1)
        assert gate["people"]["new"]["people"] == (10 if new_only else 0)
        card = json.loads((tmp_path / str(number) / "card.json").read_text())
        assert [card["probe"][name] is None for name in SETS_PROBED] == [False, not new_only, not new_only]
        assert ("auc" in card["sets"]["new"]) == new_only and ("auc" in card["sets"]["existing"]) != new_only


def test_the_report_waits_for_the_audit_and_no_arm_does(ground: tuple[Recipe, Lab, dict[str, Path]]) -> None:
    recipe, _, _ = ground
    nodes = graph.build(recipe)
    item, page = pick(nodes, "audit"), pick(nodes, "report")
    assert (
        item in page.needs.values()
        and item.needs["judge"].seed == 2000
        and item.needs["generator"].stage == "train_gan"
    )
    assert set(item.extra["redraw"]) == {"borrowed", "variation_noise", "batch_size"}
    assert not any(item in n.needs.values() for n in nodes if n.stage != "report")
    only = Recipe.model_validate(
        {**recipe.model_dump(), "arms": {"real": {}, "again": {}}, "comparison": {"arm": "again"}}
    )
    assert {n.stage for n in graph.build(only)} & {"audit", "synthesize"} == set()


def test_a_judge_may_learn_from_val_people(ground: tuple[Recipe, Lab, dict[str, Path]]) -> None:
    recipe, lab, inputs = ground
    changed = recipe.model_copy(update={"audit": Audit(judge={"kind": "recognizer", "people": "val"})})  # type: ignore[arg-type]
    learned = manifest.read(lab.stage(changed, "merge", "judge").path)["identity"].to_pylist()
    val = sorted(set(ManifestImages(inputs["manifest"], "val").identity))
    assert sorted(set(learned)) == judges_half(val) and 0 < len(set(learned)) < len(val)


def test_judges_that_are_not_there(tmp_path: Path) -> None:
    build: Callable[[dict[str, Any]], Any] = lambda spec: Audit(judge=spec).judge  # type: ignore[arg-type]  # noqa: E731
    with pytest.raises(UserError, match="is not there"):
        build({"kind": "onnx", "path": str(tmp_path / "none.onnx")}).fingerprint()
    with pytest.raises(ValueError, match="judge must be another"):
        Recipe.model_validate({"audit": {"judge": {"kind": "recognizer", "seed": 1000}}})
    with pytest.raises(ValueError, match="the recognizer that audits"):
        Recipe.model_validate({"arms": {"real": {}, "real+synthetic": {}, "judge": {}}})
