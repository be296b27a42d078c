"""The base of every config model, options added later, and how one layer of options is merged over another."""

from __future__ import annotations

import copy
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from facegan.core.errors import ConfigError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=60)]
"""A name that a user gives."""


class Options(BaseModel):
    """A config that cannot be changed once made and that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def check(self) -> None:
        """Raise UserError where this lacks something on this machine, such as a package: what can be told at once.

        Called before a run and by `facegan plan`, for what has to work (`facegan.pipeline.preflight`).
        """

    def try_out(self) -> None:
        """Raise UserError where this does not work, as far as a few seconds tell; called before the first stage."""


def unhashed_default(default: Any, **rest: Any) -> Any:
    """A field left out of the hashed config where it has its default: results from before it was added stay valid."""
    return Field(default, exclude_if=lambda value: bool(value == default), **rest)


def merge(base: Any, over: Any) -> Any:
    """`over` merged over `base`; neither is changed.

    Mappings merge key by key, anything else is replaced; null over a mapping removes it. Where `over` names
    another `kind`, it replaces the whole member.
    """
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    if "kind" in over and over["kind"] != base.get("kind"):
        return over
    merged = dict(base)
    for key, value in over.items():
        if value is None and isinstance(merged.get(key), dict):
            del merged[key]
        else:
            merged[key] = merge(merged[key], value) if key in merged else value
    return merged


def set_at(data: Any, path: list[str], value: Any) -> None:
    """Set `value` at `path` in `data`; setting `kind` replaces the whole member of a family.

    As `--set` and the variants of a study do. Raises ConfigError where there is no such place.
    """
    holder = data
    for depth, key in enumerate(path[:-1]):
        holder = holder[_index(holder, path, depth)] if isinstance(holder, list) else holder.setdefault(key, {})
        if not isinstance(holder, dict | list):
            parent_path = ".".join(path[: depth + 1])
            raise ConfigError(f"--set {'.'.join(path)}: {parent_path} is {holder!r}, which holds no keys")
    value = copy.deepcopy(value)
    if isinstance(holder, list):
        holder[_index(holder, path, len(path) - 1)] = value
    elif path[-1] == "kind":
        holder.clear()
        holder["kind"] = value
    elif value is None and isinstance(holder.get(path[-1]), dict):
        del holder[path[-1]]
    else:
        holder[path[-1]] = value


def _index(items: list[Any], path: list[str], depth: int) -> int:
    key = path[depth]
    if not key.isdecimal() or int(key) >= len(items):
        raise ConfigError(
            f"--set {'.'.join(path)}: {'.'.join(path[:depth])} is a list of {len(items)}, got '{key}'",
            fix=f"give a number from 0 to {len(items) - 1}, or set the whole list",
        )
    return int(key)
