"""The context of a study's pages, and its result files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from facegan.core.files import write_atomic
from facegan.reporting import audit, controls, page, results, sections, words
from facegan.reporting.comparisons import Measure, is_control
from facegan.reporting.figures import ARMS, RenderedFigure
from facegan.reporting.study import pooled
from facegan.reporting.study import words as study_words
from facegan.reporting.study.efficiency import Efficiency
from facegan.reporting.study.pooled import StudyFindings, VariantFindings

VALUES = pa.schema(
    [
        ("variant", pa.string()),
        ("x", pa.float64()),
        ("split", pa.int64()),
        ("arm", pa.string()),
        ("seed", pa.int64()),
        ("benchmark", pa.string()),
        ("metric", pa.string()),
        ("operating_point", pa.float64()),
        ("value", pa.float64()),
    ]
)
DIFFERENCES = pa.schema(
    [
        ("variant", pa.string()),
        ("x", pa.float64()),
        ("arm", pa.string()),
        ("baseline", pa.string()),
        ("metric", pa.string()),
        ("delta", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("smallest_detectable", pa.float64()),
        ("n_splits", pa.int64()),
        ("train_overlap", pa.float64()),
        ("verdict", pa.string()),
        ("decides", pa.bool_()),
    ]
)


def study_results(recipe: dict[str, Any], findings: StudyFindings, licenses: dict[str, list[str]]) -> dict[str, Any]:
    """`results.json`: the contract's keys for the variant that decides, then every variant.

    `licenses` are those of `licences`.
    """
    variants: dict[str, dict[str, Any]] = {}
    for variant in findings.variants:
        arms: dict[str, dict[str, Any]] = {arm: {} for arm in recipe["arms"]}
        for measure in variant.measures:
            for arm, value in measure.arms.items():
                table = variant.points[measure.name, arm]
                arms[arm][measure.name] = {
                    "per_seed": _numbers(table.mean(axis=0)),
                    "per_split": _numbers(table.mean(axis=1)),
                    "mean": value.mean,
                    "ci_low": value.low,
                    "ci_high": value.high,
                    "note": measure.note,
                }
        others = [arm for arm in recipe["arms"] if arm != recipe["comparison"]["baseline"]]
        compared = {arm: pooled.comparison(recipe, variant, arm) for arm in others}
        chosen = {arm: dict(sorted(counts.items())) for arm, counts in variant.chosen.items()}
        primary = variant.measure(recipe["comparison"]["metric"])
        variants[variant.name] = {
            "x": variant.x,
            "arms": arms,
            "baselines": _baselines(variant),
            "beaten_by": results.beaten_by(recipe, primary),
            "comparisons": compared,
            "chosen": chosen,
        }
        if best_control := controls.best(recipe, primary):
            variants[variant.name]["best_control"] = best_control
    claim = variants[recipe["study"]["claim"]]
    comparison = {**claim["comparisons"][recipe["comparison"]["arm"]], "variant": recipe["study"]["claim"]}
    return {
        "recipe": recipe["name"],
        "arms": claim["arms"],
        "baselines": claim["baselines"],
        "beaten_by": claim["beaten_by"],
        **({"best_control": claim["best_control"]} if "best_control" in claim else {}),
        "comparison": comparison,
        "licenses": licenses,
        "test_people": list(findings.test_people),
        "variants": variants,
    }


def _baselines(variant: VariantFindings) -> dict[str, dict[str, Any]]:
    """As in a report, and each baseline's value in every split."""
    baselines = results.baseline_results(variant.measures)
    for name, metrics in baselines.items():
        for metric, entry in metrics.items():
            entry["per_split"] = _numbers(variant.points[metric, name].mean(axis=1))
    return baselines


def licences(recipe: dict[str, Any], inputs: dict[str, Path]) -> dict[str, list[str]]:
    """For each arm the licences of all its training data, in any variant and split."""
    by_arm: dict[str, set[str]] = {arm: set() for arm in recipe["arms"]}
    for variant in recipe["study"]["variants"]:
        for split in recipe["study"]["splits"]:
            for item in sections.licences(recipe, pooled.cell_inputs(inputs, variant, split)):
                by_arm[item["arm"]].update(item["licenses"])
    return {arm: sorted(names) for arm, names in by_arm.items()}


def _numbers(values: Any) -> list[float | None]:
    return [float(value) if value == value else None for value in values]


