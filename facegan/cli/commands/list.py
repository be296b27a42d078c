"""`facegan list`: the members of every family in one line each."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from difflib import get_close_matches

from facegan.core.errors import ConfigError
from facegan.core.registry import Registry

FAMILIES: dict[str, tuple[str, str]] = {
    "recipes": ("facegan run NAME", ""),
    "sources": ("prepare.source.kind", "facegan.data.sources:SOURCES"),
    "detectors": ("prepare.align.detector.kind", "facegan.data.detectors:DETECTORS"),
    "gans": ("train_gan.gan.kind", "facegan.generation.gans:GANS"),
    "identities": ("synthesize.identities.kind", "facegan.generation.identities:IDENTITIES"),
    "augmenters": ("arms.NAME.set.kind", "facegan.generation.augmenters:AUGMENTERS"),
    "controls": ("arms.NAME.set.kind", "facegan.generation.controls:CONTROLS"),
    "judges": ("audit.judge.kind", "facegan.evaluation.judges:JUDGES"),
    "starts": ("train_recognizer.start.kind", "facegan.recognition.starts:STARTS"),
    "heads": ("train_recognizer.head.kind", "facegan.recognition.heads:HEADS"),
    "backbones": ("train_recognizer.backbone", ""),
    "baselines": ("baselines.NAME.kind", "facegan.recognition.fitted:FITTED"),
    "conditions": ("prepare.conditions, and conditions of the benchmark domains", "facegan.data.conditions:CONDITIONS"),
    "benchmarks": ("benchmark.benchmarks", "facegan.evaluation.protocols:PROTOCOLS"),
    "engines": ("runtime.engine.kind", "facegan.runtime.engines:ENGINES"),
}
"""{family: (where its members are named, `module:REGISTRY`)}; recipes are files, backbones are timm's."""


def lines(family: str | None, pattern: str = "*") -> Iterator[str]:
    """What `facegan list` prints; raises ConfigError for a family that is none."""
    if family is None:
        for name, (option, _) in FAMILIES.items():
            yield f"{name} ({option})"
            if name == "backbones":
                yield "  any of timm's models: `facegan list backbones 'resnet*'` shows them (takes seconds)"
            else:
                yield from _table(_members(name))
        return
    if family not in FAMILIES:
        close = get_close_matches(family, FAMILIES, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(f"unknown family '{family}'", fix=f"{hint}the families are: {', '.join(FAMILIES)}")
    yield from _backbones(pattern) if family == "backbones" else _table(_members(family))


def _members(family: str) -> dict[str, str]:
    """{name: first sentence of its description}; imports the family alone."""
    if family == "recipes":
        from facegan.recipe.load import descriptions

        return descriptions()
    module, _, name = FAMILIES[family][1].partition(":")
    registry: Registry = getattr(importlib.import_module(module), name)
    return {kind: _first_sentence(member.__doc__) for kind, member in registry.load().items()}


def _first_sentence(docstring: str | None) -> str:
    flat = " ".join((docstring or "").split())
    return re.split(r"(?<!et al)\. (?=[A-Z`])", flat)[0].rstrip(".")


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
