"""Groups in a report: bars and intervals of each arm, and the change between arms."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from facegan.evaluation.protocols import PROTOCOLS
from facegan.reporting import composition
from facegan.reporting import runs as benchmark_runs
from report_inputs import ReportInputs, read


def test_a_report_shows_groups(tmp_path: Path) -> None:
    world = ReportInputs(tmp_path)
    names = sorted(benchmark_runs.load(world.inputs, "real", 0).names)
    table = tmp_path / "sites.csv"
    sites = [(name, "ab"[n % 2]) for n, name in enumerate(names)] + [("orl/s1", "a"), ("s2", "b"), ("orl/s3", "b")]
    table.write_text("identity,site\n" + "".join(f"{name},{site}\n" for name, site in sites))
    spec = {"kind": "groups", "name": "site", "by": "site", "file": str(table), "threshold": 0.6, "least_people": 3}
    benchmark = PROTOCOLS.get("groups").model_validate(spec)
    world.recipe["benchmark"]["benchmarks"].append(benchmark.identifying())
    for name, folder in world.inputs.items():
        if name.startswith("benchmark:"):
            benchmark.save_files(folder)
            _, arm, *seed = name.split(":")
            run = benchmark_runs.load(world.inputs, arm, *map(int, seed))
            metrics = [vars(m) for m in benchmark.run(run.faces).metrics]
            results = {**run.results, "site": {"metrics": metrics, "curves": {}}}
            (folder / "results.json").write_text(json.dumps(results))
    table.unlink()
    out = world.report()
    assert (out / "figures" / "site.png").is_file() and "figures/site.png" in (out / "report.md").read_text()
    # Six train people, one of a and two of b; new people have two parents each, one of a and one whom no row names.
    markdown = (out / "report.md").read_text()
    assert "made of (site)" in markdown and "parents of the 36 images of new people." in markdown
    for line in ("| a | 16.7\xa0% | 16.7\xa0% | 50\xa0% |", "| b | 33.3\xa0% | 33.3\xa0% | 0\xa0% |"):
        assert line in markdown
    assert "made of (site)" in (out / "index.html").read_text()
    assert "| in no group | 50\xa0% | 50\xa0% | 50\xa0% |" in markdown
    (shares,) = json.loads((out / "card.json").read_text())["groups"]
    by_group = {row["group"]: (row["people"], row["photos"], row["parents"]) for row in shares["rows"]}
    assert by_group == {name: pytest.approx(share) for name, share in (
        ("a", (1 / 6, 1 / 6, 0.5)), ("b", (1 / 3, 1 / 3, 0)), ("in no group", (0.5, 0.5, 0.5)),
    )} and (shares["label"], shares["new"], shares["unknown"]) == ("site", 36, 0)  # fmt: skip
    found = read(out)["arms"]["real"]["site/fnmr:a"]
    assert found["ci_low"] < found["mean"] < found["ci_high"]
    ratio = read(out)["arms"]["real"]["site/fnmr-ratio"]
    assert ratio["mean"] >= ratio["ci_low"] >= 1 and ratio["ci_high"] > ratio["mean"]
    rows = pq.read_table(out / "results.parquet").to_pylist()
    assert any(row["metric"] == "site/garbe" and row["benchmark"] == "site" for row in rows)


def test_a_table_of_test_people_alone_says_nothing_of_the_set(tmp_path: Path) -> None:
    world = ReportInputs(tmp_path)
    table = tmp_path / "sites.csv"
    table.write_text("identity,site\n" + "".join(f"{name},{'ab'[n % 2]}\n" for n, name in enumerate(world.tested)))
    spec = {"kind": "groups", "name": "site", "by": "site", "file": str(table)}
    world.recipe["benchmark"]["benchmarks"].append(spec)
    (found,) = composition.collect(world.recipe, world.inputs)
    assert found == {"label": "site", "rows": [], "new": 0, "unknown": 0.0}
    world.recipe["benchmark"]["benchmarks"] = [{"kind": "groups"}]  # by light, of photos
    assert composition.collect(world.recipe, world.inputs) == []
