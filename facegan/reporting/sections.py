"""The report's sections beside the numbers, read from its inputs: people, filters, quarantine, lineage."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from facegan.core.units import format_bytes
from facegan.data.contact_sheet import natural_key
from facegan.generation.augmenters import AUGMENTERS
from facegan.generation.controls import CONTROLS
from facegan.generation.training_curve import d_has_won
from facegan.recognition.fitted import FITTED
from facegan.recognition.options import Arm, Search, TrainRecognizer
from facegan.recognition.search import in_words
from facegan.recognition.search import trials as trials_of
from facegan.recognition.trial_choice import read as read_choice
from facegan.reporting.comparisons import is_control
from facegan.reporting.runs import baselines as names_of_baselines
from facegan.reporting.words import number, percent, private

LISTED = 20


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file is not there."""
    return dict(json.loads(path.read_bytes())) if path.is_file() else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, none where it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines() if line] if path.is_file() else []


def d_won(inputs: dict[str, Path]) -> str | None:
    """A sentence where the generator's discriminator has won, else None."""
    return d_has_won(read_lines(inputs["train_gan"] / "curve.jsonl")) if "train_gan" in inputs else None


def arms(recipe: dict[str, Any], inputs: dict[str, Path]) -> list[dict[str, Any]]:
    """The training data of each arm, in words and counts."""
    rows = []
    for index, (name, spec) in enumerate(recipe["arms"].items()):
        summary = read_json(inputs[f"merge:{name}"] / "summary.json")
        words = [
            text
            for key, text in (
                ("real", "photos of real people"),
                ("existing", "synthetic images of these people"),
                ("new", "synthetic images of people who do not exist"),
            )
            if spec[key]
        ]
        if kind := (spec.get("set") or {}).get("kind"):
            instead = "" if kind in AUGMENTERS.load() else "a control in the place of new people: "
            words.append(f"{instead}{words_of_set(kind)}")
        rows.append({"name": name, "place": index, "words": ", ".join(words), **summary, "arm": name})
        rows[-1]["control"] = is_control(recipe, name)
        rows[-1]["privacy"] = privacy(recipe, inputs, name)
    return rows


def privacy(recipe: dict[str, Any], inputs: dict[str, Path], arm: str) -> str:
    """What the training of an arm's recognizers promises about the photos; "" where it was not private."""
    folders = [folder for seed in recipe["seeds"] if (folder := recognizer(inputs, arm, seed)) is not None]
    facts = read_json(folders[0] / "embedder.json").get("privacy") if folders else None
    return private(facts, len(folders)) if facts else ""


def words_of_set(kind: str) -> str:
    """What the rows of an arm's set are."""
    text: str = (AUGMENTERS if kind in AUGMENTERS.load() else CONTROLS).get(kind).words
    return text


def baselines(recipe: dict[str, Any], inputs: dict[str, Path]) -> list[dict[str, Any]]:
    """The fitted recognizers that were benchmarked: what they are, on which arm's rows, and what val people chose."""
    rows = []
    for name in names_of_baselines(inputs):
        on_arm = recipe["comparison"]["baseline" if name in recipe["baselines"] else "arm"]
        kind = recipe["baselines"].get(name, recipe["baselines"].get(name.removesuffix("+synthetic")))["kind"]
        folder = inputs.get(f"fit_recognizer:{name}")
        summary = {} if folder is None else read_json(folder / "summary.json")
        chosen = [
            f"{feature} {item['components']} components, shrinkage {item['shrinkage']:g}"
            for feature, item in summary.get("features", {}).items()
        ]
        left_out = summary.get("left_out", {}).get("images", 0)
        rows.append(
            {
                "name": name,
                "arm": on_arm,
                "words": " ".join((FITTED.get(kind).__doc__ or "").split("\n\n")[0].split()),
                "chosen": "; ".join(chosen),
                "val_eer": number(summary.get("val_eer")),
                "left_out": f"{left_out} images left out" if left_out else "",
            }
        )
    return rows


def licences(recipe: dict[str, Any], inputs: dict[str, Path]) -> list[dict[str, Any]]:
    """For each arm the licences of all its training data, with those of the data that synthetic rows come from."""
    summaries = {name: read_json(inputs[f"merge:{name}"] / "summary.json") for name in recipe["arms"]}
    return [{"arm": name, "licenses": summary.get("licenses", [])} for name, summary in summaries.items()]


