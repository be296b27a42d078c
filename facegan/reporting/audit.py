"""The audit in the report: the card as a table, the gate in sentences, and the faces that show both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facegan.data import contact_sheet, manifest
from facegan.reporting.galleries import Person, Row
from facegan.reporting.sections import read_json
from facegan.reporting.words import number, percent

SETS = {
    "existing": "synthetic, train people",
    "real train": "real, train people",
    "new": "synthetic, new people",
    "real val": "real, other people",
}
FIGURES = {
    "people": ("people", ""),
    "images": ("images", ""),
    "eer": ("EER", "how often two images of the set are wrongly taken for one person or for two; lower: its people "
            "are easier to tell apart"),
    "d_prime": ("d′", "distance of the scores of one person's pairs from those of two people's, in their spread"),
    "fisher": ("Fisher ratio", "the same squared and halved"),
    "uniqueness": ("uniqueness U", "share of the people who are not within the threshold of an earlier one"),
    "distinguishable": ("distinguishable people", "how many that are"),
    "consistency": ("consistency C", "share of a person's images that are within the threshold of their centre"),
    "within": ("likeness within a person", "mean cosine of two images of one person; near 1: always the same picture"),
    "diversity": ("diversity D", "share of a person's real looks (pose, light, expression) that their images reach"),
    "nearest photo": ("nearest train photo", "cosine of an image with the nearest photo, median"),
    "nearest person": ("nearest train person", "cosine of a person's centre with the nearest train person's, median"),
    "kid": ("KID", "distance from the train photos as a whole; 0: the same distribution"),
    "precision": ("precision", "share of the images that lie among train photos"),
    "recall": ("recall", "share of the train photos that lie among the images"),
    "density": ("density", "how densely train photos surround the images; 1: as they surround each other"),
    "coverage": ("coverage", "share of the train photos with an image next to them"),
    "kid unseen": ("KID to other people", "distance from photos of the validation people, whom the generator has not "
                   "seen; the last column: half of them against the others"),
    "auc": ("AUC", "how well a classifier tells the images from photos of the validation people, on people that it has "
            "not learned from; 0.5: not at all, 1: always; the last column: half of them against the others"),
    "spread": ("spread within a person", "variance within a person over that of the validation people; 1: they vary as "
               "much as real people do"),
}  # fmt: skip
PROBED = {
    "real": "photos of train people",
    "real and new": "photos of train people and images of new ones",
    "new": "images of new people alone",
}
PAIRS = 12


@dataclass(frozen=True)
class AuditMaterial:
    """The audit as the pages show it."""

    table: dict[str, Any]
    gate: dict[str, Any]
    galleries: tuple[tuple[str, str, tuple[Person, ...]], ...]  # (figure's name, caption, people)


def collect(prepared: Path, synthetic: Path, audit: Path, faces_per_row: int) -> AuditMaterial:
    """The content of the audit's two files, with at most `faces_per_row` faces a row; 0: no face and no name."""
    card, gate = read_json(audit / "card.json"), read_json(audit / "gate.json")
    if faces_per_row == 0:
        gate_text = {**sentences(gate), "faults": []}  # they name people; the lines have the same numbers
        return AuditMaterial(table(card), gate_text, ())
    galleries = (
        (
            "audit-closest",
            "Closest pairs: a synthetic image above the most similar training photo",
            closest_pairs(gate, prepared, synthetic),
        ),
        (
            "audit-people",
            "New people most like a train person, with that person's photos",
            closest_people(gate, prepared, synthetic, faces_per_row),
        ),
        (
            "audit-consistency",
            "The most consistent identities first, the least consistent last",
            _most_and_least_consistent(card, synthetic, faces_per_row),
        ),
    )
    return AuditMaterial(table(card), sentences(gate), tuple(item for item in galleries if item[2]))


def set_card(audit: Path, compositions: list[dict[str, Any]], show_people: bool) -> dict[str, Any]:
    """The card of the set for programs: its figures, `leakage` as in a model's `model.json`, and `groups`.

    compositions: of whom it is made, `composition.collect`. show_people: else neither faults nor the most consistent
    people are in it, which name people.
    """
    card, gate = read_json(audit / "card.json"), read_json(audit / "gate.json")
    leakage = {"judge": card["judge"], "outcome": verdict(gate), "membership": gate.get("membership")}
    if show_people:
        leakage["faults"] = [fault["what"] for fault in gate["faults"]]
    else:
        del card["people"]
    return {**card, "leakage": leakage, "groups": compositions}


