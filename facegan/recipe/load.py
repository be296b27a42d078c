"""Recipes by name or from a file, with `extends` and `--set`; every mistake is one readable line.

Layers, the later over the earlier: defaults of the config models, what the file `extends`, the file, `--set`.
Mappings merge key by key, anything else is replaced; null over a mapping takes it away
(`arms: {synthetic: null}`). Where a layer names another `kind`, the member starts from that kind's own
defaults. Relative paths (`prepare.source.root`, `train_recognizer.weights`) are relative to the current
directory.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from facegan.core.errors import ConfigError
from facegan.core.options import merge
from facegan.data.detectors import DetectorConfig
from facegan.data.options import Prepare
from facegan.data.sources import SourceConfig
from facegan.evaluation.protocols import ProtocolConfig
from facegan.generation.options import ExternalFaces
from facegan.recipe.errors import defaults, explain
from facegan.recipe.recipe import Recipe

DEFAULT = "orl-quick"
Located = TypeVar("Located", SourceConfig, DetectorConfig, ProtocolConfig)
Faces = TypeVar("Faces", Prepare, ExternalFaces)
RESERVED = ("published", "latest")  # folders of reports/ that are no recipe's


def load(name: str = DEFAULT, sets: Sequence[str] = ()) -> Recipe:
    """The recipe of a name or file, `sets` (`dotted.path=YAML`) applied; raises ConfigError."""
    return _checked(_read(name, ()), f"recipe '{name}'", sets)


def load_data(data: dict[str, Any], what: str, sets: Sequence[str] = ()) -> Recipe:
    """The recipe that `data` says, in the words of a recipe file; it bears the name of what it `extends`.

    `what` names it in errors; raises ConfigError.
    """
    data = dict(data)
    parent = data.pop("extends", None)
    if parent is not None:
        data = merge(merge(_kinds(defaults()), _read(_named(parent, what), ())), data)
    return _checked(data, what, sets)


def _checked(data: dict[str, Any], what: str, sets: Sequence[str]) -> Recipe:
    data = merge(_kinds(defaults()), data)
    recipe = _validate(data, what)
    if sets:
        data = recipe.model_dump(mode="json")
        for path, value in sorted(map(_parse_set, sets), key=lambda item: item[0][-1] != "kind"):
            _set(data, path, value)
        recipe = _validate(data, f"{what} with --set")
    return settled(recipe)


def settled(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths; raises ConfigError for what shows only when its parts are put together."""
    cells(recipe)
    if recipe.name in RESERVED:
        raise ConfigError(f"a recipe cannot be called '{recipe.name}': reports/ keeps that name for itself")
    return _absolute(recipe)


@dataclass(frozen=True)
class Cell:
    """One variant on one split of a study: an ordinary recipe."""

    variant: str
    split: int
    recipe: Recipe

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.variant} · split {self.split}"


SAME = (
    "seeds", "trial_seeds", "guide_seed", "comparison", "promotion", "benchmark", "report", "study", "name",
    "description", "runtime",
)  # fmt: skip


def cells(recipe: Recipe) -> list[Cell]:
    """The ordinary recipes that a study consists of, split by split; none without a study.

    Raises ConfigError for a variant that cannot work, or that changes what all must share.
    """
    if recipe.study is None:
        return []
    whole = recipe.model_dump(mode="json", exclude={"study"})
    found = {}
    for name, variant in recipe.study.variants.items():
        what, data = f"variant '{name}' of the study", copy.deepcopy(whole)
        for path, value in sorted(variant.set.items(), key=lambda item: not item[0].endswith(".kind")):
            parts = path.split(".")
            if parts[0] in SAME or path.startswith("prepare.split.seed"):
                raise ConfigError(f"{what} sets {path}, which all variants share", fix="set it in the recipe itself")
            _set(data, parts, value)
        made = _validate(data, what)
        if list(made.arms) != list(recipe.arms):
            raise ConfigError(f"{what} has the arms {', '.join(made.arms)}", fix="change arms, but keep their names")
        found[name] = made
    return [
        Cell(name, split, _absolute(_of_split(made, split)))
        for split in recipe.study.splits
        for name, made in found.items()
    ]


def _of_split(recipe: Recipe, seed: int) -> Recipe:
    split = recipe.prepare.split.model_copy(update={"seed": seed})
    return recipe.model_copy(update={"prepare": recipe.prepare.model_copy(update={"split": split})})


