"""Control arms on the page: marked, the best of them compared, shown with faces, and never a verdict."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facegan.metrics import intervals
from facegan.reporting import controls, runs
from report_inputs import EVIL, ReportInputs, read

ARMS = {
    "real": {},
    "real+synthetic": {"new": True},
    "warped": {"set": {"kind": "warp"}},
    "texture": {"set": {"kind": "texture"}},
}


@pytest.fixture(scope="module")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportInputs, Path]:
    world = ReportInputs(tmp_path_factory.mktemp("controls"), gain=0.35, arms=ARMS)
    return world, world.report()


def test_the_best_control_is_compared_with_the_arm_that_is_asked_about(controlled: tuple[ReportInputs, Path]) -> None:
    world, out = controlled
    answer = read(out)
    best, of = answer["best_control"], answer["arms"]
    assert best["of"] == {name: of[name]["eer"]["mean"] for name in ("warped", "texture")}
    assert best["mean"] == min(best["of"].values()) == best["of"][best["arm"]]
    assert best["kind"] == {"warped": "warp", "texture": "texture"}[best["arm"]]
    assert best["compared"] == "real+synthetic" and best["metric"] == "eer" and "verdict" not in best
    assert best["delta"] == pytest.approx(of["real+synthetic"]["eer"]["mean"] - best["mean"])
    # The interval, from the benchmarks' own replicates.
    findings, stacks = world.numbers(), []
    assert next(m for m in findings.measures if m.name == "eer").controls.keys() == {"warped", "texture"}
    from facegan.evaluation.protocols import PROTOCOLS
    from facegan.reporting.results import replicates

    specs = world.recipe["benchmark"]["benchmarks"]
    benchmarks = [PROTOCOLS.get(spec["kind"]).model_validate(spec) for spec in specs]
    for arm in ("real+synthetic", best["arm"]):
        of_seeds = [runs.load(world.inputs, arm, seed) for seed in world.recipe["seeds"]]
        weights = intervals.person_weights(len(of_seeds[0].names), 300, 0)
        stacks.append(np.stack([replicates(benchmarks, run, weights)["eer"] for run in of_seeds]))
    points = [np.asarray(of[arm]["eer"]["per_seed"]) for arm in ("real+synthetic", best["arm"])]
    expected = intervals.paired_difference(*stacks, *points, len(world.tested), 0.95)
    assert (best["ci_low"], best["ci_high"]) == (pytest.approx(expected.ci_low), pytest.approx(expected.ci_high))


def test_controls_are_marked_and_shown(controlled: tuple[ReportInputs, Path]) -> None:
    world, out = controlled
    html, markdown = ((out / name).read_text() for name in ("index.html", "report.md"))
    best = read(out)["best_control"]
    for text in (html, markdown):
        assert f"The best cheap alternative of 2, the control “{best['arm']}”" in text.replace("\\", "")
        assert "warped (control)" in text and "texture (control)" in text and "real (control)" not in text
        assert "For orientation: another comparison was named before the run." in text
        assert "median 0.75, 5 to 95 % 0.50 to 0.88" in text and "no gate judges it" in text
    for name in ("warped", "texture"):
        picture = Image.open(io.BytesIO((out / "figures" / f"faces-control-{name}.png").read_bytes()))
        assert picture.height > 3 * 64 and f"faces-control-{name}.png" in markdown
    people = controls.galleries(world.recipe, world.inputs, 8, 3)[0]["people"]
    assert len(people) == 3 and all([row.kind for row in person.rows] == ["parent", "synthetic"] for person in people)
    assert EVIL not in html
    hidden = world.report("hidden", show_faces=False)
    assert not list((hidden / "figures").glob("faces-*")) and "(control)" in (hidden / "report.md").read_text()


def test_without_controls_nothing_is_said_of_them(tmp_path: Path) -> None:
    out = ReportInputs(tmp_path, gain=0.35).report()
    assert "best_control" not in read(out)
    assert "control" not in (out / "report.md").read_text().split("## Config")[0].replace("uncontrolled", "").lower()
