"""A search: what is tried, which trials go on, and what that costs, without any training."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from facegan.core.options import merge
from facegan.recognition import search
from facegan.recognition.options import Arm, Search, TrainRecognizer

OWN = TrainRecognizer(steps=3000, batch_size=32, lr=2e-3)
REAL, BOTH = Arm(), Arm(new=True)
# Rung by rung, the errors of eight trials on val people.
BY_HAND = [
    {"own": 0.30, "a": 0.25, "b": 0.20, "c": math.nan, "d": 0.25, "e": 0.40, "f": 0.24, "g": 0.25},
    {"a": 0.21, "b": 0.22, "f": math.inf, "d": 0.19},
    {"b": 0.18, "d": 0.18, "a": 0.1},
]


def scored(rung: int, names: tuple[str, ...]) -> dict[str, float]:
    return {name: BY_HAND[rung][name] for name in names}


def test_the_best_go_on_by_hand() -> None:
    """Of 8 the best 4, of 4 the best 2; a and d are before g, which is as good; b is before d at the end."""
    table = search.halving(list(BY_HAND[0]), 3, 2, scored)
    assert [list(errors) for errors in table] == [list(BY_HAND[0]), ["a", "b", "d", "f"], ["a", "d"]]
    assert search.best(table[-1]) == "a"
    assert search.best({"x": math.nan, "b": 0.18, "d": 0.18}) == "b"
    assert search.best({"x": math.inf}) is None


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_finishing_plays_no_part(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def in_another_order(rung: int, names: tuple[str, ...]) -> dict[str, float]:
        return {names[place]: BY_HAND[rung][names[place]] for place in rng.permutation(len(names))}

    expected = search.halving(list(BY_HAND[0]), 3, 2, scored)
    found = search.halving(list(BY_HAND[0]), 3, 2, in_another_order)
    assert [list(errors.items()) for errors in found] == [list(errors.items()) for errors in expected]


def test_a_search_ends_where_all_have_diverged() -> None:
    table = search.halving(["a", "b"], 3, 2, lambda rung, names: dict.fromkeys(names, math.inf))
    assert len(table) == 1 and search.best(table[0]) is None


@pytest.mark.parametrize(("eta", "wanted"), itertools.product((2, 3, 4, 7), range(1, 6)))
def test_trials_cost_no_more_images_than_full_trainings_would(eta: int, wanted: int) -> None:
    for count, images in itertools.product(range(2, 40), (96_000, 1001)):
        ladder = search.rungs(count, eta, wanted, images)
        assert 1 <= len(ladder) <= wanted and ladder[0][0] == count and ladder[-1][1] == images
        assert sum(tried * most for tried, most in ladder) <= count * images
        assert all(a[0] > b[0] >= 2 and a[1] < b[1] for a, b in itertools.pairwise(ladder))


def test_rungs_by_hand() -> None:
    assert search.rungs(8, 4, 2, 96_000) == [(8, 24_000), (2, 96_000)]
    assert search.rungs(9, 3, 3, 90_000) == [(9, 10_000), (3, 30_000), (2, 90_000)]
    assert search.rungs(2, 4, 3, 100) == [(2, 100)]  # nobody could be dropped
    assert search.rungs(3, 2, 2, 100) == [(3, 100)]  # 3 x 50 + 2 x 100 are more


def test_a_rung_bounds_the_images_and_lengthens_nothing() -> None:
    short = OWN.model_copy(update={"steps": 750})
    assert search.shortened(OWN, 48_000).steps == 1500 and search.shortened(OWN, 10).steps == 1
    assert search.shortened(short, 96_000) == short == search.shortened(short, 24_000)


@pytest.mark.parametrize("count", [2, 5, 9, 28])
def test_trials_are_drawn_evenly_and_never_twice(count: int) -> None:
    drawn = search.trials(Search(trials=count), BOTH, OWN)
    assert list(drawn) == ["own", *(f"t{number}" for number in range(1, count))]
    assert drawn["own"] == search.Trial({}, {})
    base = OWN.model_dump(mode="json")
    all_options = [merge(base, trial.options) for trial in drawn.values()]
    assert all(one != other for one, other in itertools.combinations(all_options, 2))
    for path in ("budget", "batch_size", "lr", "augment"):
        counts = Counter(str(trial.settings[path]) for trial in list(drawn.values())[1:])
        assert max(counts.values()) - (min(counts.values()) if len(counts) == 3 else 0) <= 1 + count // 9
    for trial in list(drawn.values())[1:]:
        options = TrainRecognizer.model_validate(merge(base, trial.options))
        images = trial.settings["budget"] * 96_000
        assert images - options.batch_size < options.steps * options.batch_size <= images
        assert options.use.new == trial.settings["use.new"] and options.lr == trial.settings["lr"]


def test_arms_differ_in_what_one_of_them_lacks_alone() -> None:
    real, both = (search.trials(Search(trials=12), arm, OWN) for arm in (REAL, BOTH))
    assert list(real) == list(both)
    for name, trial in real.items():
        assert "use.new" not in trial.settings and "use" not in trial.options
        assert {path: v for path, v in both[name].settings.items() if path != "use.new"} == trial.settings
    assert real == search.trials(Search(trials=12), REAL, OWN), "drawn again, the same"
    assert real != search.trials(Search(trials=12, seed=1), REAL, OWN)
    first = search.trials(Search(trials=5), BOTH, OWN)
    assert list(both.items())[:5] == list(first.items()), "more trials begin with the fewer"


def test_the_own_options_are_not_tried_again() -> None:
    space: dict[str, Any] = {"lr": [2e-3, 1e-3], "batch_size": [32]}
    drawn = search.trials(Search(trials=2, space=space), REAL, OWN)
    assert drawn["t1"].settings == {"lr": 1e-3, "batch_size": 32}
    with pytest.raises(ValueError, match=r"1 combinations beside .* search.trials is 3: set it lower"):
        search.trials(Search(trials=3, space=space), REAL, OWN)
    with pytest.raises(ValueError, match="fewer values"):
        search.trials(
            Search(space={name: list(range(40)) for name in ("lr", "warmup", "ema", "batch_size")}), REAL, OWN
        )
