"""What the pages of a study show, and its tables."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from facegan.core.files import write_atomic
from facegan.reporting import audit, page, sections, words
from facegan.reporting.figures import ARMS, Drawn
from facegan.reporting.results import NO_GAIN
from facegan.reporting.study import pooled
from facegan.reporting.study import words as study_words
from facegan.reporting.study.efficiency import Efficiency
from facegan.reporting.study.pooled import Pooled, VariantFindings

TONES = {"gain": "gain", "loss": "loss", NO_GAIN: "none"}

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
        ("verdict", pa.string()),
        ("decides", pa.bool_()),
    ]
)


def answer(recipe: dict[str, Any], found: Pooled, licenses: dict[str, list[str]]) -> dict[str, Any]:
    """`results.json`: the contract's keys for the variant that decides, and every variant's; `licenses` as from
    `licences`."""
    variants: dict[str, dict[str, Any]] = {}
    for variant in found.variants:
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
        variants[variant.name] = {"x": variant.x, "arms": arms, "comparisons": compared, "chosen": chosen}
    claim = variants[recipe["study"]["claim"]]
    comparison = {**claim["comparisons"][recipe["comparison"]["arm"]], "variant": recipe["study"]["claim"]}
    named = {"recipe": recipe["name"], "arms": claim["arms"], "comparison": comparison, "licenses": licenses}
    return {**named, "variants": variants}


def licences(recipe: dict[str, Any], inputs: dict[str, Path]) -> dict[str, list[str]]:
    """For each arm the licences of all that its weights have learned from, in any variant and split."""
    found: dict[str, set[str]] = {arm: set() for arm in recipe["arms"]}
    for variant in recipe["study"]["variants"]:
        for split in recipe["study"]["splits"]:
            for item in sections.licences(recipe, pooled.cell_inputs(inputs, variant, split)):
                found[item["arm"]].update(item["licenses"])
    return {arm: sorted(names) for arm, names in found.items()}


def _numbers(values: Any) -> list[float | None]:
    return [float(value) if value == value else None for value in values]


def write(out: Path, recipe: dict[str, Any], found: Pooled, licenses: dict[str, list[str]]) -> dict[str, Any]:
    """Write `results.json`, `results.parquet` (each recognizer) and `differences.parquet`; returns the answer."""
    told = answer(recipe, found, licenses)
    write_atomic(out / "results.json", json.dumps(told, indent=1, allow_nan=False).encode())
    rows, apart = [], []
    decides = (recipe["study"]["claim"], recipe["comparison"]["arm"], recipe["comparison"]["metric"])
    for variant in found.variants:
        for measure in variant.measures:
            named = {"variant": variant.name, "x": variant.x, "metric": measure.name}
            for arm in recipe["arms"]:
                for split, values in zip(recipe["study"]["splits"], variant.points[measure.name, arm], strict=True):
                    for seed, value in zip(recipe["seeds"], _numbers(values), strict=True):
                        place = {"arm": arm, "split": split, "seed": seed, "value": value}
                        more = {"benchmark": measure.benchmark, "operating_point": measure.operating_point}
                        rows.append({**named, **place, **more})
            for arm, one in measure.differences.items():
                apart.append(
                    {
                        **named,
                        "arm": arm,
                        "baseline": recipe["comparison"]["baseline"],
                        "delta": one.delta,
                        "ci_low": one.low,
                        "ci_high": one.high,
                        "smallest_detectable": one.smallest,
                        "verdict": one.verdict,
                        "decides": (variant.name, arm, measure.name) == decides,
                    }
                )
    pq.write_table(pa.Table.from_pylist(rows, VALUES), out / "results.parquet")
    pq.write_table(pa.Table.from_pylist(apart, DIFFERENCES), out / "differences.parquet")
    return told


def context(
    recipe: dict[str, Any],
    inputs: dict[str, Path],
    found: Pooled,
    told: dict[str, Any],
    curve: Efficiency | None,
    drawn: dict[str, Drawn],
) -> dict[str, Any]:
    """Everything that the templates show."""
    comparison = told["comparison"]
    claimed = next(variant for variant in found.variants if variant.name == comparison["variant"])
    named = claimed.measure(comparison["metric"])
    return {
        "recipe": recipe,
        "comparison": comparison,
        "percent": words.percent(comparison["confidence"]),
        "size": study_words.size(recipe),
        "unit": found.unit,
        "n_people": found.n_people,
        "tone": TONES[comparison["verdict"]],
        "headline": study_words.headline(recipe, comparison),
        "sentence": study_words.sentence(recipe, claimed, comparison),
        "smallest": study_words.smallest(named.better, comparison),
        "gloss": words.gloss(named.name, named.arms[comparison["baseline"]].mean),
        "advice": [
            {"variant": v.name, **study_words.advice(recipe, v, told["variants"][v.name]["comparisons"])}
            for v in found.variants
        ],
        "variants": [_variant(recipe, inputs, v, told["variants"][v.name]) for v in found.variants],
        "worth": None if curve is None else _worth(recipe, curve),
        "ablation": _ablation(recipe, found, told),
        "audited": _audited(recipe, inputs),
        "licences": [{"arm": arm, "licenses": names} for arm, names in told["licenses"].items()],
        "drawn": drawn,
        "limits": study_words.limits(recipe, comparison, found.n_people),
        "terms": words.TERMS,
        "config": yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100),
        "made_from": Counter(name.split(":")[2] for name in inputs),
        "packages": sections.lineage(inputs)["packages"],
        "colors": ARMS,
    }


def _own(recipe: dict[str, Any], told: dict[str, Any], variant: VariantFindings) -> dict[str, Any]:
    found: dict[str, Any] = told["variants"][variant.name]["comparisons"][recipe["comparison"]["arm"]]
    return found


def _variant(
    recipe: dict[str, Any], inputs: dict[str, Path], variant: VariantFindings, told: dict[str, Any]
) -> dict[str, Any]:
    """One variant's tables."""
    spec = recipe["comparison"]
    lines = []
    for arm, one in told["comparisons"].items():
        digits = words.digits_for(one["delta"], one["ci_low"], one["ci_high"])
        lines.append(
            {
                "arm": arm,
                "named": arm == spec["arm"],
                "value": words.signed(one["delta"], digits),
                "interval": words.interval(one["ci_low"], one["ci_high"], digits, sign=True),
                "relative": study_words.relative(one),
                "splits": ", ".join(words.signed(value, digits) for value in one["per_split"]),
                "smallest": words.number(one["smallest_detectable"], digits),
                "verdict": one["verdict"],
            }
        )
    splits = recipe["study"]["splits"]
    return {
        "name": variant.name,
        "set": ", ".join(f"{k}: {v}" for k, v in recipe["study"]["variants"][variant.name]["set"].items()),
        "claimed": variant.name == recipe["study"]["claim"],
        "n_identities": variant.n_identities,
        "arms": [
            {
                "name": arm,
                "place": place,
                "real": f"{variant.images[arm]['real']:.0f}",
                "synthetic": f"{variant.images[arm]['synthetic']:.0f}",
                "chosen": ", ".join(
                    f"{trial} ({count} of {len(splits)})" for trial, count in variant.chosen[arm].most_common()
                ),
            }
            for place, arm in enumerate(recipe["arms"])
        ],
        "made": _made([pooled.cell_inputs(inputs, variant.name, split) for split in splits]),
        "trials": any(variant.chosen.values()),
        "lines": lines,
        "rows": [page.metric_row(measure, recipe) for measure in variant.measures],
        "choices": [
            {"split": split, **row}
            for split in splits
            for row in sections.trials(recipe, pooled.cell_inputs(inputs, variant.name, split))
        ],
    }