def closest_pairs(gate: dict[str, Any], prepared: Path, synthetic: Path) -> tuple[Person, ...]:
    """The PAIRS closest pairs: a synthetic image and its most similar photo."""
    pairs = gate["copies"]["closest"][:PAIRS]
    photos = by_id(prepared, {pair["photo"] for pair in pairs})
    images = by_id(synthetic, {pair["image_id"] for pair in pairs})
    return tuple(
        Person(
            pair["identity"],
            (
                Row("synthetic", "synthetic", (images[pair["image_id"]],)),
                Row("real", "nearest photo", (photos[pair["photo"]],)),
            ),
            f"similarity {pair['similarity']:.3f}",
        )
        for pair in pairs
    )


def closest_people(gate: dict[str, Any], prepared: Path, synthetic: Path, faces_per_row: int) -> tuple[Person, ...]:
    """The four new people most like a train person, with that person's photos."""
    worst = gate["people"]["new"]["worst"][:4]
    synthetic_faces = contact_sheet.faces_of(synthetic, {item["identity"] for item in worst}, faces_per_row)
    photos = contact_sheet.faces_of(prepared, {item["train_person"] for item in worst}, faces_per_row, "train")
    return tuple(
        Person(
            item["identity"],
            (
                Row("synthetic", "synthetic", synthetic_faces[item["identity"]]),
                Row("real", item["train_person"], photos[item["train_person"]]),
            ),
            f"likeness {item['likeness']:.2f}",
        )
        for item in worst
    )


def side_by_side(people: tuple[Person, ...]) -> tuple[Person, ...]:
    """For a sheet: people of one face a row side by side, so that pairs stand in columns."""
    if any(len(row.faces) != 1 for person in people for row in person.rows):
        return people
    rows = zip(*(person.rows for person in people), strict=True)
    return (Person("", tuple(Row(line[0].kind, "", tuple(row.faces[0] for row in line)) for line in rows)),)


def _most_and_least_consistent(card: dict[str, Any], synthetic: Path, faces_per_row: int) -> tuple[Person, ...]:
    people = [person for kind in card["people"].values() for person in kind]
    ranked = sorted(people, key=lambda person: -person["cosine"])
    chosen = ranked if len(ranked) <= 6 else ranked[:3] + ranked[-3:]
    faces = contact_sheet.faces_of(synthetic, {person["identity"] for person in chosen}, faces_per_row)
    return tuple(
        Person(name, (Row("synthetic", "synthetic", faces[name]),), f"mean cosine {cosine:.3f}")
        for name, cosine in ((person["identity"], person["cosine"]) for person in chosen)
    )


def by_id(path: Path, image_ids: set[str]) -> dict[str, bytes]:
    """The stored bytes of some images of a manifest."""
    return {row["image_id"]: row["image"]["bytes"] for row in manifest.iterate(path) if row["image_id"] in image_ids}


def table(card: dict[str, Any]) -> dict[str, Any]:
    """The card: {columns, lines: [{name, gloss, cells}], judge, thresholds, probe}."""

    def text(value: float | None) -> str:
        return "–" if value is None else str(value) if isinstance(value, int) else number(value)

    lines = [
        {"name": name, "gloss": gloss, "cells": [text(card["sets"][kind].get(key)) for kind in SETS]}
        for key, (name, gloss) in FIGURES.items()
    ]
    probe = [
        {"name": PROBED[name], **fit, "eer": number(fit["eer"])}
        for name, fit in card["probe"].items()
        if fit is not None
    ]
    thresholds = ", ".join(
        f"{what} {entry['value']:.3f} ({entry['n']} comparisons)" for what, entry in card["thresholds"].items()
    )
    columns = list(SETS.values())
    return {"columns": columns, "lines": lines, "judge": card["judge"], "thresholds": thresholds, "probe": probe}


def in_short(card: dict[str, Any]) -> str:
    """The card in a line: new people (else synthetic train people) and the real-real values beside them."""
    kind = "new" if card["sets"]["new"]["images"] else "existing"
    ours, real = card["sets"][kind], card["sets"]["real val"]
    figures = [f"{name} {number(ours.get(key))} ({number(real.get(key))})"
               for key, name in (("kid", "KID"), ("auc", "AUC"), ("spread", "spread"))]  # fmt: skip
    probe = [f"{name} {number(fit['eer'])}" for name, fit in card["probe"].items() if fit is not None]
    return (
        f"{SETS[kind]} (real people beside): {', '.join(figures)}; EER of classical on val people: {', '.join(probe)}"
    )


