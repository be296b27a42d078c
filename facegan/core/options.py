"""The base of every config model, options added later, and how one layer of options is merged over another."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

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
