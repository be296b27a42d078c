"""Canonical JSON and its digest."""

from __future__ import annotations

from typing import Any

import pytest

from facegan.core.digests import canonical, digest


def test_canonical_form_does_not_know_the_order_of_keys() -> None:
    assert canonical({"b": [1, 2.5], "a": None}) == '{"a":null,"b":[1,2.5]}' == canonical({"a": None, "b": [1, 2.5]})


@pytest.mark.parametrize("value", [{1: "a"}, {True: "a"}, {None: "a"}, {"a": {2: "b"}}, [{0.5: 1}]])
def test_keys_that_json_would_make_alike_raise(value: Any) -> None:
    with pytest.raises(TypeError, match="canonical"):
        canonical(value)


def test_digest_is_of_the_canonical_form() -> None:
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1}) != digest({"a": 2, "b": 2})
