"""An attack in a report: the curves, the medians with their intervals, and a baseline without a gradient."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from facegan.evaluation.protocols import PROTOCOLS
from facegan.reporting import runs as benchmark_runs
from report_inputs import ReportInputs, read


def test_a_report_shows_an_attack(tmp_path: Path) -> None:
    world = ReportInputs(tmp_path, spread={"classical": 0.5})
    benchmark = PROTOCOLS.get("attack")()
    world.recipe["benchmark"]["benchmarks"].append(benchmark.identifying())
    median = {"real": 0.7, "synthetic": 1.5}
    for name, folder in world.inputs.items():
        if not name.startswith("benchmark:"):
            continue
        _, arm, *seed = name.split(":")
        faces = benchmark_runs.load(world.inputs, arm, *map(int, seed)).faces
        if seed:
            i, j = np.triu_indices(len(faces.person), k=1)
            smallest = median.get(arm, 1.0) * np.random.default_rng(0).lognormal(0, 0.3, len(i))
            edges = np.asarray([0.5, 1, 2, 4, 8, np.inf])
            fallen_at = edges[np.searchsorted(edges, smallest)]
            found = {"first": i, "second": j, "smallest": smallest, "fallen_at": fallen_at}
            save_file(found, folder / "probe-attack.safetensors")
        run = benchmark_runs.load(world.inputs, arm, *map(int, seed))
        metrics = [vars(m) for m in benchmark.run(run.faces).metrics]
        (folder / "results.json").write_text(json.dumps({**run.results, "attack": {"metrics": metrics, "curves": {}}}))
    out = world.report()
    assert (out / "figures" / "attack.png").is_file() and "figures/attack.png" in (out / "report.md").read_text()
    arms = read(out)["arms"]
    for arm, expected in median.items():
        found = arms[arm]["attack/dodging-median"]
        assert found["ci_low"] < found["mean"] < found["ci_high"] and abs(found["mean"] - expected) < 0.1 * expected
    assert arms["real"]["attack/dodging@eps=1"]["mean"] > arms["synthetic"]["attack/dodging@eps=1"]["mean"]
    baseline = read(out)["baselines"]["classical"]["attack/dodging-median"]
    assert baseline["value"] is None and baseline["ci_low"] is None
