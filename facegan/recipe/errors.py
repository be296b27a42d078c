"""pydantic's errors as messages for a person: the option's path, the value that it has, what would be right."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from facegan.core.errors import ConfigError
from facegan.recipe.recipe import Recipe

_MISSING = object()
REMOVED = (  # options that were tried and did not help
    *("use.identity_mixup", "use.own_norm", "use.domain_mixup", "use.new_at_end"),
    *("synthesize.shares", "synthesize.principal", "synthesize.refinement"),
)
REMOVED_SAMPLER = "identities.kind: unknown kind 'langevin'"
LAST_WITH_REMOVED = "941a319"


def defaults() -> dict[str, Any]:
    """The data of a recipe that sets nothing: the default of every option."""
    return Recipe.model_validate({}).model_dump(mode="json")


def explain(error: ValidationError, data: Any, what: str) -> ConfigError:
    """An error with one line for each fault of `data` as a Recipe; `what` names the data."""
    lines = [_fault_text(dict(fault), data) for fault in error.errors(include_url=False)]
    text = lines[0] if len(lines) == 1 else "\n" + "\n".join(f"  - {line}" for line in lines)
    removed = [name for name in REMOVED if any(line.partition(":")[0].endswith(name) for line in lines)]
    removed += ["identities langevin"] if any(REMOVED_SAMPLER in line for line in lines) else []
    fixes = []
    if removed:
        fixes.append(
            f"leave out {', '.join(removed)}: removed, since it did not help (docs/experiments/index.md has the "
            f"trials); commit {LAST_WITH_REMOVED} was the last that had it"
        )
    if any(fault["type"].startswith("union_tag") for fault in error.errors(include_url=False)):
        fixes.append("`facegan list` shows the members of every family")
    return ConfigError(f"{what}: {text}", fix="; ".join(fixes))


def _fault_text(fault: dict[str, Any], data: Any) -> str:
    path, got, models = _locate(data, fault["loc"])
    kind, context = fault["type"], fault.get("ctx", {})
    parent, _, key = path.rpartition(".")
    if kind == "extra_forbidden":
        return f"{path}: unknown key (got {_shortened(got)}){_suggestion(key, parent, models)}"
    if kind == "union_tag_invalid":
        return f"{path}.kind: unknown kind '{context['tag']}'; choose one of: {_tags(context)}"
    if kind == "union_tag_not_found":
        return f"{path}: names no kind; choose one of: {_tags({'expected_tags': _kinds(models)})}"
    message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if kind == "missing":
        return f"{path}: is missing, and has no default"
    if kind == "value_error":  # the message of one of our own validators includes the value
        return f"{path}: {message}" if path else message
    if kind == "string_pattern_mismatch":  # a regular expression says little to most
        descriptions = [field.description for model in models if (field := model.model_fields.get(key))]
        return f"{path}: got {_shortened(got)}, wanted {next(filter(None, descriptions), context['pattern'])}"
    return f"{path}: {message}, got {_shortened(got)}"


def _locate(data: Any, location: tuple[Any, ...]) -> tuple[str, Any, list[type[BaseModel]]]:
    """Dotted path, value and the models with the key; the tags that unions add to a location are left out."""
    path: list[str] = []
    value, models = data, list[type[BaseModel]]([Recipe])
    models_with_key = models
    for part in location:
        if part == "[key]":
            value = path[-1]
            continue
        if isinstance(value, dict) and part not in value and value.get("kind") == part:
            models = [m for m in models if m.model_fields["kind"].default == part]
            continue
        path.append(str(part))
        models_with_key = models
        fields = [m.model_fields[part] for m in models if isinstance(part, str) and part in m.model_fields]
        models = [m for field in fields for m in _models(field.annotation)] if fields else models
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = _MISSING
    return ".".join(path), value, models if _lacks_kind(value, models) else models_with_key


def _lacks_kind(value: Any, models: list[type[BaseModel]]) -> bool:
    return isinstance(value, dict) and "kind" not in value and bool(_kinds(models))


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _kinds(models: list[type[BaseModel]]) -> str:
    return ", ".join(str(m.model_fields["kind"].default) for m in models if "kind" in m.model_fields)


def _tags(context: dict[str, Any]) -> str:
    return str(context["expected_tags"]).replace("'", "")


def _suggestion(key: str, parent: str, models: list[type[BaseModel]]) -> str:
    valid_names = sorted({name for model in models for name in model.model_fields})
    close_names = get_close_matches(key, valid_names, n=1, cutoff=0.6)
    other_paths = [path for path in _paths(defaults()) if path.rpartition(".")[2] == key]
    other_paths = [path for path in other_paths if path != f"{parent}.{key}"]
    suggested = f"{parent}.{close_names[0]}".lstrip(".") if close_names else " or ".join(other_paths[:3])
    question = f"; did you mean {suggested}?" if suggested else ";"
    return f"{question} valid here: {', '.join(valid_names)}"


def _paths(data: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in data.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{key}.")


def _shortened(value: Any) -> str:
    text = "nothing" if value is _MISSING else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
