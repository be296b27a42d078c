"""card.md: what a person should know of a model before using it."""

from __future__ import annotations

from typing import Any

from facegan.reporting.words import interval, number


def text(spec: dict[str, Any]) -> str:
    """The model card of a `model.json`, in Markdown. After Mitchell et al. 2019, Model Cards for Model Reporting."""
    parts = (_head(spec), _training(spec), _figures(spec), _thresholds(spec), _leakage(spec), _use(spec), _limits(spec))
    return "\n".join(line for part in parts for line in (*part, ""))


def _head(spec: dict[str, Any]) -> list[str]:
    network, lineage = spec["network"], spec["lineage"]
    return [
        f"# Model {spec['version']}",
        "",
        f"A face recognizer: {network['options']['backbone']}, embeddings of {spec['embedding_dim']} numbers, compared "
        f"by cosine. Made {spec['created']} from recipe `{lineage['recipe']}`, arm `{lineage['arm']}`, seed "
        f"{lineage['seed']} (the best of its seeds on val people), commit {lineage['commit'] or 'unknown'}.",
    ]


def _training(spec: dict[str, Any]) -> list[str]:
    training = spec["training"]
    return [
        "## What it was trained on",
        "",
        f"- {training['people']} people, {training['real_images']} real and {training['synthetic_images']} synthetic "
        f"images: {training['synthetic_share']:.0%} synthetic",
        f"- licences of all that it learned from: {'; '.join(spec['licenses']) or 'none stated'}",
        f"- manifest {spec['lineage']['manifest'][:12]}, generator {(spec['lineage']['generator'] or 'none')[:12]}",
    ]


def _figures(spec: dict[str, Any]) -> list[str]:
    comparison = spec["judged_on"]
    lines = [
        "## How well it does",
        "",
        f"On {comparison['people']} test people ({comparison['images']} images), none of whom it was developed on. "
        f"Intervals ({comparison['confidence']:.0%}) are for other people of the same kind. They had judged "
        f"{comparison['looks']} time(s) before for a promotion, and for the report of the run.",
        "",
        "| metric | value | interval | genuine pairs | impostor pairs | note |",
        "|---|--:|---|--:|--:|---|",
    ]
    for metric in spec["metrics"]:
        bounds = interval(metric["low"], metric["high"])
        counts = f"{metric['n_genuine']} | {metric['n_impostor']}"
        lines.append(f"| {metric['name']} | {number(metric['value'])} | {bounds} | {counts} | {metric['note']} |")
    return lines


def _thresholds(spec: dict[str, Any]) -> list[str]:
    lines = [
        "## Operating thresholds",
        "",
        "Chosen on val people (who also chose the weights), measured on test people; of single images. Accept at or "
        "above the threshold.",
        "",
        "| FAR | threshold | val: impostor pairs | val: TAR | test: impostor pairs | test: FAR | test: TAR |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for point in spec["thresholds"]:
        if point["threshold"] is None:
            lines.append(f"| {point['far']:g} | {point['why']} | | | | | |")
            continue
        val, test = point["chosen_on"], point["measured_on"]
        lines.append(
            f"| {point['far']:g} | {point['threshold']:.4f} | {val['impostor']} | {val['tar']:.3f} | "
            f"{test['impostor']} | {test['far']:.4f} | {test['tar']:.3f} |"
        )
    return lines


def _leakage(spec: dict[str, Any]) -> list[str]:
    leakage = spec["leakage"]
    if leakage is None:
        return ["## Leakage", "", "No image of a generator took part: there was nothing to audit."]
    result = (
        "; ".join(leakage["faults"]) or "passed: no near-copy of a training photo, no new person who is a train person"
    )
    return ["## Leakage", "", f"Audit of the synthetic images by {leakage['judge']}: {result}."]


def _use(spec: dict[str, Any]) -> list[str]:
    preprocessing, onnx = spec["preprocessing"], spec["onnx"]
    aligned = (
        "found and aligned as in `model.json`" if preprocessing["align"] else "cropped as the training images were"
    )
    file = onnx.get("missing") or (
        f"opset {onnx['opset']}, any batch size, within {onnx['largest_difference']:.1g} of PyTorch on "
        f"{onnx['faces']} real faces"
    )
    return [
        "## How to use it",
        "",
        f"`facegan embed IMAGES...` and `facegan verify A B`. Input: faces {aligned}, {preprocessing['color']}, "
        f"{preprocessing['size_px']} px, {preprocessing['input']}. ONNX: {file}.",
    ]


def _limits(spec: dict[str, Any]) -> list[str]:
    return [
        "## Limits",
        "",
        "- The figures hold for people and photos like those of the test set, prepared in the same way.",
        "- A threshold is no probability; a FAR that the data could not resolve is not stated.",
        "- Where the manifest names no groups, nothing is known of groups.",
        "- It tells faces apart. It does not tell a live face from a picture of one.",
    ]
