"""Who falls into which split: proportions, frozen people, and nobody who arrives moves another."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from facegan.core.errors import ConfigError
from facegan.data.options import Split
from facegan.data.preparation.splits import assign, quotas


def some_names(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return sorted({f"d/{rng.getrandbits(64):x}" for _ in range(count)})


@pytest.mark.parametrize("count", [6, 7, 10, 23, 40, 200, 1001])
def test_proportions(count: int) -> None:
    options = Split()
    counts = Counter(assign(some_names(count), options).values())
    assert sum(counts.values()) == count and counts == quotas(count, options)
    for split, share in (("train", 0.5), ("val", 0.15), ("test", 0.35)):
        assert abs(counts[split] - share * count) <= (2 if count < 14 else 1)
    assert min(counts.values()) >= 2


def test_the_split_is_of_the_names_alone() -> None:
    names = some_names(60)
    first = assign(names, Split())
    shuffled = names.copy()
    random.Random(1).shuffle(shuffled)
    assert assign(shuffled, Split()) == first
    assert assign(names, Split(seed=1)) != first
    # The hash is fixed for ever: a run of years ago has the same test people.
    orl = assign([f"orl/s{n}" for n in range(1, 11)], Split())
    assert {name for name in orl if orl[name] == "test"} == {"orl/s10", "orl/s5", "orl/s8", "orl/s4"}
    assert {name for name in orl if orl[name] == "val"} == {"orl/s9", "orl/s3"}


def test_frozen_people_stay() -> None:
    names = some_names(30)
    frozen: dict[str, Any] = {names[0]: "test", names[1]: "test", names[2]: "val", "d/gone": "train"}
    options = Split(frozen=frozen)
    splits = assign(names, options)
    assert {name: splits[name] for name in names[:3]} == {name: frozen[name] for name in names[:3]}
    assert "d/gone" not in splits and Counter(splits.values()) == quotas(30, options)
    # People added later never move those of an earlier run that is frozen whole.
    grown = assign(names + some_names(20, seed=9), Split(frozen=splits))
    assert {name: grown[name] for name in names} == splits


def test_too_many_frozen_people_take_no_others_place() -> None:
    names = some_names(10)
    options = Split(frozen=dict.fromkeys(names[:9], "test"))
    assert Counter(assign(names, options).values()) == {"test": 9, "train": 1}


@pytest.mark.parametrize("seed", range(20))
def test_nobody_is_in_two_splits(seed: int) -> None:
    rng = random.Random(seed)
    letters = "aAäß日\u0301/ .-_'\"\\\n0é"
    names = sorted({"d/" + "".join(rng.choices(letters, k=rng.randint(1, 6))) for _ in range(rng.randint(6, 80))})
    test = rng.uniform(0.05, 0.4)
    val = rng.uniform(0.05, 0.4)
    options = Split(train=1 - val - test, val=val, test=test, seed=seed)
    rows = rng.choices(names, k=300)
    assigned = assign(names, options)
    assert assigned.keys() == set(names) and set(assigned.values()) <= {"train", "val", "test"}
    people: dict[str, set[str]] = {}
    for name in rows:
        people.setdefault(assigned[name], set()).add(name)
    splits = list(people.values())
    assert sum(map(len, splits)) == len(set().union(*splits))


def test_growing_moves_few() -> None:
    """Ranks are cut, so one more person moves at most two over each border; none between train and test."""
    names = some_names(80)
    for count in range(40, 79):
        before, after = assign(names[:count], Split()), assign(names[: count + 1], Split())
        moved = [(before[n], after[n]) for n in before if before[n] != after[n]]
        assert len(moved) <= 4 and {"train", "test"} not in [set(pair) for pair in moved]


@pytest.mark.parametrize("held", [0, 30])
def test_by_hash_nobody_ever_moves_another(held: int) -> None:
    """However a source grows or shrinks; and the shares hold within the draw's own error."""
    names, options = some_names(4000), Split(by="hash")
    test = set(names[:held])
    everybody = assign(names, options, test)
    for some in (names[: held + 1], names[:50], names[:51], names[:3999], names[5:700]):
        assert assign(some, options, test & set(some)).items() <= everybody.items()
    shares = {"train": 0.5 / 0.65, "val": 0.15 / 0.65} if held else {"train": 0.5, "val": 0.15, "test": 0.35}
    counts = Counter(everybody[name] for name in names[held:])
    assert counts.keys() == shares.keys() and all(everybody[name] == "test" for name in test)
    for split, share in shares.items():
        expected = share * (4000 - held)
        assert abs(counts[split] - expected) < 4 * (expected * (1 - share)) ** 0.5
    assert assign(names, Split(by="hash", seed=1), test) != everybody


def test_frozen_people_stay_by_hash_too() -> None:
    names = some_names(60)
    frozen: dict[str, Any] = dict.fromkeys(names[10:20], "test")
    splits = assign(names, Split(by="hash", frozen=frozen))
    assert splits == {**assign(names, Split(by="hash")), **frozen}


@pytest.mark.parametrize("seed", range(5))
def test_people_keep_their_split_whoever_comes_and_goes(seed: int) -> None:
    """Random arrivals and departures: an assignment that was once made is never made otherwise."""
    rng, options = random.Random(seed), Split(by="hash", seed=seed)
    present: set[str] = set()
    assigned: dict[str, str] = {}
    for _ in range(60):
        present |= {f"d/{rng.randrange(2000)}" for _ in range(rng.randrange(12))}
        present -= set(rng.sample(sorted(present), k=len(present) // 9))
        splits = assign(sorted(present), options)
        assert all(assigned.get(name, split) == split for name, split in splits.items())
        assigned |= splits
    assert set(assigned.values()) == {"train", "val", "test"}


def test_shares_of_the_development_people() -> None:
    names = [f"lfw/p{number}" for number in range(1000)]
    held = set(names[600:])
    splits = assign(names, Split(train=0.7, val=0.3, test=0), held)
    assert {name for name in names if splits[name] == "test"} == held
    assert Counter(splits.values()) == {"train": 420, "val": 180, "test": 400}
    assert splits == assign(names, Split(train=0.35, val=0.15, test=0.5), held)  # test's share is not asked
    assert splits == assign(names[::-1], Split(train=0.7, val=0.3, test=0), held)
    assert quotas(10, Split(train=0.7, val=0.3, test=0), held=True) == {"train": 7, "val": 3, "test": 0}
    frozen = Split(train=0.7, val=0.3, test=0, frozen={names[0]: "val", names[700]: "train"})
    assert (assign(names, frozen, held)[names[0]], assign(names, frozen, held)[names[700]]) == ("val", "test")


def test_a_frozen_person_has_one_split_in_both_forms_of_the_name() -> None:
    composed, decomposed = "d/Jos\u00e9", "d/Jose\u0301"
    names = [composed, *some_names(9)]
    for written in (composed, decomposed):
        assert assign(names, Split(frozen={written: "val"}))[composed] == "val"
    assert assign(names, Split(frozen={composed: "test", decomposed: "test"}))[composed] == "test"
    with pytest.raises(ConfigError, match="twice, in test and in train"):
        assign(names, Split(frozen={composed: "test", decomposed: "train"}))
