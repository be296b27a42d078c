"""A study in plain words: what to do with data like these, and what the numbers do not cover."""

from __future__ import annotations

import math
from typing import Any

from facegan.core.options import merge
from facegan.metrics.intervals import overlap_factor
from facegan.reporting import sections, words
from facegan.reporting.comparisons import EXPLORATORY, NO_GAIN
from facegan.reporting.study.efficiency import Efficiency, Worth
from facegan.reporting.study.pooled import TOO_FEW, VariantFindings, variant_recipe

Comparison = dict[str, Any]


def size(recipe: dict[str, Any]) -> str:
    """The number of splits and seeds in words: `5 splits × 5 seeds`; of splits alone where no seed draws anything."""
    splits, seeds = len(recipe["study"]["splits"]), len(recipe["seeds"])
    words_of_splits = f"{splits} split{'s' * (splits > 1)}"
    return words_of_splits if words.is_fitted(recipe) else f"{words_of_splits} × {seeds} seed{'s' * (seeds > 1)}"


def sentence(recipe: dict[str, Any], variant: VariantFindings, comparison: Comparison) -> str:
    """The verdict of one variant in one sentence."""
    text = words.verdict(recipe, variant.measure(comparison["metric"]), comparison)
    return f"{variant.name}, {size(recipe)}: {text}"


def relative(comparison: Comparison) -> str:
    """The difference as a share of the baseline."""
    change = comparison["relative_percent"]
    return "–" if change is None else f"{words.signed(change, 0)}\u00a0%"


def advice(recipe: dict[str, Any], variant: VariantFindings, answer: dict[str, Any]) -> dict[str, str]:
    """What to do with data like those of a variant: {what, why}; `answer` is what `results.json` says of it."""
    comparisons: dict[str, Comparison] = answer["comparisons"]
    texts = _advice(recipe, variant, comparisons[recipe["comparison"]["arm"]])
    if beaten := answer["beaten_by"]:
        texts["what"] = f"Take none of the arms as it is: “{beaten['baseline']}” is better. Among them: {texts['what']}"
        if variant.name != recipe["study"]["claim"]:  # of that one it is the first sentence
            texts["why"] += f" {words.beaten_by(beaten)}"
    others = [
        f"“{arm}” ({words.signed(other['delta'])}, {words.interval(other['ci_low'], other['ci_high'], sign=True)})"
        for arm, other in comparisons.items()
        if arm != recipe["comparison"]["arm"] and other["ci_low"] is not None and other["ci_low"] * other["ci_high"] > 0
    ]
    if others:
        texts["why"] += f" Exploratory, since not named beforehand: {', '.join(others)}."
    return texts


def _advice(recipe: dict[str, Any], variant: VariantFindings, comparison: Comparison) -> dict[str, str]:
    metric, arm, baseline = comparison["metric"], comparison["arm"], comparison["baseline"]
    primary = variant.measure(metric)
    name, delta, low, high = words.phrase(metric), comparison["delta"], comparison["ci_low"], comparison["ci_high"]
    if delta is None or low is None:
        return {"what": f"No answer: {comparison['reason']}.", "why": ""}
    digits = words.digits_for(delta, low, high)
    before, after = (words.number(primary.arms[side].mean, digits) for side in (baseline, arm))
    change = (
        f"the {name} goes from {before} to {after} ({relative(comparison)}); {words.percent(comparison['confidence'])} "
        f"interval of the difference {words.interval(low, high, digits, True)}"
    )
    if comparison["verdict"] == EXPLORATORY:
        what = "Exploratory: this variant was not named beforehand, and nothing follows from it alone."
        return {"what": what, "why": f"Seen: {change}. {smallest(primary.better, comparison)}".rstrip()}
    if comparison["verdict"] == "gain":
        what = f"Train as in arm “{arm}”{_with_trial(recipe, variant, arm)}. {schedule(recipe, variant, arm)}".rstrip()
        return {"what": what, "why": f"Expect: {change}."}
    if comparison["verdict"] == "loss":
        return {"what": f"Stay with arm “{baseline}”: “{arm}” is worse.", "why": f"Seen: {change}."}
    options = _with_trial(recipe, variant, baseline)
    what = f"No gain shown: stay with arm “{baseline}”{options} until more data says otherwise."
    why = f"Seen: {change}. {smallest(primary.better, comparison)}"
    if comparison["reason"].startswith(TOO_FEW):
        why = f"{why} {comparison['reason'].capitalize()}."
    return {"what": what, "why": why}


