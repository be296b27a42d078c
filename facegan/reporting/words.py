"""The report in plain words: numbers as text, the verdict as a sentence, terms explained."""

from __future__ import annotations

import re
from typing import Any

from facegan.recognition.starts import STARTS
from facegan.reporting.comparisons import NO_GAIN, Measure

TERMS = {
    "identity": "One person. An existing identity is a real person whose photos trained the generator; a new "
    "identity is a person who does not exist, made by mixing or sampling the codes of real ones.",
    "arm": "One way of choosing training images. All arms share the network, the augmentation, the number of "
    "training steps and the batch size: the images are the only difference (and, where arms try several settings, "
    "what validation people chose).",
    "baseline": "A recognizer without a network, fitted in seconds and not trained, on the rows of one arm: what one "
    "would get without any of this. Judged on the same people as the arms.",
    "seed": "A number that sets all chance in a training. Each arm is trained once for each seed, which "
    "shows how much a result depends on luck.",
    "recognizer": "A network that turns a face into a list of numbers (an embedding) such that photos of "
    "one person lie close together.",
    "genuine and impostor pairs": "Two photos of the same person, and two photos of different people.",
    "FAR": "False-accept rate: the share of impostor pairs that are taken for one person. A fraction: 0.01 "
    "is 1 in 100.",
    "FRR": "False-reject rate: the share of genuine pairs that are taken for two people.",
    "EER": "Equal error rate: the error at the setting where FAR and FRR are equal. 0.10 means that 1 in "
    "10 pairs of either kind is judged wrongly. Lower is better.",
    "TAR@FAR": "True-accept rate at a FAR: the share of genuine pairs recognized when at most that share "
    "of impostor pairs gets in. Higher is better.",
    "accuracy": "Share of right answers on as many genuine as impostor pairs. The threshold for each tenth "
    "of the people is chosen on the other nine tenths.",
    "rank-k": "One photo of each test person is enrolled, another is searched: how often the right person "
    "is among the k best. Rank-1 is how often the first guess is right. Higher is better.",
    "FMR, FNMR, FTA": "False-match and false-non-match rate: FAR and FRR of the pairs that could be compared. Failure "
    "to acquire: the share of images that gave no embedding. FRR counts both: FTA + FNMR (1 - FTA) "
    "where FTA is the share of pairs.",
    "DIR@FPIR": "Some people are not enrolled. Detection and identification rate: how often a search of an enrolled "
    "person finds them first, when at most the given share of searches of the others finds anybody.",
    "DET and CMC": "DET: FRR drawn over FAR for every threshold. CMC: rank-k drawn for every k.",
    "interval": "The range of values that fits the data: had other people been tested and other seeds been "
    "drawn, results within it would be no surprise. It comes from resampling the test people, crossed with "
    "the seeds.",
    "guide": "A recognizer trained on real images only, which filters the synthetic ones. It is never compared.",
    "judge": "Another recognizer, never the guide, that looks at the synthetic set when it is finished.",
}


_OWN_PEOPLE = re.compile(r"fnir@|rank-|fn?mr@val-fmr=")
"""How metrics of the benchmark `enrolled` begin, after its name."""


