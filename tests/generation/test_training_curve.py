"""What is said of a curve in which D has won."""

from __future__ import annotations

import pytest

from facegan.generation.training_curve import d_has_won


def curve(**late: float) -> list[dict[str, float]]:
    """Ninety lines in which D is right half of the time, and ten of `late`."""
    early = dict.fromkeys(late, 0.5)
    return [{"nimg": 8 * n, "d": 1.0, **(late if n > 90 else early)} for n in range(1, 101)]


def test_d_has_won_where_the_last_tenth_says_so() -> None:
    said = d_has_won(curve(pair_accuracy=0.995))
    assert said is not None and "right about 99.5% of what it saw" in said and "r1_gamma" in said
    assert d_has_won(curve(pair_accuracy=0.985)) is None
    assert d_has_won(curve(real_accuracy=1.0, gen_accuracy=0.99)) is not None
    assert d_has_won(curve(real_accuracy=1.0, gen_accuracy=0.9)) is None  # it calls everything a photo
    assert d_has_won(curve(pair_accuracy=0.995)[:95]) is None  # five of nine
    assert d_has_won([{"nimg": 8, "pair_accuracy": 1.0}]) is not None


@pytest.mark.parametrize("lines", [[], [{"nimg": 8, "d": 1.0}]])
def test_a_curve_without_accuracies_says_nothing(lines: list[dict[str, float]]) -> None:
    assert d_has_won(lines) is None