def write(out: Path, recipe: dict[str, Any], findings: StudyFindings, licenses: dict[str, list[str]]) -> dict[str, Any]:
    """Write `results.json`, `results.parquet` (each recognizer) and `differences.parquet`; returns the answer."""
    answer = study_results(recipe, findings, licenses)
    write_atomic(out / "results.json", json.dumps(answer, indent=1, allow_nan=False).encode())
    rows, differences = [], []
    decides = (recipe["study"]["claim"], recipe["comparison"]["arm"], recipe["comparison"]["metric"])
    for variant in findings.variants:
        for measure in variant.measures:
            keys = {"variant": variant.name, "x": variant.x, "metric": measure.name}
            for arm in (*recipe["arms"], *measure.baselines):
                seeds = [None] if arm in measure.baselines else recipe["seeds"]
                for split, values in zip(recipe["study"]["splits"], variant.points[measure.name, arm], strict=True):
                    for seed, value in zip(seeds, _numbers(values), strict=True):
                        rows.append(
                            {
                                **keys,
                                "arm": arm,
                                "split": split,
                                "seed": seed,
                                "value": value,
                                "benchmark": measure.benchmark,
                                "operating_point": measure.operating_point,
                            }
                        )
            for arm, difference in measure.differences.items():
                differences.append(
                    {
                        **keys,
                        "arm": arm,
                        "baseline": recipe["comparison"]["baseline"],
                        "delta": difference.delta,
                        "ci_low": difference.low,
                        "ci_high": difference.high,
                        "smallest_detectable": difference.smallest,
                        "n_splits": len(recipe["study"]["splits"]),
                        "train_overlap": variant.overlap if findings.unit == "split" else None,
                        "verdict": difference.verdict,
                        "decides": (variant.name, arm, measure.name) == decides,
                    }
                )
            differences += [
                {**keys, "arm": arm, "baseline": name, **difference, "decides": False}
                for name, values in _baselines_of(measure).items()
                for arm, difference in values.items()
            ]
    pq.write_table(pa.Table.from_pylist(rows, VALUES), out / "results.parquet")
    pq.write_table(pa.Table.from_pylist(differences, DIFFERENCES), out / "differences.parquet")
    return answer


def _baselines_of(measure: Measure) -> dict[str, dict[str, Any]]:
    """{baseline: {arm: arm minus baseline}} of one metric; there is no verdict on these."""
    return {name: metrics[measure.name]["differences"] for name, metrics in results.baseline_results([measure]).items()}


def context(
    recipe: dict[str, Any],
    inputs: dict[str, Path],
    findings: StudyFindings,
    answer: dict[str, Any],
    curve: Efficiency | None,
    figures: dict[str, RenderedFigure],
) -> dict[str, Any]:
    """The context of the study's templates."""
    comparison = answer["comparison"]
    claimed = next(variant for variant in findings.variants if variant.name == comparison["variant"])
    primary = claimed.measure(comparison["metric"])
    beaten = answer["beaten_by"]
    return {
        "recipe": recipe,
        "comparison": comparison,
        "percent": words.percent(comparison["confidence"]),
        "size": study_words.size(recipe),
        "units": "three splits" if words.is_fitted(recipe) else "three splits and three seeds",
        "unit": findings.unit,
        "n_people": findings.n_people,
        "tone": words.tone(comparison["verdict"], beaten),
        "headline": study_words.headline(recipe, comparison, beaten),
        "sentence": f"{words.beaten_by(beaten)} {study_words.sentence(recipe, claimed, comparison)}".lstrip(),
        "smallest": study_words.smallest(primary.better, comparison),
        "best_control": controls.sentence(answer.get("best_control")),
        "shared": study_words.shared(comparison),
        "gloss": words.gloss(primary.name, primary.arms[comparison["baseline"]].mean),
        "advice": [
            {"variant": v.name, **study_words.advice(recipe, v, answer["variants"][v.name])} for v in findings.variants
        ],
        "variants": [_variant(recipe, inputs, v, answer["variants"][v.name]) for v in findings.variants],
        "worth": None if curve is None else _worth(recipe, curve),
        "ablation": _ablation(recipe, findings, answer),
        "audited": _audited(recipe, inputs),
        "licences": [{"arm": arm, "licenses": names} for arm, names in answer["licenses"].items()],
        "drawn": figures,
        "limits": [*words.began(recipe), *study_words.limits(recipe, comparison, findings.n_people)],
        "terms": words.TERMS,
        "config": yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100),
        "made_from": Counter(name.split(":")[2] for name in inputs),
        "packages": sections.lineage(inputs)["packages"],
        "colors": ARMS,
    }


def _primary_comparison(recipe: dict[str, Any], answer: dict[str, Any], variant: VariantFindings) -> dict[str, Any]:
    comparison: dict[str, Any] = answer["variants"][variant.name]["comparisons"][recipe["comparison"]["arm"]]
    return comparison


