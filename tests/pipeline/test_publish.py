"""The report in reports/ and the answer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from facegan.pipeline import publish
from facegan.recipe.load import load
from facegan.reporting.summary import arms_table, sentence
from facegan.store.local import Artifact, Store
from facegan.store.workdir import open_store


def fake_report(store: Store, key: str, delta: float) -> Artifact:
    """A report stage's outputs, as far as the command looks at them."""
    folder = store.folder("report", key)
    (folder / "figures").mkdir(parents=True)
    arm = {"eer": {"per_seed": [0.1], "mean": 0.1, "ci_low": 0.05, "ci_high": 0.2}, "none": {"mean": None}}
    compared = {"metric": "eer", "baseline": "real", "arm": "synthetic", "delta": delta}
    results = {"recipe": "orl-tiny", "arms": {"real": arm}, "comparison": compared, "test_people": ["d" * 64]}
    files = {
        "index.html": "<html>",
        "report.md": "# Gain\n\n**It helped (a \\_lot\\_): gain.**\n",
        "figures/a.png": "png",
        "results.json": json.dumps(results),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    from facegan.core.digests import file_sha256

    outputs = {name: {"sha256": file_sha256(folder / name), "bytes": 1} for name in files}
    return Artifact("report", key, folder, "ran", 1.0, record={"outputs": outputs})


def test_the_report_is_handed_out_repaired_and_pointed_to(tmp_path: Path) -> None:
    recipe, store = load("orl-tiny"), open_store(tmp_path)
    ran: list[dict[str, Any]] = [{"stage": "report", "state": "ran"}]
    cached: list[dict[str, Any]] = [{"stage": "report", "state": "cached"}]
    first, second = fake_report(store, "a" * 64, 0.1), fake_report(store, "b" * 64, 0.2)
    page, result = publish.export(recipe, first, ran, tmp_path)
    latest = tmp_path / "reports" / "orl-tiny" / "latest"
    assert page == tmp_path / "reports" / "orl-tiny" / ("a" * 64) / "index.html"
    assert os.readlink(latest) == "a" * 64
    assert json.loads((latest / "results.json").read_text()) == result
    assert result["report"] == str(page)
    assert sentence(page.parent) == "It helped (a _lot_): gain."
    assert arms_table(result) == (["metric", "real"], [["eer", "0.100 (0.050 to 0.200)"]])

    publish.export(recipe, first, cached, tmp_path)  # a run that computed nothing keeps who ran what
    assert json.loads((latest / "results.json").read_text())["stages"] == ran
    page.write_text("changed")
    publish.export(recipe, first, cached, tmp_path)
    assert page.read_text() == "<html>"
    publish.export(recipe, second, ran, tmp_path)
    assert os.readlink(latest) == "b" * 64
    assert {p.name for p in latest.parent.iterdir()} == {"a" * 64, "b" * 64, "latest"}


def test_a_look_is_counted_once_and_stands_beside_the_report(tmp_path: Path) -> None:
    recipe, store = load("orl-tiny"), open_store(tmp_path)
    ran: list[dict[str, Any]] = [{"stage": "report", "state": "ran"}]
    cached: list[dict[str, Any]] = [{"stage": "report", "state": "cached"}]
    first, second = fake_report(store, "a" * 64, 0.1), fake_report(store, "b" * 64, 0.2)
    stage_bytes = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    numbers = []
    for report, stages in ((first, ran), (first, cached), (second, ran), (first, cached)):
        page, answer = publish.export(recipe, report, stages, tmp_path)
        numbers.append(answer["look"]["number"])
        assert json.loads((page.parent / "look.json").read_text())["number"] == numbers[-1]
    assert numbers == [1, 1, 2, 1]
    assert answer["look"]["text"] == "look 1 at these test people"
    _, answer = publish.export(recipe, second, cached, tmp_path)
    assert [e["fingerprint"] for e in answer["look"]["earlier"]] == ["a" * 64]
    assert answer["look"]["earlier"][0]["comparison"] == {"metric": "eer", "baseline": "real", "arm": "synthetic"}
    assert len((tmp_path / "data" / "looks.jsonl").read_text().splitlines()) == 2
    assert stage_bytes == {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}


def test_a_bucket_that_others_may_share_is_named(tmp_path: Path) -> None:
    recipe = load("orl-tiny", ["runtime.store=s3://bucket/faces"])
    results = {"test_people": ["d" * 64], "comparison": {"metric": "eer", "baseline": "real", "arm": "synthetic"}}
    look = publish._look(recipe, results, "a" * 64, tmp_path)
    assert look.number == 1 and "share s3://bucket/faces are not counted" in look.text