def verdict(gate: dict[str, Any]) -> str:
    """`passed`, `failed`, or `cannot tell` where nothing was found and the gate could not see all that it should."""
    outcomes = {fault.get("outcome", "failed") for fault in gate["faults"]}
    return "failed" if "failed" in outcomes else "cannot tell" if outcomes else "passed"


def sentences(gate: dict[str, Any]) -> dict[str, Any]:
    """The gate: {verdict, faults, lines: [{what, bound, found, beside}]}."""
    copies, people, told = gate["copies"], gate["people"], gate["membership"]
    power = ", ".join(f"{kind} {percent(round(share, 3))}" for kind, share in copies["power"].items())
    new, null = people["new"], people["null"]
    lines = [
        {
            "what": "near-copies of training photos, laid on them",
            "bound": f"none at a similarity of {copies['value']:.3f} or more",
            "found": f"{copies['copies']} of {copies['images']} images; the largest is {copies['largest']:.3f}",
            "beside": f"{percent(round(copies['false_alarm'], 4))} of pairs of different photos of one person would be "
            f"called copies ({percent(round(copies['false_alarm_photos'], 3))} of the photos are in one), and "
            f"{percent(round(copies['false_alarm_strangers'], 4))} of photos of other people",
        },
        {
            "what": "planted photos of each kind that are found",
            "bound": "at least 95 %, else the gate cannot tell",
            "found": f"at least {percent(round(min(copies['power'].values()), 3))}",
            "beside": power,
        },
        {
            "what": "who was in it: AUC of a photo, of a person",
            "bound": "audit.max_membership, by default none; 0.5 tells nothing",
            "found": ", ".join(
                f"{told[what]['auc']:.3f} ({_between(told[what]['interval'])})" for what in ("photo", "person")
            ),
            "beside": f"by images {told['attack']}; other people split in two: {_between(told['photo']['null'])}, "
            f"{_between(told['person']['null'])} "
            f"({told['people']} train people, {told['others']} others)",
        },
        {
            "what": "new people who match a train person",
            "bound": f"at most {percent(people['max_match_rate'])} (a match: likeness {people['level']:.2f})",
            "found": f"{new['matched']} of {new['people']}",
            "beside": f"{null['matched']} of {null['people']} real people whom nothing learned from; "
            f"{_share(people['power'])} of train people match themselves by their synthetic images, and "
            f"{_share(people['power_unseen'])} by one half of their photos against the other",
        },
    ]
    said = verdict(gate) if gate["enforced"] or not gate["faults"] else f"{verdict(gate)}, and not enforced"
    return {"verdict": said, "faults": [fault["what"] for fault in gate["faults"]], "lines": lines}


def _share(value: float | None) -> str:
    return "–" if value is None else percent(round(value, 2))


def _between(interval: list[float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def pooled(gates: list[dict[str, Any]]) -> dict[str, str]:
    """The gates of one variant's splits as the cells of one table row.

    The closest image is that of the split where it is nearest to, or furthest above, its threshold.
    """
    copies, people = [gate["copies"] for gate in gates], [gate["people"] for gate in gates]
    worst = max(copies, key=lambda part: part["largest"] - part["value"])
    new, null = ([part[kind] for part in people] for kind in ("new", "null"))

    def ratio(parts: list[dict[str, Any]], count: str, total: str) -> str:
        return f"{sum(part[count] for part in parts)} of {sum(part[total] for part in parts)}"

    return {
        "passed": f"{sum(not gate['faults'] for gate in gates)} of {len(gates)}",
        "copies": ratio(copies, "copies", "images"),
        "closest": f"{worst['largest']:.3f} (threshold {worst['value']:.3f})",
        "caught": _range_text([min(part["power"].values()) for part in copies]),
        "new": ratio(new, "matched", "people"),
        "null": ratio(null, "matched", "people"),
        "power": _range_text([part["power"] for part in people if part["power"] is not None]),
    }


def _range_text(shares: list[float]) -> str:
    """The least and the largest share of several."""
    if not shares:
        return "–"
    texts = [percent(round(share, 2)) for share in (min(shares), max(shares))]
    return texts[0] if texts[0] == texts[1] else " to ".join(texts)
