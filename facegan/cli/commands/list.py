"""`facegan list`: the members of every family in one line each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches

from facegan.core.errors import ConfigError
from facegan.core.registry import Registry


def _recipes() -> dict[str, str]:
    from facegan.recipe.load import descriptions

    return descriptions()


def _members(registry: Registry) -> dict[str, str]:
    return {kind: _first_line(member.__doc__) for kind, member in registry.load().items()}


def _first_line(text: str | None) -> str:
    """The first sentence of a docstring."""
    flat = " ".join((text or "").split())
    return re.split(r"(?<!et al)\. (?=[A-Z`])", flat)[0].rstrip(".")


def _sources() -> dict[str, str]:
    from facegan.data.sources import SOURCES

    return _members(SOURCES)


def _detectors() -> dict[str, str]:
    from facegan.data.detectors import DETECTORS

    return _members(DETECTORS)


def _gans() -> dict[str, str]:
    from facegan.generation.gans import GANS

    return _members(GANS)


def _identities() -> dict[str, str]:
    from facegan.generation.identities import IDENTITIES

    return _members(IDENTITIES)


def _judges() -> dict[str, str]:
    from facegan.evaluation.judges import JUDGES

    return _members(JUDGES)


def _heads() -> dict[str, str]:
    from facegan.recognition.heads import HEADS

    return _members(HEADS)


def _benchmarks() -> dict[str, str]:
    from facegan.evaluation.protocols import PROTOCOLS

    return _members(PROTOCOLS)


def _engines() -> dict[str, str]:
    from facegan.runtime.engines import ENGINES

    return _members(ENGINES)


FAMILIES: dict[str, tuple[str, Callable[[], dict[str, str]] | None]] = {
    "recipes": ("facegan run NAME", _recipes),
    "sources": ("prepare.source.kind", _sources),
    "detectors": ("prepare.align.detector.kind", _detectors),
    "gans": ("train_gan.gan.kind", _gans),
    "identities": ("synthesize.identities.kind", _identities),
    "judges": ("audit.judge.kind", _judges),
    "heads": ("train_recognizer.head.kind", _heads),
    "backbones": ("train_recognizer.backbone", None),
    "benchmarks": ("benchmark.benchmarks", _benchmarks),
    "engines": ("runtime.engine.kind", _engines),
}


def lines(family: str | None, pattern: str = "*") -> Iterator[str]:
    """What `facegan list` prints; raises ConfigError for a family that is none."""
    if family is None:
        for name, (where, members) in FAMILIES.items():
            yield f"{name} ({where})"
            if members is None:
                yield "  any of timm's models: `facegan list backbones 'resnet*'` shows them (takes seconds)"
            else:
                yield from _table(members())
        return
    if family not in FAMILIES:
        close = get_close_matches(family, FAMILIES, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(f"unknown family '{family}'", fix=f"{hint}the families are: {', '.join(FAMILIES)}")
    members = FAMILIES[family][1]
    yield from _table(members()) if members is not None else _backbones(pattern)


def _table(members: dict[str, str]) -> Iterator[str]:
    width = max(map(len, members), default=0)
    for name, text in members.items():
        yield f"  {name:{width}}  {text}".rstrip()


def _backbones(pattern: str) -> Iterator[str]:
    import timm

    names = timm.list_models(pattern)
    if not names:
        raise ConfigError(f"timm has no model like '{pattern}'", fix="try `facegan list backbones '*net*'`")
    yield from names