def _with_trial(recipe: dict[str, Any], variant: VariantFindings, arm: str) -> str:
    """The trial that was chosen most often, in words; '' where there were no trials."""
    if not (chosen := variant.chosen[arm]):
        return ""
    trial, count = chosen.most_common(1)[0]
    _, name = sections.tried(variant_recipe(recipe, variant.name), arm, trial)
    return f" with the options “{name}” (chosen on {count} of {chosen.total()} splits)"


def schedule(recipe: dict[str, Any], variant: VariantFindings, arm: str) -> str:
    """How many synthetic images of whom, and how the training uses them; empty for an arm without any."""
    recipe = variant_recipe(recipe, variant.name)
    synthesize, arm_options = recipe["synthesize"], recipe["arms"][arm]
    options = recipe["train_recognizer"]
    if chosen := variant.chosen[arm]:
        options = merge(options, sections.tried(recipe, arm, chosen.most_common(1)[0][0])[0])
    use = options.get("use", {})
    parts = []
    if arm_options["existing"] and synthesize["images_per_existing"]:
        count = synthesize["images_per_existing"]
        parts.append(f"{count} synthetic images of each train person{_batch_share(use, 'existing')}")
    if arm_options["new"] and synthesize["new_identities"]:
        as_who = " under a head of their own" if use.get("own_head") else ""
        people = f"{synthesize['new_identities']} new people with {synthesize['images_per_new']} images each"
        parts.append(f"{people}{as_who}{_batch_share(use, 'new')}")
    if arm_options["new"] and (external := synthesize.get("external")):
        everyone = f"{external['identities']} people" if external.get("identities") else "all people"
        share = "" if synthesize["new_identities"] else _batch_share(use, "new")
        parts.append(f"{everyone} of the external source{share}")
    how = "a map fitted on them" if options.get("tune") == "whitened" else f"{options['steps']} steps"
    return f"That is: {' and '.join(parts)}; {how}." if parts else ""


def _batch_share(use: dict[str, Any], group: str) -> str:
    share = use.get(group)
    return "" if share is None else f", {words.percent(share)} of each batch"


def smallest(better: str, comparison: Comparison) -> str:
    """The smallest gain that could have been shown."""
    least = comparison["smallest_detectable"]
    if words.alike(comparison):
        return words.ALIKE
    if least is None:
        return ""
    direction = "drop" if better == "lower" else "rise"
    return (
        "The smallest gain that could have been shown (four times in five) is a "
        f"{direction} of about {words.number(least, words.digits_for(least))}."
    )


def headline(recipe: dict[str, Any], comparison: Comparison, beaten: dict[str, Any] | None) -> str:
    """The verdict of the variant that decides, in a few words."""
    text = words.headline(recipe, comparison["verdict"], words.where(comparison), beaten)
    return text if comparison["verdict"] == NO_GAIN else f"{text} (on {recipe['study']['claim']})"


def shared(comparison: Comparison) -> str:
    """How many train people the splits share, and what that costs, in a sentence; empty with one split."""
    overlap, splits = comparison["train_overlap"], comparison["n_splits"]
    if overlap is None:
        return ""
    if overlap == 1:
        return "All splits learned from the same people, so that nothing tells what other train people would change."
    share = words.percent(round(overlap, 2))
    if overlap == 0:
        return f"Splits share {share} of their train people."
    times = words.number(overlap_factor(splits, overlap) ** 0.5, 1)
    return f"Splits share {share} of their train people: their part of the interval is {times} times as wide for it."


