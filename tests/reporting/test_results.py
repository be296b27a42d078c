"""The numbers of a report: values of the embeddings, verdicts, and what cannot be compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import roc_curve

from facegan.core.digests import digest
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.reporting import runs, words
from report_inputs import EACH, TEST, ReportInputs, read


@pytest.fixture(scope="module")
def gained(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportInputs, Path]:
    world = ReportInputs(tmp_path_factory.mktemp("gained"), gain=0.35)
    return world, world.report()


def sklearn_eer(embedding: np.ndarray, people: np.ndarray) -> float:
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    i, j = np.triu_indices(len(unit), 1)
    far, tar, _ = roc_curve(people[i] == people[j], (unit @ unit.T)[i, j], drop_intermediate=False)
    k = int(np.argmax(far >= 1 - tar))
    return float(max(min(far[k], 1 - tar[k - 1]), min(far[k - 1], 1 - tar[k - 1])))


def test_numbers_are_those_of_the_embeddings(gained: tuple[ReportInputs, Path]) -> None:
    world, out = gained
    answer = read(out)
    people = np.repeat(np.arange(TEST), EACH)
    assert answer["recipe"] == "fake" and list(answer["arms"]) == ["real", "real+synthetic", "synthetic"]
    eers = {}
    for arm in ("real", "real+synthetic"):
        folders = [world.inputs[f"benchmark:{arm}:{seed}"] for seed in (0, 1, 2)]
        eers[arm] = [sklearn_eer(load_file(f / "embeddings.safetensors")["embedding"], people) for f in folders]
        entry = answer["arms"][arm]["eer"]
        assert entry["per_seed"] == pytest.approx(eers[arm], abs=0.01)
        assert entry["mean"] == pytest.approx(np.mean(entry["per_seed"]))
        assert entry["ci_low"] < entry["mean"] < entry["ci_high"]
    comparison = answer["comparison"]
    assert comparison["delta"] == pytest.approx(np.mean(eers["real+synthetic"]) - np.mean(eers["real"]), abs=0.01)
    assert (comparison["n_seeds"], comparison["n_identities"]) == (3, TEST)
    assert (comparison["metric"], comparison["baseline"], comparison["arm"]) == (
        "eer",
        "real",
        "real+synthetic",
    )


def test_gain_loss_and_no_gain(gained: tuple[ReportInputs, Path], tmp_path: Path) -> None:
    comparison = read(gained[1])["comparison"]
    assert comparison["verdict"] == "gain" and comparison["ci_high"] < 0
    html = (gained[1] / "index.html").read_text()
    assert "Adding synthetic faces lowered the equal error rate" in html
    assert "Gain on this split: the synthetic faces helped" in html and ": gain on this split." in html
    assert "it speaks of these train people alone" in html
    worse = ReportInputs(tmp_path / "loss", gain=-0.35)
    findings = worse.numbers()
    assert findings.comparison["verdict"] == "loss" and findings.comparison["ci_low"] > 0
    assert "raised the equal error rate" in worse.sentence(findings)
    same = ReportInputs(tmp_path / "same", gain=0.0)
    findings = same.numbers()
    comparison = findings.comparison
    assert comparison["verdict"] == "no gain shown" and comparison["ci_low"] < 0 < comparison["ci_high"]
    assert comparison["reason"] and comparison["smallest_detectable"] > 0
    assert same.sentence(findings).endswith(": no gain shown.")


def test_what_was_not_named_is_exploratory_however_far_from_zero(gained: tuple[ReportInputs, Path]) -> None:
    findings = gained[0].numbers()
    verdicts = {(m.name, arm): d.verdict for m in findings.measures for arm, d in m.differences.items()}
    assert verdicts.pop(("eer", "real+synthetic")) == "gain" and set(verdicts.values()) == {"exploratory"}
    text = (gained[1] / "report.md").read_text()
    table = text[text.index("Difference from") : text.index("figures/det.png")].partition("![")[0]
    assert "better" not in table and table.count(" gain |") == 1 and " exploratory |" in table
    assert (gained[1] / "index.html").read_text().count('title="better">▲') == 1


def test_the_digest_of_the_test_people_is_of_people_and_photos(gained: tuple[ReportInputs, Path]) -> None:
    world, out = gained
    (found,) = read(out)["test_people"]
    rows = manifest.read(world.inputs["prepare"], ["identity", "image_id"], split="test").to_pylist()
    assert found == digest(sorted([row["identity"], row["image_id"]] for row in rows)) and len(rows) == TEST * EACH
    few = runs.test_digest(world.inputs["prepare"], tuple(world.tested[1:]))
    assert few == digest(sorted([r["identity"], r["image_id"]] for r in rows if r["identity"] != world.tested[0]))


def test_the_better_side_follows_the_metric(tmp_path: Path) -> None:
    findings = ReportInputs(tmp_path, gain=0.35, comparison={"metric": "rank-1"}).numbers()
    assert findings.comparison["verdict"] == "gain" and findings.comparison["ci_low"] > 0


def test_two_seeds_show_no_gain(tmp_path: Path) -> None:
    comparison = ReportInputs(tmp_path, seeds=(4, 5), gain=0.35).numbers().comparison
    assert comparison["verdict"] == "no gain shown" and comparison["n_seeds"] == 2
    assert "seed" in comparison["reason"] and comparison["reason"] in words.why(comparison)


def test_unresolvable_is_said_and_never_zero(gained: tuple[ReportInputs, Path]) -> None:
    out = gained[1]
    pairs = TEST * (TEST - 1) // 2 * EACH**2
    entry = read(out)["arms"]["real"]["tar@far=0.001"]
    note = f"not resolvable with {pairs} impostor pairs"
    assert entry["mean"] is None and entry["per_seed"] == [None] * 3 and entry["note"] == note
    assert note in (out / "index.html").read_text() and note in (out / "report.md").read_text()


def test_a_comparison_by_an_unresolvable_metric_is_no_gain(tmp_path: Path) -> None:
    world = ReportInputs(tmp_path, comparison={"metric": "tar@far=0.001"})
    findings = world.numbers()
    assert findings.comparison["delta"] is None and findings.comparison["verdict"] == "no gain shown"
    assert "not resolvable" in findings.comparison["reason"]
    assert "could not be judged" in world.sentence(findings)


def test_parquet_is_tidy(gained: tuple[ReportInputs, Path]) -> None:
    table = pq.read_table(gained[1] / "results.parquet")
    assert table.column_names == [
        "arm", "seed", "benchmark", "metric", "operating_point", "value", "ci_low", "ci_high",
        "n_genuine", "n_impostor", "n_identities",
    ]  # fmt: skip
    rows = table.to_pylist()
    keys = {(row["arm"], row["seed"], row["metric"]) for row in rows}
    assert len(keys) == len(rows)
    results = read(gained[1])["arms"]
    assert len(rows) == sum(len(entry["per_seed"]) for arm in results.values() for entry in arm.values())
    eer = next(row for row in rows if (row["arm"], row["seed"], row["metric"]) == ("real", 1, "eer"))
    assert eer["value"] == results["real"]["eer"]["per_seed"][1] and eer["ci_low"] < eer["value"] < eer["ci_high"]
    assert eer["n_identities"] == TEST


def test_metric_that_too_few_people_left_unmeasured(tmp_path: Path) -> None:
    ranks = {"kind": "identification", "ranks": [1, 500]}
    benchmark = {"benchmarks": [{"kind": "verification"}, ranks]}
    world = ReportInputs(tmp_path, comparison={"metric": "rank-500"}, benchmark=benchmark)
    with pytest.raises(UserError, match=r"'rank-500'(.|\n)*eer, tar@far=0.1"):
        world.numbers()


def test_other_test_images_are_refused(tmp_path: Path) -> None:
    world = ReportInputs(tmp_path)
    path = world.inputs["benchmark:synthetic:2"] / "rows.parquet"
    table = pq.read_table(path)
    ids = [f"{n + 1:064d}" for n in range(table.num_rows)]
    pq.write_table(table.set_column(0, "image_id", pa.array(ids)), path)
    with pytest.raises(UserError, match="other test images"):
        world.numbers()