def quarantine(folder: Path) -> dict[str, Any]:
    """How many files were left out, why, and the first of them."""
    table = pq.read_table(folder / "quarantine.parquet").to_pylist()
    summary = read_json(folder / "summary.json")
    reasons = Counter(item["reason"] for item in table)
    return {
        "files": summary["files"],
        "left_out": len(table),
        "reasons": sorted(reasons.items(), key=lambda item: (-item[1], item[0])),
        "listed": table[:LISTED],
        "more": max(0, len(table) - LISTED),
        "not_used": summary.get("not_used"),
    }


def filters(folder: Path) -> dict[str, Any]:
    """The filters of synthesize: thresholds, counts, and what was requested beside what was made."""
    report = read_json(folder / "filters.json")
    counts = {entry["filter"]: entry for entry in report.get("counts", [])}
    requested, made = report.get("requested", {}), report.get("made", {})
    return {
        "thresholds": [
            {"name": as_words(name), "value": _count_text(entry.get("value")), "how": entry.get("how", "")}
            for name, entry in report.get("thresholds", {}).items()
        ],
        "counts": [{**entry, "filter": as_words(str(entry["filter"]))} for entry in report.get("counts", [])],
        "made": [
            {"what": as_words(name), "wanted": _count_text(requested.get(name)), "made": _count_text(made.get(name))}
            for name in dict.fromkeys([*requested, *made])
        ],
        "kept": _kept(counts, made),
    }


def _kept(counts: dict[str, dict[str, Any]], made: dict[str, Any]) -> str:
    """The share of proposed new people, and of the images drawn of those, that passed the filters; "" without any."""
    people, images = (
        counts.get(name) for name in ("new people too close to a train person", "images that left their new person")
    )
    if not (people and images and people["seen"] and images["seen"]):
        return ""
    shares = made.get("new people", 0) / people["seen"], 1 - images["removed"] / images["seen"]
    return (
        f"{percent(round(shares[0], 3))} of the proposed new people and {percent(round(shares[1], 3))} of their images"
    )


def as_words(name: str) -> str:
    """A key as words."""
    return name.replace("_", " ")


def _count_text(value: Any) -> str:
    if isinstance(value, float) and not value.is_integer():
        return number(value)
    return "–" if value is None else str(int(value) if isinstance(value, float) else value)


def duplicates(recipe: dict[str, Any], inputs: dict[str, Path]) -> list[dict[str, Any]]:
    """For each arm: how many pairs of images are the same or nearly so, and how many of two identities."""
    rows = []
    for name in recipe["arms"]:
        folder = inputs[f"merge:{name}"]
        summary = read_json(folder / "summary.json")
        pairs = pq.read_table(folder / "duplicates.parquet").to_pylist()
        pairs.sort(key=lambda p: (p["kind"], -p["correlation"], natural_key(p["identity"]), p["image_id"]))
        rows.append(
            {
                "arm": name,
                "exact": summary["exact_duplicates"],
                "near": summary["near_duplicates"],
                "across": sum(p["identity"] != p["other_identity"] for p in pairs),
                "capped": summary["capped"],
                "listed": [{**p, "correlation": number(p["correlation"])} for p in pairs[:LISTED]],
                "more": max(0, len(pairs) - LISTED),
            }
        )
    return rows


def choice(inputs: dict[str, Path], arm: str) -> dict[str, Any]:
    """The choice between an arm's trials on val people (`trial`, `val_eer`); empty where it has only one trial."""
    return read_choice(inputs[f"select:{arm}"]) if f"select:{arm}" in inputs else {}


def recognizer(inputs: dict[str, Path], arm: str, seed: int) -> Path | None:
    """The folder of the recognizer that stands for an arm and seed: that of the chosen trial."""
    chosen_name = f"train_recognizer:{arm}:{choice(inputs, arm).get('trial')}:{seed}"
    return inputs.get(chosen_name, inputs.get(f"train_recognizer:{arm}:{seed}"))


def trials(recipe: dict[str, Any], inputs: dict[str, Path]) -> list[dict[str, Any]]:
    """Each arm's trials with their options and EER on val people; none where arms have only one."""
    return [
        {
            "arm": arm,
            "trial": trial,
            "options": ", ".join(f"{name} {value}" for name, value in flatten(spec["trials"][trial]).items()) or "–",
            "mean": number(entry["mean"]),
            "seeds": ", ".join(number(value) for value in entry["per_seed"]),
            "chosen": trial == chosen["trial"],
        }
        for arm, spec in recipe["arms"].items()
        if "val_eer" in (chosen := choice(inputs, arm))
        for trial, entry in chosen["val_eer"].items()
    ]