def phrase(metric: str) -> str:
    """A metric's name in words."""
    if "/" in metric:
        label, inner = metric.split("/", 1)
        if match := re.fullmatch(r"(photo-)?(?:auc|tpr@fpr=(.+))", inner):
            who = "photos of train people" if match[1] else "train people"
            if match[2] is None:
                return f"AUC by which {who} are told from others (0.5 tells nothing)"
            return f"share of {who} that is found (where a share {match[2]} of the others is taken for them)"
        return f"{phrase(inner)} {'of' if _OWN_PEOPLE.match(inner) else 'on the pairs of'} {label}"
    if match := re.fullmatch(r"fnir@fpir=(.+)", metric):
        return f"false-negative identification rate (at a false-positive identification rate of {match[1]})"
    if match := re.fullmatch(r"(fnmr|fmr)@val-fmr=(.+)", metric):
        name = "false non-match rate" if match[1] == "fnmr" else "false-match rate"
        return f"{name} (at the threshold that gives validation people a false-match rate of {match[2]})"
    if match := re.fullmatch(r"fnmr@fmr=(.+)", metric):
        return f"false non-match rate (at a false-match rate of {match[1]})"
    if match := re.fullmatch(r"dir@fpir=(.+)", metric):
        return f"detection and identification rate (at a false-positive identification rate of {match[1]})"
    if match := re.fullmatch(r"tar@far=(.+)", metric):
        return f"true-accept rate (at a false-accept rate of {match[1]})"
    if match := re.fullmatch(r"rank-(\d+)", metric):
        return f"rank-{match[1]} identification rate"
    names = {"eer": "equal error rate", "accuracy": "verification accuracy", "fta": "failure-to-acquire rate"}
    return names.get(metric, metric)


def short(metric: str) -> str:
    """A metric's name in few words, for tables; empty where they would repeat the name."""
    return phrase(metric).split(" (")[0] if phrase(metric) != metric else ""


def percent(share: float) -> str:
    """A share as percent, on one line."""
    return f"{100 * share:g}\u00a0%"


def gloss(metric: str, value: float | None) -> str:
    """The meaning of a value of the metric, for a reader who does not know the metric."""
    if value is None:
        return ""
    metric = metric.rpartition("/")[2]  # on a list of pairs it means the same
    rate = f"{100 * value:.0f} in 100" if value >= 0.02 else f"{1000 * value:.0f} in 1000"
    if metric == "eer":
        return (
            "The equal error rate says how often “same person?” is answered wrongly when both kinds of "
            f"mistake are equally frequent: {number(value)} is {rate} pairs of photos. Lower is better."
        )
    if metric.startswith("tar@far="):
        return (
            f"Of pairs of photos of one person, {rate} are recognized when at most a share of "
            f"{metric[8:]} of strangers is let in. Higher is better."
        )
    if match := re.fullmatch(r"rank-(\d+)", metric):
        return f"In {rate} searches the right person is among the first {match[1]}. Higher is better."
    if metric.startswith("dir@fpir="):
        return (
            f"Of searches of enrolled people, {rate} find the right one first when at most a share of {metric[9:]} "
            "of searches of others finds anybody. Higher is better."
        )
    if metric.startswith("fnir@fpir="):
        return (
            f"Of searches of own people, {rate} do not find the right one when at most a share of {metric[10:]} of "
            "searches of strangers finds anybody. Lower is better."
        )
    if match := re.fullmatch(r"(fnmr|fmr)@val-fmr=(.+)", metric):
        whose = "photos of own people are not taken for them" if match[1] == "fnmr" else "tries of strangers pass"
        return f"At the threshold that lets {match[2]} of validation people's pass, {rate} {whose}. Lower is better."
    if metric.startswith("fnmr@fmr="):
        return (
            f"Of pairs of photos of one person, {rate} are missed when at most a share of {metric[9:]} of strangers "
            "matches. Lower is better."
        )
    if metric == "accuracy":
        return f"Of as many matching as non-matching pairs, {rate} are judged rightly. Higher is better."
    return ""


