"""A field that takes members of one family or of several."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import TypeAdapter, ValidationError

from facegan.core.options import Options
from facegan.core.registry import Registry


def family(name: str, *kinds: str) -> Registry:
    """A registry with an empty folder, and a member for each kind."""
    registry = Registry(name, "facegan.recognition.heads.networks")
    registry.load = lambda: dict(sorted(registry.members.items()))  # type: ignore[method-assign]
    for kind in kinds:
        fields: dict[str, Any] = {"__annotations__": {"kind": Literal[kind]}, "kind": kind, "__module__": __name__}
        registry.register(type(kind.title(), (Options,), fields))
    return registry


def test_a_union_of_families_takes_the_members_of_each() -> None:
    taken = TypeAdapter(family("fruit", "apple", "pear").union(family("root", "beet")))
    for kind in ("apple", "pear", "beet"):
        assert taken.validate_python(kind).kind == taken.validate_python({"kind": kind}).kind == kind
    with pytest.raises(ValidationError, match="'apple', 'pear', 'beet'"):
        taken.validate_python("leek")


def test_a_kind_that_two_families_have_is_refused() -> None:
    with pytest.raises(ValueError, match="two of the families: fruit, root"):
        family("fruit", "apple").union(family("root", "apple", "beet"))


def test_a_family_without_members_is_refused() -> None:
    with pytest.raises(TypeError, match="root family"):
        family("fruit", "apple").union(family("root"))
