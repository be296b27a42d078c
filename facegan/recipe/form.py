"""A recipe as a form: the JSON schema of what a recipe file may say, for tools that draw a form from a schema.

A form is a recipe file with every option left out at first: it names the recipe that it `extends`, and what is
left empty stays as it is there. `set` takes what one would give to `--set`.
"""

from __future__ import annotations

import copy
import re
from typing import Any

from facegan.core.errors import ConfigError
from facegan.recipe.load import DEFAULT, descriptions, load_data
from facegan.recipe.recipe import Recipe


def read(form: Any) -> Recipe:
    """The recipe that a form stands for; a Recipe is one already. Raises ConfigError, as a recipe file does."""
    if isinstance(form, Recipe):
        return form
    if not isinstance(form, dict):
        raise ConfigError(f"a recipe is a mapping of stages, got {form!r:.60}", fix=f"give {{extends: {DEFAULT}}}")
    # Prefect's page leaves an empty section behind where a field that it shows as JSON is left alone.
    data = {key: copy.deepcopy(value) for key, value in form.items() if value != {}}
    sets = data.pop("set", None) or []
    if not (isinstance(sets, list) and all(isinstance(one, str) for one in sets)):
        raise ConfigError(f"set is a list of PATH=VALUE, got {sets!r:.60}", fix="for example: [train_gan.kimg=40]")
    return load_data(data, "the form", sets)


def schema() -> dict[str, Any]:
    """The form's JSON schema (draft 2020-12), without references, so that it can stand inside another schema.

    No option has a default (what is empty must not be sent: it would undo what the extended recipe says) and none may
    be null. Members of a family are a choice: the name of one, or one with its options.
    """
    whole = Recipe.model_json_schema()
    found = _plain(whole, whole["$defs"])
    found["description"] = "Pick a recipe, change what you like; what is left empty stays as it is in that recipe."
    found["properties"] = {"extends": _extends(), "set": _set(), **found["properties"]}
    return found


def _extends() -> dict[str, Any]:
    told = " · ".join(f"{name}: {re.split('[.:;(]', text)[0].strip()}" for name, text in descriptions().items())
    shipped = {"type": "string", "enum": list(descriptions()), "title": "by name"}
    own = {"type": "string", "minLength": 1, "title": "from a file", "description": "its path, where the run works"}
    described = f"The recipe to start from. {told}."
    return {"anyOf": [shipped, own], "title": "extends", "description": described}


def _set() -> dict[str, Any]:
    return {
        "type": "array",
        "items": {"type": "string", "pattern": "^[^=]+=", "title": "PATH=VALUE"},
        "title": "set",
        "description": "The quick way to change an option: by its name, as after --set on the command line, such as "
        "train_gan.kimg=40. All options also stand below.",
    }


def _plain(node: dict[str, Any], definitions: dict[str, Any], name: str = "") -> dict[str, Any]:
    """One schema with its references put in place; `name` is that of the option."""
    while "$ref" in node:
        node = {**definitions[node["$ref"].rpartition("/")[2]], **{k: v for k, v in node.items() if k != "$ref"}}
    node = {key: value for key, value in node.items() if key not in ("$defs", "required", "discriminator")}
    members = [one for one in node.pop("anyOf", node.pop("oneOf", [])) if one.get("type") != "null"]
    if len(members) == 1:
        return _plain({**members[0], **node}, definitions, name)
    default = node.pop("default", None)
    if members:
        node["anyOf"] = _choices([_plain(one, definitions) for one in members])
    if node.get("type") == "boolean":
        del node["type"]  # for a list to choose from: a switch cannot show that it was left alone
        node["enum"] = ["yes", "no", True, False]
    if "const" in node:
        only = node.pop("const")
        node |= {"enum": [only], "default": only}  # a member's own kind is the one thing that a form fills in
    if name:
        node["title"] = name
    if node.get("type") != "object" and not members and name != "kind":
        node["description"] = _said(node, default)
    if "properties" in node:
        node["properties"] = {key: _plain(one, definitions, key) for key, one in node["properties"].items()}
    if isinstance(node.get("items"), dict):
        node["items"] = _plain(node["items"], definitions)
    if "patternProperties" in node:  # names of the user's own, written as JSON: `read` looks at what they hold
        node["patternProperties"] = {key: {"type": ["object", "null"]} for key in node["patternProperties"]}
    return node


def _choices(members: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The members of a family, each under its kind, and before them the choice of a kind alone."""
    kinds = [one["properties"]["kind"]["enum"][0] for one in members]
    alone = {"type": "string", "enum": kinds, "title": "kind"}
    return [alone, *({**one, "title": kind} for one, kind in zip(members, kinds, strict=True))]


def _said(node: dict[str, Any], default: Any) -> str:
    """What an option is, its default and its bounds, in one line."""
    signs = {
        "minimum": "≥",
        "exclusiveMinimum": ">",
        "maximum": "≤",
        "exclusiveMaximum": "<",
        "multipleOf": "a multiple of",
    }
    bounds = [f"{sign} {node[key]:g}" for key, sign in signs.items() if key in node]
    known = {True: "yes", False: "no"}[default] if isinstance(default, bool) else default
    said = "" if known in (None, "", []) else f"default {known:g}" if isinstance(known, float) else f"default {known}"
    parts = [node.get("description", ""), said, ", ".join(bounds)]
    return " · ".join(part for part in parts if part)