def number(value: float | None, digits: int = 3) -> str:
    """A value with a fixed number of decimals, a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def digits_for(*values: float | None) -> int:
    """Three decimals, or more where one of the values would read as zero and is not."""
    digits = 3
    while digits < 6 and any(v is not None and v != 0 and round(abs(v), digits) == 0 for v in values):
        digits += 1
    return digits


def interval(low: float | None, high: float | None, digits: int = 3, sign: bool = False) -> str:
    """`low to high`, or an empty string where there is none."""
    if low is None or high is None:
        return ""
    show = signed if sign else number
    return f"{show(low, digits)} to {show(high, digits)}"


def subject(recipe: dict[str, Any]) -> str:
    """The change of the training images, as the subject of the verdict's sentence."""
    comparison = recipe["comparison"]
    baseline, arm = (recipe["arms"][comparison[side]] for side in ("baseline", "arm"))
    plain = baseline["real"] and not (baseline["existing"] or baseline["new"] or baseline.get("set"))
    synthetic = arm["existing"] or arm["new"]
    if plain and synthetic and arm["real"]:
        return "Adding synthetic faces"
    if plain and synthetic:
        return "Training on synthetic faces instead of real ones"
    return f"Training as in arm “{comparison['arm']}” instead of arm “{comparison['baseline']}”"


def where(comparison: dict[str, Any]) -> str:
    """` on this split` for a gain or loss of one split, which cannot know what other train people would change."""
    return " on this split" if comparison["n_splits"] == 1 and comparison["verdict"] != NO_GAIN else ""


def headline(recipe: dict[str, Any], verdict: str, where: str = "", beaten: dict[str, Any] | None = None) -> str:
    """The verdict in a few words; `where` as the function of that name gives it, `beaten` as `results.beaten_by`."""
    besides = "" if beaten is None else f", and every arm is worse than “{beaten['baseline']}”"
    if verdict == NO_GAIN:
        return f"No gain shown{besides}"
    helped = "helped" if verdict == "gain" else "hurt"
    arm = recipe["arms"][recipe["comparison"]["arm"]]
    who = "the synthetic faces" if arm["existing"] or arm["new"] else "these faces"
    return f"{verdict.capitalize()}{where}: {who} {helped}{besides.replace(', and', ', but')}"


def tone(verdict: str, beaten: dict[str, Any] | None) -> str:
    """The colour of the verdict: that of a gain only where some arm is better than the baselines."""
    return {"gain": "gain" if beaten is None else "none", "loss": "loss", NO_GAIN: "none"}[verdict]


def beaten_by(beaten: dict[str, Any] | None) -> str:
    """The first sentence of a report whose arms all lose to a baseline; '' where `beaten` is None."""
    if beaten is None:
        return ""
    digits = digits_for(beaten["delta"], beaten["ci_low"], beaten["ci_high"])
    span = interval(beaten["ci_low"], beaten["ci_high"], digits, sign=True)
    certainty = span and f", {percent(beaten['confidence'])} interval {span}"
    arms = ", ".join(f"“{arm}”" for arm in beaten["holds_zero"])
    zero = f"the interval of {arms} does not exclude zero" if arms else "the interval of every arm excludes zero"
    return (
        f"Every arm is worse than the baseline “{beaten['baseline']}”, {beaten['words']}, fitted on the rows of "
        f"“{beaten['fitted_on']}”: {phrase(beaten['metric'])} {number(beaten['value'], digits)}, the "
        f"best arm “{beaten['best_arm']}” {number(beaten['best_mean'], digits)} on the same people (difference "
        f"{signed(beaten['delta'], digits)}{certainty}; {zero})."
    )


def verdict(recipe: dict[str, Any], primary: Measure, comparison: dict[str, Any]) -> str:
    """The verdict in one sentence, with its numbers."""
    words, what, result = phrase(primary.name), subject(recipe), comparison["verdict"]
    delta, low, high = (comparison[key] for key in ("delta", "ci_low", "ci_high"))
    if delta is None:
        return f"{what} could not be judged by the {words}: {comparison['reason']}."
    before, after = primary.arms[comparison["baseline"]].mean, primary.arms[comparison["arm"]].mean
    digits = digits_for(delta, low, high)
    verb = "raised" if delta > 0 else "lowered"
    if result == NO_GAIN:
        verb = "left" if delta == 0 else "moved"
    span = f"from {number(before, digits)} to {number(after, digits)}"
    if verb == "left":
        span = f"at {number(before, digits)}"
    certainty = (
        f", {percent(comparison['confidence'])} interval {interval(low, high, digits, True)}" if low is not None else ""
    )
    change = f"{what} {verb} the {words} {span} (difference {signed(delta, digits)}{certainty})"
    return f"{change}: {result}{where(comparison)}."


