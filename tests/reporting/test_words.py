"""The report's words: which arms might have trained longer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from facegan.recognition.starts import STARTS
from facegan.reporting import words
from facegan.reporting.study import words as study_words
from report_inputs import ReportInputs


def test_arms_that_have_not_learned_out_are_named(tmp_path: Path) -> None:
    world = ReportInputs(tmp_path, gain=0.35)
    comparison, seeds = {"baseline": "real", "arm": "real+synthetic"}, world.recipe["seeds"]
    for seed in seeds[1:]:  # all but one; the rest are best after 50 of 59 steps
        path = world.inputs[f"train_recognizer:real+synthetic:{seed}"] / "summary.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "best_step": 54}))
    folder, sentence = (
        world.report(),
        f"Perhaps not learned out: “real+synthetic” ({len(seeds) - 1} of {len(seeds)} seeds) did",
    )
    assert sentence in (folder / "report.md").read_text() and sentence in (folder / "index.html").read_text()

    def learning(evaluations: int = 6, **best: list[int]) -> str:
        rows = [{"arm": arm.replace("_", "+"), "best_step": b, "steps": 60} for arm, bs in best.items() for b in bs]
        return words.learning(rows, comparison, evaluations)

    assert learning(real=[50, 54, 60], real_synthetic=[10, 60, 54]) == ""  # one of three; 54 is nine tenths
    assert learning(other=[60, 60], real=[10]) == "" and learning(evaluations=1, real=[60]) == ""
    both = learning(real=[60], real_synthetic=[60, 10])
    assert "“real” (1 of 1 seed) and “real+synthetic” (1 of 2 seeds)" in both


@pytest.mark.parametrize("kind", sorted(STARTS.load()))
def test_what_arms_begin_with_is_said(kind: str) -> None:
    found = words.began({"train_recognizer": {"start": {"kind": kind}}})
    if kind == "random":
        assert found == words.began({"train_recognizer": {}}) == []
    else:
        [(_, text)] = found
        assert text.startswith(f"All arms begin with {STARTS.get(kind).words}.") and "photos of the test people" in text


def test_what_is_fitted_is_not_said_to_be_trained() -> None:
    options = {"start": {"kind": "dlib"}, "tune": "whitened"}
    assert [heading for heading, _ in words.began({"train_recognizer": options})][1:] == ["Fitted, not trained"]
    study = {"study": {"splits": [0, 1]}, "seeds": [0, 1, 2]}
    assert study_words.size({**study, "train_recognizer": options}) == "2 splits"
    assert study_words.size({**study, "train_recognizer": {}}) == "2 splits × 3 seeds"


def test_figures_of_own_people_are_put_in_words() -> None:
    assert words.phrase("own/rank-1") == "rank-1 identification rate of own"
    assert words.phrase("own/fnir@fpir=0.1").startswith("false-negative identification rate (at a false-positive")
    assert words.phrase("own/fnmr@val-fmr=0.01").endswith("gives validation people a false-match rate of 0.01) of own")
    assert words.phrase("view2/eer") == "equal error rate on the pairs of view2"
    assert "5 in 100 do not find the right one" in words.gloss("own/fnir@fpir=0.1", 0.05)
    assert "3 in 1000 tries of strangers pass" in words.gloss("own/fmr@val-fmr=0.01", 0.003)


def test_arms_that_kept_the_same_network_have_no_gain_that_could_have_been_shown(tmp_path: Path) -> None:
    world = ReportInputs(tmp_path)
    for seed in world.recipe["seeds"]:
        kept = world.inputs[f"benchmark:real:{seed}"]
        shutil.copytree(kept, world.inputs[f"benchmark:real+synthetic:{seed}"], dirs_exist_ok=True)
    text = (world.report() / "report.md").read_text()
    assert "+0.000 to +0.000" in text and words.ALIKE in text and "The smallest gain" not in text
    assert words.ALIKE not in (ReportInputs(tmp_path / "apart").report() / "report.md").read_text()
