"""`facegan promote`, `models` and `rollback`: the registry's decisions as tables and lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facegan.console import tables
from facegan.console.screen import console
from facegan.core.errors import ConfigError
from facegan.promotion.registry import CHOSEN, Models
from facegan.recipe.recipe import Recipe


def promote(
    recipe: Recipe, workdir: Path, arm: str | None, force: str | None, json_to: str | None
) -> bool:  # torch is imported here
    """Compare the challenger of a finished run with the champion; print both, each gate and the decision.

    Returns whether the challenger is current.
    """
    from facegan.promotion.promote import Decision
    from facegan.promotion.promote import promote as decide

    out = console(to_stderr=json_to == "-")
    decision: Decision = decide(recipe, workdir, arm, force, lambda text: console().print(text, markup=False))
    models = Models(workdir)
    if decision.results is not None:
        tables.show_comparison(decision.results, decision.version, decision.champion, out)
    for remark in decision.remarks:
        tables.say(out, remark)
    current = models.current()
    phrases = {"promoted": "is promoted: it is current now", "refused": "is refused and kept"}
    tables.say(out, f"{decision.version} {phrases.get(decision.event, 'is kept')} ({decision.why})")
    tables.say(
        out, f"current: {current or 'none'}; {models.folder(decision.version) / 'card.md'} tells of {decision.version}"
    )
    results = None if decision.results is None else decision.results.as_dict()
    answer = {"event": decision.event, "version": decision.version, "champion": decision.champion, "current": current}
    tables.write_json(json_to, {**answer, "why": decision.why, "judgement": results, "remarks": list(decision.remarks)})
    return decision.version == current


def show(workdir: Path, json_to: str | None) -> None:
    """Every version: its state, date, figures, and why it is what it is."""
    models = Models(workdir)
    rows = [_row(models, version) for version in models.versions()]
    if json_to is not None:
        tables.write_json(json_to, {"current": models.current(), "models": rows, "history": models.history()})
    if json_to != "-":
        tables.show_models(rows, models.root, console(to_stderr=False))


def _row(models: Models, version: str) -> dict[str, Any]:
    spec = models.spec(version)
    decisions = [line for line in models.history() if line["version"] == version]
    last = decisions[-1] if decisions else {"event": "not judged", "why": "its promotion was stopped: give it again"}
    state = "current" if version == models.current() else last["event"]
    if state in CHOSEN:
        state = "earlier"
    return {
        "version": version,
        "state": state,
        "date": spec["created"],
        "recipe": spec["lineage"]["recipe"],
        "arm": spec["lineage"]["arm"],
        "metrics": {metric["name"]: metric["value"] for metric in spec["metrics"]},
        "onnx": "missing" not in spec["onnx"],
        "why": last["why"],
    }


def rollback(workdir: Path, version: str | None) -> list[str]:
    """Make an earlier current model current again: `version`, or the one before. Raises ConfigError for any other."""
    models = Models(workdir)
    if not models.root.is_dir():
        models.find()  # says that there is none
    with models.locked():
        current, earlier = models.current(), models.champions()
        if version is None:
            others = [name for name in earlier if name != current and name in models.versions()]
            if not others:
                raise ConfigError("there is no model to go back to", fix="`facegan models` lists what there is")
            version = others[-1]
        models.find(version)
        if version == current:
            raise ConfigError(f"{version} is current already", fix="`facegan models` lists what there is")
        if not any(line["version"] == version and line["event"] in CHOSEN for line in models.history()):
            raise ConfigError(f"{version} was never current", fix="`facegan promote --force REASON` makes it so")
        models.decide("rollback", version, f"from {current}")
    return [f"{version} is current again (it was {current})"]
