"""What a recipe refuses before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from drawn import tiny
from facegan.recipe.recipe import Recipe


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"comparison": {"metric": "f1"}}, "'f1' is not measured; eer, tar@far=0.1"),
        ({"comparison": {"arm": "nobody"}}, "names arm 'nobody', but the arms are: real, real\\+synthetic"),
        ({"comparison": {"arm": "real"}}, "against itself"),
        ({"seeds": [1, 1]}, "distinct"),
        ({"seeds": [0, 1000]}, "guide must not be judged"),
        ({"arms": {"real": {}, "real+synthetic": {}, "guide": {}}}, "call the arm otherwise"),
        ({"arms": {"real": {}, "real+synthetic": {"real": False}}}, "at least one of real, existing, new"),
        ({"arms": {"real": {"synthetic_per_real": 1}, "real+synthetic": {}}}, "both real and synthetic"),
        ({"synthesize": {"images_per_existing": 0, "new_identities": 0}}, "synthesize makes none"),
        ({"prepare": {"split": {"train": 0.9}}}, "must be 1"),
        ({"train_recognizer": {"pretrained": True, "weights": "w.safetensors"}}, "exclude each other"),
        ({"benchmark": {"benchmarks": [{"kind": "verification"}, {"kind": "verification"}]}}, "measure the same"),
        ({"train_gan": {"nonsense": 1}}, "Extra inputs"),
        (
            {"train_gan": {"kimg": 3, "gan": {"kind": "dcgan", "ramp": {"start_kimg": 1, "end_kimg": 4}}}},
            "end_kimg is 4, but the training ends at kimg=3",
        ),
        ({"trial_seeds": 1}, "no arm has several trials"),
        ({"trial_seeds": 4}, "trial_seeds is 4, but there are 3 seeds"),
        ({"arms": {"real": {"trials": {}}, "real+synthetic": {"existing": True}}}, "at least 1"),
        (
            {"arms": {"real": {"trials": {"a": {}, "b": {"lr": 1}}}, "real+synthetic": {"existing": True}}},
            "'real\\+synthetic' has 1 trials, arm 'real' has 2",
        ),
        (
            {"arms": {"real": {"trials": {"a": {"augment": {"flop": 1}}}}, "real+synthetic": {"existing": True}}},
            "arms.real.trials.a.augment.flop: Extra inputs",
        ),
        (
            {"arms": {"real": {"trials": {"a": {"weights": "w"}}}, "real+synthetic": {"existing": True}}},
            "arms.real.trials.a: weights must be the same",
        ),
        ({"guide": {"stepz": 1}}, "guide.stepz: Extra inputs"),
        (
            {"arms": {"real": {}, "real+synthetic": {"new": True, "set": {"kind": "warp"}}}},
            "a set \\(warp\\) stands in the place of synthetic images: leave out existing and new",
        ),
        (
            {"synthesize": {"new_identities": 0}, "arms": {"real": {}, "real+synthetic": {"set": "texture"}}},
            "a control \\(texture\\) with as many classes as there are new people, but synthesize.new_identities is 0",
        ),
        (
            {
                "synthesize": {"external": {"source": {"kind": "folder", "root": "x"}}},
                "arms": {"real": {}, "real+synthetic": {"set": {"kind": "pixel_mix"}}},
            },
            "nothing tells how those of synthesize.external were made",
        ),
    ],
)
def test_impossible_recipes_are_refused_with_the_reason(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Recipe.model_validate(changes)


TWO_ARMS = {"real": {}, "real+synthetic": {"new": True}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"search": {"trials": 1}}, "search.trials is 1: a search needs two trials"),
        ({"search": {"space": {"learning_rate": [1]}}}, "'learning_rate', which cannot be searched; these can: budget"),
        ({"search": {"space": {"steps": [10, 20]}}}, "'steps', which cannot be searched.*steps follow from budget"),
        ({"search": {"space": {"use.nwe": [0.5, 0.7]}}}, r"search.space.use.nwe: Extra inputs.*valid here: exist"),
        ({"search": {"space": {"augment": {"a": {"flop": 1}}}}}, "search.space.augment.flop: .* valid here: blur"),
        ({"search": {"space": {"lr": [0.1, -1]}}}, "search.space.lr: Input should be greater than 0"),
        ({"search": {"space": {"lr": []}}}, "search.space.lr: wanted a list of values"),
        ({"search": {"space": {"budget": [0.5, 2]}}}, "search.space.budget: wanted shares above 0"),
        ({"search": {"space": {"lr": [0.1, 0.2]}}}, "2 combinations beside the recipe's own .* search.trials is 8"),
        ({"search": {"space": {"use.new": [0.3, 0.5]}}}, "0 combinations beside the recipe's own options"),
        (
            {"search": {}, "train_recognizer": {"steps": 3}},
            "first rung has 24 images for each trial, fewer than a batch of 32: its budget is too small",
        ),
        (
            {"search": {}, "arms": {"real": {"trials": {"a": {}}}, "real+synthetic": {"trials": {"a": {}}}}},
            "arm 'real' has trials and a search: take one of them away",
        ),
        (
            {"arms": {"real": {"search": {"trials": 4}}, "real+synthetic": {"new": True}}},
            "arm 'real\\+synthetic' is searched otherwise than arm 'real': give all arms the same",
        ),
        (
            {"search": {}, "arms": {"real": {}, "real+synthetic": {"new": True, "search": {"eta": 2}}}},
            "arm 'real\\+synthetic' is searched otherwise than arm 'real'",
        ),
        ({"search": {}, "trial_seeds": 1}, "no arm has several trials"),
    ],
)  # fmt: skip
def test_impossible_searches_are_refused_with_the_reason(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Recipe.model_validate({"arms": TWO_ARMS, **changes})


def test_the_default_search_is_one_that_works() -> None:
    recipe = Recipe.model_validate({"arms": TWO_ARMS, "search": {}})
    searched = recipe.searched("real+synthetic")
    assert searched is not None and len(searched.trials) == 8 and searched.rungs == (360 * 32 // 4, 360 * 32)
    assert searched.trials["own"] == recipe.train_recognizer
    assert len({options.model_dump_json() for options in searched.trials.values()}) == 8
    assert Recipe.model_validate({"arms": TWO_ARMS}).searched("real") is None


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Recipe().seeds = (5,)  # type: ignore[misc]


def test_a_control_is_searched_as_the_arm_with_new_people_is() -> None:
    arms = {"real": {}, "real+synthetic": {"new": True}, "warp": {"set": {"kind": "warp"}}}
    recipe = Recipe.model_validate({"arms": arms, "search": {}})
    assert recipe.settings("warp") == recipe.settings("real+synthetic") != recipe.settings("real")
    assert any("use.new" in found.settings for found in recipe.settings("warp").values())


def test_codes_of_photos_are_not_drawn_and_not_truncated(faces: Path) -> None:
    with pytest.raises(ValidationError, match="codes that are drawn, but those of 'cvae_gan' are of photos"):
        tiny(faces, synthesize={"truncate_z": 1.0})
    assert tiny(faces, synthesize={"truncate_identity": 0.5}).synthesize.truncate_identity == 0.5