def why(comparison: dict[str, Any]) -> str:
    """The reason of the verdict, in a sentence."""
    low, result = comparison["ci_low"], comparison["verdict"]
    if low is None or comparison["n_seeds"] < 3:
        return f"{comparison['reason']}."
    if result == NO_GAIN:
        return "the interval holds zero, so a difference like this may be chance."
    side = "better" if result == "gain" else "worse"
    over = f"over {comparison['n_seeds']} seeds"
    if comparison["n_splits"] == 1:
        over += "; it speaks of these train people alone, and others may give another answer"
    return f"the whole interval lies on the {side} side of zero, {over}."


ALIKE = (
    "Both arms have the same figures throughout: val people kept in both what they began with, or both ask for the "
    "same."
)


def alike(comparison: dict[str, Any]) -> bool:
    """Whether the compared arms differ nowhere, so that there is no gain which could have been shown."""
    return comparison["delta"] == comparison["ci_low"] == comparison["ci_high"] == 0


def smallest(primary: Measure, comparison: dict[str, Any]) -> str:
    """The smallest gain that the data could have shown, in a sentence."""
    least = comparison["smallest_detectable"]
    if alike(comparison):
        return ALIKE
    if least is None:
        return ""
    direction = "drop" if primary.better == "lower" else "rise"
    count, seeds = comparison["n_seeds"], "seed" if comparison["n_seeds"] == 1 else "seeds"
    return (
        f"The smallest gain that {comparison['n_identities']} test people and {count} {seeds} could have "
        f"shown (four times in five) is a {direction} of about {number(least, digits_for(least))}."
    )


def learning(recognizers: list[dict[str, Any]], comparison: dict[str, Any], evaluations: int) -> str:
    """Which of the compared arms may not have trained to the end, in a sentence; empty where none stands out.

    `recognizers` are the rows of `sections.recognizers`. An arm stands out where, of several evaluations, one in the
    last tenth of the steps was the best on val people for half of its seeds or more.
    """
    if evaluations < 2:
        return ""
    late_arms = []
    for arm in (comparison["baseline"], comparison["arm"]):
        rows = [row for row in recognizers if row["arm"] == arm and row["best_step"] is not None and row["steps"]]
        late = sum(row["best_step"] > 0.9 * row["steps"] for row in rows)
        if rows and 2 * late >= len(rows):
            late_arms.append(f"“{arm}” ({late} of {len(rows)} seed{'s' * (len(rows) > 1)})")
    if not late_arms:
        return ""
    return (
        f"Perhaps not learned out: {' and '.join(late_arms)} did best on validation people at the end of the training. "
        "More steps for all arms (train_recognizer.steps) may give another answer."
    )


def began(recipe: dict[str, Any]) -> list[tuple[str, str]]:
    """What all arms began with, and whether they are fitted, as entries of `limits`; nothing of random weights."""
    kind = (recipe["train_recognizer"].get("start") or {"kind": "random"})["kind"]
    if kind == "random":
        return []
    text = (
        f"All arms begin with {STARTS.get(kind).words}. Whether it has learned from photos of the test people is not "
        "known here: the difference between arms is what this can tell, their own values are not."
    )
    found = [("Where the arms begin", text)]
    if is_fitted(recipe):
        text = (
            "No network is trained: a linear map of frozen features is fitted on the images of each arm (within-class "
            "whitening). Nothing of it is drawn, so that all seeds of an arm are one recognizer: the interval knows no "
            "luck of a training, and what is said of steps and batches says nothing here."
        )
        if "tune" not in recipe.get("guide", {}):
            text += " The guide, which filters new people, is fitted likewise on the real images."
        found.append(("Fitted, not trained", text))
    return found


