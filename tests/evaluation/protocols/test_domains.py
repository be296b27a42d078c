"""Domains: figures against pairs counted one by one, a planted domain, the overlap of sets, and bad domains."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from drawn import Lab, draw_face, pick, tiny
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.images import encode_png
from facegan.evaluation.embedded_faces import EmbeddedFaces, embed_faces
from facegan.evaluation.other_domains import overlapping
from facegan.evaluation.protocols import PROTOCOLS, Metric
from facegan.evaluation.protocols.domains import Domains
from facegan.metrics.intervals import person_weights
from facegan.metrics.verification import eer, pair_scores
from facegan.pipeline import graph
from facegan.recipe import load
from facegan.recipe.recipe import Recipe
from facegan.reporting import runs

EACH, PEOPLE = 4, 12


def embeddings(noise: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(PEOPLE, 16))
    rows = np.repeat(centres, EACH, axis=0)
    return (rows + noise * rng.normal(size=rows.shape)).astype(np.float32)


def faces(noise: float = 0.5, **probed: np.ndarray) -> EmbeddedFaces:
    names = np.repeat([f"d/p{n:02d}" for n in range(PEOPLE)], EACH)
    group = ["ab"[n % 2] for n in range(PEOPLE * EACH)]
    found = {"domains": {"threshold": np.asarray([0.6]), **{k.replace("__", "/"): v for k, v in probed.items()}}}
    return replace(embed_faces(embeddings(noise), names, group=group), probed=found)


def figures(config: Domains, judged: EmbeddedFaces) -> dict[str, Metric]:
    return {m.name.removeprefix("domains/"): m for m in config.run(judged).metrics}


def harder(noise: float = 2.0) -> EmbeddedFaces:
    return faces(poor__embedding=embeddings(noise, 1), poor__differing=np.asarray([PEOPLE * EACH]))


POOR = Domains.model_validate({"conditions": {"poor": "degraded"}})


def test_rates_are_those_of_pairs_counted_one_by_one() -> None:
    judged = harder()
    found = figures(POOR, judged)
    for domain, rows in (("home", judged.embedding), ("poor", judged.probed["domains"]["poor/embedding"])):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        accepted: dict[bool, list[bool]] = {True: [], False: []}
        for i, j in combinations(range(len(rows)), 2):
            accepted[bool(judged.person[i] == judged.person[j])].append(bool(unit[i] @ unit[j] >= 0.6))
        assert found[f"fnmr@domain={domain}"].value == pytest.approx(1 - np.mean(accepted[True]))
        assert found[f"fmr@domain={domain}"].value == pytest.approx(np.mean(accepted[False]))
        pairs = pair_scores(rows, judged.person)
        assert found[f"eer@domain={domain}"].value == pytest.approx(eer(pairs.score, pairs.genuine))
    gap = found["gap@domain=poor"]
    assert gap.value == pytest.approx(found["eer@domain=poor"].value - found["eer@domain=home"].value)
    assert (gap.n_identities, gap.n_genuine, gap.n_impostor) == (12, 72, 1056) and gap.note == ""
    assert found["fmr@domain=home"].operating_point == 0.01


def test_the_gap_is_paired_and_seen() -> None:
    judged = harder()
    drawn = POOR.replicates(judged, person_weights(PEOPLE, 400, 0))
    gap, out, home = (drawn[f"domains/{name}"] for name in ("gap@domain=poor", "eer@domain=poor", "eer@domain=home"))
    assert np.array_equal(gap, out - home, equal_nan=True) and np.nanquantile(gap, 0.025) > 0
    alike = replace(judged, probed={"domains": {**judged.probed["domains"], "poor/embedding": judged.embedding}})
    same = POOR.replicates(alike, person_weights(PEOPLE, 400, 0))["domains/gap@domain=poor"]
    assert np.all(same == 0), "the same draws on both sides"


def test_people_of_a_manifest_are_drawn_for_themselves_but_test_people() -> None:
    outside = {
        "other__embedding": embeddings(1.0, 2),
        "other__person": np.repeat(np.arange(PEOPLE), EACH),
        "other__left_out": np.asarray([3, 1]),
    }
    config = Domains.model_validate({"conditions": {}, "manifests": {"other": "nowhere"}})
    weights = person_weights(PEOPLE, 300, 0)
    apart = faces(**outside, other__home=np.full(PEOPLE, -1))
    both = faces(**outside, other__home=np.arange(PEOPLE))
    found = figures(config, both)["eer@domain=other"]
    assert found.note == (
        "3 people left out: they are train or val people of the run; 1 images gave no embedding and are left out; "
        "12 people are test people too"
    )
    assert figures(config, apart)["eer@domain=other"].value == found.value
    own, shared = (config.replicates(judged, weights)["domains/eer@domain=other"] for judged in (apart, both))
    pairs = pair_scores(embeddings(1.0, 2), outside["other__person"])
    from facegan.metrics.intervals import bootstrap_eer

    assert np.array_equal(shared, bootstrap_eer(pairs, weights), equal_nan=True)
    assert not np.array_equal(own, shared, equal_nan=True)
    assert np.array_equal(own, config.replicates(apart, weights)["domains/eer@domain=other"], equal_nan=True)


def test_values_of_a_column_are_domains(tmp_path: Path) -> None:
    config = Domains(conditions={}, by="group", home="a")
    found = figures(config, faces())
    only = faces().only(faces().group == "b")
    pairs = pair_scores(only.embedding, only.person)
    assert found["eer@domain=group b"].value == pytest.approx(eer(pairs.score, pairs.genuine))
    assert "eer@domain=group a" not in found and found["eer@domain=home"].n_genuine == PEOPLE
    whole = figures(Domains(conditions={}, by="group"), faces())
    assert {"eer@domain=group a", "gap@domain=group b"} <= whole.keys() and whole["eer@domain=home"].n_genuine == 72
    few = figures(Domains(conditions={}, by="group", least_people=13), faces())["eer@domain=group b"]
    assert few.value is None
    assert few.note == "too few to tell: 12 people, 12 of them with two photos, at least 13 are needed"
    one = replace(faces(), group=np.full(PEOPLE * EACH, "a", object))
    with pytest.raises(UserError, match="from 'group', which has the one value 'a'"):
        config.run(one)
    with pytest.raises(UserError, match=r"home of benchmark 'domains' is 'c', and 'group' has: a, b"):
        Domains(conditions={}, by="group", home="c").run(faces())
    table = tmp_path / "people.csv"
    table.write_text("identity,site\n" + "".join(f"p{n:02d},north\n" for n in range(PEOPLE)))
    with pytest.raises(UserError, match="from 'site', which has the one value 'north'"):
        Domains(by="site", file=str(table)).fingerprint()
    table.write_text("identity,site\n" + "".join(f"p{n:02d},{'ns'[n % 2]}\n" for n in range(PEOPLE)))
    sites = Domains(conditions={}, by="site", file=str(table), home="n", least_people=5)
    before = {name: metric.value for name, metric in figures(sites, faces()).items()}
    sites.save_files(tmp_path)
    table.unlink()
    kept = {name: metric.value for name, metric in figures(sites.reading_from(tmp_path), faces()).items()}
    assert kept == before and before["gap@domain=site s"] is not None
    table.write_text("identity,site\np00,north\n")
    with pytest.raises(UserError, match="has no column 'town'"):
        Domains(by="town", file=str(table)).fingerprint()
    with pytest.raises(UserError, match=r"from the column 'site', and the manifest has group and dataset alone"):
        Domains(by="site").fingerprint()


def test_what_cannot_be_told_says_why() -> None:
    plain = replace(faces(), probed={})
    found = figures(Domains(), plain)
    assert found["eer@domain=home"].value is not None and found["fmr@domain=home"].value is None
    assert found["fmr@domain=home"].note == "only a run can tell: its val people set the threshold"
    unresolved = figures(Domains(), replace(faces(), probed={"domains": {}}))["fmr@domain=home"]
    assert unresolved.note.startswith("val people of home cannot set the threshold of FMR 0.01")
    assert found["eer@domain=grey"].note == "only a run can tell: photos of this domain are given to its recognizers"
    assert set(Domains().names()) == {f"domains/{name}" for name in found}
    easy = figures(POOR, replace(harder(), embedding=embeddings(0.0)))["fnmr@domain=home"]
    assert easy.value == 0 and "no error: below 0.25 by the rule of three over 12 people" in easy.note


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"conditions": {"home": "grey"}}, "two domains would be called 'home'"),
        ({"conditions": {"x": "grey"}, "manifests": {"x": "there"}}, "two domains would be called 'x'"),
        ({"conditions": {}}, "no domain beside home"),
        ({"home": "a"}, "name it in `by`"),
    ],
)
def test_options_that_make_no_domains_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Domains.model_validate(options)


def row(identity: str, image_id: str, source_sha256: str | None = None) -> dict[str, Any]:
    return {"identity": identity, "image_id": image_id, "source_sha256": source_sha256}


def test_who_is_in_two_sets_is_found() -> None:
    known = [row("lfw/Ann_Lee", "1", "f1"), row("orl/s1", "2"), row("orl/s2", "3", "f3")]
    others = [
        row("cfp/Lee, Ann", "9"),  # the same name, spelled otherwise
        row("yale/s1", "8"),  # a number of another data set
        row("orl/s1", "7"),  # the same person
        row("yale/s9", "2"),  # the same photo
        row("yale/s8", "6", "f3"),  # made of the same file
        row("yale/s8", "5"),
        row("yale/Ann Leeds", "4"),
    ]
    assert overlapping(others, known) == {"cfp/Lee, Ann", "orl/s1", "yale/s9", "yale/s8"}


# In a run.


def write_manifest(folder: Path, people: dict[str, int], shots: int = 3) -> Path:
    rows = [
        manifest.row(
            encode_png(draw_face(number, shot + 20, 40, 40)),
            identity=name, source="real", dataset=name.split("/")[0], split="unassigned", height=40, width=40,
        )
        for name, number in people.items() for shot in range(shots)
    ]  # fmt: skip
    manifest.write(folder, rows, "import", {})
    return folder


def with_domains(faces: Path, **options: Any) -> Recipe:
    spec = {"kind": "domains", "fmr": 0.4, "least_people": 2, **options}
    return tiny(faces, train_recognizer={"steps": 1}, benchmark={"benchmarks": [{"kind": "verification"}, spec]})


def test_a_run_judges_other_photos(faces: Path, lab: Lab, tmp_path: Path) -> None:
    prepared = lab.stage(tiny(faces), "prepare").path
    split = manifest.read(prepared, ["identity", "split"]).to_pylist()
    val, test = (next(r["identity"] for r in split if r["split"] == side) for side in ("val", "test"))
    people = {val: 50, test: 51, "other/Ann": 52, "other/Bo": 53}
    other = write_manifest(tmp_path / "other", people)
    recipe = with_domains(faces, manifests={"other": str(other)})
    node = pick(graph.build(recipe), "benchmark", "real", 0)
    artifact = lab.make(node)
    assert "probe-domains.safetensors" in artifact.record["outputs"]
    results = json.loads((artifact.path / "results.json").read_text())
    found = {m["name"].removeprefix("domains/"): m for m in results["domains"]["metrics"]}
    assert found["eer@domain=home"]["value"] == results["verification"]["metrics"][0]["value"]
    assert found["gap@domain=grey"]["value"] == 0, "drawn faces are grey"
    assert found["eer@domain=grey"]["note"] == "the photos are so already: the condition changes none of them"
    outside = found["eer@domain=other"]
    assert (outside["n_identities"], outside["n_genuine"]) == (3, 9)
    assert outside["note"] == (
        "1 people left out: they are train or val people of the run; 1 people are test people too"
    )
    assert found["fmr@domain=other"]["value"] is not None and found["eer@domain=side_light"]["value"] is not None
    run = runs.load({"benchmark:real:0": artifact.path}, "real", 0)
    spec = recipe.benchmark.benchmarks[1].identifying()
    assert spec["manifests"] == {"other": ""}
    again = {m.name: m.value for m in PROTOCOLS.get("domains").model_validate(spec).run(run.faces).metrics}
    assert again == {m["name"]: m["value"] for m in results["domains"]["metrics"]}
    moved = with_domains(faces, manifests={"other": str(other.rename(tmp_path / "moved"))})
    assert pick(graph.build(moved), "benchmark", "real", 0).key == node.key, "hashed by content"
    write_manifest(tmp_path / "moved", {**people, "other/Cy": 54})
    assert pick(graph.build(moved), "benchmark", "real", 0).key != node.key


def test_a_manifest_of_few_people_is_refused_before_anything_runs(faces: Path, tmp_path: Path) -> None:
    other = write_manifest(tmp_path / "other", {"x/a": 1, "x/b": 2}, shots=1)
    with pytest.raises(UserError, match="has 2 photos of 2 real people, 0 of them with two photos; it takes 2"):
        graph.build(with_domains(faces, manifests={"other": str(other)}))
    with pytest.raises(UserError, match="no manifest in"):
        graph.build(with_domains(faces, manifests={"other": str(tmp_path / "nothing")}))


def test_paths_of_manifests_are_made_absolute(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    spec = "[{kind: verification}, {kind: domains, manifests: {other: here}}]"
    recipe = load.load("orl-tiny", [f"benchmark.benchmarks={spec}"])
    domains = load.resolved(recipe).benchmark.benchmarks[1]
    assert isinstance(domains, Domains) and domains.manifests == {"other": str(tmp_path / "here")}


def test_mirrors_and_templates_are_refused_with_it() -> None:
    from facegan.evaluation.options import Benchmark

    with pytest.raises(ValidationError, match="'domains' works on single photos, and flip is set"):
        Benchmark.model_validate({"benchmarks": ["domains"], "flip": True})
