"""A folder is a family of interchangeable things: one new file in it adds a member, with no edit elsewhere."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Annotated, Any, TypeVar, Union

from pydantic import BeforeValidator, Field

from facegan.core.errors import UserError
from facegan.core.options import Options

T = TypeVar("T", bound=Options)
NAMED = BeforeValidator(lambda value: {"kind": value} if isinstance(value, str) else value)


class Registry:
    """The members of one family, by the literal `kind` of their frozen pydantic config.

    A member is registered by decorating its config class; `package` is the folder whose modules are
    imported when the family is first asked for (networks live in sub-packages, which are not imported,
    so that listing members needs no torch).
    """

    def __init__(self, family: str, package: str) -> None:
        self.family, self.package = family, package
        self.members: dict[str, type[Any]] = {}

    def register(self, member: type[T]) -> type[T]:
        """Add a member (class decorator); raises ValueError when its `kind` is taken."""
        kind = str(member.model_fields["kind"].default)
        if kind in self.members:
            raise ValueError(f"{self.family} '{kind}' is registered twice: {self.members[kind]} and {member}")
        self.members[kind] = member
        return member

    def load(self) -> dict[str, type[Any]]:
        """Import every module of the family's folder; return {kind: config class}, sorted by kind."""
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.ispkg and not module.name.startswith("_"):
                importlib.import_module(f"{self.package}.{module.name}")
        return dict(sorted(self.members.items()))

    def get(self, kind: str) -> type[Any]:
        """The config class of `kind`; raises UserError that lists the valid ones."""
        members = self.load()
        if kind not in members:
            raise UserError(f"unknown {self.family} '{kind}'", fix=f"choose one of: {', '.join(members)}")
        return members[kind]

    def union(self, *others: Registry) -> Any:
        """A pydantic type: any member of the family (and of `others`), told apart by its `kind`; a kind alone stands
        for its defaults. Raises TypeError for a family without members, ValueError for a kind that two families have.
        """
        families = {registry.family: registry.load() for registry in (self, *others)}
        for registry in (self, *others):
            if not families[registry.family]:
                raise TypeError(f"the {registry.family} family in {registry.package} has no members")
        members = tuple(member for loaded in families.values() for member in loaded.values())
        if len({kind for loaded in families.values() for kind in loaded}) < len(members):
            raise ValueError(f"a kind stands in two of the families: {', '.join(families)}")
        if len(members) == 1:
            return Annotated[members[0], NAMED]
        return Annotated[Union[members], Field(discriminator="kind"), NAMED]  # noqa: UP007 - built at run time
