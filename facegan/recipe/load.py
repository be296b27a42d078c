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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from facegan.core.errors import ConfigError
from facegan.core.files import user_path
from facegan.core.options import merge, set_at
from facegan.data.detectors import DetectorConfig
from facegan.data.options import Prepare
from facegan.data.sources import SourceConfig
from facegan.evaluation.protocols import ProtocolConfig
from facegan.generation.options import ExternalFaces
from facegan.recipe.errors import defaults, explain
from facegan.recipe.recipe import Recipe
from facegan.recognition.starts import StartConfig, start_of

DEFAULT = "orl-quick"
WithPaths = TypeVar("WithPaths", SourceConfig, DetectorConfig, ProtocolConfig, StartConfig)
FacesOptions = TypeVar("FacesOptions", Prepare, ExternalFaces)
RESERVED = ("published", "latest")  # folders of reports/ that are no recipe's


def load(name: str = DEFAULT, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a name or file, `overrides` (`dotted.path=YAML`) applied; raises ConfigError."""
    return _checked(_read(name, ()), f"recipe '{name}'", overrides)


def load_data(data: dict[str, Any], what: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of `data`, in the form of a recipe file; its name is that of the recipe which it `extends`.

    `what` names it in errors; raises ConfigError.
    """
    data = dict(data)
    parent = data.pop("extends", None)
    base = _only_kinds(defaults()) if parent is None else _read(_check_name(parent, what), ())
    return _checked(merge(base, data), what, overrides)


def _checked(data: dict[str, Any], what: str, overrides: Sequence[str]) -> Recipe:
    recipe = _validate(data, what)
    if overrides:
        data = recipe.model_dump(mode="json")
        for path, text in sorted(map(_split_set, overrides), key=lambda item: item[0][-1] != "kind"):
            set_at(data, path, read_value(Recipe, path, text, data))
        recipe = _validate(data, f"{what} with --set")
    return resolved(recipe)


def resolved(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths; raises ConfigError for a study's cell that cannot work or a reserved name."""
    study_cells(recipe)
    if recipe.name in RESERVED:
        raise ConfigError(f"a recipe cannot be called '{recipe.name}': reports/ keeps that name for itself")
    return _absolute(recipe)


def in_workdir(recipe: Recipe, workdir: Path, say: Callable[[str], None] = lambda text: None) -> Recipe:
    """The recipe, resolved, whose starts are what they stand for in a working directory (the current model).

    `say` is called where that is another kind of start. Raises UserError where there is nothing that they stand for,
    ConfigError where that does not go with the other options.
    """
    starts = {"train_recognizer": recipe.train_recognizer.start}
    if (own := recipe.guide.get("start")) is not None:
        starts["guide"] = start_of({"kind": own} if isinstance(own, str) else own)
    found = {name: start.in_workdir(workdir) for name, start in starts.items() if start is not None}
    changed = {name: start for name, start in found.items() if start is not starts[name]}
    if not changed:
        return resolved(recipe)
    data = recipe.model_dump(mode="json")
    for name, start in changed.items():
        data.setdefault(name, {})["start"] = start.model_dump(mode="json")
        if start.kind != (was := starts[name]).kind:  # type: ignore[union-attr]
            say(f"{name}: there is no {was.kind} in '{workdir}' yet, so it begins with {start.words}")  # type: ignore[union-attr]
    return resolved(_validate(data, f"recipe '{recipe.name}' in '{workdir}'"))


@dataclass(frozen=True)
class Cell:
    """One variant on one split of a study: an ordinary recipe."""

    variant: str
    split: int
    recipe: Recipe

    @property
    def label(self) -> str:
        """The cell's name in messages."""
        return f"{self.variant} · split {self.split}"


SHARED_BY_VARIANTS = (
    "seeds", "trial_seeds", "guide_seed", "baselines", "comparison", "promotion", "benchmark", "report", "study",
    "name", "description", "runtime",
)  # fmt: skip


def study_cells(recipe: Recipe) -> list[Cell]:
    """The ordinary recipes that a study consists of, split by split; none without a study.

    Raises ConfigError for a variant that cannot work, or that changes what all must share.
    """
    if recipe.study is None:
        return []
    study_data = recipe.model_dump(mode="json", exclude={"study"})
    variants = {}
    for name, variant in recipe.study.variants.items():
        what, data = f"variant '{name}' of the study", copy.deepcopy(study_data)
        for path, value in sorted(variant.set.items(), key=lambda item: not item[0].endswith(".kind")):
            parts = path.split(".")
            if parts[0] in SHARED_BY_VARIANTS or path.startswith("prepare.split.seed"):
                raise ConfigError(f"{what} sets {path}, which all variants share", fix="set it in the recipe itself")
            set_at(data, parts, value)
        variant_recipe = _validate(data, what)
        if list(variant_recipe.arms) != list(recipe.arms):
            arms = ", ".join(variant_recipe.arms)
            raise ConfigError(f"{what} has the arms {arms}", fix="change arms, but keep their names")
        variants[name] = variant_recipe
    return [
        Cell(name, split, _absolute(_with_split_seed(variant_recipe, split)))
        for split in recipe.study.splits
        for name, variant_recipe in variants.items()
    ]


def _with_split_seed(recipe: Recipe, seed: int) -> Recipe:
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


def _only_kinds(data: Any) -> dict[str, Any]:
    """The `kind`s in `data` and nothing else, so that a layer may leave out the kind of its defaults."""
    kinds = {key: _only_kinds(value) for key, value in data.items() if isinstance(value, dict)}
    kinds = {key: value for key, value in kinds.items() if value}
    return {**kinds, "kind": data["kind"]} if "kind" in data else kinds


def _read(name: str, children: tuple[str, ...]) -> dict[str, Any]:
    """The merged data of the defaults' kinds, of what a recipe extends, and of the recipe."""
    path = _find(name)
    if str(path) in children:
        raise ConfigError(f"recipes extend each other in a circle: {' -> '.join([*children, str(path)])}")
    data = _load_yaml(path)
    parent = data.pop("extends", None)
    # `merge:` with nothing below it says nothing; `study: null` and `search: null` take the parent's away.
    data = {key: value for key, value in data.items() if value is not None or key in ("study", "search")}
    data.setdefault("name", re.sub(r"[^A-Za-z0-9._+-]+", "-", path.stem).lstrip("._+-")[:60] or "custom")
    if parent is None:
        alone: dict[str, Any] = merge(_only_kinds(defaults()), data)
        return alone
    sibling = path.parent / _check_name(parent, str(path))
    base = _read(str(sibling) if sibling.is_file() else parent, (*children, str(path)))
    base.pop("description", None)
    merged: dict[str, Any] = merge(base, data)
    return merged


def _check_name(parent: Any, what: str) -> str:
    if not isinstance(parent, str):
        raise ConfigError(f"{what}: extends must be a recipe's name or file, got {parent!r}")
    return parent


def _find(name: str) -> Path:
    """The file of a shipped name or a path; raises ConfigError with close matches."""
    recipes = shipped()
    if name in recipes:
        return recipes[name]
    if user_path(name).is_file():
        return user_path(name)
    if "/" in name or name.endswith((".yaml", ".yml")):
        raise ConfigError(f"there is no recipe file '{name}' (looked in {Path.cwd()})", fix="give its path")
    close_names = get_close_matches(name, recipes, n=1)
    hint = f"did you mean '{close_names[0]}'? " if close_names else ""
    names = ", ".join(recipes)
    raise ConfigError(f"unknown recipe '{name}'", fix=f"{hint}the recipes are: {names}; or give a FILE.yaml")


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


def _split_set(text: str) -> tuple[list[str], str]:
    path, equals, value = text.partition("=")
    if not equals or not all(path.split(".")):
        raise ConfigError(f"--set {text!r} is not PATH=VALUE", fix="for example: --set train_gan.kimg=40")
    return path.split("."), value


def read_value(model: type[BaseModel], path: Sequence[str], text: str, data: Any = None) -> Any:
    """The value of `--set PATH=TEXT` in a config of `model`, of which `data` holds what is set by now.

    YAML; but where the option is a text (a path, a name), it is the text as it was given, `faces #2`, `2024` and `on`
    too: only what stands in quotes, and null where the option may be so, are read as YAML. Raises ConfigError.
    """
    kinds = _kinds_at(model, list(path), data)
    if str in kinds and not kinds & {bool, int, float} and not _holds_more(kinds):
        null = type(None) in kinds and text.strip() in ("", "null", "~", "Null", "NULL")
        if not null and not text.strip().startswith(("'", '"')):
            return text
    return _parse_yaml(text, f"the value of --set {'.'.join(path)}")


def _holds_more(kinds: set[Any]) -> bool:
    """Whether an option can also be a list or a mapping."""
    return any(
        kind in (list, tuple, dict) or (isinstance(kind, type) and issubclass(kind, BaseModel)) for kind in kinds
    )


def _kinds_at(annotation: Any, path: list[str], data: Any) -> set[Any]:
    """The plain types that the option at `path` may have; none where there is no such option."""
    kinds = _plain_types(annotation)
    if not path:
        return {get_origin(kind) or kind for kind in kinds}
    found: set[Any] = set()
    for kind in kinds:
        origin, arguments = get_origin(kind), get_args(kind)
        below = data.get(path[0]) if isinstance(data, dict) else None
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(path[0])
            chosen = data.get("kind") if isinstance(data, dict) else None
            own = kind.model_fields.get("kind")
            is_chosen = own is None or chosen is None or chosen in get_args(own.annotation)
            found |= _kinds_at(field.annotation, path[1:], below) if field is not None and is_chosen else set()
        elif origin is dict:
            found |= _kinds_at(arguments[1], path[1:], below)
        elif origin in (list, tuple) and path[0].isdecimal():
            entries = data if isinstance(data, list | tuple) else []
            entry = entries[int(path[0])] if int(path[0]) < len(entries) else None
            found |= _kinds_at(arguments[0], path[1:], entry)
    return found


def _plain_types(annotation: Any) -> set[Any]:
    """The members of a union, without what annotates them."""
    if get_origin(annotation) is Annotated:
        return _plain_types(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return set().union(*map(_plain_types, get_args(annotation)))
    return {annotation}


def _absolute(recipe: Recipe) -> Recipe:
    """Paths made absolute now, so that another process or a later chdir finds the same files."""
    prepare, synthesize, recognizer = _absolute_faces(recipe.prepare), recipe.synthesize, recipe.train_recognizer
    if synthesize.external is not None:
        synthesize = synthesize.model_copy(update={"external": _absolute_faces(synthesize.external)})
    if recognizer.weights:
        weights = str(user_path(recognizer.weights).absolute())
        recognizer = recognizer.model_copy(update={"weights": weights})
    if recognizer.privacy is not None and recognizer.privacy.key_file:
        key_file = str(user_path(recognizer.privacy.key_file).absolute())
        private = recognizer.privacy.model_copy(update={"key_file": key_file})
        recognizer = recognizer.model_copy(update={"privacy": private})
    if recognizer.start is not None:
        recognizer = recognizer.model_copy(update={"start": _absolute_member(recognizer.start)})
    benchmarks = tuple(map(_absolute_member, recipe.benchmark.benchmarks))
    benchmark = recipe.benchmark.model_copy(update={"benchmarks": benchmarks})
    update = {"prepare": prepare, "synthesize": synthesize, "train_recognizer": recognizer, "benchmark": benchmark}
    return recipe.model_copy(update=update)


def _absolute_faces(options: FacesOptions) -> FacesOptions:
    """The options with absolute paths of source and detector."""
    update: dict[str, Any] = {"source": _absolute_member(options.source)}
    if options.align is not None:
        update["align"] = options.align.model_copy(update={"detector": _absolute_member(options.align.detector)})
    return options.model_copy(update=update)


def _absolute_member(member: WithPaths) -> WithPaths:
    """A member of a family whose paths are absolute; an option may be one path, or {name: path}."""

    def absolute(path: str | dict[str, str]) -> str | dict[str, str]:
        if isinstance(path, dict):
            return {name: str(user_path(one).absolute()) for name, one in path.items()}
        return str(user_path(path).absolute())

    paths = {name: path for name in member.paths if (path := getattr(member, name, None))}
    return member.model_copy(update={name: absolute(path) for name, path in paths.items()})
