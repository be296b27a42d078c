"""Arms with a set on the pages: what they learn from, and how far the best of them that are controls comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facegan.data import manifest
from facegan.data.contact_sheet import evenly_chosen, faces_of
from facegan.reporting import sections, words
from facegan.reporting.comparisons import Measure, is_control
from facegan.reporting.galleries import Person, Row

CLASSES_SHOWN = 3  # of each control


def kinds(recipe: dict[str, Any]) -> dict[str, str]:
    """{arm: kind} of the arms with a set."""
    return {name: spec["set"]["kind"] for name, spec in recipe["arms"].items() if spec.get("set")}


def best(recipe: dict[str, Any], primary: Measure) -> dict[str, Any] | None:
    """The control with the best mean of the comparison's metric, for results.json; None where there is none.

    `delta` is the compared arm minus the control, in the metric's own unit. It has no verdict: the comparison that was
    named beforehand is another, but where the control is its baseline (`is_named`).
    """
    of_arm = kinds(recipe)
    means = {name: mean for name in primary.controls if (mean := primary.arms[name].mean) is not None}
    if not means:
        return None
    name = (min if primary.better == "lower" else max)(means, key=lambda control: means[control])
    difference, spec = primary.controls[name], recipe["comparison"]
    return {
        "arm": name,
        "kind": of_arm[name],
        "metric": primary.name,
        "mean": means[name],
        "compared": spec["arm"],
        "is_named": name == spec["baseline"],
        "delta": difference.delta,
        "ci_low": difference.low,
        "ci_high": difference.high,
        "confidence": spec["confidence"],
        "of": means,
    }


def sentence(found: dict[str, Any] | None) -> str:
    """The best cheap alternative in a sentence; empty where the recipe has no control."""
    if found is None:
        return ""
    digits = words.digits_for(found["delta"], found["ci_low"], found["ci_high"])
    ends = words.interval(found["ci_low"], found["ci_high"], digits, sign=True)
    span = f"{words.percent(found['confidence'])} interval {ends}" if ends else "no interval"
    others = f" of {len(found['of'])}" if len(found["of"]) > 1 else ""
    rows = sections.words_of_set(found["kind"])
    status = "This is the comparison named" if found["is_named"] else "For orientation: another comparison was named"
    return (
        f"The best cheap alternative{others}, the control “{found['arm']}” ({rows}), has "
        f"{words.number(found['mean'], digits)}. “{found['compared']}” minus it: "
        f"{words.signed(found['delta'], digits)} ({span}). {status} before the run."
    )


def galleries(recipe: dict[str, Any], inputs: dict[str, Path], classes: int, faces: int) -> list[dict[str, Any]]:
    """For each set: arm, title, caption with its likeness to the train photos, a few people with their parents."""
    found = []
    for arm, kind in kinds(recipe).items():
        folder = inputs.get(f"derive:{arm}")
        if folder is None:
            continue
        summary = sections.read_json(folder / "summary.json")
        like, what = summary["likeness"], sections.words_of_set(kind)
        caption = (
            f"{what[:1].upper()}{what[1:]}: {summary['identities']} identities, "
            f"{summary['images']} images ({summary['different_images']} different). "
            f"Largest similarity of an image to a train photo: median {words.number(like['median'], 2)}, "
            f"5 to 95 % {words.number(like['q05'], 2)} to {words.number(like['q95'], 2)}. "
            "It claims no new person, and no gate judges it."
        )
        if left_out := summary.get("photos_left_out"):
            caption += f" {left_out} train photos were left out: no face where the others have theirs."
        title = f"{'Control' if is_control(recipe, arm) else 'Arm'} “{arm}”"
        people = _shown(inputs["prepare"], folder, kind, classes, faces)
        found.append({"arm": arm, "title": title, "caption": caption, "people": people})
    return found


def _shown(real: Path, derived: Path, kind: str, classes: int, faces: int) -> tuple[Person, ...]:
    """A few classes, the real photos of the people in them above their images."""
    table = manifest.read(derived, ["identity", "parents"])
    parents = dict(zip(table["identity"].to_pylist(), table["parents"].to_pylist(), strict=True))
    shown = evenly_chosen(list(parents), min(classes, CLASSES_SHOWN))
    lent = faces_of(real, {parent for name in shown for parent in parents[name] or ()}, faces, "train")
    images = faces_of(derived, set(shown), faces)
    people = []
    for name in shown:
        who = list(parents[name] or ())
        of_one = who[:1] == [name] or len(who) == 1
        photos = lent.get(who[0], ()) if of_one else tuple(lent[parent][0] for parent in who if lent.get(parent))
        above = (Row("parent", "real photos", photos[:faces]),) if photos else ()
        people.append(Person(name, (*above, Row("synthetic", kind, images[name]))))
    return tuple(people)