def is_fitted(recipe: dict[str, Any]) -> bool:
    """Whether recognizers are fitted and not trained, in every trial, so that all seeds of an arm are one."""
    arms = recipe.get("arms", {}).values()
    trials = [trial for arm in arms for trial in arm.get("trials", {}).values()]
    searches = [search for one in (recipe, *arms) if (search := one.get("search"))]
    tunes = [recipe["train_recognizer"].get("tune"), *(trial["tune"] for trial in trials if "tune" in trial)]
    tunes += [tune for search in searches for tune in search.get("space", {}).get("tune", [])]
    return all(tune == "whitened" for tune in tunes)


def private(facts: dict[str, Any], seeds: int = 1) -> str:
    """What a private training promises and what it does not, of the `privacy` of an `embedder.json`.

    `seeds`: how many recognizers were trained so on the same photos.
    """
    drawn = (
        "Noise and batches were drawn from a secret key, by generators that are not cryptographic."
        if facts["keyed"]
        else "Noise and batches follow from the seed: against somebody who knows it nothing is promised (set "
        "train_recognizer.privacy.key_file)."
    )
    together = f" The {seeds} seeds are {seeds} releases: their epsilons and deltas add up." if seeds > 1 else ""
    return (
        f"Differentially private with epsilon {facts['epsilon']:.3g} and delta {facts['delta']:.2g} for each "
        f"{facts['unit']}, added or removed: not for a person, of whom m photos have about m times the epsilon. "
        f"{facts['steps']} steps of DP-SGD on Poisson samples ({facts['sample_rate']:.3g} of {facts['photos']} photos)"
        f", gradients clipped at {facts['clip']:g}, noise {facts['noise']:.3g} times that; "
        f"{facts['accountant'].upper()} accountant of opacus {facts['opacus']}. {drawn} Not covered: validation "
        "people, who chose the weights; names of people and the number of photos; the curve of the loss; weights that "
        "it began with; whatever else is made of the same photos, such as other seeds, also where one of them is "
        f"chosen.{together}"
    )


def limits(comparison: dict[str, Any], n_images: int, synthetic: bool) -> list[tuple[str, str]]:
    """What the verdict cannot tell: (heading, text)."""
    people = comparison["n_identities"]
    items = [
        (
            "Few people",
            f"The test has {n_images} photos of {people} people. Pairs are many, but pairs of the same "
            "people are not independent of each other: people are what counts, and the intervals resample "
            "people.",
        ),
        (
            "One split",
            "The people were divided into train, validation and test once, and one generator was made. The intervals "
            "speak of other test people and other seeds with these train people alone. What other train people would "
            "change is not in them and cannot be seen here: a study of several splits tells.",
        ),
        (
            "One recipe",
            "The answer holds for this network, this schedule and this generator on these faces. More real "
            "data, a larger network or pretrained weights may change it in either direction.",
        ),
        (
            "One question",
            f"Only the comparison of “{comparison['arm']}” with “{comparison['baseline']}” by "
            f"{comparison['metric']} was named before the run. All other numbers are exploratory: the more one looks "
            "at, the more likely one of them stands out by chance. How often these test people have been judged stands "
            "in look.json beside this page.",
        ),
        (
            "“No gain shown” is not “no gain”",
            "It says that the data cannot tell the difference from chance. Compare the smallest gain that "
            "could have been shown.",
        ),
        (
            "Not the deployment",
            "The test photos come from the same source as the training photos. Other cameras, ages and "
            "groups of people are not tested, and neither is fairness between groups.",
        ),
    ]
    if synthetic:
        items.append(
            (
                "Synthetic is not anonymous",
                "The generator has learned from real people, and a new identity can resemble one of them. "
                "The filters remove what the guide finds too close; they prove nothing about privacy or "
                "consent.",
            )
        )
    return items
