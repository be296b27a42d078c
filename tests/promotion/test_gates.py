"""Champion against challenger on planted faces: who is accepted, and what each gate says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from facegan.evaluation.embedded_faces import EmbeddedFaces, OwnPeople
from facegan.evaluation.model_figures import Scale
from facegan.evaluation.protocols import PROTOCOLS
from facegan.promotion.gates import GateResults, compare_models
from facegan.recipe.comparison import Promotion
from facegan.recipe.recipe import Recipe
from planted_faces import outcomes, planted

SCALE = Scale(n_boot=200)
USED = [PROTOCOLS.get(kind)() for kind in ("verification", "identification")]


def compared(
    challenger: EmbeddedFaces,
    champion: EmbeddedFaces | None,
    metric: str = "eer",
    groups: bool = True,
    **options: object,
) -> GateResults:
    return compare_models(challenger, champion, USED, Promotion.model_validate(options), metric, SCALE, groups)


@pytest.mark.parametrize("metric", ["eer", "rank-1", "tar@far=0.1"])
def test_a_better_one_is_accepted_and_a_worse_one_is_not(metric: str) -> None:
    good, bad = planted(0.5, 1), planted(1.3, 2)
    up, down = compared(good, bad, metric, max_group_loss=1), compared(bad, good, metric, max_group_loss=1)
    assert up.accepted and outcomes(up)["better"] == "passed"
    assert not down.accepted and outcomes(down)["better"] == "failed"
    difference = next(figure for figure in up.differences if figure.name == metric)
    assert difference.value is not None and (difference.value < 0) == (metric == "eer")


def test_equal_ones_are_refused_and_pass_within_a_margin() -> None:
    pairs = [(planted(0.9, 2 * n), planted(0.9, 2 * n + 1)) for n in range(20)]
    accepted = [compared(one, other, groups=False).accepted for one, other in pairs]
    assert sum(accepted) <= 3  # 2.5 % nominal; of 20, four or more would be one case in 600
    assert all(not compared(one, one, groups=False).accepted for one, _ in pairs[:3]), "no better than itself"
    assert all(compared(one, other, groups=False, not_worse_by=0.3).accepted for one, other in pairs[:5])


def test_one_that_is_worse_in_one_group_is_refused() -> None:
    champion = planted(0.9, 1, people=24)
    results = compared(planted(0.3, 2, people=24, b=2.5), champion, not_worse_by=1, max_group_loss=0.02)
    assert outcomes(results) == {"not worse by 1": "passed", "group a": "passed", "group b": "failed"}
    assert not results.accepted and "group b: worse by more than 0.02" in results.why and "group a" not in results.why
    equal_groups = compared(planted(0.3, 2, people=24), champion, not_worse_by=1, max_group_loss=0.02)
    assert equal_groups.accepted and set(outcomes(equal_groups).values()) == {"passed"}


def test_it_says_where_people_are_too_few() -> None:
    few = planted(0.5, 1, people=10), planted(1.3, 2, people=10)  # five in each group
    refused, allowed = (compared(*few, max_group_loss=1, too_few=answer) for answer in ("refuse", "allow"))
    assert outcomes(refused) == {"better": "passed", "group": "cannot tell"} == outcomes(allowed)
    assert not refused.accepted and allowed.accepted and "too few people in a (5), b (5)" in refused.why
    nobody = compared(planted(0.1, 1, people=4), planted(2.0, 2, people=4), too_few="allow")
    assert not nobody.accepted and "too few people: 4" in nobody.why
    unsure = compared(planted(0.9, 1), planted(0.9, 2), not_worse_by=1, max_group_loss=0.001)
    assert not unsure.accepted and "too few people (7) to tell" in unsure.why


def test_a_limit_holds_for_the_first_model_too() -> None:
    challenger = planted(0.9, 1)
    figure = next(figure for figure in compared(challenger, None).challenger if figure.name == "eer")
    assert figure.low is not None and figure.high is not None and figure.value is not None
    for bound, outcome in ((figure.high, "passed"), (figure.value, "cannot tell"), (figure.low / 2, "failed")):
        results = compared(challenger, None, limit=bound)
        assert list(outcomes(results).values()) == [outcome] and results.accepted == (outcome == "passed")


def test_other_images_are_refused() -> None:
    one = planted(0.9, 1)
    with pytest.raises(ValueError, match="different images"):
        compared(one, replace(one, file=one.file[::-1]))


def with_groups(**options: object) -> GateResults:
    """Photos of group b are poor; groups of five people are told, of seven there are intervals."""
    challenger = replace(planted(0.4, 1, b=1.6), thresholds={0.1: 0.7})
    groups = PROTOCOLS.get("groups")(name="site", by="group", fmr=0.1, least_people=5)
    promotion = Promotion.model_validate(options)
    return compare_models(challenger, None, [*USED, groups], promotion, "eer", SCALE, groups=False)


def test_the_worst_group_decides_where_all_are_limited() -> None:
    results = with_groups(limits={"site/fnmr:*": 0.5})
    assert outcomes(results) == {"limit site/fnmr:a 0.5": "passed", "limit site/fnmr:b 0.5": "failed"}
    assert not results.accepted and "site/fnmr:b lies beyond 0.5" in results.why
    assert with_groups(limits={"site/fnmr:a": 0.5, "eer": 0.6, "rank-1": 0.1}).accepted
    assert not with_groups(limits={"rank-1": 0.999}).accepted  # higher is better


def test_a_limit_on_what_cannot_be_told_is_not_passed() -> None:
    nothing = with_groups(limits={"site/fnmr:c": 0.5})
    assert outcomes(nothing) == {"limit site/fnmr:c 0.5": "cannot tell"} and not nothing.accepted
    ratio = with_groups(limits={"site/fmr-ratio": 2.0}, too_few="allow")  # too few false matches in a
    assert set(outcomes(ratio).values()) == {"cannot tell"} and not ratio.accepted


@pytest.mark.parametrize("answer", ["refuse", "allow"])
def test_groups_of_too_few_people_follow_the_option(answer: str) -> None:
    challenger = replace(planted(0.4, 1, people=10), thresholds={0.1: 0.7})  # five people in each
    groups = PROTOCOLS.get("groups")(name="site", by="group", fmr=0.1, least_people=5)
    options = Promotion.model_validate({"limits": {"site/fnmr:*": 0.9}, "too_few": answer})
    results = compare_models(challenger, None, [*USED, groups], options, "eer", SCALE, groups=False)
    assert set(outcomes(results).values()) == {"cannot tell"} and results.accepted == (answer == "allow")


def test_limits_name_what_is_measured() -> None:
    specs = [{"kind": "verification"}, {"kind": "groups"}, {"kind": "attack"}, {"kind": "membership"}]
    limits = {"groups/fnmr:*": 0.3, "attack/dodging-median": 0.5, "membership/photo-tpr@fpr=0.1": 0.4}
    Recipe(name="x", benchmark={"benchmarks": specs}, promotion={"limits": limits})  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=r"promotion\.limits names 'attack/median', which is not measured"):
        Recipe(name="x", benchmark={"benchmarks": specs}, promotion={"limits": {"attack/median": 1}})  # type: ignore[arg-type]
    assert "limits" not in Promotion().model_dump()


def test_groups_are_asked_by_their_own_people() -> None:
    """Photos of group b that are held out are poor; strangers are alike in both."""

    def model(seed: int, **noise: float) -> EmbeddedFaces:
        strangers, trained, val = planted(0.3, seed, people=28), planted(0.3, seed + 10), planted(0.3, seed + 20)
        own = OwnPeople.joined([(trained, "trained"), (planted(0.3, seed + 30, **noise), "held_out"), (val, "val")])
        names = np.asarray([name.replace("d/", "s/") for name in strangers.identity])
        return replace(strangers, identity=names, own=own)

    enrolled = PROTOCOLS.get("enrolled")(name="own", fmr=0.1)
    options = Promotion.model_validate({"not_worse_by": 1, "max_group_loss": 0.1})
    metric = "own/fnmr@val-fmr=0.1"
    champion, poor, fine = model(1), model(2, b=6.0), model(3)
    results = compare_models(poor, champion, [*USED, enrolled], options, metric, SCALE)
    assert outcomes(results) == {"not worse by 1": "passed", "group a": "passed", "group b": "failed"}
    assert "of 7 people" in results.why, "of own people, not of the fourteen strangers"
    assert compare_models(fine, champion, [*USED, enrolled], options, metric, SCALE).accepted
    limits = Promotion.model_validate({"not_worse_by": 1, "max_group_loss": 1, "limits": {metric: 0.05}})
    assert not compare_models(poor, champion, [*USED, enrolled], limits, "eer", SCALE).accepted
    assert compare_models(fine, champion, [*USED, enrolled], limits, "eer", SCALE).accepted
