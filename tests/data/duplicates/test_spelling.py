"""Names that may be one person's, spelled in two ways."""

from __future__ import annotations

import pytest

from facegan.data.duplicates import spelling


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a/Ann_Lee", "a/ann lee"),
        ("a/Ann_Lee", "b/Lee, Ann"),
        ("a/Ann_Lee", "a/Ánn-Lee"),
        ("a/Ann_Lee", "a/Ann_Lee_0001"),
        ("a/Ann_Lee", "b/Ann_Lee"),
        ("a/Choi_Sung-hong", "a/Sung_Hong_Choi"),
        ("a/John_Gruden", "a/Jon_Gruden"),
        ("a/Müller", "a/Muller"),
        ("a/006", "a/6"),
        ("a/subject_010", "a/Subject 10"),
    ],
)
def test_spelled_alike(one: str, other: str) -> None:
    assert spelling.similar_names([one, other, "a/somebody else"]) == {(min(one, other), max(one, other))}


def test_numbers_and_short_names_are_other_people() -> None:
    assert (
        spelling.similar_names(["a/s1", "a/s2", "a/p10", "a/p11", "a/Bob", "a/Rob", "a/person12", "a/person13"])
        == set()
    )
    assert spelling.similar_names([f"a/subject_{n:04d}" for n in range(20)]) == set()
