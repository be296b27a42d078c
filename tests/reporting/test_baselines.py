"""Baselines in a report: their numbers, and the first sentence of a report whose arms all lose to one."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from facegan.metrics import intervals
from facegan.reporting import results, words
from facegan.reporting import runs as benchmark_runs
from facegan.reporting.summary import arms_table, sentence
from report_inputs import ReportInputs, read

BETTER, WORSE, SIMILAR = 0.3, 2.0, 0.74


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportInputs, Path]:
    world = ReportInputs(
        tmp_path_factory.mktemp("lost"), gain=0.3, spread={"classical": BETTER, "classical+synthetic": SIMILAR}
    )
    return world, world.report()


def test_the_first_sentence_says_that_every_arm_loses(lost: tuple[ReportInputs, Path]) -> None:
    _, out = lost
    answer = read(out)
    beaten, classical = answer["beaten_by"], answer["baselines"]["classical"]["eer"]
    best = min(answer["arms"], key=lambda arm: answer["arms"][arm]["eer"]["mean"])
    assert (beaten["baseline"], beaten["best_arm"], beaten["value"]) == ("classical", best, classical["value"])
    assert beaten["delta"] == pytest.approx(answer["arms"][best]["eer"]["mean"] - classical["value"])
    assert beaten["delta"] > 0
    text = words.beaten_by(beaten)
    assert text.startswith("Every arm is worse than the baseline “classical”") and f"“{best}”" in text
    plain = text.replace("\u00a0", " ")
    assert sentence(out).startswith(plain) and answer["comparison"]["verdict"] in sentence(out)
    assert f'<p class="sentence">{text}' in (out / "index.html").read_text()
    lines = (out / "report.md").read_text().splitlines()
    assert lines[0].endswith("but every arm is worse than “classical”") and lines[2].startswith(f"**{plain[:40]}")
    assert 'class="verdict none"' in (out / "index.html").read_text()


def test_no_such_sentence_where_one_arm_is_better(tmp_path: Path) -> None:
    world = ReportInputs(tmp_path, gain=0.3, spread={"classical": WORSE, "classical+synthetic": BETTER})
    out = world.report()
    answer = read(out)
    assert answer["beaten_by"] is None, "what was fitted on synthetic rows too is no reason"
    assert "Every arm is worse" not in (out / "report.md").read_text() + (out / "index.html").read_text()
    assert set(answer["baselines"]) == {"classical", "classical+synthetic"}


def test_a_control_counts_where_it_is_the_baseline_of_the_comparison(lost: tuple[ReportInputs, Path]) -> None:
    world, _ = lost
    primary, recipe = next(m for m in world.numbers().measures if m.name == "eer"), copy.deepcopy(world.recipe)
    recipe["arms"]["real"]["set"] = {"kind": "warp"}
    primary.from_baselines["classical"]["real"] = replace(primary.from_baselines["classical"]["real"], delta=-0.01)
    assert results.beaten_by(recipe, primary) is None
    recipe["comparison"]["baseline"] = "another"
    assert results.beaten_by(recipe, primary) is not None


def test_whether_the_intervals_exclude_zero_is_said() -> None:
    value = {"baseline": "classical", "words": "which is no network", "fitted_on": "real", "metric": "eer",
             "value": 0.17, "best_arm": "b",
             "best_mean": 0.19, "delta": 0.02, "ci_low": -0.01, "ci_high": 0.05, "confidence": 0.95,
             "excludes_zero": False, "holds_zero": ["b"]}  # fmt: skip
    text = words.beaten_by(value)
    assert text.endswith("interval −0.010 to +0.050; the interval of “b” does not exclude zero).")
    assert "every arm excludes zero" in words.beaten_by({**value, "holds_zero": []})


def test_higher_is_better_turns_the_sign(tmp_path: Path) -> None:
    world = ReportInputs(tmp_path, spread={"classical": BETTER}, comparison={"metric": "rank-1"})
    findings = world.numbers()
    primary = next(m for m in findings.measures if m.name == "rank-1")
    beaten = results.beaten_by(world.recipe, primary)
    assert beaten is not None and beaten["delta"] < 0
    assert results.beaten_by({**world.recipe, "baselines": {}}, primary) is None


def test_the_numbers_of_a_baseline(lost: tuple[ReportInputs, Path]) -> None:
    """Value from its benchmark, interval over people, differences from each arm's mean over seeds."""
    world, out = lost
    answer = read(out)
    assert "classical" not in answer["arms"]
    metrics = json.loads((world.inputs["benchmark:classical"] / "results.json").read_text())["verification"]["metrics"]
    entry = answer["baselines"]["classical"]["eer"]
    assert entry["value"] == next(m["value"] for m in metrics if m["name"] == "eer")
    assert entry["ci_low"] <= entry["value"] <= entry["ci_high"]
    assert set(entry["differences"]) == set(world.recipe["arms"])
    for arm, difference in entry["differences"].items():
        assert difference["delta"] == pytest.approx(answer["arms"][arm]["eer"]["mean"] - entry["value"])
        assert difference["ci_low"] < difference["delta"] < difference["ci_high"]
    rows = [row for row in pq.read_table(out / "results.parquet").to_pylist() if row["arm"] == "classical"]
    assert {row["seed"] for row in rows} == {None}
    assert next(row["value"] for row in rows if row["metric"] == "eer") == entry["value"]


