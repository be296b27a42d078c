"""What pydantic found wrong, said for a person: the path, what was got, what would be right."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from facegan.core.errors import ConfigError
from facegan.recipe.recipe import Recipe

_MISSING = object()
REMOVED = {  # options that were tried and did not help, by what an error says of them
    "use.identity_mixup": "use.identity_mixup",
    "use.own_norm": "use.own_norm",
    "use.domain_mixup": "use.domain_mixup",
    "use.new_at_end": "use.new_at_end",
    "synthesize.shares": "synthesize.shares",
    "synthesize.principal": "synthesize.principal",
    "synthesize.refinement": "synthesize.refinement",
    "unknown kind 'langevin'": "identities langevin",
}
LAST_WITH_REMOVED = "941a319"


def defaults() -> dict[str, Any]:
    """The recipe that says nothing, with everything that it leaves unsaid."""
    return Recipe.model_validate({}).model_dump(mode="json")


def explain(error: ValidationError, data: Any, what: str) -> ConfigError:
    """One line for each fault of `data`, which was to become a Recipe; `what` names it."""
    lines = [_line(dict(fault), data) for fault in error.errors(include_url=False)]
    text = lines[0] if len(lines) == 1 else "\n" + "\n".join(f"  - {line}" for line in lines)
    if removed := [name for words, name in REMOVED.items() if words in text]:
        fix = f"leave out {', '.join(removed)}: removed, since it did not help (docs/experiments/index.md has the "
        return ConfigError(f"{what}: {text}", fix=f"{fix}trials); commit {LAST_WITH_REMOVED} was the last that had it")
    families = any(fault["type"].startswith("union_tag") for fault in error.errors(include_url=False))
    return ConfigError(f"{what}: {text}", fix="`facegan list` shows the members of every family" if families else "")


def _line(fault: dict[str, Any], data: Any) -> str:
    path, got, models = _place(data, fault["loc"])
    kind, context = fault["type"], fault.get("ctx", {})
    parent, _, key = path.rpartition(".")
    if kind == "extra_forbidden":
        return f"{path}: unknown key (got {_short(got)}){_hint(key, parent, models)}"
    if kind == "union_tag_invalid":
        return f"{path}.kind: unknown kind '{context['tag']}'; choose one of: {_tags(context)}"
    if kind == "union_tag_not_found":
        return f"{path}: names no kind; choose one of: {_tags({'expected_tags': _kinds(models)})}"
    message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if kind == "missing":
        return f"{path}: is missing, and has no default"
    if kind == "value_error":  # the sentence of one of our own validators says what was got
        return f"{path}: {message}" if path else message
    if kind == "string_pattern_mismatch":  # a regular expression says little to most
        said = [field.description for model in models if (field := model.model_fields.get(key))]
        return f"{path}: got {_short(got)}, wanted {next(filter(None, said), context['pattern'])}"
    return f"{path}: {message}, got {_short(got)}"


def _place(data: Any, location: tuple[Any, ...]) -> tuple[str, Any, list[type[BaseModel]]]:
    """Dotted path, value and the models that hold the key; without the tags that unions add to a path."""
    path: list[str] = []
    value, models = data, list[type[BaseModel]]([Recipe])
    holders = models
    for part in location:
        if part == "[key]":
            value = path[-1]
            continue
        if isinstance(value, dict) and part not in value and value.get("kind") == part:
            models = [m for m in models if m.model_fields["kind"].default == part]
            continue
        path.append(str(part))
        holders = models
        fields = [m.model_fields[part] for m in models if isinstance(part, str) and part in m.model_fields]
        models = [m for field in fields for m in _models(field.annotation)] if fields else models
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = _MISSING
    return ".".join(path), value, models if _unfinished(value, models) else holders


def _unfinished(value: Any, models: list[type[BaseModel]]) -> bool:
    return isinstance(value, dict) and "kind" not in value and bool(_kinds(models))


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _kinds(models: list[type[BaseModel]]) -> str:
    return ", ".join(str(m.model_fields["kind"].default) for m in models if "kind" in m.model_fields)


def _tags(context: dict[str, Any]) -> str:
    return str(context["expected_tags"]).replace("'", "")


def _hint(key: str, parent: str, models: list[type[BaseModel]]) -> str:
    valid = sorted({name for model in models for name in model.model_fields})
    close = get_close_matches(key, valid, n=1, cutoff=0.6)
    elsewhere = [path for path in _paths(defaults()) if path.rpartition(".")[2] == key]
    elsewhere = [path for path in elsewhere if path != f"{parent}.{key}"]
    mean = f"{parent}.{close[0]}".lstrip(".") if close else " or ".join(elsewhere[:3])
    question = f"; did you mean {mean}?" if mean else ";"
    return f"{question} valid here: {', '.join(valid)}"


def _paths(data: dict[str, Any], above: str = "") -> Iterator[str]:
    for key, value in data.items():
        yield above + key
        if isinstance(value, dict):
            yield from _paths(value, f"{above}{key}.")


def _short(value: Any) -> str:
    text = "nothing" if value is _MISSING else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