def shipped() -> dict[str, Path]:
    """The recipes that come with facegan: {name: file}, sorted."""
    folder = Path(str(files("facegan.recipe") / "shipped"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def descriptions() -> dict[str, str]:
    """{name: one-line description} of the shipped recipes."""
    return {name: str(_load_yaml(path).get("description", "")) for name, path in shipped().items()}


def _validate(data: Any, what: str) -> Recipe:
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise explain(error, data, what) from None


def _kinds(data: Any) -> dict[str, Any]:
    """Of the defaults only which `kind` stands where, so that a layer may leave it unsaid."""
    found = {key: _kinds(value) for key, value in data.items() if isinstance(value, dict)}
    found = {key: value for key, value in found.items() if value}
    return {**found, "kind": data["kind"]} if "kind" in data else found


def _read(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """The merged data of a recipe and of what it extends."""
    path = _find(name)
    if str(path) in seen:
        raise ConfigError(f"recipes extend each other in a circle: {' -> '.join([*seen, str(path)])}")
    data = _load_yaml(path)
    parent = data.pop("extends", None)
    # `merge:` with nothing below it says nothing; `study: null` takes the parent's study away.
    data = {key: value for key, value in data.items() if value is not None or key == "study"}
    data.setdefault("name", re.sub(r"[^A-Za-z0-9._+-]+", "-", path.stem).lstrip("._+-")[:60] or "custom")
    if parent is None:
        return data
    beside = path.parent / _named(parent, str(path))
    base = _read(str(beside) if beside.is_file() else parent, (*seen, str(path)))
    base.pop("description", None)
    merged: dict[str, Any] = merge(merge(_kinds(defaults()), base), data)
    return merged


def _named(parent: Any, what: str) -> str:
    if not isinstance(parent, str):
        raise ConfigError(f"{what}: extends must be a recipe's name or file, got {parent!r}")
    return parent


def _find(name: str) -> Path:
    """The file of a shipped name or a path; raises ConfigError with close matches."""
    known = shipped()
    if name in known:
        return known[name]
    if Path(name).expanduser().is_file():
        return Path(name).expanduser()
    if "/" in name or name.endswith((".yaml", ".yml")):
        raise ConfigError(f"there is no recipe file '{name}' (looked in {Path.cwd()})", fix="give its path")
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise ConfigError(f"unknown recipe '{name}'", fix=f"{hint}the recipes are: {', '.join(known)}; or give a FILE.yaml")


class _Loader(yaml.SafeLoader):
    """safe_load that reads 2e-3 as a number (YAML 1.1 does not) and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        twice = [key for number, key in enumerate(keys) if key in keys[:number]]
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"'{twice[0]}' stands twice", node.start_mark)
        return dict(super().construct_mapping(node, deep))


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _parse_yaml(text: str, what: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{what} is not valid YAML: {' '.join(str(error).split())}") from None


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the recipe {path} cannot be read: {error}") from None
    data = _parse_yaml(text, f"the recipe {path}")
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"the recipe {path} must be a mapping of stages, got {type(data).__name__}")
    return {str(key): value for key, value in data.items()}


def _parse_set(text: str) -> tuple[list[str], Any]:
    path, equals, value = text.partition("=")
    if not equals or not all(path.split(".")):
        raise ConfigError(f"--set {text!r} is not PATH=VALUE", fix="for example: --set train_gan.kimg=40")
    return path.split("."), _parse_yaml(value, f"the value of --set {path}")


def _set(data: Any, path: list[str], value: Any) -> None:
    """Put `value` at `path`; a `kind` takes the place of the whole member."""
    here = data
    for depth, key in enumerate(path[:-1]):
        here = here[_index(here, path, depth)] if isinstance(here, list) else here.setdefault(key, {})
        if not isinstance(here, dict | list):
            done = ".".join(path[: depth + 1])
            raise ConfigError(f"--set {'.'.join(path)}: {done} is {here!r}, which holds no keys")
    value = copy.deepcopy(value)
    if isinstance(here, list):
        here[_index(here, path, len(path) - 1)] = value
    elif path[-1] == "kind":
        here.clear()
        here["kind"] = value
    elif value is None and isinstance(here.get(path[-1]), dict):
        del here[path[-1]]
    else:
        here[path[-1]] = value


def _index(items: list[Any], path: list[str], depth: int) -> int:
    key = path[depth]
    if not key.isdecimal() or int(key) >= len(items):
        raise ConfigError(
            f"--set {'.'.join(path)}: {'.'.join(path[:depth])} is a list of {len(items)}, got '{key}'",
            fix=f"give a number from 0 to {len(items) - 1}, or set the whole list",
        )
    return int(key)


def _absolute(recipe: Recipe) -> Recipe:
    """Paths made absolute now, so that another process or a later chdir finds the same files."""
    prepare, synthesize, recognizer = _faces(recipe.prepare), recipe.synthesize, recipe.train_recognizer
    if synthesize.external is not None:
        synthesize = synthesize.model_copy(update={"external": _faces(synthesize.external)})
    if recognizer.weights:
        weights = str(Path(recognizer.weights).expanduser().absolute())
        recognizer = recognizer.model_copy(update={"weights": weights})
    benchmarks = tuple(_located(one) for one in recipe.benchmark.benchmarks)
    benchmark = recipe.benchmark.model_copy(update={"benchmarks": benchmarks})
    made = {"prepare": prepare, "synthesize": synthesize, "train_recognizer": recognizer, "benchmark": benchmark}
    return recipe.model_copy(update=made)


def _faces(options: Faces) -> Faces:
    """Where faces come from, with paths of source and detector that are absolute."""
    changed: dict[str, Any] = {"source": _located(options.source)}
    if options.align is not None:
        changed["align"] = options.align.model_copy(update={"detector": _located(options.align.detector)})
    return options.model_copy(update=changed)


def _located(member: Located) -> Located:
    """A member of a family whose paths are absolute."""
    given = {name: path for name in member.paths if (path := getattr(member, name, None))}
    return member.model_copy(update={name: str(Path(path).expanduser().absolute()) for name, path in given.items()})