def _variant(
    recipe: dict[str, Any], inputs: dict[str, Path], variant: VariantFindings, answer: dict[str, Any]
) -> dict[str, Any]:
    """One variant's tables."""
    spec = recipe["comparison"]
    lines = []
    for arm, comparison in answer["comparisons"].items():
        digits = words.digits_for(comparison["delta"], comparison["ci_low"], comparison["ci_high"])
        lines.append(
            {
                "arm": arm,
                "named": arm == spec["arm"],
                "control": is_control(recipe, arm),
                "value": words.signed(comparison["delta"], digits),
                "interval": words.interval(comparison["ci_low"], comparison["ci_high"], digits, sign=True),
                "relative": study_words.relative(comparison),
                "splits": ", ".join(words.signed(value, digits) for value in comparison["per_split"]),
                "smallest": words.number(comparison["smallest_detectable"], digits),
                "verdict": comparison["verdict"],
            }
        )
    splits, of_variant = recipe["study"]["splits"], study_words.variant_recipe(recipe, variant.name)
    cells = [pooled.cell_inputs(inputs, variant.name, split) for split in splits]
    variant_searches = [sections.searches(recipe, cell) for cell in cells]
    return {
        "name": variant.name,
        "set": ", ".join(f"{k}: {v}" for k, v in recipe["study"]["variants"][variant.name]["set"].items()),
        "claimed": variant.name == recipe["study"]["claim"],
        "n_identities": variant.n_identities,
        "shared": study_words.shared(answer["comparisons"][spec["arm"]]),
        "arms": [
            {
                "name": arm,
                "place": index,
                "control": is_control(recipe, arm),
                "real": f"{variant.images[arm]['real']:.0f}",
                "synthetic": f"{variant.images[arm]['synthetic']:.0f}",
                "chosen": ("; " if any(variant_searches) else ", ").join(
                    f"{sections.tried(of_variant, arm, trial)[1]} ({count} of {len(splits)})"
                    for trial, count in variant.chosen[arm].most_common()
                ),
            }
            for index, arm in enumerate(recipe["arms"])
        ],
        "baselines": list(answer["baselines"]),
        "against": page.against_baselines(variant.measure(spec["metric"])),
        "made": _made_of_requested(cells),
        "trials": any(variant.chosen.values()),
        "lines": lines,
        "rows": [page.metric_row(measure, recipe) for measure in variant.measures],
        "searches": [
            {"split": split, **searched} for split, searched in zip(splits, variant_searches, strict=True) if searched
        ],
        "choices": [
            {"split": split, **row}
            for split in splits
            for row in sections.trials(recipe, pooled.cell_inputs(inputs, variant.name, split))
        ],
    }


def _made_of_requested(cells: list[dict[str, Path]]) -> str:
    """How much of what was requested the generators made, mean over splits."""
    filters = [sections.read_json(cell["synthesize"] / "filters.json") for cell in cells if "synthesize" in cell]
    if not filters:
        return ""
    parts = []
    for name in filters[0]["requested"]:
        made, requested = (
            sum(counts[key].get(name, 0) for counts in filters) / len(filters) for key in ("made", "requested")
        )
        parts.append(f"{made:.0f} of {requested:.0f} {sections.as_words(name)}")
    return ", ".join(parts)


def _audited(recipe: dict[str, Any], inputs: dict[str, Path]) -> list[dict[str, str]]:
    """The leakage gate of each variant that has synthetic images."""
    rows = []
    for name in recipe["study"]["variants"]:
        cells = [pooled.cell_inputs(inputs, name, split) for split in recipe["study"]["splits"]]
        if gates := [sections.read_json(cell["audit"] / "gate.json") for cell in cells if "audit" in cell]:
            rows.append({"name": name, **audit.pooled(gates)})
    return rows


def _worth(recipe: dict[str, Any], efficiency: Efficiency) -> list[dict[str, Any]]:
    spec = recipe["comparison"]
    rows = []
    for worth, variant in zip(efficiency.worth, efficiency.variants, strict=True):
        arms = variant.measure(spec["metric"]).arms
        rows.append(
            {
                "x": f"{worth.x:g}",
                "baseline": words.number(arms[spec["baseline"]].mean),
                "arm": words.number(arms[spec["arm"]].mean),
                "equals": study_words.x_text(worth.equals, efficiency),
                "interval": study_words.x_interval(worth, efficiency),
                "extra": study_words.extra_images(worth, efficiency),
                "sentence": study_words.worth_sentence(recipe, worth, efficiency),
            }
        )
    return rows


def _ablation(recipe: dict[str, Any], findings: StudyFindings, answer: dict[str, Any]) -> list[dict[str, str]]:
    """Variants off the axis beside the first variant."""
    first = findings.variants[0]
    rows = []
    for variant in (v for v in findings.variants if v.x is None):
        comparison = _primary_comparison(recipe, answer, variant)
        change = None if variant is first else pooled.from_first(recipe, first, variant)
        digits = words.digits_for(comparison["delta"], comparison["ci_low"], comparison["ci_high"])
        rows.append(
            {
                "name": variant.name,
                "delta": words.signed(comparison["delta"], digits),
                "interval": words.interval(comparison["ci_low"], comparison["ci_high"], digits, sign=True),
                "verdict": comparison["verdict"],
                "apart": "–" if change is None else words.signed(change.delta, digits),
                "apart_interval": "" if change is None else words.interval(change.low, change.high, digits, sign=True),
            }
        )
    return rows if len(findings.variants) > 1 else []