def x_text(value: float | None, efficiency: Efficiency) -> str:
    """An x that was read off the baseline's curve, as text."""
    least, most = efficiency.x_range
    if value is None:
        return "–"
    if math.isinf(value):
        return f"more than {most:g}"
    return f"{least:g} or fewer" if value == least else f"{value:.1f}"


def x_interval(worth: Worth, efficiency: Efficiency) -> str:
    """The interval of an x, as text; empty where there is none."""
    if worth.low is None:
        return ""
    return " to ".join(dict.fromkeys(x_text(end, efficiency) for end in (worth.low, worth.high)))


def extra_images(worth: Worth, efficiency: Efficiency) -> str:
    """How many more (or fewer) real images that is than were used, as text."""
    least, most = efficiency.x_range
    if math.isinf(worth.equals):
        return f"more than {most - worth.x:g} more" if most > worth.x else "more, past what was measured"
    if worth.equals == least:
        return f"{worth.x - least:g} or more fewer" if worth.x > least else "none, or fewer"
    gained = worth.equals - worth.x
    return f"{abs(gained):.1f} {'more' if gained >= 0 else 'fewer'}"


def worth_sentence(recipe: dict[str, Any], worth: Worth, efficiency: Efficiency) -> str:
    """One point of the curve in a sentence."""
    spec, label = recipe["comparison"], recipe["study"]["x_label"]
    interval = x_interval(worth, efficiency)
    certainty = interval and f" ({words.percent(spec['confidence'])} interval {interval})"
    return (
        f"With {worth.x:g} ({label}), arm “{spec['arm']}” is as good as arm “{spec['baseline']}” with "
        f"{x_text(worth.equals, efficiency)}{certainty}."
    )


def limits(recipe: dict[str, Any], comparison: Comparison, n_people: int) -> list[tuple[str, str]]:
    """What the intervals cover, and what not: (heading, text)."""
    splits, seeds, tried = len(recipe["study"]["splits"]), len(recipe["seeds"]), recipe.get("trial_seeds")
    unit = (
        "Other splits (other people to learn from, another generator) and other test people of the same source"
        + ("." if words.is_fitted(recipe) else f", with {seeds} seeds averaged within each split.")
        if splits > 1
        else "Other seeds and other test people of the same source. There is one split: its people and its generator "
        "are taken as they are."
    )
    return [
        ("What the interval covers", unit),
        (
            "Splits share people",
            f"{splits} split{'s' * (splits > 1)} of the same source, {n_people} people tested in all. A person who is "
            "tested in one split may be learned from in another. People who are shared are accounted for: everybody "
            f"who is tested is drawn once for all splits. {shared(comparison)} "
            "The answer is about this source: with another the splits may differ more than here.",
        ),
        (
            "One question",
            f"Decided beforehand: variant “{recipe['study']['claim']}”, “{comparison['arm']}” against "
            f"“{comparison['baseline']}” by {comparison['metric']}. Every other line is exploratory: of twenty "
            "such lines without any effect one is expected to stand out. How often these test people have been judged "
            "stands in look.json beside this page. Whether the whole study was planned before "
            "its first result is for its description to say"
            + (f": “{recipe['description']}”" if recipe["description"] else ", and it has none: take it as exploratory")
            + ".",
        ),
        (
            "Chosen on validation people",
            "Between trials, and between the steps of a training, validation people of the same split choose; test "
            "people choose nothing. All arms have as many trials."
            + (f" Tried by {tried} of {seeds} seeds, the first; all have what was chosen." if tried else ""),
        ),
        (
            "“No gain shown” is not “no gain”",
            "It says that the data cannot tell the difference from chance. Compare the smallest gain that could "
            "have been shown.",
        ),
        (
            "Not the deployment",
            "The test photos come from the same source as the training photos; the answer holds for this network, "
            "schedule and generator. Synthetic is not anonymous: the generator has learned from real people.",
        ),
    ]
