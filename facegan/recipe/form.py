"""A recipe as a form: the JSON schema of recipe files, for tools that draw a form from a schema.

A form is a recipe file in which every option is left out at first. It names the recipe that it `extends`; an option
that is left empty stays as it is there. `set` takes the values of `--set`.
"""

from __future__ import annotations

import copy
import re
from typing import Any

from facegan.core.errors import ConfigError
from facegan.recipe.load import DEFAULT, descriptions, load_data
from facegan.recipe.recipe import Recipe


def read(form: Any) -> Recipe:
    """The recipe of a filled-in form; a Recipe is returned as it is. Raises ConfigError as for a recipe file."""
    if isinstance(form, Recipe):
        return form
    if not isinstance(form, dict):
        raise ConfigError(f"a recipe is a mapping of stages, got {form!r:.60}", fix=f"give {{extends: {DEFAULT}}}")
    # Prefect's page leaves an empty section behind where a field that it shows as JSON is left alone.
    data = {key: copy.deepcopy(value) for key, value in form.items() if value != {}}
    overrides = data.pop("set", None) or []
    if not (isinstance(overrides, list) and all(isinstance(item, str) for item in overrides)):
        raise ConfigError(f"set is a list of PATH=VALUE, got {overrides!r:.60}", fix="for example: [train_gan.kimg=40]")
    return load_data(data, "the form", overrides)


def schema() -> dict[str, Any]:
    """The form's JSON schema (draft 2020-12), without references, so that it can stand inside another schema.

    No option has a default, since the form would send it, and so undo what the extended recipe says; none may be null.
    Members of a family are a choice: the name of one, or one with its options.
    """
    recipe_schema = Recipe.model_json_schema()

    form = _plain(recipe_schema, recipe_schema["$defs"])
    form["description"] = "Pick a recipe, change what you like; what is left empty stays as it is in that recipe."
    form["properties"] = {"extends": _extends(), "set": _set(), **form["properties"]}
    return form


def _extends() -> dict[str, Any]:
    summaries = " · ".join(f"{name}: {re.split('[.:;(]', text)[0].strip()}" for name, text in descriptions().items())
    by_name = {"type": "string", "enum": list(descriptions()), "title": "by name"}
    from_file = {
        "type": "string",
        "minLength": 1,
        "title": "from a file",
        "description": "its path, where the run works",
    }
    description = f"The recipe to start from. {summaries}."
    return {"anyOf": [by_name, from_file], "title": "extends", "description": description}


def _set() -> dict[str, Any]:
    return {
        "type": "array",
        "items": {"type": "string", "pattern": "^[^=]+=", "title": "PATH=VALUE"},
        "title": "set",
        "description": "The quick way to change an option: by its name, as after --set on the command line, such as "
        "train_gan.kimg=40. All options also stand below.",
    }


def _plain(node: dict[str, Any], definitions: dict[str, Any], name: str = "") -> dict[str, Any]:
    """One schema with its references resolved; `name` is that of the option."""
    while "$ref" in node:
        node = {**definitions[node["$ref"].rpartition("/")[2]], **{k: v for k, v in node.items() if k != "$ref"}}
    node = {key: value for key, value in node.items() if key not in ("$defs", "required", "discriminator")}
    members = [member for member in node.pop("anyOf", node.pop("oneOf", [])) if member.get("type") != "null"]
    if len(members) == 1:
        return _plain({**members[0], **node}, definitions, name)
    default = node.pop("default", None)
    if members:
        node["anyOf"] = _choices([_plain(member, definitions) for member in members])
    if node.get("type") == "boolean":
        del node["type"]  # for a list to choose from: a switch cannot show that it was left alone
        node["enum"] = ["yes", "no", True, False]
    if "const" in node:
        only = node.pop("const")
        node |= {"enum": [only], "default": only}  # a member's own kind is the one thing that a form fills in
    if name:
        node["title"] = name
    if node.get("type") != "object" and not members and name != "kind":
        node["description"] = _description(node, default)
    if "properties" in node:
        node["properties"] = {key: _plain(member, definitions, key) for key, member in node["properties"].items()}
    if isinstance(node.get("items"), dict):
        node["items"] = _plain(node["items"], definitions)
    if "patternProperties" in node:  # names of the user's own, written as JSON: `read` looks at what they hold
        node["patternProperties"] = {key: {"type": ["object", "null"]} for key in node["patternProperties"]}
    return node


def _choices(members: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The members of a family, each under its kind, and before them the choice of a kind alone."""
    kinds = [member["properties"]["kind"]["enum"][0] for member in members]
    kind_alone = {"type": "string", "enum": kinds, "title": "kind"}
    return [kind_alone, *({**member, "title": kind} for member, kind in zip(members, kinds, strict=True))]


def _description(node: dict[str, Any], default: Any) -> str:
    """What an option is, its default and its bounds, in one line."""
    signs = {
        "minimum": "≥",
        "exclusiveMinimum": ">",
        "maximum": "≤",
        "exclusiveMaximum": "<",
        "multipleOf": "a multiple of",
    }
    bounds = [f"{sign} {node[key]:g}" for key, sign in signs.items() if key in node]
    if isinstance(default, bool):
        default = {True: "yes", False: "no"}[default]
    number = f"{default:g}" if isinstance(default, float) else default
    default_text = "" if default in (None, "", []) else f"default {number}"
    parts = [node.get("description", ""), default_text, ", ".join(bounds)]
    return " · ".join(part for part in parts if part)