def _made(cells: list[dict[str, Path]]) -> str:
    """What the generators made of what was wanted, mean over splits."""
    found = [sections.read_json(own["synthesize"] / "filters.json") for own in cells if "synthesize" in own]
    if not found:
        return ""
    parts = []
    for name in found[0]["requested"]:
        made, wanted = (sum(one[side].get(name, 0) for one in found) / len(found) for side in ("made", "requested"))
        parts.append(f"{made:.0f} of {wanted:.0f} {sections.plain(name)}")
    return ", ".join(parts)


def _audited(recipe: dict[str, Any], inputs: dict[str, Path]) -> list[dict[str, str]]:
    """The leakage gate of each variant that has synthetic images."""
    rows = []
    for name in recipe["study"]["variants"]:
        own = [pooled.cell_inputs(inputs, name, split) for split in recipe["study"]["splits"]]
        if gates := [sections.read_json(cell["audit"] / "gate.json") for cell in own if "audit" in cell]:
            rows.append({"name": name, **audit.pooled(gates)})
    return rows


def _worth(recipe: dict[str, Any], curve: Efficiency) -> list[dict[str, Any]]:
    spec = recipe["comparison"]
    rows = []
    for worth, variant in zip(curve.worth, curve.variants, strict=True):
        arms = variant.measure(spec["metric"]).arms
        rows.append(
            {
                "x": f"{worth.x:g}",
                "baseline": words.number(arms[spec["baseline"]].mean),
                "arm": words.number(arms[spec["arm"]].mean),
                "equals": study_words.place(worth.equals, curve),
                "interval": study_words.span(worth, curve),
                "extra": study_words.extra(worth, curve),
                "sentence": study_words.worth_sentence(recipe, worth, curve),
            }
        )
    return rows


def _ablation(recipe: dict[str, Any], found: Pooled, told: dict[str, Any]) -> list[dict[str, str]]:
    """Variants off the axis beside the first variant."""
    first = found.variants[0]
    rows = []
    for variant in (v for v in found.variants if v.x is None):
        own = _own(recipe, told, variant)
        apart = None if variant is first else pooled.from_first(recipe, first, variant)
        digits = words.digits_for(own["delta"], own["ci_low"], own["ci_high"])
        rows.append(
            {
                "name": variant.name,
                "delta": words.signed(own["delta"], digits),
                "interval": words.interval(own["ci_low"], own["ci_high"], digits, sign=True),
                "verdict": own["verdict"],
                "apart": "–" if apart is None else words.signed(apart.delta, digits),
                "apart_interval": "" if apart is None else words.interval(apart.low, apart.high, digits, sign=True),
            }
        )
    return rows if len(found.variants) > 1 else []
