"""Domains in a report: the heat map, the table of gaps, and the numbers beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from facegan.evaluation.protocols import PROTOCOLS
from facegan.reporting import runs as benchmark_runs
from report_inputs import ReportInputs, read


def test_a_report_shows_domains(tmp_path: Path) -> None:
    world = ReportInputs(tmp_path, spread={"classical": 0.9})
    spec = {"kind": "domains", "conditions": {"poor": "degraded"}, "manifests": {"other": "x"}, "least_people": 3}
    benchmark = PROTOCOLS.get("domains").model_validate(spec)
    world.recipe["benchmark"]["benchmarks"].append(benchmark.identifying())
    for name, folder in world.inputs.items():
        if name.startswith("benchmark:"):
            _, arm, *seed = name.split(":")
            judged = benchmark_runs.load(world.inputs, arm, *map(int, seed))
            poor = judged.faces.embedding + np.random.default_rng(3).normal(size=judged.faces.embedding.shape)
            few = {"embedding": judged.faces.embedding[:6], "person": np.arange(6) // 3, "home": np.full(2, -1)}
            found = {"poor/embedding": poor.astype(np.float32), "poor/differing": np.asarray([50])}
            found |= {f"other/{part}": values for part, values in few.items()}
            found |= {"threshold": np.asarray([0.7]), "other/left_out": np.asarray([4, 0])}
            save_file(found, folder / "probe-domains.safetensors")
            judged = benchmark_runs.load(world.inputs, arm, *map(int, seed))
            metrics = [vars(m) for m in benchmark.run(judged.faces).metrics]
            (folder / "results.json").write_text(
                json.dumps({**judged.results, "domains": {"metrics": metrics, "curves": {}}})
            )
    out = world.report()
    page, markdown = ((out / name).read_text() for name in ("index.html", "report.md"))
    assert (out / "figures" / "domains.png").is_file() and markdown.count("figures/domains.png") == 1
    assert page.count("Across domains (domains)") == 1
    found_gap = read(out)["arms"]["real"]["domains/gap@domain=poor"]
    assert 0 < found_gap["ci_low"] < found_gap["mean"] < found_gap["ci_high"]
    line = next(line for line in markdown.splitlines() if line.startswith("| real | ") and "gap" in line)
    assert f"gap +{found_gap['mean']:.3f} (+{found_gap['ci_low']:.3f} to +{found_gap['ci_high']:.3f})" in line
    note = next(line for line in markdown.splitlines() if line.startswith("- other: "))
    assert "too few to tell: 2 people" in note and "4 people left out" in note and "too few to tell: 2 people" in page
    assert any(line.startswith("| classical | ") and "gap" in line for line in markdown.splitlines())
    rows = {m.name for m in world.numbers().measures}
    assert {"domains/fmr@domain=home", "domains/fnmr@domain=other"} <= rows


def test_a_gap_may_be_negative() -> None:
    from facegan.evaluation.protocols import bounds

    assert bounds("own/gap@domain=grey") == (-1, 1) and bounds("own/eer@domain=grey") == (0, 1)