def test_the_spread_of_the_arms_seeds_counts_and_the_baseline_has_none(lost: tuple[ReportInputs, Path]) -> None:
    world, _ = lost
    weights = intervals.person_weights(10, 300, 0)
    specs = world.recipe["benchmark"]["benchmarks"]
    benchmarks = [results.PROTOCOLS.get(spec["kind"]).model_validate(spec) for spec in specs]

    def stack(arm: str, seeds: list[Any]) -> tuple[np.ndarray, np.ndarray]:
        runs = [benchmark_runs.load(world.inputs, arm, seed) for seed in seeds]
        values = [results.replicates(benchmarks, run, weights)["eer"] for run in runs]
        points = [benchmark_runs.value(run, "verification", "eer") for run in runs]
        return np.stack(values), np.asarray(points, np.float64)

    arm, baseline = stack("real", [0, 1, 2]), stack("classical", [None])
    measure = next(m for m in world.numbers().measures if m.name == "eer")
    found = measure.from_baselines["classical"]["real"]
    # By hand: seeds' variance is the arm's alone, people's that of the mean difference less the interaction.
    n, apart = 10, arm[0] - baseline[0]
    complete = apart[:, np.isfinite(apart).all(axis=0)]
    of_seeds = arm[1].var(ddof=1) / 3
    centred = complete - complete.mean(axis=0)
    centred -= centred.mean(axis=1, keepdims=True)
    crossed = (centred**2).sum() / ((complete.shape[1] - 1) * 2)
    of_people = max(0.0, n / (n - 1) * (complete.mean(axis=0).var(ddof=1) - crossed / 3))
    t_seeds, t_people = 4.302653, 2.262157  # 97.5 % quantiles of t with 2 and 9 degrees of freedom
    half_width = np.sqrt(t_seeds**2 * of_seeds + t_people**2 * of_people)
    assert found.low is not None and found.high is not None
    assert (found.high - found.low) / 2 == pytest.approx(half_width, rel=1e-4)


def test_they_stand_apart_on_the_page_and_in_the_printed_table(lost: tuple[ReportInputs, Path]) -> None:
    world, out = lost
    text = (out / "report.md").read_text()
    assert "| baseline classical | baseline classical+synthetic |" in text
    assert "hog 100 components, shrinkage 0.3 | 0.125 |" in text and "(7 images left out)" in text
    rows = text[text.index("| baseline | value |") :].splitlines()
    assert rows[2].startswith("| classical | 0.") and rows[2].count(" worse |") >= 1
    header, cells = arms_table(read(out))
    assert header[-2:] == ["baseline classical", "baseline classical+synthetic"]
    value = read(out)["baselines"]["classical"]["eer"]["value"]
    assert cells[0][0] == "eer" and cells[0][-2].startswith(f"{value:.3f} (")
    assert (out / "figures" / "arms.png").stat().st_size > 10_000
    html = (out / "index.html").read_text()
    assert "Below the line: baselines." in html and html.count("fitted and not trained") >= 1
    every_seed = html[html.index("<summary>Every seed") :].partition("</table>")[0]
    body = every_seed[every_seed.index("<tbody>") :]
    assert body.count("<td>") == body.count("<tr>") * len(world.recipe["arms"]), "a baseline has no seeds"