def searches(recipe: dict[str, Any], inputs: dict[str, Path]) -> dict[str, Any] | None:
    """What each arm's search tried, in the order of its trials, and a sentence on its size; None without a search."""
    rows: list[dict[str, Any]] = []
    spent: list[str] = []
    ladder = ""
    for arm in recipe["arms"]:
        chosen = choice(inputs, arm)
        if (found := chosen.get("search")) is None:
            continue
        ladder = ", then ".join(f"{len(rung['val_eer'])} on {rung['images']:,} images" for rung in found["rungs"])
        spent.append(f"{arm} {found['images']:,}")
        trained = pq.read_table(inputs[f"select:{arm}"] / "trials.parquet").to_pylist()
        for trial, settings in found["trials"].items():
            errors = [number(rung["val_eer"][trial]) for rung in found["rungs"] if trial in rung["val_eer"]]
            images = sum(row["images"] for row in trained if row["trial"] == trial and not row["again"])
            row = {"arm": arm, "trial": trial, "options": in_words(settings), "errors": ", ".join(errors)}
            rows.append({**row, "images": f"{images:,}", "chosen": trial == chosen["trial"]})
    if not rows:
        return None
    seed = recipe["seeds"][0]
    sentence = (
        f"All arms searched the same space with as many trials, on validation people alone, with seed {seed}: {ladder} "
        f"each at most. Images spent: {', '.join(spent)}. The trial with the least error in the last rung was trained "
        "with all seeds and judged; test people play no part in the choice."
    )
    return {"sentence": sentence, "rows": rows}


def tried(recipe: dict[str, Any], arm: str, trial: str) -> tuple[dict[str, Any], str]:
    """The options of an arm's trial, laid over train_recognizer, and what the trial is called.

    One of a fixed list has a name of its own; of a search's the options that differ are told.
    """
    spec = recipe["arms"][arm]
    if trial in spec.get("trials", {}):
        return dict(spec["trials"][trial]), trial
    search = Search.model_validate(spec.get("search") or recipe["search"])
    own = TrainRecognizer.model_validate(recipe["train_recognizer"])
    found = trials_of(search, Arm(existing=spec["existing"], new=spec["new"] or bool(spec.get("set"))), own)[trial]
    return found.options, in_words(found.settings)


def flatten(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{dotted path: value} of nested options."""
    flattened: dict[str, Any] = {}
    for name, value in options.items():
        flattened |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flattened


def recognizers(recipe: dict[str, Any], inputs: dict[str, Path]) -> list[dict[str, Any]]:
    """Each recognizer's chosen step and its EER on val people; guide and judge last, where they were trained."""
    names = [(arm, seed) for arm in recipe["arms"] for seed in recipe["seeds"]]
    names += [("guide", recipe["guide_seed"]), ("judge", recipe["audit"]["judge"].get("seed"))]
    rows = []
    for arm, seed in names:
        folder = recognizer(inputs, arm, seed)
        if folder is not None:
            summary = read_json(folder / "summary.json")
            value = summary.get("val_eer")
            rows.append(
                {
                    "arm": arm,
                    "seed": seed,
                    "best_step": summary.get("best_step"),
                    "steps": summary.get("steps"),
                    "val_eer": number(value),
                }
            )
    return rows


def lineage(inputs: dict[str, Path]) -> dict[str, Any]:
    """Each stage's fingerprint, what it was made from and how much it wrote; the packages that made them.

    No durations, hosts or folders: the same inputs give the same page.
    """
    stages: list[dict[str, Any]] = []
    packages: dict[str, set[str]] = {}
    for name, folder in inputs.items():
        record = read_json(folder / "record.json")
        for package, version in record.get("packages", {}).items():
            packages.setdefault(package, set()).add(version)
        outputs = record.get("outputs", {})
        made_from = [
            (source, str(entry.get("fingerprint") or entry.get("sha256", ""))[:12])
            for source, entry in sorted(record.get("inputs", {}).items())
        ]
        stages.append(
            {
                "name": name.replace(":", " · "),
                "fingerprint": folder.name[:12],
                "version": record.get("stage_version"),
                "made_from": made_from,
                "files": len(outputs),
                "size": format_bytes(sum(entry["bytes"] for entry in outputs.values())),
            }
        )
    package_lines = [f"{name} {', '.join(sorted(versions))}" for name, versions in sorted(packages.items())]
    return {"stages": stages, "packages": package_lines}
