"""What a run leaves for its user: the report in reports/ and the JSON answer."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from facegan.core.digests import file_sha256
from facegan.core.files import disk_error, replace_link, write_atomic
from facegan.pipeline.graph import Node, last_stage
from facegan.recipe.recipe import Recipe
from facegan.reporting.summary import RESULTS, read_results
from facegan.store import looks
from facegan.store.local import Artifact
from facegan.store.workdir import store_at


@dataclass(frozen=True)
class Finished:
    """A finished run: its JSON answer and, where it made a report, the report's page in reports/."""

    answer: dict[str, Any]
    page: Path | None


def finish(recipe: Recipe, nodes: list[Node], artifacts: list[Artifact], workdir: Path) -> Finished:
    """Publish the artifacts of a run of `nodes`: the report into reports/, `latest` to it, and the answer."""
    stages = stage_rows(nodes, artifacts)
    if nodes[-1].stage == last_stage(recipe):
        store_at(workdir, recipe.runtime).fetch(artifacts[-1])
        page, answer = export(recipe, artifacts[-1], stages, workdir)
        return Finished(answer, page)
    return Finished(partial(recipe, stages), None)


def export(
    recipe: Recipe, report: Artifact, stages: list[dict[str, Any]], workdir: Path
) -> tuple[Path, dict[str, Any]]:
    """Copy the report to `reports/<recipe>/<fingerprint>/` unless it lies there unchanged; point `latest` to it.

    Counts the look at its test people (`store.looks`), and writes which it is beside the page. Returns the page and the
    answer. A run that computed nothing keeps an earlier answer there.
    """
    top = workdir / "reports" / recipe.name
    final = top / report.fingerprint
    answer: dict[str, Any] = {"recipe": recipe.name, "report": str(final / "index.html"), "stages": stages}
    results = read_results(report.path)
    answer |= {key: results[key] for key in ("arms", "comparison", "variants") if key in results}
    look = _look(recipe, results, report.fingerprint, workdir)
    answer["look"] = look.answer()
    computed = any(stage["state"] != "cached" for stage in stages)
    try:
        top.mkdir(parents=True, exist_ok=True)
        if not _same(final, report):
            _copy(report, final)
            computed = True
        if computed or not _already_written(final / RESULTS, answer):
            write_atomic(final / RESULTS, json.dumps(answer, indent=1).encode())
        looks.write_beside(final, look)
        replace_link(top / "latest", report.fingerprint)
    except OSError as error:
        raise disk_error(top, error) from error
    return final / "index.html", answer


def _look(recipe: Recipe, results: dict[str, Any], fingerprint: str, workdir: Path) -> looks.Look:
    """Which look at its test people the report is; a report that was counted before is no new one."""
    entry = looks.entry_of(results["test_people"], recipe.name, results["comparison"], fingerprint)
    look = looks.record(workdir, entry)
    if recipe.runtime.store is None:
        return look
    elsewhere = f"looks from other working directories that share {recipe.runtime.store} are not counted"
    return replace(look, remarks=(*look.remarks, elsewhere))


def _same(final: Path, report: Artifact) -> bool:
    """Whether every file of the report lies in `final` as it was made."""
    for name, entry in report.record["outputs"].items():
        path = final / name
        if name != RESULTS and not (path.is_file() and file_sha256(path) == entry["sha256"]):
            return False
    return True


def _already_written(path: Path, answer: dict[str, Any]) -> bool:
    """Whether an earlier run wrote this answer here (its stages may have run then)."""
    try:
        earlier = json.loads(path.read_bytes())
        return all(earlier[key] == answer[key] for key in ("recipe", "report", "arms", "comparison"))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _copy(report: Artifact, final: Path) -> None:
    """All or nothing: copied beside `final`, then renamed."""
    with tempfile.TemporaryDirectory(prefix=".new-", dir=final.parent, ignore_cleanup_errors=True) as folder:
        copied = Path(folder) / "report"
        for name in report.record["outputs"]:
            target = copied / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(report.path / name, target)
        if final.is_dir():
            os.replace(final, Path(folder) / "old")
        os.replace(copied, final)


def stage_rows(nodes: list[Node], artifacts: list[Artifact]) -> list[dict[str, Any]]:
    """The `stages` of the JSON answer; `cell` in a study, `trial` where it is one of an arm's several."""
    return [
        {
            "stage": item.stage,
            "arm": item.arm,
            "seed": item.seed,
            **({"trial": item.trial} if item.trial else {}),
            **({"cell": item.cell} if item.cell else {}),
            "key": artifact.fingerprint,
            "state": artifact.state,
            "seconds": round(artifact.seconds, 3),
            "path": str(artifact.path.absolute()),
        }
        for item, artifact in zip(nodes, artifacts, strict=True)
    ]


def partial(recipe: Recipe, stages: list[dict[str, Any]]) -> dict[str, Any]:
    """The JSON answer of a run that ended before the report."""
    return {"recipe": recipe.name, "report": None, "stages": stages, "arms": {}, "comparison": None}
