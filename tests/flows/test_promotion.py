"""What a run must have to promote a recognizer."""

from __future__ import annotations

import pytest

from drawn import tiny
from facegan.core.errors import ConfigError
from flows.promotion import check


def test_a_run_that_promotes_keeps_people_in_their_split() -> None:
    check(tiny("faces", prepare={"split": {"by": "hash"}}))
    with pytest.raises(ConfigError, match="could move others from test to train"):
        check(tiny("faces"))
    with pytest.raises(ConfigError, match="no recognizer to promote"):
        check(tiny("faces", prepare={"split": {"by": "hash"}}), until="prepare")
