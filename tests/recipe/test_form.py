"""The run form: a JSON schema of what a recipe file may say, and the recipe that its answers stand for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from facegan.core.errors import ConfigError
from facegan.data.sources import SOURCES
from facegan.generation.gans import GANS
from facegan.pipeline.graph import build
from facegan.recipe.form import read, schema
from facegan.recipe.load import load, shipped
from facegan.recipe.recipe import Recipe

VALIDATOR = Draft202012Validator(schema())


def options(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every option of the form below a node, by its dotted path, families' members included."""
    for name, option in node.get("properties", {}).items():
        yield path + name, option
        yield from options(option, f"{path}{name}.")
        for member in [*option.get("anyOf", []), *option.get("items", {}).get("anyOf", [])]:
            yield from options(member, f"{path}{name}[{member['title']}].")


def refused(form: dict[str, Any]) -> list[str]:
    """The paths of the options that the form refuses."""
    return [error.json_path for error in VALIDATOR.iter_errors(form)]


@pytest.mark.parametrize("name", shipped())
def test_a_form_that_only_extends_is_the_recipe_itself(name: str) -> None:
    assert read({"extends": name}) == load(name)
    assert refused({"extends": name}) == []


def test_a_whole_recipe_is_a_form_too() -> None:
    recipe = load("orl-tiny")
    assert refused(recipe.model_dump(mode="json", exclude_none=True)) == []
    assert read(recipe.model_dump(mode="json")) == recipe and read(recipe) is recipe


def test_one_changed_option_is_as_with_set() -> None:
    changed = load("orl-tiny", ["train_gan.kimg=40"])
    assert changed.train_gan.kimg == 40 and changed.train_gan.gan == load("orl-tiny").train_gan.gan
    assert read({"extends": "orl-tiny", "train_gan": {"kimg": 40}}) == changed
    assert read({"extends": "orl-tiny", "set": ["train_gan.kimg=40"]}) == changed
    assert [item.key for item in build(changed)] != [item.key for item in build(load("orl-tiny"))]


def test_a_member_by_its_name_has_its_own_defaults() -> None:
    form = {"extends": "orl-tiny", "train_gan": {"gan": "dcgan"}, "benchmark": {"benchmarks": ["verification"]}}
    assert refused(form) == []
    recipe = read(form)
    assert recipe.train_gan.gan == GANS.get("dcgan")()
    assert [one.kind for one in recipe.benchmark.benchmarks] == ["verification"]
    assert read({"extends": "orl-tiny", "train_gan": {"gan": {"kind": "dcgan"}}}).train_gan == recipe.train_gan


def test_an_empty_section_says_nothing() -> None:
    assert read({"extends": "orl-tiny", "study": {}, "prepare": {"split": {}}}) == load("orl-tiny")


def test_words_for_yes_and_no_and_truth_values() -> None:
    for enforce in ("no", False):
        form = {"audit": {"enforce": enforce}}
        assert refused(form) == [] and read(form).audit.enforce is False


def test_choices_are_what_is_registered() -> None:
    found = dict(options(schema()))
    assert found["extends"]["anyOf"][0]["enum"] == list(shipped())
    for path, family in (("train_gan.gan", GANS), ("prepare.source", SOURCES)):
        kinds, *members = found[path]["anyOf"]
        assert kinds["enum"] == [member["title"] for member in members] == list(family.load())


def test_nothing_is_filled_in() -> None:
    """A default would be sent by the form, and so undo what the extended recipe says."""
    filled = {path: option["default"] for path, option in options(schema()) if "default" in option}
    assert all(path.endswith(f"[{kind}].kind") for path, kind in filled.items())


def test_every_option_is_described_and_none_refers_elsewhere() -> None:
    bare = [path for path, option in options(schema()) if not path.endswith(".kind") and not is_described(option)]
    assert bare == []
    assert "$ref" not in str(schema())


def is_described(option: dict[str, Any]) -> bool:
    """Whether words say what an option is, before its default and bounds."""
    description = option.get("description", "")
    return bool(description) and not description.startswith(("default", "≥", ">"))


def test_bounds_are_in_the_words_and_in_the_schema() -> None:
    option = dict(options(schema()))["prepare.size_px"]
    assert option["description"].endswith("default 64 · ≥ 16, ≤ 512, a multiple of 16")
    assert refused({"prepare": {"size_px": 1024}}) == ["$.prepare.size_px"]


@pytest.mark.parametrize(
    ("form", "path", "words"),
    [
        ({"train_gan": {"kimg": 0}}, "$.train_gan.kimg", "train_gan.kimg"),
        ({"train_gan": {"gan": "dcgn"}}, "$.train_gan.gan", "choose one of: biggan, cvae_gan"),
        ({"train_gan": {"kimgs": 3}}, "$.train_gan", "did you mean train_gan.kimg?"),
        ({"set": ["train_gan.kimg"]}, "$.set[0]", "is not PATH=VALUE"),
    ],
)
def test_a_bad_value_is_refused_by_the_form_and_by_its_reader(form: dict[str, Any], path: str, words: str) -> None:
    assert refused(form) == [path]
    with pytest.raises(ConfigError, match=words):
        read({"extends": "orl-tiny", **form})


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"extends": "orl-tin"}, "did you mean 'orl-tiny'"),
        ({"extends": "orl-tiny", "comparison": {"arm": "nobody"}}, "comparison names arm 'nobody'"),
        ({"extends": "orl-tiny", "arms": {"real": {"reel": True}}}, "arms.real.reel"),
        ([], "a recipe is a mapping"),
    ],
)
def test_what_the_form_cannot_see_is_refused_by_its_reader(form: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(form)


def test_prefect_shows_the_form_and_refuses_what_it_refuses() -> None:
    from prefect.utilities.schema_tools.validation import validate

    from flows.pipeline import pipeline

    shown = pipeline.parameters.model_dump()
    assert validate({"recipe": load("orl-tiny").model_dump(mode="json")}, shown) == []
    assert [error.json_path for error in validate({"recipe": {"seeds": []}}, shown)] == ["$.recipe.seeds"]
    assert shown["properties"]["recipe"]["properties"] == schema()["properties"]
    assert shown["properties"]["until"]["enum"][:2] == ["all", "prepare"]
    defaults = {"workdir": ".", "until": "all", "promote": False}
    assert validate({"recipe": {"extends": "orl-tiny"}, **defaults}, shown) == [], "what the form sends untouched"
    assert {name: option["default"] for name, option in shown["properties"].items() if "default" in option} == defaults
    assert all(option["description"] for option in shown["properties"].values())
    assert isinstance(pipeline.validate_parameters({"recipe": {"extends": "orl-tiny"}})["recipe"], Recipe)
    with pytest.raises(ConfigError, match="unknown recipe 'orl'"):
        pipeline.validate_parameters({"recipe": {"extends": "orl"}})
