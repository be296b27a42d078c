"""card.md: what a person should know of a model before using it."""

from __future__ import annotations

from typing import Any

from facegan.reporting.words import interval, number, private

ASKED = {
    "groups": (
        "Groups",
        "Error rates of groups at one threshold. Pairs are within a group.",
        "whether groups of people or photos have more errors than others is not known",
    ),
    "attack": (
        "Attacks",
        "Share of pairs judged wrongly after a change of at most eps / 255 of each pixel, by an attacker who has the "
        "network, and the median of the smallest change that does it.",
        "how small a change of a photo turns the decision is not known",
    ),
    "membership": (
        "What it tells of its train people",
        "How well its embeddings tell photos of train people from those of others (AUC, 0.5 is chance), and the share "
        "of train people that is found where a share fpr of the others is taken for them.",
        "whether it tells who was in its training is not known",
    ),
}
"""{kind of benchmark: title of its section, what its figures are, what is not known where it was not asked}."""


def text(spec: dict[str, Any]) -> str:
    """The model card of a `model.json`, in Markdown. After Mitchell et al. 2019, Model Cards for Model Reporting."""
    parts = (
        _head(spec),
        _training(spec),
        *_privacy(spec),
        _figures(spec),
        *(_asked(spec, kind) for kind in ASKED),
        _thresholds(spec),
        _leakage(spec),
        _use(spec),
        _limits(spec),
    )
    return "\n".join(line for part in parts for line in (*part, ""))


def _kind(spec: dict[str, Any], metric: str) -> str | None:
    """The kind of the benchmark that a metric is of, where it is one of ASKED; models of before have none."""
    kind = spec.get("benchmarks", {}).get(metric.partition("/")[0], {}).get("kind")
    return kind if kind in ASKED and "/" in metric else None


def _asked(spec: dict[str, Any], kind: str) -> list[str]:
    """The section of a kind of benchmark: its figures, or that it was not asked."""
    title, words, unknown = ASKED[kind]
    metrics = [metric for metric in spec["metrics"] if _kind(spec, metric["name"]) == kind]
    if not metrics:
        return [f"## {title}", "", f"Not asked: {unknown} (`benchmark.benchmarks`, kind `{kind}`)."]
    return [f"## {title}", "", words, "", *_table(metrics)]


def _table(metrics: list[dict[str, Any]]) -> list[str]:
    lines = ["| metric | value | interval | people | note |", "|---|--:|---|--:|---|"]
    for metric in metrics:
        value, bounds = number(metric["value"]), interval(metric["low"], metric["high"])
        lines.append(f"| {metric['name']} | {value} | {bounds} | {metric['n_identities'] or ''} | {metric['note']} |")
    return lines


def _head(spec: dict[str, Any]) -> list[str]:
    network, lineage = spec["network"], spec["lineage"]
    return [
        f"# Model {spec['version']}",
        "",
        f"A face recognizer: {_network(network['options'])}, embeddings of {spec['embedding_dim']} numbers, compared "
        f"by cosine. Made {spec['created']} from recipe `{lineage['recipe']}`, arm `{lineage['arm']}`, seed "
        f"{lineage['seed']} (the best of its seeds on val people), commit {lineage['commit'] or 'unknown'}.",
    ]


def _network(options: dict[str, Any]) -> str:
    """The network in words: its name in timm or, where that plays no part, the start; and what of it was tuned."""
    begun = options.get("start") or {"kind": "random"}
    start = (begun.get("of") or begun)["kind"]
    network = options["backbone"] if start in ("random", "timm", "file", "champion") else f"start `{start}`"
    return network if options.get("tune", "all") == "all" else f"{network}, tune `{options['tune']}`"


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


def _privacy(spec: dict[str, Any]) -> list[list[str]]:
    """The section on differential privacy, where there was any; models of before say nothing of it."""
    facts = spec.get("privacy")
    return [["## Differential privacy", "", private(facts)]] if facts else []


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
    for metric in (metric for metric in spec["metrics"] if _kind(spec, metric["name"]) is None):
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
    lines = ["## Leakage", "", f"Audit of the synthetic images by {leakage['judge']}: {result}."]
    if told := leakage.get("membership"):
        person = told["person"]
        lines.append(
            f"Who was in the set: AUC of a person {person['auc']:.3f} ({interval(*person['interval'])}), 0.5 is "
            f"chance; {told['people']} train people, {told['others']} others."
        )
    return lines


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
        "- Of groups that are not named here nothing is known.",
        "- Figures of attacks and membership are of the attacks that were tried: better ones may do more. None is a "
        "guarantee.",
        "- It tells faces apart. It does not tell a live face from a picture of one.",
    ]
