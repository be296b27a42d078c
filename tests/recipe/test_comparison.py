"""Studies that a recipe refuses."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from facegan.recipe.recipe import Recipe


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"splits": [1, 1]}, "distinct"),
        ({"splits": []}, "at least 1"),
        ({"claim": "b"}, "names variant 'b', but the variants are: a"),
        ({"variants": {"a": {"x": 1}, "b": {"x": 1}}}, "the same x"),
    ],
)
def test_impossible_studies_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Recipe.model_validate({"study": {"variants": {"a": {}}, **changes}})
